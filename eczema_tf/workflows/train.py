"""A whole run: data, training, thresholds, evaluation, export."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from eczema_tf.cli import say
from eczema_tf.config import Config, change_config, dump_config, load_config
from eczema_tf.data.checksums import CHECKSUMS
from eczema_tf.data.clinical.lines import list_known
from eczema_tf.data.dataset import Dataset, load_dataset
from eczema_tf.data.sources.synthetic import GENERATOR_VERSION, prepare_synthetic
from eczema_tf.data.splits import assign_splits, find_missing
from eczema_tf.errors import EczemaError, RunError, raise_if_any
from eczema_tf.evaluation.paired_runs import Spread, measure_spread
from eczema_tf.evaluation.records import Metrics
from eczema_tf.files import write_json, write_text
from eczema_tf.reporting.comparison_tables import build_spread
from eczema_tf.reporting.document import format_markdown, format_text
from eczema_tf.reporting.facts import RunData
from eczema_tf.schema import SPLITS
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.audit import AUDIT, AuditedDataset, is_alike, load_audited
from eczema_tf.workflows.base_run import list_seen_by_base
from eczema_tf.workflows.board import write_board
from eczema_tf.workflows.cross_validate import cross_validate
from eczema_tf.workflows.export import export_model
from eczema_tf.workflows.fit import check_encoders, fit_run, note_evidence_scale, note_neutral_text
from eczema_tf.workflows.inference import predict_cases
from eczema_tf.workflows.results import write_results
from eczema_tf.workflows.stress import predict_missing
from eczema_tf.workflows.tracking import check_mlflow, log_run

# in the folder of repeated runs: what they share, and how far their results spread
SEEDS, SPREAD, SPREAD_PAGE = "seeds.yaml", "seeds.json", "seeds.md"


def train(config: Config, run_dir: Path, *, resume: bool = False) -> Metrics:
    """Prepares the data, trains, evaluates and exports; prints the results.

    Args:
        config: Configuration of the run.
        run_dir: A new folder, or with `resume` that of an interrupted run with the same
            configuration.
        resume: Whether to continue with what is in `run_dir`.

    Returns:
        The results, as in `metrics.json`.

    Raises:
        RunError: If `run_dir` is taken, or does not fit the configuration.
        ConfigError: If the configuration needs something that is not installed.
    """
    with run_folder.in_use(run_dir):
        check_run_dir(run_dir, config, resume=resume)
        if config.train.mlflow:
            check_mlflow()
        say(f"run folder: {run_dir}")
        run_folder.write_start(run_dir, config)
        try:
            metrics = _train(config, run_dir)
        except (EczemaError, OSError):
            run_folder.take_back_start(run_dir)  # the same command works once they are fixed
            raise
        if config.train.mlflow:
            log_run(run_dir)
        return metrics


def train_seeds(
    config: Config, count: int, folder: Path, *, resume: bool = False
) -> dict[str, Spread]:
    """Trains a run for each of several seeds, and prints the spread of their results.

    Nothing is exported, since none of them is the model.

    Args:
        config: Configuration of the first run; the others have the seeds that follow.
        count: How many runs to train.
        folder: Gets complete run folders (`seed-<n>/`), `seeds.json`, `seeds.md`, and `seeds.yaml`
            with what the runs share.
        resume: Whether finished runs in `folder` are kept, and unfinished ones continued.

    Returns:
        The spread of each metric.

    Raises:
        RunError: If `folder` already contains such runs with another configuration, or trained on
            other data; raised before anything is trained.
    """
    seeds, runs = range(config.seed, config.seed + count), list[Metrics]()
    # a cross-validation keeps no model to seal
    needed = [run_folder.METRICS, *([] if config.split.folds else [CHECKSUMS])]
    planned, finished = [], []
    for seed in seeds:
        one = change_config(config, {"seed": seed, "export.enabled": False})
        run_dir = folder / f"seed-{seed}"
        started = resume and (run_dir / run_folder.CONFIG).is_file()
        check_run_dir(run_dir, one, resume=started)
        planned.append((seed, one, run_dir, started))
        finished += [run_dir] if all((run_dir / name).is_file() for name in needed) else []
    _check_finished(config, finished)
    write_text(folder / SEEDS, dump_config(config))
    for seed, one, run_dir, started in planned:
        if run_dir in finished:
            say(f"seed {seed}: already finished")
            runs.append(Metrics.read(run_dir / run_folder.METRICS))
        else:
            runs.append(train(one, run_dir, resume=started))
    spreads = measure_spread(runs)
    sections = [build_spread(spreads, seeds)]
    write_json(folder / SPREAD, {"seeds": list(seeds), "figures": spreads})
    write_text(folder / SPREAD_PAGE, format_markdown("The same run with other seeds", sections))
    print(f"\n{format_text(sections)}")
    return spreads


def _check_finished(config: Config, run_dirs: Sequence[Path]) -> None:
    """Checks that finished runs learned from the same data as the runs to come."""
    if not run_dirs:
        return
    dataset = load_dataset(config.data, find_manifest(config))
    for run_dir in run_dirs:
        if not is_alike(dataset, RunData.read(run_dir / run_folder.DATA)):
            raise RunError(
                f"{run_dir}: was trained on other data; give another --run-dir, or delete it to"
                " have it trained again"
            )


def _train(config: Config, run_dir: Path) -> Metrics:
    check_encoders(config)
    audited = load_audited(config.data, find_manifest(config))
    audited.audit.report.write(run_dir / AUDIT)
    if config.split.folds:
        return cross_validate(config, audited, run_dir)
    trained, metrics = _fit_and_judge(config, audited, run_dir)
    del audited  # exporting takes gigabytes of its own
    if config.export.enabled:
        export_model(trained, run_dir, Path(config.export.folder))
    return metrics


def _fit_and_judge(
    config: Config, audited: AuditedDataset, run_dir: Path
) -> tuple[run_folder.TrainedModel, Metrics]:
    dataset, splits = audited.dataset, split_dataset(config, audited.dataset)
    leaks = audited.check(splits, list_seen_by_base(config))
    trained, inputs, _ = fit_run(config, dataset, splits, run_dir)
    note_neutral_text(trained, dataset.table[splits == "train"], inputs, run_dir)
    note_evidence_scale(trained, dataset.table[splits == "val"], inputs, run_dir)
    rows = np.flatnonzero(splits == "test")
    cases = predict_cases(trained, dataset, inputs, rows)
    stressed = predict_missing(trained, dataset, inputs, rows)
    told = list_known(config.data.clinical, dataset.table.iloc[rows])
    metrics = write_results(
        run_dir, cases, config, split="test", leaks=leaks, stressed=stressed, clinical=told
    )
    write_board(run_dir, trained, dataset, inputs, splits, cases, metrics)
    run_folder.seal(run_dir)  # the mark of a finished run
    return trained, metrics


def find_manifest(config: Config) -> Path:
    """Returns the configured manifest, or that of the built-in data, which are made if missing."""
    if config.data.manifest:
        return Path(config.data.manifest)
    synthetic = config.data.synthetic
    asked = f"{synthetic.cases}-{synthetic.texts}-{synthetic.seed}"
    folder = Path(synthetic.folder) / f"synthetic-{asked}-v{GENERATOR_VERSION}"
    manifest = folder / "manifest.csv"
    if manifest.is_file():  # the folder is renamed into place once it is complete
        say(f"built-in data: {folder} (already made)")
        return manifest
    cases, texts = synthetic.cases, synthetic.texts
    say(f"built-in data: making {cases} cases and {texts} text-only cases in {folder}")
    try:
        return prepare_synthetic(folder, cases=cases, texts=texts, seed=synthetic.seed).manifest
    except EczemaError:
        if not manifest.is_file():  # otherwise another process has made the same data meanwhile
            raise
        return manifest


def split_dataset(config: Config, dataset: Dataset) -> pd.Series:
    """Returns the split of each row: the manifest's own, or one by group, stratified and seeded.

    Raises:
        DataError: If no model can be trained and evaluated on them; raised before any work is done.
    """
    label_threshold = config.data.label_threshold
    splits = assign_splits(
        dataset.table,
        fractions={split: getattr(config.split, split) for split in SPLITS},
        seed=config.seed,
        label_threshold=label_threshold,
    )
    cut = int(((splits == "val") & (dataset.table["split"] == "train")).sum())
    if cut:
        say(f"splits: the manifest has no val; {cut} of its train rows become val, by group")
    kinds = {"train": 2, "val": 1 if config.train.base_run else 2, "test": 1}
    faults = find_missing(dataset.table, splits, label_threshold, kinds)
    raise_if_any(
        "a model cannot be trained and evaluated on these splits (where the manifest's column split"
        " is empty, they are made by group)",
        faults,
    )
    return splits


def check_run_dir(run_dir: Path, config: Config, *, resume: bool) -> None:
    """Checks that a run can start, or continue, in a folder.

    Raises:
        RunError: If the folder contains something else: another run, results, a preset.
    """
    started = (run_dir / run_folder.CONFIG).is_file()
    for name, what in (
        (run_folder.METRICS, "results of `evaluate`"),
        (run_folder.WEIGHTS, f"weights ({run_folder.WEIGHTS}) that belong to no run"),
    ):
        if not started and (run_dir / name).is_file():
            raise RunError(f"{run_dir}: contains {what}; give another --run-dir")
    if started and not resume:
        raise RunError(
            f"{run_dir}: already contains a run; give another --run-dir, or --resume to continue it"
        )
    if resume and not started:
        raise RunError(f"{run_dir}: contains no run to continue; leave --resume out")
    if resume and load_config(run_dir / run_folder.CONFIG) != config:
        raise RunError(
            f"{run_dir}: was started with another configuration ({run_folder.CONFIG}); resume with"
            " that one or give another --run-dir"
        )
