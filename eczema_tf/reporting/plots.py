"""ROC and precision-recall curves of the three heads as PNG.

Drawn with Matplotlib's own objects, without pyplot: no window, no global state, safe in threads.
Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart; line styles
differ too.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eczema_tf.evaluation.curves import (
    compute_average_precision,
    compute_pr_curve,
    compute_roc_curve,
)
from eczema_tf.evaluation.metrics import (
    compute_confusion,
    compute_precision,
    compute_sensitivity,
    compute_specificity,
)
from eczema_tf.evaluation.predictions import PROBABILITY_COLUMNS, is_scored
from eczema_tf.files import replacing_file
from eczema_tf.reporting.results_table import HEAD_NAMES, format_estimate

ROC, PR = "roc.png", "pr.png"
STYLES = {"image": ("#E69F00", "--"), "text": ("#0072B2", "-."), "fusion": ("#009E73", "-")}
_GREY = "#666666"


def write_plots(
    folder: Path, cases: pd.DataFrame, metrics: Mapping[str, Any], *, label_threshold: float = 0.5
) -> None:
    """Writes the ROC curves as `roc.png` and the precision-recall curves as `pr.png`.

    AUROC with its interval, or average precision, is in the legend; a dot is at each head's
    threshold.

    Args:
        folder: Where to.
        cases: From `average_rows_by_case`.
        metrics: From `compute_metrics` of the same cases.
        label_threshold: A label greater than this is positive.

    Raises:
        EczemaError: If the disk refuses.
    """
    _write_roc(folder / ROC, cases, metrics, label_threshold)
    _write_pr(folder / PR, cases, metrics, label_threshold)


def _write_roc(
    path: Path, cases: pd.DataFrame, metrics: Mapping[str, Any], label_threshold: float
) -> None:
    figure, axes = _build_axes("1 - specificity", "sensitivity", f"ROC, {metrics['split']}")
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle=":", label="chance")
    for modality, scores, positive in _drawable_heads(axes, cases, label_threshold):
        false_alarms, sensitivity = compute_roc_curve(scores, positive)
        _draw(
            axes,
            modality,
            false_alarms,
            sensitivity,
            f"AUROC {format_estimate(metrics['heads'][modality]['auroc'], 2)}",
        )
        confusion = _confusion_at(metrics, modality, scores, positive)
        _mark(axes, modality, 1 - compute_specificity(confusion), compute_sensitivity(confusion))
    _finish(path, figure, axes, "lower right", metrics)


def _write_pr(
    path: Path, cases: pd.DataFrame, metrics: Mapping[str, Any], label_threshold: float
) -> None:
    figure, axes = _build_axes(
        "recall (sensitivity)", "precision", f"Precision and recall, {metrics['split']}"
    )
    labels = cases.loc[is_scored(cases, "fusion"), "eczema"]
    if len(labels):
        prevalence = float((labels > label_threshold).mean())
        axes.axhline(
            prevalence,
            color=_GREY,
            linewidth=1,
            linestyle=":",
            label=f"chance (prevalence {prevalence:.2f})",
        )
    for modality, scores, positive in _drawable_heads(axes, cases, label_threshold):
        recall, precision = compute_pr_curve(scores, positive)
        figures = f"average precision {compute_average_precision(recall, precision):.2f}"
        _draw(
            axes, modality, np.r_[0, recall], np.r_[precision[0], precision], figures, "steps-pre"
        )  # the area drawn is the figure
        confusion = _confusion_at(metrics, modality, scores, positive)
        _mark(axes, modality, compute_sensitivity(confusion), compute_precision(confusion))
    _finish(path, figure, axes, "lower left", metrics)


def _drawable_heads(
    axes: Axes, cases: pd.DataFrame, label_threshold: float
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields heads, their probabilities and labels; of a head without both classes the legend says that it has no curve."""
    for modality, column in PROBABILITY_COLUMNS.items():
        scored = cases[is_scored(cases, modality)]
        positive = (scored["eczema"] > label_threshold).to_numpy(bool)
        if positive.any() and not positive.all():
            yield modality, scored[column].to_numpy("float64"), positive
        else:
            axes.plot(
                [],
                [],
                linestyle="none",
                label=f"{HEAD_NAMES[modality]}: no curve without cases of both classes",
            )


def _confusion_at(
    metrics: Mapping[str, Any], modality: str, scores: np.ndarray, positive: np.ndarray
) -> np.ndarray:
    return compute_confusion(
        positive, scores >= metrics["heads"][modality]["threshold"], np.ones(len(scores)), 2
    )


def _build_axes(x_label: str, y_label: str, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 6.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
        xlabel=x_label,
        ylabel=y_label,
        title=title,
        aspect="equal",
    )
    axes.grid(color="#DDDDDD", linewidth=0.6)
    return figure, axes


def _draw(
    axes: Axes,
    modality: str,
    x: np.ndarray,
    y: np.ndarray,
    figures: str,
    drawstyle: str = "default",
) -> None:
    colour, style = STYLES[modality]
    axes.plot(
        x,
        y,
        drawstyle=drawstyle,
        color=colour,
        linestyle=style,
        linewidth=2,
        label=f"{HEAD_NAMES[modality]}: {figures}",
    )


def _mark(axes: Axes, modality: str, x: np.ndarray, y: np.ndarray) -> None:
    axes.plot(
        x,
        y,
        marker="o",
        markersize=9,
        color=STYLES[modality][0],
        markeredgecolor="black",
        linestyle="none",
        zorder=3,
        clip_on=False,
    )


def _finish(
    path: Path, figure: Figure, axes: Axes, legend_place: str, metrics: Mapping[str, Any]
) -> None:
    axes.legend(loc=legend_place, fontsize=9, framealpha=0.9)
    figure.supxlabel(_caption(metrics), fontsize=8, color=_GREY)
    with replacing_file(path) as aside:
        figure.savefig(aside, format="png", metadata={"Software": None})  # same figures, same bytes


def _caption(metrics: Mapping[str, Any]) -> str:
    lines = [f"{metrics['cases']} cases; dots: at the thresholds chosen on validation"]
    limits = {
        HEAD_NAMES[modality]: limit
        for modality, limit in metrics.get("limit", {}).items()
        if limit is not None
    }
    if limits:
        lines.append(
            "limit, the AUROC of the exact posterior: "
            + ", ".join(f"{name} {limit:.2f}" for name, limit in limits.items())
        )
    return "\n".join(lines)
