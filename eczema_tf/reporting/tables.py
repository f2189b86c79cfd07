"""The results in `metrics.json` as sections of a document.

The terminal, the report page and the model card show these same tables and sentences, each in its
own format (`document.py`).
"""

from collections.abc import Sequence
from dataclasses import replace

from eczema_tf.evaluation.intervals import Estimate
from eczema_tf.evaluation.records import Confusion, Metrics
from eczema_tf.evaluation.results import GUESSED_AMBIGUOUS, KNOWN_AMBIGUOUS
from eczema_tf.reporting.document import Block, Bullets, Table, Warned
from eczema_tf.reporting.formats import (
    HEAD_NAMES,
    METRIC_NAMES,
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
_MARKS = {"known posterior": "*", "model probability": "**"}


def warn_of_leaks(metrics: Metrics) -> list[Block]:
    """Warns if the model has seen some of the cases, and that was allowed."""
    leaks = metrics.leaks
    if leaks is None or not leaks.leaks:
        return []
    return [
        Warned(
            f"{leaks.leaks} leaks between training and these cases were allowed: these results"
            f" are too good. For instance: {'; '.join(leaks.examples[:3])}."
        )
    ]


def mark_leaks(metrics: Metrics, blocks: Sequence[Block]) -> list[Block]:
    """Marks every table, which may be copied out of its report, if there were leaks."""
    if not warn_of_leaks(metrics):
        return [*blocks]
    return [
        replace(block, caption=f"{block.caption} (too good: leaks)")
        if isinstance(block, Table)
        else block
        for block in blocks
    ]


def describe_sample(metrics: Metrics) -> str:
    """Says which cases the metrics are of, and how their intervals were made."""
    bootstrap, positives = metrics.bootstrap, metrics.heads["fusion"].positives
    widened = ""
    if bootstrap.widened:
        widened = (
            f", and they are {bootstrap.widened:.2f} times as wide for the variance of training"
        )
    return (
        f"{metrics.split.capitalize()}: {metrics.cases} cases, {metrics.labelled} with a label:"
        f" {metrics.positive_class} (above {metrics.label_threshold:g}) in {positives}."
        f" In brackets: {bootstrap.level:.0%} intervals; the cases of each of the"
        f" {bootstrap.groups} groups count as drawn together{widened}."
    )


def describe_texts(metrics: Metrics) -> list[Block]:
    """Says how many texts are not read to their end, or are mostly unknown words."""
    found = metrics.texts
    if found is None or not found.texts:
        return []
    cut, unknown = (f"{count} ({count / found.texts:.1%})" for count in (found.cut, found.unknown))
    return [
        f"Texts: {found.texts}; longer than what the model reads (model.text.max_tokens): {cut};"
        f" mostly words that it does not know: {unknown}."
    ]


def tabulate_aurocs(metrics: Metrics) -> Table:
    """Lists the AUROC of each head; on built-in data also the limit and the gap to it."""
    limits, gaps, rows = metrics.bayes_auroc, metrics.bayes_gap or {}, []
    for modality, head in metrics.heads.items():
        row = [HEAD_NAMES[modality], str(head.cases), str(head.positives)]
        row.append(format_estimate(head.auroc))
        if limits:
            row += [format_number(limits.get(modality))]
            row += [format_estimate(gaps[modality]) if modality in gaps else "-"]
        rows.append(row)
    name = metrics.positive_class
    columns = (f"P({name}) from", "cases", name, "AUROC", *(("limit", "gap") if limits else ()))
    return Table("Without a threshold", columns, rows)


def tabulate_decisions(metrics: Metrics) -> Table:
    """Lists what each head's threshold makes of its probabilities."""
    rows = [
        [
            HEAD_NAMES[modality],
            f"{head.threshold:.3f}",
            format_estimate(head.sensitivity),
            format_estimate(head.specificity),
            format_estimate(head.f1),
        ]
        for modality, head in metrics.heads.items()
    ]
    columns = (f"P({metrics.positive_class}) from", "threshold", "sensitivity", "specificity", "F1")
    return Table("At the thresholds chosen on validation", columns, rows)


def describe_gain(metrics: Metrics) -> str:
    """Says what fusion gains over the better single head."""
    gain = metrics.fusion_gain
    over = f"{HEAD_NAMES[gain.over]} alone" if gain.over else "the better single head"
    return (
        f"AUROC of fusion minus {over}, paired, {gain.cases} cases with photo and text:"
        f" {format_difference(gain)}."
    )


def tabulate_subsets(metrics: Metrics) -> Table:
    """Lists the AUROC of each head where fusion has most, or nothing, to do."""
    rows = [
        [
            SUBSET_NAMES[name] + _MARKS.get(subset.defined_by, ""),
            str(subset.cases),
            *(format_estimate(subset.heads[modality].auroc) for modality in HEAD_NAMES),
        ]
        for name, subset in metrics.subsets.items()
    ]
    notes = {
        "known posterior": "by the known posterior, {} to {}".format(*KNOWN_AMBIGUOUS),
        "model probability": "by the model's own probability, {} to {}".format(*GUESSED_AMBIGUOUS),
    }
    used = {subset.defined_by for subset in metrics.subsets.values()}
    explained = [f"{_MARKS[basis]} {note}" for basis, note in notes.items() if basis in used]
    columns = ("cases where", "cases", *HEAD_NAMES.values())
    caption = "; ".join(["AUROC where", *explained])
    return Table(caption, columns, rows)


def tabulate_wordings(metrics: Metrics) -> list[Table]:
    """Lists the AUROC of each head on texts in known and in new words, and their limits, if any."""
    rows = [
        [
            HEAD_NAMES[modality],
            name,
            str(subset.heads[modality].cases),
            format_estimate(subset.heads[modality].auroc),
            format_number((subset.bayes_auroc or {}).get(modality)),
        ]
        for modality in HEAD_NAMES
        for name, subset in (metrics.wordings or {}).items()
    ]
    title = "Texts in wordings that occur in training (known), and in wordings that do not (new)"
    columns = (f"P({metrics.positive_class}) from", "wordings", "cases", "AUROC", "limit")
    return [Table(title, columns, rows)] if rows else []


def describe_labels(metrics: Metrics) -> list[str]:
    """Says how good the consistency and severity heads are, where there are labels."""
    consistency, severity, sentences = metrics.consistency, metrics.severity, []
    if consistency.cases:
        sentences.append(
            f"Consistency: macro F1 {format_estimate(consistency.macro_f1)}, accuracy"
            f" {format_estimate(consistency.accuracy)}."
        )
    for source, grades in (("", severity), *severity.alone.items()):
        if grades.cases:
            name = f"Severity from the {HEAD_NAMES[source]} alone" if source else "Severity"
            limit = grades.best_kappa
            sentences.append(
                f"{name}, of {grades.cases} positive cases: quadratic kappa"
                f" {format_estimate(grades.kappa)}"
                f"{'' if limit is None else f' (limit {format_number(limit)})'}, mean error"
                f" {format_estimate(grades.mae)} grades."
            )
    return sentences


def tabulate_labels(metrics: Metrics) -> list[Table]:
    """Counts what was predicted for each true label of consistency and severity, if any."""
    tables = []
    for name in ("consistency", "severity"):
        confusion: Confusion = getattr(metrics, name).confusion
        cases = sum(map(sum, confusion.counts))
        if cases:
            rows = [
                [label, *map(str, counts)]
                for label, counts in zip(confusion.labels, confusion.counts, strict=True)
            ]
            columns = ("true", *(f"predicted {label}" for label in confusion.labels))
            caption = f"{name.capitalize()}: {cases} cases"
            tables.append(Table(caption, columns, rows))
    return tables


def list_undefined(metrics: Metrics) -> list[Block]:
    """Says why metrics of the main tables are undefined; of the subsets, `metrics.json` says it."""
    parts: dict[str, dict[str, Estimate]] = {
        HEAD_NAMES[modality]: _list_estimates(head) for modality, head in metrics.heads.items()
    }
    parts["fusion gain"] = {"AUROC": metrics.fusion_gain}
    parts["consistency"] = _list_estimates(metrics.consistency)
    parts["severity"] = _list_estimates(metrics.severity)
    names: dict[tuple[str, str], list[str]] = {}
    for part, estimates in parts.items():
        for name, estimate in estimates.items():
            if estimate.reason is not None:
                names.setdefault((part, estimate.reason), []).append(METRIC_NAMES.get(name, name))
    lines = [f"{part}, {', '.join(which)}: {reason}." for (part, reason), which in names.items()]
    return [Bullets(lines)] if lines else []


def _list_estimates(found: object) -> dict[str, Estimate]:
    return {name: value for name, value in vars(found).items() if isinstance(value, Estimate)}
