"""Cross-validation: grouped, stratified folds and out-of-fold predictions of all cases."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from eczema_tf.config import Config
from eczema_tf.data.splits import assign_folds, fold_splits
from eczema_tf.evaluation.predictions import average_rows_by_case
from eczema_tf.evaluation.results import Metrics
from eczema_tf.files import write_json
from eczema_tf.reporting.facts import RunData
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.audit import AuditedDataset
from eczema_tf.workflows.fit import fit_run
from eczema_tf.workflows.inference import compute_row_logits
from eczema_tf.workflows.results import write_results


def cross_validate(config: Config, audited: AuditedDataset, run_dir: Path) -> Metrics:
    """Trains a model for each fold and judges every case by the model that has not seen it.

    With `split.repeats`, the cases are divided anew that many times; metrics are over all these
    predictions, and their intervals still resample groups, so that repeats make a metric steadier
    but never make it look surer than its cases allow.

    Args:
        config: With `split.folds`.
        audited: All rows.
        run_dir: Gets `folds/<repeat>-<fold>/` and the results, at the mean of the models'
            thresholds.
    """
    dataset, split, label_threshold = audited.dataset, config.split, config.data.label_threshold
    if split.folds is None:
        raise ValueError("cross-validation needs split.folds")
    cases, thresholds, folds, leaks = [], [], {}, None
    for repeat in range(split.repeats):
        fold_of_row = assign_folds(
            dataset.table,
            folds=split.folds,
            seed=config.seed,
            repeat=repeat,
            label_threshold=label_threshold,
        )
        leaks = audited.check(fold_of_row)
        folds[str(repeat)] = dict(
            zip(dataset.table["example_id"], map(int, fold_of_row), strict=True)
        )
        out_of_fold = []
        for fold in sorted(set(fold_of_row)):
            where = f"repeat {repeat + 1} of {split.repeats}, fold {fold + 1} of {split.folds}"
            print(where, file=sys.stderr, flush=True)
            splits = fold_splits(
                fold_of_row,
                fold,
                dataset.table,
                val_fraction=split.val,
                seed=config.seed,
                label_threshold=label_threshold,
            )
            fold_dir = run_dir / "folds" / f"{repeat}-{fold}"
            run_folder.write_start(fold_dir, config)
            trained, inputs, chosen = fit_run(config, dataset, splits, fold_dir)
            rows = np.flatnonzero(splits == "test")
            logits = compute_row_logits(trained, dataset, inputs, rows)
            out_of_fold.append(logits.assign(fold=fold))
            thresholds.append(chosen)
        all_rows = pd.concat(out_of_fold, ignore_index=True)
        cases.append(average_rows_by_case(all_rows).assign(repeat=repeat))
    mean = {
        modality: float(np.mean([chosen[modality] for chosen in thresholds]))
        for modality in thresholds[0]
    }
    write_json(run_dir / run_folder.THRESHOLDS, mean)
    RunData(**dict(dataset.describe()), folds=folds).write(run_dir / run_folder.DATA)
    times = f", {split.repeats} times" if split.repeats > 1 else ""
    return write_results(
        run_dir,
        pd.concat(cases, ignore_index=True),
        mean,
        config,
        split=f"{split.folds} folds{times}, out of fold",
        leaks=leaks,
    )
