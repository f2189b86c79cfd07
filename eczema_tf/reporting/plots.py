"""ROC and precision-recall curves of the three heads as PNG.

Drawn with Matplotlib's own objects, without pyplot: no window, no global state, safe in threads.
Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart; line styles
differ too.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from eczema_tf.evaluation.predictions import PROBABILITY_COLUMNS, is_scored
from eczema_tf.evaluation.results import Metrics
from eczema_tf.files import replacing_file
from eczema_tf.reporting.tables import HEAD_NAMES, format_estimate

ROC, PR = "roc.png", "pr.png"
STYLES = {"image": ("#E69F00", "--"), "text": ("#0072B2", "-."), "fusion": ("#009E73", "-")}
_GREY = "#666666"


def write_plots(
    folder: Path, cases: pd.DataFrame, metrics: Metrics, *, label_threshold: float = 0.5
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
    figure, axes = _build_axes("1 - specificity", "sensitivity", f"ROC, {metrics.split}")
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle=":", label="chance")
    for modality, scores, positive in _drawable_heads(axes, cases, label_threshold):
        false_alarms, sensitivity, _ = roc_curve(positive, scores, drop_intermediate=False)
        area = f"AUROC {format_estimate(metrics.heads[modality].auroc, 2)}"
        _draw(axes, modality, false_alarms, sensitivity, area)
        called = scores >= metrics.heads[modality].threshold
        _mark(axes, modality, called[~positive].mean(), called[positive].mean())
    _finish(folder / ROC, figure, axes, "lower right", metrics)

    figure, axes = _build_axes("recall (sensitivity)", "precision", f"PR, {metrics.split}")
    labels = cases.loc[is_scored(cases, "fusion"), "eczema"]
    if len(labels):
        prevalence = float((labels > label_threshold).mean())
        chance = f"chance (prevalence {prevalence:.2f})"
        axes.axhline(prevalence, color=_GREY, linewidth=1, linestyle=":", label=chance)
    for modality, scores, positive in _drawable_heads(axes, cases, label_threshold):
        precision, recall, _ = precision_recall_curve(positive, scores)
        area = f"average precision {average_precision_score(positive, scores):.2f}"
        # by rising recall, and without the end at (0, 1), which is no threshold's: as steps, the
        # area drawn is the average precision
        recall, precision = recall[::-1], np.r_[precision[-2], precision[-2::-1]]
        _draw(axes, modality, recall, precision, area, drawstyle="steps-pre")
        called = scores >= metrics.heads[modality].threshold
        if called.any():
            _mark(axes, modality, called[positive].mean(), positive[called].mean())
    _finish(folder / PR, figure, axes, "lower left", metrics)


def _drawable_heads(
    axes: Axes, cases: pd.DataFrame, label_threshold: float
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields heads, their probabilities and labels; a head without both classes has no curve."""
    for modality, column in PROBABILITY_COLUMNS.items():
        scored = cases[is_scored(cases, modality)]
        positive = (scored["eczema"] > label_threshold).to_numpy(bool)
        if positive.any() and not positive.all():
            yield modality, scored[column].to_numpy("float64"), positive
        else:
            reason = f"{HEAD_NAMES[modality]}: no curve without cases of both classes"
            axes.plot([], [], linestyle="none", label=reason)


def _build_axes(x_label: str, y_label: str, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 6.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    return figure, axes


def _draw(
    axes: Axes, modality: str, x: np.ndarray, y: np.ndarray, area: str, drawstyle: str = "default"
) -> None:
    colour, style = STYLES[modality]
    label = f"{HEAD_NAMES[modality]}: {area}"
    axes.plot(x, y, drawstyle=drawstyle, color=colour, linestyle=style, linewidth=2, label=label)


def _mark(axes: Axes, modality: str, x: float, y: float) -> None:
    """A dot where the head's threshold is."""
    colour = STYLES[modality][0]
    (dot,) = axes.plot(x, y, "o", color=colour, markersize=9, markeredgecolor="black", zorder=3)
    dot.set_clip_on(False)


def _finish(
    path: Path,
    figure: Figure,
    axes: Axes,
    legend_at: Literal["lower right", "lower left"],
    metrics: Metrics,
) -> None:
    caption = f"{metrics.cases} cases; dots: at the thresholds chosen on validation"
    known = {
        HEAD_NAMES[modality]: limit
        for modality, limit in (metrics.bayes_auroc or {}).items()
        if limit is not None
    }
    if known:
        limits = ", ".join(f"{name} {limit:.2f}" for name, limit in known.items())
        caption += f"\nlimit, the AUROC of the exact posterior: {limits}"
    axes.legend(loc=legend_at, fontsize=9, framealpha=0.9)
    figure.supxlabel(caption, fontsize=8, color=_GREY)
    with replacing_file(path) as aside:
        figure.savefig(aside, format="png", metadata={"Software": None})  # same figures, same bytes
