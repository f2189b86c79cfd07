"""The figures of `metrics.json` as tables of a document: what the report page and the model card have in common."""

from collections.abc import Iterator, Mapping
from typing import Any

from eczema_tf.reporting.document import Table
from eczema_tf.reporting.results_table import (
    HEAD_NAMES,
    SUBSET_NAMES,
    format_estimate,
    format_gain,
    format_number,
    list_reasons,
)

_FIGURES = {"sensitivity": "sensitivity", "specificity": "specificity", "f1": "F1"}


def tabulate_aurocs(metrics: Mapping[str, Any]) -> Table:
    """Lists the AUROC of each head; on built-in data also the limit and the gap to it."""
    limits, rows = metrics.get("limit"), []
    for modality, head in metrics["heads"].items():
        auroc, limit = head["auroc"], (limits or {}).get(modality)
        gap = None if limit is None or auroc["value"] is None else limit - auroc["value"]
        bounds = [format_number(limit), format_number(gap)] if limits else []
        rows.append(
            [
                HEAD_NAMES[modality],
                str(head["cases"]),
                str(head["positives"]),
                format_estimate(auroc),
                *bounds,
            ]
        )
    columns = ("P(eczema) from", "cases", "eczema", "AUROC", *(("limit", "gap") if limits else ()))
    return Table(
        f"Without a threshold; in brackets {metrics['bootstrap']['level']:.0%} intervals",
        columns,
        rows,
    )


def tabulate_decisions(metrics: Mapping[str, Any]) -> Table:
    """Lists what each head's threshold makes of its probabilities."""
    rows = [
        [
            HEAD_NAMES[modality],
            f"{head['threshold']:.3f}",
            *(format_estimate(head[name]) for name in _FIGURES),
        ]
        for modality, head in metrics["heads"].items()
    ]
    return Table(
        "At the thresholds chosen on validation",
        ("P(eczema) from", "threshold", *_FIGURES.values()),
        rows,
    )


def tabulate_subsets(metrics: Mapping[str, Any]) -> Table:
    """Lists the AUROC of each head where fusion has most, or nothing, to do."""
    rows = [
        [
            SUBSET_NAMES[name] + (f" (by {subset['defined_by']})" if "ambiguous" in name else ""),
            str(subset["cases"]),
        ]
        + [format_estimate(subset["heads"][modality]["auroc"]) for modality in HEAD_NAMES]
        for name, subset in metrics["subsets"].items()
    ]
    return Table("AUROC where", ("cases where", "cases", *HEAD_NAMES.values()), rows)


def tabulate_labels(metrics: Mapping[str, Any]) -> Iterator[Table]:
    """Counts what was predicted for each true label of consistency and severity, where there are any."""
    for name in ("consistency", "severity"):
        confusion = metrics[name]["confusion"]
        if metrics[name]["cases"]:
            rows = [
                [label, *map(str, counts)]
                for label, counts in zip(confusion["labels"], confusion["counts"], strict=True)
            ]
            columns = ("true", *(f"predicted {label}" for label in confusion["labels"]))
            yield Table(f"{name.capitalize()}: {metrics[name]['cases']} cases", columns, rows)


def describe_labels(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Says how good the consistency and severity heads are, where there are labels; one sentence each."""
    consistency, severity = metrics["consistency"], metrics["severity"]
    if consistency["cases"]:
        yield (
            f"Consistency: macro F1 {format_estimate(consistency['macro_f1'])}, accuracy"
            f" {format_estimate(consistency['accuracy'])}."
        )
    if severity["cases"]:
        yield (
            f"Severity: quadratic kappa {format_estimate(severity['kappa'])}, mean error"
            f" {format_estimate(severity['mae'])} grades."
        )


def describe_sample(metrics: Mapping[str, Any]) -> str:
    """Says on what the figures were computed, and how their intervals."""
    bootstrap, fusion = metrics["bootstrap"], metrics["heads"]["fusion"]
    return (
        f"{metrics['split'].capitalize()}: {metrics['cases']} cases, {metrics['labelled']} with an"
        f" eczema label, {fusion['positives']} of them eczema (a label above"
        f" {metrics['positive_above']:g}). Intervals: {bootstrap['level']:.0%},"
        f" {bootstrap['replicates']} resamples of {bootstrap['groups']} groups."
    )


def describe_gain(metrics: Mapping[str, Any]) -> str:
    """Says what fusion gains over the better single head."""
    return f"{format_gain(metrics['fusion_gain'])}."


def list_undefined(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Says of each undefined figure of the main tables why it is."""
    yield from (f"{line}." for line in list_reasons(metrics))
