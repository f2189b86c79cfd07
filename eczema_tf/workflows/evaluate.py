"""Evaluates a trained run again, on its own cases or on another manifest: what `evaluate` runs."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from eczema_tf.cli import say
from eczema_tf.config import Config, change_config
from eczema_tf.data.clinical.lines import list_known, note_absent
from eczema_tf.data.dataset import FINGERPRINTS, Dataset
from eczema_tf.data.distributions import describe_inputs
from eczema_tf.data.inputs import Inputs
from eczema_tf.errors import DataError, RunError
from eczema_tf.evaluation.external import compare_inputs
from eczema_tf.evaluation.records import Metrics
from eczema_tf.files import check_writable
from eczema_tf.reporting.explanation_report import format_explanations
from eczema_tf.reporting.facts import RunData
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.audit import check_overlap, is_alike, load_as_trained, load_audited
from eczema_tf.workflows.base_run import list_seen
from eczema_tf.workflows.compare import compare
from eczema_tf.workflows.explain import explain_cases
from eczema_tf.workflows.explanation_quality.evaluation import evaluate_explanations
from eczema_tf.workflows.inference import load_model_inputs, predict_cases
from eczema_tf.workflows.results import OtherData, write_results
from eczema_tf.workflows.run_folder import TrainedModel
from eczema_tf.workflows.stress import Stressed, predict_corrupted, predict_missing

__all__ = ["compare", "evaluate"]


def evaluate(
    run_dir: Path,
    manifest: Path | None = None,
    *,
    embeddings: Path | None = None,
    split: str = "test",
    out: Path | None = None,
    sensitivities: Sequence[float] = (),
    explanations: int | None = None,
    robustness: int | None = None,
    with_photos: bool = False,
    allow_leaks: bool = False,
) -> Metrics:
    """Evaluates a trained run, prints the results and writes them.

    Args:
        run_dir: Folder of a finished run.
        manifest: Another manifest; None for the run's own.
        embeddings: Embeddings of that manifest's photos, for a run that was trained on embeddings;
            None for the file that it was trained with.
        split: One of `schema.SPLITS`, or "all".
        out: Folder of the results; None for the run folder itself (own test split) or a folder in
            it.
        sensitivities: Sensitivities that operating points should reach on validation, in (0, 1);
            none for those of the configuration.
        explanations: For how many cases the explanations are measured, too; None for none.
        robustness: How many cases are answered again with corrupted photos and texts; None for
            none.
        with_photos: Whether the report shows photos and texts of the surest answers.
        allow_leaks: Whether rows of another manifest that the run was trained or validated on are
            recorded instead of refused.

    Raises:
        RunError: If the run is not finished, has kept no validation cases to reach `sensitivities`
            on, or if `out` is a run's folder, whose own results would be lost.
        DataError: If the manifest has no labelled row in the split or asks another question, its
            photos have no embeddings that fit the run, or the run has already seen rows that it
            would be evaluated on.
    """
    own, out = manifest is None and split == "test", _choose_folder(out, run_dir, manifest, split)
    trained, data = run_folder.load_model(run_dir), RunData.read(run_dir / run_folder.DATA)
    config = _aim_at(sensitivities, trained.config, run_dir)
    if manifest is None:
        dataset = load_as_trained(config.data, data)
    else:
        dataset = _load_other(trained, data, manifest, embeddings, allow_leaks)
    # the run's own data, wherever their manifest is now
    divided = manifest is None or is_alike(dataset, data, FINGERPRINTS[:1])
    rows = _choose_rows(dataset.table, split, data.splits if divided else None)
    if own and is_alike(dataset, data):
        leaks = Metrics.read(run_dir / run_folder.METRICS).leaks
    else:
        # asking for the run's own training rows is deliberate
        allowed = allow_leaks or (manifest is None and not own)
        leaks = check_overlap(list_seen(data), dataset, rows, allow_leaks=allowed)
    inputs = load_model_inputs(trained, dataset)
    cases = predict_cases(trained, dataset, inputs, rows)
    stressed = _stress(trained, dataset, inputs, rows, robustness)
    other = _describe_other(data, dataset, inputs, rows) if manifest else None
    show = partial(explain_cases, run_dir, trained, dataset) if with_photos else None
    write = partial(write_results, leaks=leaks, other=other, stressed=stressed, show=show)
    told = list_known(config.data.clinical, dataset.table.iloc[rows])
    metrics = write(out, cases, config, split=split, run_dir=run_dir, clinical=told)
    if explanations is not None:
        submodels = run_folder.take_apart(run_dir, trained)
        judge = partial(evaluate_explanations, split=split, cases=explanations)
        print(f"\n{format_explanations(judge(trained, submodels, dataset, inputs, rows, out))}")
    return metrics


def _stress(
    trained: TrainedModel, dataset: Dataset, inputs: Inputs, rows: np.ndarray, corrupted: int | None
) -> Stressed:
    stressed = dict(predict_missing(trained, dataset, inputs, rows))
    if corrupted is not None:
        stressed |= predict_corrupted(trained, dataset, rows, corrupted)
    return stressed


def _describe_other(data: RunData, dataset: Dataset, inputs: Inputs, rows: np.ndarray) -> OtherData:
    """Describes data that are not the run's own, and how far they are from its training data."""
    shift = compare_inputs(data.inputs or {}, describe_inputs(dataset, inputs, rows))
    return OtherData(dataset.take(rows).describe(), shift)


def _aim_at(sensitivities: Sequence[float], config: Config, run_dir: Path) -> Config:
    """Replaces the sensitivities that operating points should reach, if any are given."""
    if not sensitivities:
        return config
    if not (run_dir / run_folder.VALIDATION).is_file():
        raise RunError(
            f"{run_dir}: has no {run_folder.VALIDATION} to choose --sensitivity on; train again"
        )
    return change_config(config, {"evaluate.sensitivities": list(sensitivities)})


def _choose_folder(out: Path | None, run_dir: Path, manifest: Path | None, split: str) -> Path:
    """Chooses the run's folder for results on its own test split, and another one for all others.

    The folder of a run is refused for results other than its own, however it is spelt.
    """
    if manifest is None and split == "test" and (out or run_dir).resolve() == run_dir.resolve():
        check_writable(run_dir)
        return run_dir  # so that its model card is written, too
    data = "own"
    if manifest is not None:  # `prepare` calls each manifest.csv: the folder tells them apart
        folder, stem = manifest.resolve().parent.name, manifest.stem
        data = folder if stem == "manifest" else f"{folder}-{stem}"
    out = out or run_dir / "evaluations" / f"{data}-{split}"
    run_folder.refuse_run(out)
    check_writable(out)
    return out


def _load_other(
    trained: TrainedModel, data: RunData, manifest: Path, embeddings: Path | None, allow_leaks: bool
) -> Dataset:
    """Loads another manifest, with embeddings or photos, whichever the run was trained on."""
    config = trained.config.data
    if embeddings is not None and config.embeddings is None:
        raise DataError(
            f"--embeddings {embeddings}: this run was trained on photos; leave --embeddings out"
        )
    source = config.embeddings if embeddings is None else str(embeddings)
    config = config.model_copy(update={"allow_leaks": allow_leaks, "embeddings": source})
    dataset = load_audited(config, manifest).dataset
    found, expected = dataset.embeddings, trained.encoders.image.dimension
    if found is not None and found.dimension != expected:
        raise DataError(
            f"{source}: contains embeddings of {found.dimension} values; this run was trained on"
            f" {expected}: give embeddings from the same network"
        )
    fields = [field.name for field in trained.encoders.clinical]
    note_absent(fields, dataset.table.columns, manifest.name)
    asked = dataset.positive_class
    if asked != data.positive_class:
        raise DataError(
            f"{manifest}: asks for {asked} (its positive_class); this run was trained to detect"
            f" {data.positive_class}"
        )
    return dataset


def _choose_rows(
    table: pd.DataFrame, split: str, own_splits: dict[str, list[str]] | None
) -> np.ndarray:
    """Finds the rows of a split: the run's own, recorded by id, or the manifest's."""
    if split == "all":
        chosen = pd.Series(True, table.index)
    elif own_splits is None:
        chosen = table["split"] == split
    else:
        chosen = table["example_id"].isin(own_splits[split])
        if gone := len(own_splits[split]) - int(chosen.sum()):
            say(f"note: {gone} of the {len(own_splits[split])} {split} rows are no longer there")
    if own_splits is not None and own_splits.get(split) == []:
        raise DataError(
            f"--split {split}: this run has no such rows; with train.refit, a run also learns from"
            f" its validation rows, and {run_folder.VALIDATION} has the answers from before that"
        )
    if not chosen.any():
        raise DataError(
            f"--split {split}: there are no such rows; give --split all to evaluate a manifest"
            " without splits"
        )
    if table.loc[chosen, "eczema"].isna().all():
        raise DataError(
            f"--split {split}: none of its {chosen.sum()} rows has a label in the column eczema to"
            " compare answers with; `predict` and `score` answer rows without labels"
        )
    return np.flatnonzero(chosen)
