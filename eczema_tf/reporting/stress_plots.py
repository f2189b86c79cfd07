"""What is left of the answers against how much photos and texts are changed, as PNG."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eczema_tf.evaluation.records import Metrics
from eczema_tf.evaluation.stress import StressTest
from eczema_tf.reporting.formats import HEAD_NAMES
from eczema_tf.reporting.plots import STYLES, write_figure
from eczema_tf.reporting.stress_tables import CORRUPTIONS, MISSING_TESTS, select_tests

MISSING_PLOT = "missing.png"
CORRUPTED_PLOTS = {"image": "corrupted_photos.png", "text": "corrupted_texts.png"}


def select_plots(metrics: Metrics) -> dict[str, dict[str, StressTest]]:
    """Selects what is drawn: by file, the tests that have several strengths."""
    missing, corrupted = (select_tests(metrics, names) for names in (MISSING_TESTS, CORRUPTIONS))
    plots = {MISSING_PLOT: {name: one for name, one in missing.items() if len(one.points) > 2}}
    for modality, file in CORRUPTED_PLOTS.items():
        plots[file] = {name: one for name, one in corrupted.items() if one.changed == modality}
    return {file: tests for file, tests in plots.items() if tests}


def write_stress_plots(folder: Path, metrics: Metrics) -> None:
    """Writes `missing.png`, `corrupted_photos.png` and `corrupted_texts.png`, where they apply.

    Raises:
        EczemaError: If the disk refuses.
    """
    for file, tests in select_plots(metrics).items():
        write_figure(folder / file, _draw_panels(tests))


def _draw_panels(tests: Mapping[str, StressTest]) -> Figure:
    """Draws a panel for each test, two in a row."""
    rows = -(-len(tests) // 2)
    figure = Figure(figsize=(6, 0.8 + 2.2 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, 2, sharey=True, squeeze=False).flat)
    for axes, (name, test) in zip(panels, tests.items(), strict=False):
        _draw_test(axes, test, *(MISSING_TESTS | CORRUPTIONS)[name])
    for axes in panels[len(tests) :]:
        axes.set_axis_off()
    # by label, so that each stands in the legend once
    curves = {curve.get_label(): curve for axes in panels for curve in axes.lines}
    figure.legend(curves.values(), curves.keys(), loc="outside lower center", ncols=2, fontsize=9)
    return figure


def _draw_test(axes: Axes, test: StressTest, what: str, unit: str) -> None:
    """Draws AUROC, calibration error and abstention, with their intervals where there are any."""
    points, steps = test.points, np.arange(len(test.points))
    axes.set_title(what, fontsize=10)
    axes.set_xlabel(unit, fontsize=9)
    axes.set(ylim=(-0.02, 1.02), yticks=np.linspace(0, 1, 5))
    axes.set_xticks(steps, ["as is", *(f"{point.strength:g}" for point in points[1:])])
    axes.tick_params(labelsize=8)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    curves = {
        "AUROC, fusion": ([point.auroc for point in points], *STYLES["fusion"]),
        f"AUROC, {HEAD_NAMES[test.changed]} alone": (
            [point.alone for point in points],
            *STYLES[test.changed],
        ),
        "share of cannot tell": ([point.cannot_tell for point in points], "black", ":"),
        "calibration error, fusion": ([point.ece for point in points], "#CC79A7", "--"),
    }
    for label, (estimates, colour, style) in curves.items():
        ends = [(one.value, one.low, one.high) for one in estimates]
        value, low, high = np.array(ends, "float64").T  # NaN where there is none
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(steps, value, style, color=colour, linewidth=1.8, label=label)
