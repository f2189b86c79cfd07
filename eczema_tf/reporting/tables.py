"""The results in `metrics.json` as tables and sentences.

The terminal, the report page and the model card show these same tables and sentences, each in its
own format (`document.py`).
"""

from collections.abc import Sequence
from dataclasses import replace

from eczema_tf.evaluation.intervals import Estimate
from eczema_tf.evaluation.records import ConsistencyMetrics, GradeMetrics, Metrics
from eczema_tf.evaluation.results import GUESSED_AMBIGUOUS, KNOWN_AMBIGUOUS
from eczema_tf.reporting.document import Block, Bullets, Table, Warned
from eczema_tf.reporting.formats import (
    HEAD_NAMES,
    METRIC_NAMES,
    build_table,
    format_difference,
    format_estimate,
    format_number,
)

SUBSET_NAMES = {
    "image_ambiguous": "photo ambiguous",
    "text_ambiguous": "text ambiguous",
    "image_missing": "photo missing",
    "text_missing": "text missing",
    "both_present": "both present",
}
# by what defines a subset: its mark, and the note that explains the mark
_MARKS = {
    "known posterior": ("*", "by the known posterior, {} to {}".format(*KNOWN_AMBIGUOUS)),
    "model probability": (
        "**",
        "by the model's own probability, {} to {}".format(*GUESSED_AMBIGUOUS),
    ),
}


def warn_of_leaks(metrics: Metrics, *, named: bool = True) -> list[Block]:
    """Warns if the model has seen some of the cases, which the user allowed or asked for.

    Args:
        metrics: Of the cases.
        named: Whether to name a few of the cases, by ids that may be patients'.
    """
    if (leaks := metrics.leaks) is None or not leaks.leaks:
        return []
    said = (
        f"Leaks: some of these cases, photos, texts or groups were also in training or validation"
        f" ({leaks.leaks} found), so these results are too good."
    )
    return [Warned(f"{said} For example: {'; '.join(leaks.examples[:3])}." if named else said)]


def mark_leaks(metrics: Metrics, blocks: Sequence[Block]) -> list[Block]:
    """Marks every table if there were leaks, since a table may be copied out of its report."""
    if not warn_of_leaks(metrics):
        return [*blocks]
    return [
        replace(block, caption=f"{block.caption} (too good: leaks)")
        if isinstance(block, Table)
        else block
        for block in blocks
    ]


def describe_sample(metrics: Metrics) -> str:
    """Says which cases the metrics describe, and how their intervals were made."""
    bootstrap, positives = metrics.bootstrap, metrics.heads["fusion"].positives
    factor = bootstrap.widened
    widened = (
        factor
        and f". The intervals are {factor:.2f} times as wide to cover the variance of training"
    )
    return (
        f"{metrics.split.capitalize()}: {metrics.cases} cases, {metrics.labelled} with a label:"
        f" {metrics.positive_class} (label above {metrics.label_threshold:g}) in {positives}."
        f" In brackets: {bootstrap.level:.0%} intervals, in which the cases of each of the"
        f" {bootstrap.groups} groups count as drawn together{widened or ''}."
    )


def describe_texts(metrics: Metrics) -> list[Block]:
    """Says how many texts are not read to the end, or consist mostly of unknown words."""
    if (found := metrics.texts) is None or not found.texts:
        return []
    cut, unknown = (f"{count} ({count / found.texts:.1%})" for count in (found.cut, found.unknown))
    return [
        f"Texts: {found.texts}; longer than the model reads (model.text.max_tokens): {cut};"
        f" mostly words that the model does not know: {unknown}."
    ]


def tabulate_aurocs(metrics: Metrics) -> Table:
    """Lists the AUROC of each head; on built-in data also the limit and the gap to it."""
    limits, gaps, name = metrics.bayes_auroc, metrics.bayes_gap or {}, metrics.positive_class
    rows: list[list[object]] = [
        [HEAD_NAMES[modality], head.cases, head.positives, head.auroc]
        + ([limits.get(modality), gaps.get(modality)] if limits else [])
        for modality, head in metrics.heads.items()
    ]
    columns = (f"P({name}) from", "cases", name, "AUROC", *(("limit", "gap") if limits else ()))
    return build_table("Without a threshold", columns, rows)


def tabulate_decisions(metrics: Metrics) -> Table:
    """Lists how well each head decides at its threshold."""
    return build_table(
        "At the thresholds chosen on validation cases (only one input: its own threshold)",
        (f"P({metrics.positive_class}) from", "threshold", "sensitivity", "specificity", "F1"),
        [
            [HEAD_NAMES[modality], head.threshold, head.sensitivity, head.specificity, head.f1]
            for modality, head in metrics.heads.items()
        ],
    )


def describe_gain(metrics: Metrics) -> str:
    """Says what fusion gains over the better single head."""
    gain = metrics.fusion_gain
    over = f"{HEAD_NAMES[gain.over]} alone" if gain.over else "the better single head"
    return (
        f"AUROC of fusion minus {over}, paired, on {gain.cases} cases with photo and text:"
        f" {format_difference(gain)}."
    )


def describe_clinical(metrics: Metrics) -> list[str]:
    """Says that fusion also uses clinical fields, where it does."""
    if not metrics.clinical:
        return []
    return [
        f"Fusion also uses {', '.join(metrics.clinical)}; photo alone and text alone do not. Its"
        " gain over them, and its results without a photo or a text, are therefore also due to"
        " these fields. A run without `data.clinical` shows what photo and text add to each other."
    ]


def tabulate_subsets(metrics: Metrics) -> Table:
    """Lists the AUROC of each head where fusion has most, or nothing, to do."""
    rows = [
        [
            SUBSET_NAMES[name] + _MARKS.get(subset.defined_by, ("", ""))[0],
            subset.cases,
            *(subset.heads[modality].auroc for modality in HEAD_NAMES),
        ]
        for name, subset in metrics.subsets.items()
    ]
    used = {subset.defined_by for subset in metrics.subsets.values()}
    notes = [f"{mark} {note}" for basis, (mark, note) in _MARKS.items() if basis in used]
    columns = ("cases where", "cases", *HEAD_NAMES.values())
    return build_table("; ".join(["AUROC by subset", *notes]), columns, rows)


def tabulate_wordings(metrics: Metrics) -> list[Table]:
    """Lists the AUROC of each head on texts in known and in new wordings, with any limits."""
    if not metrics.wordings:
        return []
    rows = [
        [HEAD_NAMES[modality], name, head.cases, head.auroc, (limits or {}).get(modality)]
        for modality in HEAD_NAMES
        for name, head, limits in (
            (name, subset.heads[modality], subset.bayes_auroc)
            for name, subset in metrics.wordings.items()
        )
    ]
    title = "Texts in wordings that occur in training (known), and in wordings that do not (new)"
    columns = (f"P({metrics.positive_class}) from", "wordings", "cases", "AUROC", "limit")
    return [build_table(title, columns, rows)]


def describe_labels(metrics: Metrics) -> list[str]:
    """Says how good the consistency and severity heads are, where there are labels."""
    consistency = metrics.consistency
    said = (
        f"Consistency: macro F1 {format_estimate(consistency.macro_f1)}, accuracy"
        f" {format_estimate(consistency.accuracy)}."
    )
    severities: dict[str, GradeMetrics] = {"Severity": metrics.severity}
    severities |= {
        f"Severity from the {HEAD_NAMES[source]} alone": grades
        for source, grades in metrics.severity.alone.items()
    }
    return ([said] if consistency.cases else []) + [
        f"{name}, on {grades.cases} graded cases: quadratic kappa {format_estimate(grades.kappa)}"
        f"{'' if grades.best_kappa is None else f' (limit {format_number(grades.best_kappa)})'},"
        f" mean error {format_estimate(grades.mae)} grades."
        for name, grades in severities.items()
        if grades.cases
    ]


def tabulate_labels(metrics: Metrics) -> list[Table]:
    """Counts what was predicted for each true label of consistency and severity, if any."""
    judged: dict[str, ConsistencyMetrics | GradeMetrics] = {
        "Consistency": metrics.consistency,
        "Severity": metrics.severity,
    }
    return [
        build_table(
            f"{name}: {found.cases} cases",
            ("true", *(f"predicted {label}" for label in found.confusion.labels)),
            [
                [label, *counts]
                for label, counts in zip(
                    found.confusion.labels, found.confusion.counts, strict=True
                )
            ],
        )
        for name, found in judged.items()
        if found.cases
    ]


def list_undefined(metrics: Metrics) -> list[Block]:
    """Says why metrics of the main tables are undefined; `metrics.json` does so for subsets."""
    judged = {HEAD_NAMES[modality]: vars(head) for modality, head in metrics.heads.items()}
    judged |= {"fusion gain": {"auroc": metrics.fusion_gain}}
    judged |= {"consistency": vars(metrics.consistency), "severity": vars(metrics.severity)}
    names: dict[tuple[str, str], list[str]] = {}
    for part, figures in judged.items():
        for name, estimate in figures.items():
            if isinstance(estimate, Estimate) and estimate.reason is not None:
                names.setdefault((part, estimate.reason), []).append(METRIC_NAMES.get(name, name))
    lines = [f"{part}, {', '.join(which)}: {reason}." for (part, reason), which in names.items()]
    return [Bullets(lines)] if lines else []
