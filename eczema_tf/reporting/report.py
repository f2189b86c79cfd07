"""The results of one evaluation: on the terminal, and as `report.html` with what they are worth."""

from collections.abc import Sequence
from pathlib import Path

from eczema_tf.evaluation.records import Metrics
from eczema_tf.reporting.checklists import tabulate_checklists
from eczema_tf.reporting.document import (
    Bullets,
    Picture,
    Pictures,
    Section,
    format_page,
    format_text,
)
from eczema_tf.reporting.facts import (
    RunFacts,
    describe_data,
    describe_source,
    list_caveats,
    tabulate_data,
    tabulate_settings,
)
from eczema_tf.reporting.formats import HEAD_NAMES, METRIC_NAMES, format_estimate
from eczema_tf.reporting.plain_words import say_plainly
from eczema_tf.reporting.plots import DECISION, FORESTS, PR, RELIABILITY, RISK, ROC
from eczema_tf.reporting.results import SUBGROUPS, build_results
from eczema_tf.reporting.stress_plots import CORRUPTED_PLOTS, MISSING_PLOT, select_plots
from eczema_tf.reporting.stress_tables import CORRUPTED, MISSING
from eczema_tf.schema import NOTICE


def format_results(metrics: Metrics, notice: str = NOTICE) -> str:
    """Formats the results for a terminal, with what everyone must read at the end."""
    return format_text(build_results(metrics), notice)


def format_report(
    metrics: Metrics, facts: RunFacts, plots: Path, examples: Sequence[Section] = ()
) -> str:
    """Formats the report.

    Args:
        metrics: Of the evaluation.
        facts: Of the run.
        plots: The folder that `write_plots` wrote into.
        examples: From `build_examples`.

    Returns:
        A whole HTML page. It holds metrics, counts and ids of cases; a photo or a text only if
        there is one in `examples`.
    """
    areas = [
        f"{HEAD_NAMES[modality]} {format_estimate(head.auroc)}"
        for modality, head in metrics.heads.items()
    ]
    roc_shows = f"ROC curves of the heads; areas under them: {'; '.join(areas)}"
    pr_shows = (
        "Precision-recall curves of the heads, with their average precision; the table above has"
        " the metrics at the thresholds"
    )
    curves = [
        Picture(plots / ROC, roc_shows, "ROC"),
        Picture(plots / PR, pr_shows, "Precision and recall"),
        Picture(plots / RELIABILITY, "Share of positives against mean probability", "Reliability"),
        Picture(plots / DECISION, "Net benefit against threshold of treatment", "Decision curve"),
    ]
    if metrics.abstention:
        curves.append(Picture(plots / RISK, "Accuracy of the surest cases by share", "Risk"))
    heads, *others = build_results(metrics)
    sections = [
        Section("In plain words", [Bullets(say_plainly(metrics))]),
        heads,
        Section("Curves", [Pictures(curves)]),
        *(_illustrate(section, metrics, plots) for section in others),
        *examples,
        *_describe_judged(facts),
        Section("Data", [tabulate_data(facts), Bullets(describe_data(facts))]),
        Section("Model", [tabulate_settings(facts)]),
        Section("What these results do not say", [Bullets(list_caveats(facts, metrics))]),
        Section("Reporting guidelines", tabulate_checklists(metrics, facts)),
    ]
    title = f"Results, {metrics.positive_class} or not: {metrics.split}"
    return format_page(title, sections, facts.data.notice)


def _describe_judged(facts: RunFacts) -> list[Section]:
    if facts.judged is None:
        return []
    return [Section("Data judged on", [Bullets(describe_source(facts.judged))])]


def _illustrate(section: Section, metrics: Metrics, plots: Path) -> Section:
    """Puts a section's plots, if it has any, above its tables."""
    pictures = []
    if section.title == SUBGROUPS:
        for metric, file in FORESTS.items():
            name = METRIC_NAMES.get(metric, metric)
            shows = f"{name} of each subgroup with its interval; the tables below have the figures"
            pictures.append(Picture(plots / file, shows, f"{name} by subgroup"))
    wanted = {MISSING: (MISSING_PLOT,), CORRUPTED: CORRUPTED_PLOTS.values()}
    for file in wanted.get(section.title, ()):
        if tests := select_plots(metrics).get(file):
            shows = f"Panels of {', '.join(tests)}: what is left; the table has the figures"
            caption = Path(file).stem.replace("_", " ").capitalize()
            pictures.append(Picture(plots / file, shows.replace("_", " "), caption))
    return Section(section.title, [Pictures(pictures), *section.blocks]) if pictures else section
