"""Figures of scored cases into a folder: predictions, metrics and plots."""

from pathlib import Path
from typing import Any

import pandas as pd

from eczema_tf import runs
from eczema_tf.config import Config
from eczema_tf.evaluation.plots import write_pr_plot, write_roc_plot
from eczema_tf.evaluation.predictions import write_predictions
from eczema_tf.evaluation.scores import compute_metrics
from eczema_tf.files import write_json


def write_figures(
    out: Path,
    cases: pd.DataFrame,
    thresholds: dict[str, float],
    config: Config,
    split: str,
    leaks: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes predictions, figures and plots into a folder.

    Args:
        out: The folder.
        cases: From `average_rows_by_case`.
        thresholds: By "image", "text" and "fusion".
        config: Of the run.
        split: What the cases are, for the record.
        leaks: What straddled the splits the model was trained with; None if that was not looked at.

    Returns:
        The contents of `metrics.json`.
    """
    positive_above = config.data.positive_above
    metrics = compute_metrics(
        cases, thresholds, positive_above=positive_above, replicates=config.evaluate.bootstrap_replicates, seed=config.seed, split=split
    )
    if leaks is not None:
        metrics["leaks"] = leaks
    write_predictions(out / runs.PREDICTIONS, cases)
    write_roc_plot(out / "roc.png", cases, metrics, positive_above=positive_above)
    write_pr_plot(out / "pr.png", cases, metrics, positive_above=positive_above)
    write_json(out / runs.METRICS, metrics)  # last, so that its presence means that all is there
    return metrics
