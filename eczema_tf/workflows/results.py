"""Figures of scored cases into a folder: predictions, metrics, plots, the report and the model card."""

from pathlib import Path
from typing import Any

import pandas as pd

from eczema_tf.config import Config
from eczema_tf.evaluation.predictions import write_predictions
from eczema_tf.evaluation.scores import compute_metrics
from eczema_tf.files import write_json, write_text
from eczema_tf.reporting.facts import RunFacts
from eczema_tf.reporting.model_card import format_model_card
from eczema_tf.reporting.plots import write_plots
from eczema_tf.reporting.report import format_report
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.audit import AUDIT

REPORT, MODEL_CARD = "report.html", "model_card.md"


def write_figures(
    out: Path,
    cases: pd.DataFrame,
    thresholds: dict[str, float],
    config: Config,
    split: str,
    leaks: dict[str, Any] | None = None,
    run_dir: Path | None = None,
) -> dict[str, Any]:
    """Writes predictions, figures, plots and the report into a folder, and into the run's own the model card, too.

    Args:
        out: The folder.
        cases: From `average_rows_by_case`.
        thresholds: By "image", "text" and "fusion".
        config: Of the run.
        split: What the cases are, for the record.
        leaks: What straddled the splits the model was trained with; None if that was not looked at.
        run_dir: The run's folder, which says what was trained on what; None if it is `out`.

    Returns:
        The contents of `metrics.json`.
    """
    label_threshold = config.data.label_threshold
    metrics = compute_metrics(
        cases,
        thresholds,
        label_threshold=label_threshold,
        replicates=config.evaluate.bootstrap_replicates,
        seed=config.seed,
        split=split,
    )
    if leaks is not None:
        metrics["leaks"] = leaks
    write_predictions(out / run_folder.PREDICTIONS, cases)
    write_plots(out, cases, metrics, label_threshold=label_threshold)
    facts = load_facts(run_dir or out, config)
    write_text(out / REPORT, format_report(metrics, facts, out))
    if run_dir in (None, out):
        write_text(out / MODEL_CARD, format_model_card(metrics, facts))
    write_json(
        out / run_folder.METRICS, metrics
    )  # last, so that its presence means that all is there
    return metrics


def load_facts(run_dir: Path, config: Config) -> RunFacts:
    """Reads what a run folder says beside its figures.

    Raises:
        RunError: If a file of the run is missing.
    """
    audit = run_dir / AUDIT
    return RunFacts(
        config,
        run_folder.read_json(run_dir / run_folder.DATA),
        run_folder.read_json(run_dir / run_folder.ENVIRONMENT),
        run_folder.read_json(audit) if audit.is_file() else {},
    )
