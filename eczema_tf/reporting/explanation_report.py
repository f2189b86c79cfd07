"""The table of explanations' figures that `evaluate --explanations` prints."""

from collections.abc import Iterator, Mapping
from typing import Any

from eczema_tf.evaluation.intervals import Estimate
from eczema_tf.reporting.tables import format_estimate

NAMES = {
    "pointing": "pointing game",
    "energy_inside": "energy inside the lesion",
    "deletion": "deletion",
    "insertion": "insertion",
    "average_precision": "average precision",
    "precision": "precision",
    "recall": "recall",
    "comprehensiveness": "comprehensiveness",
    "sufficiency": "sufficiency",
}
_RIVALS = {
    "centred_gaussian": "Gaussian",
    "edges": "edges",
    "random": "random",
    "gradient_x_input": "gradient x input",
}


def format_explanations(figures: Mapping[str, Any]) -> str:
    """Formats the figures as plain text of at most 100 columns.

    Args:
        figures: The contents of `explanations.json`.

    Returns:
        Several lines, without a final newline. "-" stands for an undefined figure.
    """
    lines = [
        f"explanations of {figures['cases']} cases ({figures['split']}): what speaks for or against"
        " eczema; gain: above 0 is better"
    ]
    lines += [
        "",
        *_format_part("photo", "heatmaps", figures["photo"], "photos", ("noise", "a little noise")),
    ]
    lines += [
        "",
        *_format_part(
            "text", "words", figures["text"], "texts", ("closing", "a polite closing sentence")
        ),
    ]
    return "\n".join([*lines, "", *_format_contributions(figures["contributions"])])


def _format_part(
    part: str, things: str, figures: Mapping[str, Any], counted: str, change: tuple[str, str]
) -> Iterator[str]:
    if figures["method"] is None:
        yield f"{part}: {figures['reason']}"
        return
    without = (
        f", {figures['without_evidence']} without evidence" if "without_evidence" in figures else ""
    )
    yield f"{part}: {things} by {figures['method']}, {figures[counted]} {counted}{without}"
    for name, title in NAMES.items():
        if name in figures:
            yield from _format_comparison(title, figures[name])
    if "one_step" in figures:
        yield (
            f"  {'with gradient x input':<38} rank correlation"
            f" {format_estimate(figures['one_step']['correlation'])}"
        )
    yield (
        f"  {'after ' + change[1]:<38} rank correlation"
        f" {format_estimate(figures[change[0]]['correlation'])}"
    )
    yield from _format_cascade(figures["randomised"])


def _format_comparison(title: str, comparison: Mapping[str, Any]) -> Iterator[str]:
    explained, *_ = (value for value in comparison.values() if isinstance(value, Estimate))
    yield (
        f"  {title + ' (' + comparison['better'] + ' is better)':<38}"
        f" {format_estimate(explained):<22} {comparison['cases']} cases"
    )
    for rival, gain in comparison["gain_over"].items():
        yield (
            f"    {_RIVALS[rival]:<18} {format_estimate(comparison[rival]):<22} gain"
            f" {format_estimate(gain)}"
        )
    if explained.value is None:
        yield f"    {explained.reason}"


def _format_cascade(cascade: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"  rank correlation after randomising weights from the top down to ({cascade['cases']}"
        f" cases, {cascade['draws']} draws):"
    )
    for depth in cascade["depths"]:
        absolute = depth["absolute_values"].value
        of_absolute = "-" if absolute is None else f"{absolute:.3f}"
        yield (
            f"    {depth['depth']:<36} {format_estimate(depth['correlation']):<24} of absolute"
            f" values {of_absolute}"
        )


def _format_contributions(figures: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"how far they move the answer, in logits, where there are both ({figures['cases']} cases):"
    )
    yield f"  photo {format_estimate(figures['image'])}   text {format_estimate(figures['text'])}"
    yield f"  the photo's share of the two {format_estimate(figures['image_share'])}"
