"""A whole run: data, training, thresholds, evaluation, export. `train` and `evaluate` are thin commands over this."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eczema_tf.config import Config
from eczema_tf.data.dataset import Dataset
from eczema_tf.data.sources.synthetic import prepare_synthetic
from eczema_tf.data.splits import assign_splits
from eczema_tf.errors import DataError, RunError
from eczema_tf.evaluation.predictions import average_rows_by_case
from eczema_tf.files import write_json
from eczema_tf.reporting.explanation_report import format_explanations
from eczema_tf.reporting.results_table import format_table
from eczema_tf.schema import SPLITS
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.audit import AUDIT, AuditedDataset, load_audited
from eczema_tf.workflows.cross_validate import cross_validate
from eczema_tf.workflows.explanation_quality.evaluation import evaluate_explanations
from eczema_tf.workflows.export import export_run
from eczema_tf.workflows.fit import fit_run
from eczema_tf.workflows.inference import load_model_inputs, score_rows
from eczema_tf.workflows.results import write_figures


def run_experiment(config: Config, run_dir: Path, *, resume: bool = False) -> dict[str, Any]:
    """Prepares the data, trains, evaluates and exports.

    Args:
        config: Of the run.
        run_dir: A new folder, or with `resume` that of an interrupted run with the same
            configuration.
        resume: Whether to go on with what is in `run_dir`.

    Returns:
        The figures, as in `metrics.json`.

    Raises:
        RunError: If `run_dir` is taken, or does not fit the configuration.
    """
    _check_run_dir(run_dir, config, resume)
    _say(f"run folder: {run_dir}")
    run_folder.write_start(run_dir, config)
    audited = load_audited(config.data, config.data.manifest or prepare_built_in(config))
    write_json(run_dir / AUDIT, audited.audit.to_json())
    if config.split.folds:
        metrics = cross_validate(config, audited, run_dir)
    else:
        metrics = _train_and_evaluate(config, audited, run_dir)
    print(format_table(metrics))
    if config.export.enabled and not config.split.folds:
        version, difference = export_run(run_dir, Path(config.export.folder))
        print(f"exported to {version} (largest difference from Keras: {difference:.1e})")
    return metrics


def prepare_built_in(config: Config) -> Path:
    """Makes the built-in data unless it is there already; returns its manifest."""
    synthetic = config.data.synthetic
    folder = Path(synthetic.folder) / f"synthetic-{synthetic.cases}-{synthetic.seed}"
    manifest = folder / "manifest.csv"
    if manifest.is_file():  # the folder is renamed into place when whole
        _say(f"built-in data: {folder} (made before)")
        return manifest
    _say(f"built-in data: making {synthetic.cases} cases in {folder}")
    return prepare_synthetic(folder, cases=synthetic.cases, seed=synthetic.seed).manifest


def evaluate_run(
    run_dir: Path,
    manifest: Path | None = None,
    split: str = "test",
    out: Path | None = None,
    explanations: int | None = None,
) -> str:
    """Scores a trained run and writes the figures.

    Args:
        run_dir: Of a finished run.
        manifest: Another manifest; None for the run's own.
        split: One of `schema.SPLITS`, or "all".
        out: Folder of the figures; None for the run folder itself (own test split) or a folder in
            it.
        explanations: Of how many cases the explanations are measured, too; None for none.

    Returns:
        The table for the screen.

    Raises:
        RunError: If the run is not finished.
        DataError: If the manifest has no row in the split.
    """
    trained = run_folder.load_model(run_dir)
    description = run_folder.read_json(run_dir / run_folder.DATA)
    dataset = load_audited(
        trained.config.data, manifest or description["manifest"]
    ).dataset  # the same groups as in training
    rows = _rows_of_split(dataset.table, split, description["splits"] if manifest is None else None)
    inputs = load_model_inputs(trained, dataset)
    cases = average_rows_by_case(score_rows(trained, dataset, inputs, rows))
    if out is None:
        own = manifest is None and split == "test"
        out = (
            run_dir
            if own
            else run_dir / "evaluations" / f"{manifest.stem if manifest else 'own'}-{split}"
        )
    leaks = (
        run_folder.read_json(run_dir / run_folder.METRICS).get("leaks") if out == run_dir else None
    )
    table = format_table(
        write_figures(
            out,
            cases,
            run_folder.read_json(run_dir / run_folder.THRESHOLDS),
            trained.config,
            split,
            leaks,
            run_dir,
        )
    )
    if explanations is None:
        return table
    explained = evaluate_explanations(
        trained, dataset, inputs, rows, out, split=split, cases=explanations
    )
    return f"{format_explanations(explained)}\n\n{table}"


def _train_and_evaluate(config: Config, audited: AuditedDataset, run_dir: Path) -> dict[str, Any]:
    dataset, splits = audited.dataset, split_dataset(config, audited.dataset)
    leaks = audited.check(splits)
    trained, inputs, thresholds = fit_run(config, dataset, splits, run_dir)
    cases = average_rows_by_case(
        score_rows(trained, dataset, inputs, np.flatnonzero(splits == "test"))
    )
    return write_figures(run_dir, cases, thresholds, config, "test", leaks)


def split_dataset(config: Config, dataset: Dataset) -> pd.Series:
    """Returns the split of each row: the manifest's own, or one by group, stratified and seeded."""
    fractions = {split: getattr(config.split, split) for split in SPLITS}
    return assign_splits(
        dataset.table,
        fractions=fractions,
        seed=config.seed,
        label_threshold=config.data.label_threshold,
    )


def _rows_of_split(
    table: pd.DataFrame, split: str, own_splits: Mapping[str, list[str]] | None
) -> np.ndarray:
    if split == "all":
        return np.arange(len(table))
    own = (
        table["example_id"].isin(set(own_splits[split]))
        if own_splits is not None
        else table["split"] == split
    )
    if not own.any():
        raise DataError(
            f"--split {split}: there are no such rows; give --split all to score a manifest without"
            " splits"
        )
    return np.flatnonzero(own)


def _check_run_dir(run_dir: Path, config: Config, resume: bool) -> None:
    started = (run_dir / run_folder.CONFIG).is_file()
    if started and not resume:
        raise RunError(
            f"{run_dir}: holds a run already; give another --run-dir, or --resume to go on with it"
        )
    if resume and not started:
        raise RunError(f"{run_dir}: holds no run to go on with; leave --resume out")
    if resume and run_folder.load_config(run_dir / run_folder.CONFIG) != config:
        raise RunError(
            f"{run_dir}: was started with another configuration ({run_folder.CONFIG}); resume with"
            " that one or give another --run-dir"
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
