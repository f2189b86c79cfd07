"""The table of results that a command prints."""

import textwrap
from collections.abc import Mapping
from typing import Any

from eczema_tf.schema import NOTICE

COLUMNS = 100
HEAD_NAMES = {"image": "photo", "text": "text", "fusion": "both (fusion)"}
SUBSET_NAMES = {
    "image_ambiguous": "photo ambiguous",
    "text_ambiguous": "text ambiguous",
    "image_missing": "photo missing",
    "text_missing": "text missing",
    "both_present": "both present",
}
_FIGURE_NAMES = {"auroc": "AUROC", "f1": "F1", "macro_f1": "macro F1", "mae": "MAE"}
_BOUNDS_SUFFIX = {"known posterior": "*", "model probability": "**"}
_FOOTNOTES = {
    "known posterior": "* by the known posterior, 0.2 to 0.8",
    "model probability": "** by the model's own probability, 0.25 to 0.75",
}


def format_table(metrics: Mapping[str, Any]) -> str:
    """Formats the figures as plain text of at most 100 columns.

    Args:
        metrics: From `compute_metrics`, or read from `metrics.json`.

    Returns:
        Several lines, without a final newline. "-" stands for an undefined figure; the reasons are
        listed at the end.
    """
    blocks = [
        _format_title(metrics),
        _format_heads(metrics),
        [format_gain(metrics["fusion_gain"])],
        _format_subsets(metrics["subsets"]),
    ]
    blocks.insert(1, _format_leaks(metrics.get("leaks")))
    blocks += [
        _format_grades(metrics),
        [f"- {line}" for line in list_reasons(metrics)],
        _format_confusions(metrics),
        textwrap.wrap(NOTICE, COLUMNS),
    ]
    return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def format_estimate(estimate: Mapping[str, Any], digits: int = 3) -> str:
    """Formats a figure and its interval, `0.872 [0.821, 0.918]`; "-" if it is undefined."""
    if estimate["value"] is None:
        return "-"
    value = f"{estimate['value']:.{digits}f}"
    if estimate["low"] is None:
        return f"{value} [no interval]"
    return f"{value} [{estimate['low']:.{digits}f}, {estimate['high']:.{digits}f}]"


def _format_title(metrics: Mapping[str, Any]) -> list[str]:
    bootstrap, fusion = metrics["bootstrap"], metrics["heads"]["fusion"]
    return [
        (
            f"{metrics['split']}: {metrics['cases']} cases, {metrics['labelled']} with an eczema"
            f" label, {fusion['positives']} of them eczema"
        ),
        (
            f"in brackets: {bootstrap['level']:.0%} intervals, {bootstrap['replicates']} resamples"
            f" of {bootstrap['groups']} groups"
        ),
    ]


def _format_leaks(leaks: Mapping[str, Any] | None) -> list[str]:
    """What was allowed to straddle the splits; the figures below it are too good."""
    if not leaks or not leaks["leaks"]:
        return []
    warning = (
        f"WARNING: {leaks['leaks']} leaks between the splits were allowed (--allow-leaks); these"
        " figures are too good, for instance:"
    )
    return textwrap.wrap(warning, COLUMNS) + [
        line for example in leaks["examples"][:3] for line in textwrap.wrap(f"  {example}", COLUMNS)
    ]


def _format_heads(metrics: Mapping[str, Any]) -> list[str]:
    limits = metrics.get("limit", {})
    lines = [
        f"{'P(eczema) from':<14} {'cases':>5}  {'AUROC':<20} {'limit':>6} {'gap':>6} "
        f" {'sensitivity':>11} {'specificity':>11} {'F1':>6} {'threshold':>9}"
    ]
    for modality, head in metrics["heads"].items():
        limit, auroc = limits.get(modality), head["auroc"]["value"]
        gap = None if limit is None or auroc is None else limit - auroc
        bounds = f"{format_number(limit):>6} {format_number(gap):>6}"
        lines.append(
            f"{HEAD_NAMES[modality]:<14} {head['cases']:>5}  {format_estimate(head['auroc']):<20}"
            f" {bounds}  {_value(head['sensitivity']):>11} {_value(head['specificity']):>11}"
            f" {_value(head['f1']):>6} {head['threshold']:>9.3f}"
        )
    return lines


def format_gain(gain: Mapping[str, Any]) -> str:
    """Says what fusion gains over the better single head, from `metrics["fusion_gain"]`."""
    over = f"{HEAD_NAMES[gain['over']]} alone" if gain["over"] else "the better single head"
    value = (
        format_estimate(gain)
        if gain["value"] is None
        else f"{'+' if gain['value'] >= 0 else ''}{format_estimate(gain)}"
    )
    return (
        f"AUROC of fusion minus {over}, paired, {gain['cases']} cases with photo and text: {value}"
    )


def _format_subsets(subsets: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{'AUROC where':<18} {'cases':>5}  "
        + " ".join(f"{name:<21}" for name in HEAD_NAMES.values()).rstrip()
    ]
    for name, subset in subsets.items():
        figures = " ".join(
            f"{format_estimate(subset['heads'][modality]['auroc']):<21}" for modality in HEAD_NAMES
        )
        label = SUBSET_NAMES[name] + _BOUNDS_SUFFIX.get(subset["defined_by"], "")
        lines.append(f"{label:<18} {subset['cases']:>5}  {figures}".rstrip())
    used = {subset["defined_by"] for subset in subsets.values()}
    return lines + [note for defined_by, note in _FOOTNOTES.items() if defined_by in used]


def _format_grades(metrics: Mapping[str, Any]) -> list[str]:
    consistency, severity = metrics["consistency"], metrics["severity"]
    return [
        (
            f"{'consistency':<12} {consistency['cases']:>5} cases  macro F1"
            f" {format_estimate(consistency['macro_f1'])}  accuracy"
            f" {format_estimate(consistency['accuracy'])}"
        ),
        (
            f"{'severity':<12} {severity['cases']:>5} cases  quadratic kappa"
            f" {format_estimate(severity['kappa'])}  MAE {format_estimate(severity['mae'])} grades"
        ),
    ]


def _format_confusions(metrics: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in ("consistency", "severity"):
        confusion = metrics[name]["confusion"]
        if metrics[name]["cases"]:
            lines.append(
                f"{name + ': true':<20}"
                + "".join(f"{label:>10}" for label in confusion["labels"])
                + "  (predicted)"
            )
            rows = zip(confusion["labels"], confusion["counts"], strict=True)
            lines += [
                f"  {label:<18}" + "".join(f"{count:>10}" for count in counts)
                for label, counts in rows
            ]
    return lines


def list_reasons(metrics: Mapping[str, Any]) -> list[str]:
    """Says why figures of the main table are undefined, one line a reason; those of the subsets are in `metrics.json`."""
    parts = {HEAD_NAMES[modality]: head for modality, head in metrics["heads"].items()}
    parts |= {
        "fusion gain": {"AUROC": metrics["fusion_gain"]},
        "consistency": metrics["consistency"],
        "severity": metrics["severity"],
    }
    figures: dict[tuple[str, str], list[str]] = {}
    for part, estimates in parts.items():
        for name, estimate in estimates.items():
            if isinstance(estimate, Mapping) and "reason" in estimate:
                figures.setdefault((part, estimate["reason"]), []).append(
                    _FIGURE_NAMES.get(name, name)
                )
    return [f"{part}, {', '.join(names)}: {reason}" for (part, reason), names in figures.items()]


def _value(estimate: Mapping[str, Any]) -> str:
    return format_number(estimate["value"])


def format_number(value: float | None) -> str:
    """Formats a figure without an interval; "-" if it is undefined."""
    return "-" if value is None else f"{round(value, 3) + 0.0:.3f}"  # + 0.0 turns -0.000 into 0.000
