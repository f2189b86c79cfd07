"""The table of explanations' results that `evaluate --explanations` prints."""

from collections.abc import Iterator

from eczema_tf.evaluation.explanation_results import ExplanationResults, ModalityResults
from eczema_tf.explanation.spans import INCOMPLETE
from eczema_tf.reporting.formats import format_estimate

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
    "mu_fidelity": "mu-fidelity",
}
BASELINES = {"centred_gaussian": "Gaussian", "edges": "edges", "random": "random"}
VERDICTS = ("better than", "not surely better than", "worse than")  # interval above, over, below 0
SUMS = ("moved", "missed", "unclear")
# rank correlations after a change that should not matter, and after destroying what was learned
STEADY, SOMEWHAT_STEADY, VANISHED = 0.7, 0.4, 0.2
CHANGES = {
    "fine": "with 256 points of the path",
    "noise": "after a little noise",
    "closing": "after a polite closing sentence",
}


def format_explanations(results: ExplanationResults) -> str:
    """Formats the results as plain text of at most 100 columns.

    Returns:
        Several lines, without a final newline. "-" stands for an undefined figure.
    """
    moved = results.contributions
    return "\n".join(
        [
            f"explanations of {results.cases} cases ({results.split}): evidence for or against"
            " eczema; gain: above 0 is better",
            "",
            *_format_modality("photo", "heatmaps", results.photo),
            "",
            *_format_modality("text", "words", results.text),
            "",
            "how far they move the answer, in logits, where there are both"
            f" ({results.with_both} cases):",
            f"  photo {format_estimate(moved['image'])}   text {format_estimate(moved['text'])}",
            f"  the photo's share of the two {format_estimate(moved['image_share'])}",
        ]
    )


def _format_modality(name: str, things: str, results: ModalityResults | str) -> Iterator[str]:
    if isinstance(results, str):
        yield f"{name}: {results}"
        return
    counts = ", ".join(
        f"{count} {what.replace('_', ' ')}" for what, count in results.counts.items()
    )
    yield f"{name}: {things} by {results.method}, {counts}"
    for figure, summary in results.comparisons.items():
        title = f"{NAMES[figure]} ({summary.better} is better)"
        explained = next(iter(summary.estimates.values()))
        yield f"  {title:<38} {format_estimate(explained):<22} {summary.cases} cases"
        for baseline, gain in summary.gain_over.items():
            estimate = format_estimate(summary.estimates[baseline])
            yield f"    {BASELINES[baseline]:<18} {estimate:<22} gain {format_estimate(gain)}"
        if explained.value is None:
            yield f"    {explained.reason}"
    for change, estimates in results.changes.items():
        correlation = format_estimate(estimates["correlation"])
        yield f"  {CHANGES[change]:<38} rank correlation {correlation}"
    if sums := results.sums:
        moved, missed, unclear = (format_estimate(sums[name]) for name in SUMS)
        yield f"  logits that a text moves {moved}, of which its words miss {missed}"
        yield f"  sum of the scores of texts labelled unclear {unclear}"
    yield "  how far to trust them:"
    yield from (f"    {said}" for said in describe_trust(results))
    cascade = results.randomised
    yield (
        f"  rank correlation after randomising weights from the top down to ({cascade.cases}"
        f" cases, {cascade.draws} draws):"
    )
    for depth, estimates in cascade.depths.items():
        absolute = estimates["absolute_values"].value
        of_absolute = "-" if absolute is None else f"{absolute:.3f}"
        yield (
            f"    {depth:<36} {format_estimate(estimates['correlation']):<24} of absolute"
            f" values {of_absolute}"
        )


def describe_trust(results: ModalityResults) -> Iterator[str]:
    """Says in words what the figures allow to believe; surely is where the interval is."""
    for figure, summary in results.comparisons.items():
        said: dict[str, list[str]] = {verdict: [] for verdict in VERDICTS}
        for name, gain in summary.gain_over.items():
            if gain.value is not None:
                sign = int((gain.low or 0) > 0) - int((gain.high or 0) < 0)
                said[VERDICTS[1 - sign]].append(BASELINES[name])
        if found := [f"{verdict} {', '.join(names)}" for verdict, names in said.items() if names]:
            yield f"{NAMES[figure]}: {'; '.join(found)}"
    for change, estimates in results.changes.items():
        if (kept := estimates["correlation"].value) is not None:
            level = "steady" if kept >= STEADY else "somewhat steady"
            yield f"{CHANGES[change]}: {level if kept >= SOMEWHAT_STEADY else 'not steady'}"
    moved, missed = (results.sums[name].value if results.sums else None for name in SUMS[:2])
    if moved and missed is not None:
        complete = "complete" if missed <= INCOMPLETE * moved else "not complete"
        yield f"sums of scores: {complete}, {missed / moved:.1%} of what texts move is missing"
    *_, last = results.randomised.depths.values()
    if (left := last["correlation"].value) is not None:
        rest = "nothing is left of them" if abs(left) < VANISHED else "they stay: do not trust them"
        yield f"with all weights random: {rest}"
