"""`report.html`: the figures of one evaluation, what they were computed from, and what they do not say, on a page of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eczema_tf.reporting.document import Bullets, Pictures, Section, Warned, format_page
from eczema_tf.reporting.facts import (
    RunFacts,
    describe_data,
    describe_leaks,
    list_caveats,
    tabulate_data,
    tabulate_settings,
)
from eczema_tf.reporting.plots import PR, ROC
from eczema_tf.reporting.results_table import HEAD_NAMES, format_estimate
from eczema_tf.reporting.tables import (
    describe_gain,
    describe_labels,
    describe_sample,
    list_undefined,
    tabulate_aurocs,
    tabulate_decisions,
    tabulate_labels,
    tabulate_subsets,
)


def format_report(metrics: Mapping[str, Any], facts: RunFacts, plots: Path) -> str:
    """Formats the report.

    Args:
        metrics: As in `metrics.json`.
        facts: Of the run.
        plots: The folder that `write_plots` wrote into.

    Returns:
        A whole HTML page. It holds figures, counts and ids of cases; no photo and no text.
    """
    leaks = describe_leaks(metrics)
    undefined = list(list_undefined(metrics))
    sections = [
        Section(
            "P(eczema)",
            [
                *([Warned(leaks)] if leaks else []),
                describe_sample(metrics),
                tabulate_aurocs(metrics),
                tabulate_decisions(metrics),
                describe_gain(metrics),
                *([Bullets(undefined)] if undefined else []),
                *([_EXPLAINED_LIMIT] if metrics.get("limit") else []),
            ],
        ),
        Section(
            "Curves",
            [
                Pictures(
                    [
                        (plots / ROC, _describe_roc(metrics), "ROC"),
                        (plots / PR, _PR_SHOWS, "Precision and recall"),
                    ]
                )
            ],
        ),
        Section("Where fusion has most, or nothing, to do", [tabulate_subsets(metrics)]),
        *_label_sections(metrics),
        Section("Data", [tabulate_data(facts), Bullets(list(describe_data(facts)))]),
        Section("Model", [tabulate_settings(facts)]),
        Section("What these figures do not say", [Bullets(list(list_caveats(facts, metrics)))]),
    ]
    return format_page(f"Eczema assistant: figures, {metrics['split']}", sections)


def _label_sections(metrics: Mapping[str, Any]) -> list[Section]:
    figures = list(describe_labels(metrics))
    return (
        [Section("Consistency and severity", [Bullets(figures), *tabulate_labels(metrics)])]
        if figures
        else []
    )


def _describe_roc(metrics: Mapping[str, Any]) -> str:
    areas = [
        f"{HEAD_NAMES[modality]} {format_estimate(head['auroc'])}"
        for modality, head in metrics["heads"].items()
    ]
    return f"ROC curves of the heads; areas under them: {'; '.join(areas)}"


_PR_SHOWS = (
    "Precision-recall curves of the heads, with their average precision; the table above has the"
    " figures at the thresholds"
)
_EXPLAINED_LIMIT = (
    "Limit: the AUROC of the exact posterior on the same cases, which no model can pass but for"
    " chance; gap: what is missing."
)
