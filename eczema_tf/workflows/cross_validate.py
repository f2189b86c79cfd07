"""Cross-validation: grouped, stratified folds and out-of-fold predictions of all cases."""

from pathlib import Path

import numpy as np
import pandas as pd

from eczema_tf.cli import say
from eczema_tf.config import Config
from eczema_tf.data.clinical.lines import list_known
from eczema_tf.data.dataset import Dataset
from eczema_tf.data.splits import assign_folds, find_missing, fold_splits
from eczema_tf.errors import raise_if_any
from eczema_tf.evaluation.predictions import average_rows_by_case
from eczema_tf.evaluation.records import Leaks, Metrics
from eczema_tf.evaluation.thresholds import Thresholds
from eczema_tf.files import write_json
from eczema_tf.reporting.facts import RunData
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.audit import AuditedDataset, add_leaks
from eczema_tf.workflows.base_run import list_seen_by_base
from eczema_tf.workflows.fit import fit_run
from eczema_tf.workflows.inference import compute_row_logits, drop_unanswered
from eczema_tf.workflows.results import write_results


def cross_validate(config: Config, audited: AuditedDataset, run_dir: Path) -> Metrics:
    """Trains a model for each fold, and evaluates every case with the model that has not seen it.

    With `split.repeats`, the cases are divided again that many times. The metrics are over all
    these predictions, and their intervals are still over groups: repeats average out what varies
    in training, but not which cases there are.

    Args:
        config: Configuration with `split.folds`.
        audited: All rows.
        run_dir: Gets `folds/<repeat>-<fold>/` and the results, at the mean of the models'
            thresholds.
    """
    dataset, split = audited.dataset, config.split
    ids = dataset.table["example_id"]
    if split.folds is None:
        raise ValueError("cross-validation needs split.folds")
    cases, thresholds, folds, leaks = [], [], {}, list[Leaks]()
    for repeat in range(split.repeats):
        fold_of_row = assign_folds(
            dataset.table,
            folds=split.folds,
            seed=config.seed,
            repeat=repeat,
            label_threshold=config.data.label_threshold,
        )
        leaks.append(audited.check(fold_of_row, list_seen_by_base(config)))
        folds[str(repeat)] = dict(zip(ids, map(int, fold_of_row), strict=True))
        divisions = _divide(config, dataset.table, fold_of_row)
        logits = []
        for fold, splits in divisions.items():
            say(f"repeat {repeat + 1} of {split.repeats}, fold {fold + 1} of {split.folds}")
            fold_dir = run_dir / run_folder.FOLDS / f"{repeat}-{fold}"
            of_fold, chosen = _train_fold(config, dataset, splits, fold_dir)
            logits.append(of_fold.assign(fold=fold))
            thresholds.append(chosen)
        by_case = drop_unanswered(average_rows_by_case(pd.concat(logits, ignore_index=True)))
        cases.append(by_case.assign(repeat=repeat))
    mean = {head: float(np.mean([one[head] for one in thresholds])) for head in thresholds[0]}
    write_json(run_dir / run_folder.THRESHOLDS, mean)
    first = run_dir / run_folder.FOLDS / f"0-{next(iter(divisions))}"  # all have the same base
    shared = RunData.read(first / run_folder.DATA).model_dump(include={"base", "trained_on"})
    RunData(**dict(dataset.describe()), folds=folds, **shared).write(run_dir / run_folder.DATA)
    times = f", {split.repeats} times" if split.repeats > 1 else ""
    return write_results(
        run_dir,
        pd.concat(cases, ignore_index=True),
        config,
        split=f"{split.folds} folds{times}, out of fold",
        leaks=add_leaks(leaks),
        clinical=list_known(config.data.clinical, dataset.table),
    )


def _divide(config: Config, table: pd.DataFrame, fold_of_row: pd.Series) -> dict[int, pd.Series]:
    """Returns the splits of each fold's model.

    Raises:
        DataError: If any of them cannot be trained; raised before the first is trained.
    """
    threshold, kinds = config.data.label_threshold, {"train": 2, "val": 2}
    divisions = {
        fold: fold_splits(
            fold_of_row,
            fold,
            table,
            val_fraction=config.split.val,
            seed=config.seed,
            label_threshold=threshold,
        )
        for fold in sorted(set(fold_of_row))
    }
    faults = [
        f"fold {fold + 1}, {fault}"
        for fold, splits in divisions.items()
        for fault in find_missing(table, splits, threshold, kinds)
    ]
    raise_if_any("these folds cannot train a model", faults)
    return divisions


def _train_fold(
    config: Config, dataset: Dataset, splits: pd.Series, fold_dir: Path
) -> tuple[pd.DataFrame, Thresholds]:
    """Trains without a fold; returns the logits of the fold's rows, and the model's thresholds."""
    run_folder.write_start(fold_dir, config)
    trained, inputs, thresholds = fit_run(config, dataset, splits, fold_dir)
    rows = np.flatnonzero(splits == "test")
    return compute_row_logits(trained, dataset, inputs, rows), thresholds
