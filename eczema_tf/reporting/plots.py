"""ROC and precision-recall curves of the three heads as PNG.

Drawn with Matplotlib's own objects, without pyplot: no window, no global state, safe in threads.
Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart; line styles
differ too.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from eczema_tf.evaluation.predictions import PROBABILITY_COLUMNS, is_scored
from eczema_tf.evaluation.results import HeadMetrics, Metrics
from eczema_tf.files import replacing_file
from eczema_tf.reporting.tables import HEAD_NAMES, format_estimate

ROC, PR = "roc.png", "pr.png"
STYLES = {"image": ("#E69F00", "--"), "text": ("#0072B2", "-."), "fusion": ("#009E73", "-")}
_GREY = "#666666"


def write_plots(folder: Path, cases: pd.DataFrame, metrics: Metrics) -> None:
    """Writes the ROC curves as `roc.png` and the precision-recall curves as `pr.png`.

    AUROC with its interval, or average precision, is in the legend; a dot is at each head's
    threshold.

    Args:
        folder: Where to.
        cases: From `average_rows_by_case`.
        metrics: From `compute_metrics` of the same cases.

    Raises:
        EczemaError: If the disk refuses.
    """
    roc_figure, roc = _build_axes("1 - specificity", "sensitivity", f"ROC, {metrics.split}")
    pr_figure, pr = _build_axes(
        "recall (sensitivity)", "precision", f"Precision and recall, {metrics.split}"
    )
    roc.plot([0, 1], [0, 1], ":", color=_GREY, linewidth=1, label="chance")
    if (fusion := metrics.heads["fusion"]).cases:
        prevalence = fusion.positives / fusion.cases
        label = f"chance (prevalence {prevalence:.2f})"
        pr.axhline(prevalence, color=_GREY, linewidth=1, linestyle=":", label=label)
    for modality, head in metrics.heads.items():
        scored = cases[is_scored(cases, modality)]
        scores = scored[PROBABILITY_COLUMNS[modality]].to_numpy("float64")
        positive = (scored["eczema"] > metrics.label_threshold).to_numpy(bool)
        if positive.any() and not positive.all():
            _draw_head(roc, pr, head, scores, positive, modality=modality)
            continue
        for axes in (roc, pr):
            label = f"{HEAD_NAMES[modality]}: no curve without cases of both classes"
            axes.plot([], [], linestyle="none", label=label)
    caption = f"{metrics.cases} cases; dots: at the thresholds chosen on validation"
    limits = [
        f"{HEAD_NAMES[modality]} {auroc:.2f}"
        for modality, auroc in (metrics.bayes_auroc or {}).items()
        if auroc is not None
    ]
    if limits:
        caption += f"\nlimit, the AUROC of the exact posterior: {', '.join(limits)}"
    roc.legend(loc="lower right", fontsize=9, framealpha=0.9)
    pr.legend(loc="lower left", fontsize=9, framealpha=0.9)
    for file, figure in ((ROC, roc_figure), (PR, pr_figure)):
        figure.supxlabel(caption, fontsize=8, color=_GREY)
        with replacing_file(folder / file) as aside:  # the same metrics give the same bytes
            figure.savefig(aside, format="png", metadata={"Software": None})


def _draw_head(
    roc: Axes,
    pr: Axes,
    head: HeadMetrics,
    scores: np.ndarray,
    positive: np.ndarray,
    *,
    modality: str,
) -> None:
    """Draws both curves of a head, and dots at its threshold."""
    name, (colour, style) = HEAD_NAMES[modality], STYLES[modality]
    false_alarms, sensitivity, _ = roc_curve(positive, scores, drop_intermediate=False)
    label = f"{name}: AUROC {format_estimate(head.auroc, 2)}"
    roc.plot(false_alarms, sensitivity, style, color=colour, linewidth=2, label=label)
    precision, recall, _ = precision_recall_curve(positive, scores)  # by falling recall
    # The area drawn is the average precision, a sum of steps: interpolating it would flatter
    # (Davis and Goadrich 2006).
    precision[-1] = precision[-2]
    label = f"{name}: average precision {average_precision_score(positive, scores):.2f}"
    pr.plot(recall, precision, style, color=colour, linewidth=2, label=label, ds="steps-post")
    called = scores >= head.threshold
    found = positive[called].sum() / positive.sum()
    points = [(roc, called[~positive].mean(), found)]
    if called.any():
        points.append((pr, found, positive[called].mean()))
    for axes, x, y in points:
        axes.plot(x, y, "o", ms=9, color=colour, mec="black", zorder=3, clip_on=False)


def _build_axes(x_label: str, y_label: str, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 6.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlabel=x_label, ylabel=y_label, title=title, aspect="equal")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.grid(color="#DDDDDD", linewidth=0.6)
    return figure, axes
