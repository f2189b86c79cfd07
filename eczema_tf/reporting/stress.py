"""Tables and plots of how the model does with missing, swapped and corrupted photos and texts."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eczema_tf.evaluation.metadata import MetadataBaseline
from eczema_tf.evaluation.records import Metrics
from eczema_tf.evaluation.stress import StressTest
from eczema_tf.reporting.document import Block, Bullets, Section, Table
from eczema_tf.reporting.formats import HEAD_NAMES, build_table, format_difference, format_estimate
from eczema_tf.reporting.plots import STYLES, take_ends, write_figure
from eczema_tf.reporting.tables import describe_clinical

MISSING = "Missing and mismatched photos and texts"
CORRUPTED = "Robustness: corrupted photos and texts"
MISSING_PLOT = "missing.png"
CORRUPTED_PLOTS = {"image": "corrupted_photos.png", "text": "corrupted_texts.png"}
# by name: what is done, and what its strength is
MISSING_TESTS = {
    "photo_missing": ("photo missing", "share of cases"),
    "text_missing": ("text missing", "share of cases"),
    "photo_of_another": ("another case's photo", "share of cases"),
    "text_of_another": ("another case's text", "share of cases"),
    "border_only": ("border only", "share of the side"),
    "diagnoses_masked": ("diagnoses masked", "share of diagnoses"),
}
CORRUPTIONS = {
    "blur": ("blur", "sigma in px of 256"),
    "brightness": ("brightness", "more or less, share of white"),
    "colour_cast": ("colour cast", "gain of red or blue"),
    "noise": ("noise", "SD as a share of white"),
    "jpeg": ("JPEG", "quality"),
    "rotation": ("rotation", "degrees"),
    "occlusion": ("occlusion", "share of the side"),
    "resolution": ("resolution", "share of the side"),
    "typing_errors": ("typing errors", "share of words"),
    "dropped_words": ("dropped words", "share of words"),
    "word_order": ("word order", "swaps per word"),
    "synonyms": ("synonyms", "share of words with synonyms"),
    "capitals": ("capitals", "share of words"),
    "small_talk": ("small talk", "sentences"),
    "other_language": ("other language", "share of the text"),
}
_MEANINGS = {
    "photo_missing": "The fewer photos there are, the closer fusion comes to the text alone; it"
    " must not fall below it.",
    "text_missing": "The fewer texts there are, the closer fusion comes to the photo alone; it must"
    " not fall below it.",
    "photo_of_another": "With wrong photos, fusion must get worse. If it does not, it does not look"
    " at the photos.",
    "text_of_another": "With wrong texts, fusion must get worse. If it does not, it does not read"
    " the texts.",
    "border_only": "With everything but its border replaced by the border's mean colour, the photo"
    " alone should tell little (an AUROC of 0.5 is nothing). If it tells as much as before, the"
    " model looks at the surroundings.",
    "diagnoses_masked": 'With every diagnosis in a text replaced by "this", fusion should be as'
    " good as before. If it gets worse, it read the answer off the names.",
}
_COLUMNS = ("AUROC", "change", "over the other alone", "alone", "ECE", "cannot tell")
_EXPLAINED = (
    "AUROC, expected calibration error (ECE) and share of cases where it cannot tell are those of"
    " fusion. Change: of its AUROC, compared with the same cases unchanged, paired. Over the other"
    " alone: its AUROC minus that of the head that sees only the untouched input; below 0, the"
    " answer would have been better without the altered input. Alone: AUROC of the head that sees"
    " only the altered input."
)


def build_stress(metrics: Metrics) -> list[Section]:
    """Builds the sections on stress tests and metadata; a section without content is left out."""
    missing, corrupted = (select_tests(metrics, names) for names in (MISSING_TESTS, CORRUPTIONS))
    title = "Cases answered again without photo or text, or with another case's"
    meanings = Bullets([_MEANINGS[name] for name in missing])
    answered: list[Block] = [_EXPLAINED, _tabulate(title, missing, 1), meanings]
    strongest = "At the strongest of five strengths"
    sections: dict[str, list[Block]] = {
        MISSING: [
            *([*answered, *describe_clinical(metrics)] if missing else []),
            *([_describe_metadata(metrics.metadata)] if metrics.metadata else []),
        ],
        CORRUPTED: [_describe_cases(corrupted), _EXPLAINED, _tabulate(strongest, corrupted, -1)]
        if corrupted
        else [],
    }
    return [Section(name, blocks) for name, blocks in sections.items() if blocks]


def select_tests(metrics: Metrics, names: Iterable[str]) -> dict[str, StressTest]:
    """Selects the named stress tests that were run."""
    tests = metrics.stress_tests or {}
    return {name: tests[name] for name in names if name in tests}


def _tabulate(title: str, tests: Mapping[str, StressTest], first: int) -> Table:
    """Lists the points of each test, starting with point number `first`."""
    rows = [
        [
            f"{what}: {point.strength:g}" if len(test.points) > 2 else what,
            *(point.auroc.value, point.change, point.gain),
            *(point.alone.value, point.ece.value, point.cannot_tell.value),
        ]
        for what, test in (((MISSING_TESTS | CORRUPTIONS)[name][0], tests[name]) for name in tests)
        for point in test.points[first:]
    ]
    return build_table(title, ("what is done", *_COLUMNS), rows, digits=2)


def _describe_cases(tests: Mapping[str, StressTest]) -> str:
    """Says how many cases were tested, and how to read the results."""
    counts = {test.changed: test.cases for test in tests.values()}
    things = {"image": "the photos", "text": "the texts"}
    of = " and ".join(f"{things[name]} of {count} cases" for name, count in counts.items())
    highest = {CORRUPTIONS[name][0]: test.points[-1].change.high for name, test in tests.items()}
    fallen = ", ".join(name for name, high in highest.items() if high is not None and high < 0)
    said = f"the whole interval of the change in AUROC is below 0 with {fallen or 'none of them'}"
    if not any(high is not None for high in highest.values()):
        said = "there are too few cases to say by how much AUROC falls"
    return (
        f"{of[0].upper()}{of[1:]}, drawn at random, were corrupted in the form in which clients"
        f" send them, at five strengths. At the strongest, {said}. Where AUROC falls, the model"
        " should say more often that it cannot tell. If it does not, it answers about what it can"
        " no longer make out."
    )


def _describe_metadata(baseline: MetadataBaseline) -> str:
    columns = ", ".join(name.replace("_", " ") for name in baseline.columns)
    return (
        f"From {columns} alone (logistic regression, cross-validated on these {baseline.cases}"
        f" cases): AUROC {format_estimate(baseline.auroc)}; fusion is better by"
        f" {format_difference(baseline.fusion_gain)}. An AUROC of 0.5 means that nothing can be"
        " guessed from these fields alone. If the AUROC here is near fusion's, the model may have"
        " learned no more than these fields tell."
    )


def select_plots(metrics: Metrics) -> dict[str, dict[str, StressTest]]:
    """Selects what to draw: by file, the tests with several strengths."""
    missing, corrupted = (select_tests(metrics, names) for names in (MISSING_TESTS, CORRUPTIONS))
    plots = {MISSING_PLOT: {name: one for name, one in missing.items() if len(one.points) > 2}}
    plots |= {
        file: {name: one for name, one in corrupted.items() if one.changed == modality}
        for modality, file in CORRUPTED_PLOTS.items()
    }
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
    panels = list(figure.subplots(rows, 2, sharey=True, squeeze=False).flat)
    for axes, (name, test) in zip(panels, tests.items(), strict=False):
        _draw_test(axes, test, *(MISSING_TESTS | CORRUPTIONS)[name])
    for axes in panels[len(tests) :]:
        axes.set_axis_off()
    # by label, so that each appears in the legend once
    curves = {curve.get_label(): curve for axes in panels for curve in axes.lines}
    figure.legend(curves.values(), curves.keys(), loc="outside lower center", ncols=2, fontsize=9)
    return figure


def _draw_test(axes: Axes, test: StressTest, what: str, unit: str) -> None:
    """Draws AUROC, calibration error and abstention, with their intervals where there are any."""
    points, steps, style = test.points, np.arange(len(test.points)), STYLES[test.changed]
    axes.set_title(what, fontsize=10)
    axes.set_xlabel(unit, fontsize=9)
    axes.set(ylim=(-0.02, 1.02), yticks=np.linspace(0, 1, 5))
    axes.set_xticks(steps, ["as is", *(f"{point.strength:g}" for point in points[1:])])
    axes.tick_params(labelsize=8)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    curves = {
        "AUROC, fusion": ([point.auroc for point in points], *STYLES["fusion"]),
        f"AUROC, {HEAD_NAMES[test.changed]} alone": ([one.alone for one in points], *style),
        "share of cannot tell": ([point.cannot_tell for point in points], "black", ":"),
        "calibration error, fusion": ([point.ece for point in points], "#CC79A7", "--"),
    }
    for label, (estimates, colour, line) in curves.items():
        value, low, high = take_ends(estimates)
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(steps, value, line, color=colour, linewidth=1.8, label=label)
