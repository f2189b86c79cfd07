"""Curves of the three heads, their reliability, net benefit and subgroups as PNG.

They are drawn with Matplotlib's own objects, without pyplot: no window, no global state, safe in
threads. Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart; line
styles differ too.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from eczema_tf.evaluation.abstention import Abstention
from eczema_tf.evaluation.decisions import compute_net_benefit
from eczema_tf.evaluation.intervals import Estimate
from eczema_tf.evaluation.predictions import take_scored
from eczema_tf.evaluation.records import HeadMetrics, Metrics
from eczema_tf.evaluation.sample import Sample
from eczema_tf.evaluation.subgroups import FACTORS, SUBGROUP_METRICS, Subgroups
from eczema_tf.files import replacing_file
from eczema_tf.reporting.formats import HEAD_NAMES, METRIC_NAMES, format_estimate

ROC, PR, RELIABILITY, DECISION = "roc.png", "pr.png", "reliability.png", "decision.png"
RISK = "risk_coverage.png"
FORESTS = {metric: f"subgroups_{metric}.png" for metric in SUBGROUP_METRICS}
STYLES = {"image": ("#E69F00", "--"), "text": ("#0072B2", "-."), "fusion": ("#009E73", "-")}
_GREY = "#666666"
_Corner = Literal["lower right", "lower left", "upper right", "upper left"]


def write_plots(folder: Path, cases: pd.DataFrame, metrics: Metrics) -> None:
    """Writes `roc.png`, `pr.png`, `reliability.png`, `decision.png` and others where they apply.

    The legend gives AUROC with its interval, or average precision; a dot marks each head's
    threshold.

    Args:
        folder: Where to write.
        cases: From `average_rows_by_case`.
        metrics: From `compute_metrics` of the same cases.

    Raises:
        EczemaError: If the disk refuses.
    """
    figures = _draw_curves(cases, metrics)
    figures |= {RELIABILITY: _draw_reliability(metrics), DECISION: _draw_decisions(cases, metrics)}
    if metrics.abstention:
        figures[RISK] = _draw_risk(metrics.abstention, metrics.split)
    if metrics.subgroups:
        # subgroups should lie around the value for all cases; a difference should be 0
        for metric, file in FORESTS.items():
            whole = getattr(metrics.heads["fusion"], metric, None)
            figures[file] = _draw_forest(metrics.subgroups, metric, whole.value if whole else 0.0)
    for file, figure in figures.items():
        write_figure(folder / file, figure)


def write_figure(path: Path, figure: Figure) -> None:
    """Writes a PNG; the same metrics give the same bytes."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a source may be called "US$ and AU$"
    with replacing_file(path) as aside:
        figure.savefig(aside, format="png", metadata={"Software": None})


def take_ends(estimates: Iterable[Estimate]) -> np.ndarray:
    """Returns values, lower and upper ends: float64 (3, estimates), NaN where undefined."""
    ends = [(one.value, one.low, one.high) for one in estimates]
    return np.array(ends, "float64").reshape(-1, 3).T


def _draw_curves(cases: pd.DataFrame, metrics: Metrics) -> dict[str, Figure]:
    """Draws ROC and precision-recall curves of all heads."""
    roc_figure, roc = _build_axes("1 - specificity", "sensitivity", f"ROC, {metrics.split}")
    pr_title = f"Precision and recall, {metrics.split}"
    pr_figure, pr = _build_axes("recall (sensitivity)", "precision", pr_title)
    roc.plot([0, 1], [0, 1], ":", color=_GREY, linewidth=1, label="chance")
    if (fusion := metrics.heads["fusion"]).cases:
        prevalence = fusion.positives / fusion.cases
        label = f"chance, of fusion's cases (prevalence {prevalence:.2f})"
        pr.axhline(prevalence, color=_GREY, linewidth=1, linestyle=":", label=label)
    judged = metrics.take(cases)
    for modality, head in metrics.heads.items():
        sample = judged.of_head(modality)
        positive = sample.positive()
        if positive.any() and not positive.all():
            _draw_roc(roc, modality, head, sample)
            _draw_precision(pr, modality, sample)
            continue
        for axes in (roc, pr):
            label = f"{HEAD_NAMES[modality]}: no curve without cases of both classes"
            axes.plot([], [], linestyle="none", label=label)
    limits = {name: one for name, one in (metrics.bayes_auroc or {}).items() if one is not None}
    caption = f"{metrics.labelled} labelled cases; dots: at the thresholds chosen on validation;"
    caption += "\nwith one input, fusion uses that input's threshold: its dot may lie off the curve"
    if limits:
        said = [f"{HEAD_NAMES[modality]} {auroc:.2f}" for modality, auroc in limits.items()]
        caption += f"\nlimit, the AUROC of the exact posterior: {', '.join(said)}"
    _finish(roc_figure, roc, "lower right", caption)
    _finish(pr_figure, pr, "lower left", caption)
    return {ROC: roc_figure, PR: pr_figure}


def _draw_roc(axes: Axes, modality: str, head: HeadMetrics, sample: Sample) -> None:
    (colour, style), positive = STYLES[modality], sample.positive()
    scores, called = sample.probability(modality), sample.called(modality)
    false_alarms, sensitivity, _ = roc_curve(positive, scores, drop_intermediate=False)
    label = f"{HEAD_NAMES[modality]}: AUROC {format_estimate(head.auroc, 2)}"
    axes.plot(false_alarms, sensitivity, style, color=colour, linewidth=2, label=label)
    _draw_dot(axes, called[~positive].mean(), called[positive].mean(), colour)


def _draw_precision(axes: Axes, modality: str, sample: Sample) -> None:
    """Draws the curve whose area is the average precision, a sum of steps.

    Interpolating it would flatter (Davis and Goadrich 2006).
    """
    (colour, style), positive = STYLES[modality], sample.positive()
    scores, called = sample.probability(modality), sample.called(modality)
    precision, recall, _ = precision_recall_curve(positive, scores)  # by falling recall
    precision[-1] = precision[-2]
    average = average_precision_score(positive, scores)
    label = f"{HEAD_NAMES[modality]}: average precision {average:.2f}"
    axes.plot(recall, precision, style, color=colour, linewidth=2, label=label, ds="steps-post")
    if called.any():
        _draw_dot(axes, called[positive].mean(), positive[called].mean(), colour)


def _draw_dot(axes: Axes, x: float, y: float, colour: str) -> None:
    axes.plot(x, y, "o", ms=9, color=colour, mec="black", zorder=3, clip_on=False)


def _draw_reliability(metrics: Metrics) -> Figure:
    """Draws the share of positive cases in each bin against its mean probability."""
    share = f"share that is {metrics.positive_class}"
    figure, axes = _build_axes("mean probability", share, f"Reliability, {metrics.split}")
    axes.plot([0, 1], [0, 1], ":", color=_GREY, linewidth=1, label="perfect")
    for place, (modality, head) in enumerate(metrics.heads.items()):
        bins = head.calibration.ece.bins if head.calibration else []
        predicted = np.array([one.predicted for one in bins])
        (value, low, high), (colour, style) = take_ends(b.observed for b in bins), STYLES[modality]
        axes.vlines(predicted + 0.004 * (place - 1), low, high, color=colour, linewidth=1)
        label = HEAD_NAMES[modality]
        axes.plot(predicted, value, style, marker="o", color=colour, mec="black", label=label)
    _finish(figure, axes, "upper left", "bins of equal counts, lines: intervals of the share")
    return figure


def _draw_decisions(cases: pd.DataFrame, metrics: Metrics) -> Figure:
    """Draws the net benefit of each head, of treating all and of treating none."""
    title = f"Decision curve, {metrics.split}"
    figure, axes = _build_axes("treatment threshold", "net benefit", title)
    thresholds, top = np.linspace(0.01, 0.99, 99), 0.1
    axes.axhline(0, color=_GREY, linewidth=1, linestyle=":", label="treat none")
    for modality in metrics.heads:
        scores, positive = take_scored(cases, modality, metrics.label_threshold)
        if not len(scores):
            continue
        top, (colour, style) = max(top, positive.mean()), STYLES[modality]
        curve = compute_net_benefit(scores, positive, thresholds)
        axes.plot(thresholds, curve, style, color=colour, linewidth=2, label=HEAD_NAMES[modality])
        if modality == "fusion":
            everybody = compute_net_benefit(np.ones(len(scores)), positive, thresholds)
            axes.plot(thresholds, everybody, "-", color="black", linewidth=1, label="treat all")
    axes.set(aspect="auto", ylim=(-0.3 * top, 1.1 * top))
    caption = "each head on the cases that it answers; treat all: all cases"
    _finish(figure, axes, "upper right", caption=caption)
    return figure


def _draw_risk(abstention: Abstention, split: str) -> Figure:
    """Draws the accuracy on the surest cases against their share."""
    figure, axes = _build_axes("share answered", "accuracy", f"Risk and coverage, {split}")
    answered = [point.answered for point in abstention.risk_coverage]
    value, low, high = take_ends(point.accuracy for point in abstention.risk_coverage)
    colour, style = STYLES["fusion"]
    axes.fill_between(answered, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(answered, value, style, marker="o", color=colour, mec="black")
    axes.set(aspect="auto", ylim=(min(0.5, np.nanmin(low, initial=0.5)), 1.01))
    _finish(figure, axes, caption="the surest cases first; shaded: intervals")
    return figure


def _draw_forest(subgroups: Subgroups, metric: str, middle: float | None) -> Figure:
    """Draws a metric of every subgroup as a dot in its interval, one subgroup below the other."""
    rows: list[tuple[str, Estimate | None]] = []  # a factor's name, then its subgroups
    for name, factor in subgroups.factors.items():
        rows.append((FACTORS[name], None))
        rows += [(value, getattr(found, metric)) for value, found in factor.subgroups.items()]
    figure = Figure(figsize=(6, 1.2 + 0.27 * len(rows)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=f"{METRIC_NAMES.get(metric, metric)}, fusion", ylim=(len(rows) - 0.5, -0.7))
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    if middle is not None:
        axes.axvline(middle, color=_GREY, linewidth=1, linestyle=":")
    for place, (label, (_, estimate)) in enumerate(zip(axes.get_yticklabels(), rows, strict=True)):
        if estimate is None:
            label.set_fontweight("bold")
        else:
            _draw_interval(axes, place, estimate)
    return figure


def _draw_interval(axes: Axes, place: int, estimate: Estimate) -> None:
    colour, _ = STYLES["fusion"]
    if estimate.value is None:
        at = axes.get_yaxis_transform()
        axes.text(0.02, place, "too few", transform=at, va="center", color=_GREY, fontsize=8)
        return
    axes.plot(estimate.value, place, "o", color=colour, mec="black", zorder=3)
    if estimate.low is not None and estimate.high is not None:
        axes.plot([estimate.low, estimate.high], [place] * 2, color=colour, linewidth=2)


def _build_axes(x_label: str, y_label: str, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 6.6), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=x_label, ylabel=y_label, title=title, aspect="equal")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.grid(color="#DDDDDD", linewidth=0.6)
    return figure, axes


def _finish(figure: Figure, axes: Axes, legend: _Corner | None = None, caption: str = "") -> None:
    """Adds a legend in a corner, and a caption below."""
    if legend:
        axes.legend(loc=legend, fontsize=9, framealpha=0.9)
    if caption:
        figure.supxlabel(caption, fontsize=8, color=_GREY)
