"""The results of an evaluation, on the terminal and, with their caveats, as `report.html`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from eczema_tf.evaluation.intervals import Estimate
from eczema_tf.evaluation.records import Metrics
from eczema_tf.reporting.checklists import tabulate_checklists
from eczema_tf.reporting.comparison_tables import build_external, build_subgroups
from eczema_tf.reporting.document import Block, Bullets, Picture, Pictures, Section, format_page
from eczema_tf.reporting.facts import (
    RunFacts,
    describe_data,
    describe_source,
    list_caveats,
    tabulate_data,
    tabulate_settings,
)
from eczema_tf.reporting.formats import HEAD_NAMES, METRIC_NAMES, format_estimate
from eczema_tf.reporting.plots import DECISION, FORESTS, PR, RELIABILITY, RISK, ROC
from eczema_tf.reporting.probability_tables import (
    tabulate_abstention,
    tabulate_calibration,
    tabulate_net_benefit,
    tabulate_points,
)
from eczema_tf.reporting.stress import (
    CORRUPTED,
    CORRUPTED_PLOTS,
    MISSING,
    MISSING_PLOT,
    build_stress,
    select_plots,
)
from eczema_tf.reporting.tables import (
    describe_clinical,
    describe_gain,
    describe_labels,
    describe_sample,
    describe_texts,
    list_undefined,
    mark_leaks,
    tabulate_aurocs,
    tabulate_decisions,
    tabulate_labels,
    tabulate_subsets,
    tabulate_wordings,
    warn_of_leaks,
)

SUBGROUPS = "Is it as good for everybody?"
# by file: the caption, and the text for those who cannot see the picture
_CURVES = {
    PR: (
        "Precision and recall",
        "Precision-recall curves of the heads, with their average precision; the table above lists"
        " the metrics at the thresholds",
    ),
    RELIABILITY: ("Reliability", "Share of positives against mean probability"),
    DECISION: ("Decision curve", "Net benefit against treatment threshold"),
}
_RISK_CURVE = {RISK: ("Risk", "Accuracy on the surest cases against the share answered")}


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
        A whole HTML page. It contains metrics, counts and case ids; it contains photos or texts
        only if `examples` does.
    """
    areas = [
        f"{HEAD_NAMES[modality]} {format_estimate(head.auroc)}"
        for modality, head in metrics.heads.items()
    ]
    shown = {ROC: ("ROC", f"ROC curves of the heads; areas under them: {'; '.join(areas)}")}
    shown |= _CURVES | (_RISK_CURVE if metrics.abstention else {})
    curves = [Picture(plots / file, shows, caption) for file, (caption, shows) in shown.items()]
    judged = facts.judged and Section("Data judged on", [Bullets(describe_source(facts.judged))])
    heads, *others = build_results(metrics)
    above = _list_pictures(metrics, plots)
    sections = [
        Section("In plain words", [Bullets(say_plainly(metrics))]),
        heads,
        Section("Curves", [Pictures(curves)]),
        *(
            replace(one, blocks=[Pictures(above[one.title]), *one.blocks])
            if above.get(one.title)
            else one
            for one in others
        ),
        *examples,
        *([judged] if judged else []),
        Section("Data", [tabulate_data(facts), Bullets(describe_data(facts))]),
        Section("Model", [tabulate_settings(facts)]),
        Section("What these results do not say", [Bullets(list_caveats(facts, metrics))]),
        Section("Reporting guidelines", mark_leaks(metrics, tabulate_checklists(metrics, facts))),
    ]
    title = f"Results, {metrics.positive_class} or not: {metrics.split}"
    return format_page(title, sections, facts.data.notice)


def _list_pictures(metrics: Metrics, plots: Path) -> dict[str, list[Picture]]:
    """Lists the plots that go above the tables of a section, by the section's title."""
    names = {METRIC_NAMES.get(metric, metric): file for metric, file in FORESTS.items()}
    shows = "{} for each subgroup, with its interval; the tables below list the values"
    panels = {
        file: Picture(
            plots / file,
            f"Panels for {', '.join(tests).replace('_', ' ')}: AUROC, calibration error and"
            " abstention; the table lists the values",
            Path(file).stem.replace("_", " ").capitalize(),
        )
        for file, tests in select_plots(metrics).items()
    }
    return {
        SUBGROUPS: [
            Picture(plots / file, shows.format(name), f"{name[0].upper()}{name[1:]}, by subgroup")
            for name, file in names.items()
        ],
        MISSING: [panels[file] for file in (MISSING_PLOT,) if file in panels],
        CORRUPTED: [panels[file] for file in CORRUPTED_PLOTS.values() if file in panels],
    }


def build_results(metrics: Metrics) -> list[Section]:
    """Builds the sections with results that every format shows."""
    heads: list[Block] = [
        *warn_of_leaks(metrics),
        describe_sample(metrics),
        *describe_texts(metrics),
        tabulate_aurocs(metrics),
        tabulate_decisions(metrics),
        describe_gain(metrics),
        *describe_clinical(metrics),
        *list_undefined(metrics),
    ]
    if metrics.bayes_auroc:
        heads.append(
            "Limit: the AUROC of the exact posterior on the same cases (for severity, the best"
            " kappa), which no model can exceed except by chance. Gap: the limit minus the model's"
            " value, paired."
        )
    name, sentences = metrics.positive_class, describe_labels(metrics)
    external, abstention, subgroups = metrics.external, metrics.abstention, metrics.subgroups
    worth = [*tabulate_points(metrics), tabulate_net_benefit(metrics)]
    tests = {section.title: section.blocks for section in build_stress(metrics)}
    sections: dict[str, Sequence[Block]] = {  # one without blocks is left out
        f"P({name})": heads,
        "Other data than the run's own": build_external(external, name) if external else (),
        "Are the probabilities right?": tabulate_calibration(metrics),
        "What the answers are worth": worth,
        "When it cannot tell": tabulate_abstention(abstention) if abstention else (),
        "Where fusion has most, or nothing, to do": [tabulate_subsets(metrics)],
        **tests,
        "Known words and new ones": tabulate_wordings(metrics),
        SUBGROUPS: build_subgroups(subgroups, name) if subgroups else (),
        "Consistency and severity": [Bullets(sentences), *tabulate_labels(metrics)]
        if sentences
        else (),
    }
    return [
        Section(title, mark_leaks(metrics, blocks)) for title, blocks in sections.items() if blocks
    ]


def say_plainly(metrics: Metrics) -> list[str]:
    """Says how often the model is right, when it does not answer, and what photo and text add."""
    fusion, gain, said = metrics.heads["fusion"], metrics.fusion_gain, []
    found, spared = fusion.sensitivity, fusion.specificity
    if found.value is not None and spared.value is not None:
        ends = (spared.value, spared.high, spared.low)
        value, low, high = (None if end is None else 1 - end for end in ends)
        wrong = _of_hundred(Estimate(value=value, low=low, high=high))
        said.append(
            f"If the model had to answer every case: of 100 such cases that are"
            f" {metrics.positive_class}, it would recognise about {_of_hundred(found)}; of 100"
            f" others, it would get about {wrong} wrong."
        )
    if metrics.abstention and (decided := metrics.abstention.groups["all"]).cases:
        silent = decided.unknown + decided.undecided
        right = f"; of 100 answers that it gives, about {_of_hundred(decided.accuracy)} are right"
        answers = "" if decided.accuracy.value is None else right
        said.append(
            f"The model says that it cannot tell in {silent} of {decided.cases} cases{answers}."
        )
    if gain.low is not None and gain.high is not None:
        unsure = "no better and no worse, as far as these cases show, than"
        verdict = "better than" if gain.low > 0 else "worse than" if gain.high < 0 else unsure
        said.append(f"Photo and text together are {verdict} the better of the two alone.")
    if warn_of_leaks(metrics):
        said.insert(0, "The model has seen some of these cases, so these results are too good.")
    elif metrics.external:
        said.append("These cases do not come from the data that the model was trained on.")
    return said


def _of_hundred(share: Estimate) -> str:
    if share.value is None:
        return "an unknown number"
    value, *ends = (
        f"{100 * one:.{0 if 0.01 <= one <= 0.99 else 1}f}".removesuffix(".0")
        for one in (share.value, share.low, share.high)
        if one is not None
    )
    return f"{value} ({' to '.join(ends)})" if ends else value
