"""Cross-validation: grouped, stratified folds, out-of-fold predictions of all cases, perhaps over several divisions into folds."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eczema_tf.config import Config
from eczema_tf.data.dataset import Dataset
from eczema_tf.data.splits import assign_folds, fold_splits
from eczema_tf.evaluation.predictions import average_rows_by_case
from eczema_tf.files import write_json
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.audit import AuditedDataset
from eczema_tf.workflows.fit import fit_run
from eczema_tf.workflows.inference import score_rows
from eczema_tf.workflows.results import write_figures


def cross_validate(config: Config, audited: AuditedDataset, run_dir: Path) -> dict[str, Any]:
    """Trains a model for each fold and scores every case by the model that has not seen it.

    With `split.repeats`, the cases are divided anew that many times and scored as often; figures
    are over all these predictions, and their intervals still resample groups, so that repeats make
    a figure steadier but never make it look surer than its cases allow.

    Args:
        config: With `split.folds`.
        audited: All rows.
        run_dir: Gets `folds/<repeat>-<fold>/` and the figures, at the mean of the models'
            thresholds.

    Returns:
        As `metrics.json`.
    """
    dataset, cases, thresholds, folds, leaks = audited.dataset, [], [], {}, {}
    for repeat in range(config.split.repeats):
        fold_of_row = assign_folds(
            dataset.table,
            folds=config.split.folds or 0,
            seed=config.seed,
            repeat=repeat,
            label_threshold=config.data.label_threshold,
        )
        leaks = audited.check(fold_of_row)
        folds[str(repeat)] = dict(
            zip(dataset.table["example_id"], map(int, fold_of_row), strict=True)
        )
        rows, chosen = _score_out_of_fold(config, dataset, fold_of_row, run_dir, repeat)
        cases.append(average_rows_by_case(rows).assign(repeat=repeat))
        thresholds += chosen
    mean = {
        modality: float(np.mean([chosen[modality] for chosen in thresholds]))
        for modality in thresholds[0]
    }
    write_json(run_dir / run_folder.THRESHOLDS, mean)
    write_json(run_dir / run_folder.DATA, {**dataset.describe(), "folds": folds})
    times = f", {config.split.repeats} times" if config.split.repeats > 1 else ""
    return write_figures(
        run_dir,
        pd.concat(cases, ignore_index=True),
        mean,
        config,
        f"{config.split.folds} folds{times}, out of fold",
        leaks,
    )


def _score_out_of_fold(
    config: Config, dataset: Dataset, fold_of_row: pd.Series, run_dir: Path, repeat: int
) -> tuple[pd.DataFrame, list[dict[str, float]]]:
    """Scored rows of all folds, and the thresholds of each fold's model."""
    scored, thresholds = [], []
    for fold in sorted(set(fold_of_row)):
        print(
            f"repeat {repeat + 1} of {config.split.repeats}, fold {fold + 1} of"
            f" {config.split.folds}",
            file=sys.stderr,
            flush=True,
        )
        splits = fold_splits(
            fold_of_row,
            fold,
            dataset.table,
            val_fraction=config.split.val,
            seed=config.seed,
            label_threshold=config.data.label_threshold,
        )
        fold_dir = run_dir / "folds" / f"{repeat}-{fold}"
        run_folder.write_start(fold_dir, config)
        trained, inputs, chosen = fit_run(config, dataset, splits, fold_dir)
        thresholds.append(chosen)
        scored.append(
            score_rows(trained, dataset, inputs, np.flatnonzero(splits == "test")).assign(fold=fold)
        )
    return pd.concat(scored, ignore_index=True), thresholds
