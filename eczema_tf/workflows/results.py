"""What an evaluation writes and prints: predictions, metrics, plots, report and model card."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from eczema_tf.cli import say
from eczema_tf.config import Config
from eczema_tf.data.dataset import DatasetFacts
from eczema_tf.evaluation.abstention import find_surest
from eczema_tf.evaluation.external import judge_external
from eczema_tf.evaluation.predictions import load_predictions
from eczema_tf.evaluation.records import Leaks, Metrics, Shift
from eczema_tf.evaluation.results import compute_metrics
from eczema_tf.evaluation.thresholds import Thresholds, choose_points
from eczema_tf.files import replacing_files, write_csv, write_text
from eczema_tf.reporting.document import Section, format_text
from eczema_tf.reporting.examples import SHOWN, ShownCase, build_examples
from eczema_tf.reporting.facts import RunFacts
from eczema_tf.reporting.model_card import GAP, format_model_card
from eczema_tf.reporting.plots import write_plots
from eczema_tf.reporting.report import build_results, format_report
from eczema_tf.reporting.stress import write_stress_plots
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.stress import Stressed

ShowCases = Callable[[Sequence[str]], Mapping[str, ShownCase]]


@dataclass(frozen=True)
class OtherData:
    """Data other than the run's own, and how their inputs differ from its training data."""

    facts: DatasetFacts
    shift: dict[str, Shift]


def write_results(
    out: Path,
    cases: pd.DataFrame,
    config: Config,
    *,
    split: str,
    leaks: Leaks | None = None,
    run_dir: Path | None = None,
    other: OtherData | None = None,
    stressed: Stressed | None = None,
    show: ShowCases | None = None,
    clinical: Collection[str] = (),
) -> Metrics:
    """Evaluates cases, writes predictions, metrics, plots and the report, and prints the results.

    Args:
        out: Folder to write to.
        cases: From `average_rows_by_case`.
        config: Configuration of the run.
        split: What the cases are, for the record.
        leaks: What straddled the splits that the model was trained with; None if nobody looked.
        run_dir: The run's folder, which says what was trained on what; None if it is `out`, which
            then gets the model card, too.
        other: The data that the cases are from, if they are not the run's own.
        stressed: All or some of the cases, answered again under stress; None if they were not.
        show: Looks up and explains cases by id, so that the report shows the photos and texts of
            the surest; None for a report without them.
        clinical: Clinical fields that are known of any case.
    """
    facts = run_folder.read_run_facts(run_dir or out, config)
    metrics = compute_metrics(
        cases,
        run_folder.read_thresholds(run_dir or out),
        points=_choose_run_points(run_dir or out, config),
        label_threshold=config.data.label_threshold,
        soft_labels=config.train.soft_labels,
        prevalences=config.evaluate.prevalences,
        replicates=config.evaluate.bootstrap_replicates,
        seed=config.seed,
        split=split,
        leaks=leaks,
        positive_class=facts.data.positive_class,
        clinical=clinical,
        stressed=stressed,
    )
    if other is not None and run_dir is not None:
        metrics, facts = _add_other(metrics, facts, cases, other, run_dir)
    with replacing_files(out, last=run_folder.METRICS) as aside:
        write_csv(aside / run_folder.PREDICTIONS, cases)
        _write_report(aside, cases, metrics, facts, show)
        metrics.write(aside / run_folder.METRICS)
        if run_dir in (None, out):
            write_card(out / run_folder.MODEL_CARD, format_model_card(metrics, facts))
    print(format_text(build_results(metrics), facts.data.notice))
    return metrics


def _write_report(
    out: Path, cases: pd.DataFrame, metrics: Metrics, facts: RunFacts, show: ShowCases | None
) -> None:
    """Writes the report and its plots."""
    write_plots(out, cases, metrics)
    write_stress_plots(out, metrics)
    examples = _show_surest(cases, metrics, show)
    write_text(out / run_folder.REPORT, format_report(metrics, facts, out, [examples]))


def write_card(file: Path, card: str) -> None:
    """Writes a model card, next to one that its author has filled in."""
    if file.is_file() and GAP not in file.read_text(encoding="utf-8", errors="replace"):
        filled, file = file, file.with_stem(f"{file.stem}_new")
        say(f"note: {filled} was filled in and is kept; the card of these results is {file.name}")
    write_text(file, card)


def _add_other(
    metrics: Metrics, facts: RunFacts, cases: pd.DataFrame, other: OtherData, run_dir: Path
) -> tuple[Metrics, RunFacts]:
    """Adds which data the cases are from, and how they compare with the run's own."""
    own = Metrics.read(run_dir / run_folder.METRICS)
    external = judge_external(cases, metrics, own, other.shift)
    return metrics.model_copy(update={"external": external}), replace(facts, judged=other.facts)


def _show_surest(cases: pd.DataFrame, metrics: Metrics, show: ShowCases | None) -> Section:
    surest = find_surest(metrics.take(cases), SHOWN)
    ids = [case for found in surest.values() for case in found["case_id"]]
    return build_examples(surest, metrics, show(ids) if show else {})


def _choose_run_points(run_dir: Path, config: Config) -> dict[str, Thresholds]:
    """Chooses a run's operating points on its validation cases, as `choose_points` does.

    Those of a cross-validation are the means of its models' points. A run from before validation
    cases were kept has none.
    """
    files = [run_dir / run_folder.VALIDATION]
    if not files[0].is_file():
        files = sorted((run_dir / run_folder.FOLDS).glob(f"*/{run_folder.VALIDATION}"))
    of_models: dict[str, dict[str, list[float]]] = {}
    for file in files:
        points = choose_points(
            load_predictions(file),
            config.data.label_threshold,
            sensitivities=config.evaluate.sensitivities,
            specificities=config.evaluate.specificities,
        )
        for aim, thresholds in points.items():
            for kind, threshold in thresholds.items():
                of_models.setdefault(aim, {}).setdefault(kind, []).append(threshold)
    return {
        aim: {kind: float(np.mean(chosen)) for kind, chosen in by_kind.items()}
        for aim, by_kind in of_models.items()
    }
