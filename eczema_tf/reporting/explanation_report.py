"""What `evaluate --explanations` prints: tables of results, and how far to trust explanations."""

from collections.abc import Iterator, Mapping

from eczema_tf.evaluation.explanation_results import Comparison, ExplanationResults, ModalityResults
from eczema_tf.explanation.spans import INCOMPLETE
from eczema_tf.reporting.document import Block, Bullets, Section, format_text
from eczema_tf.reporting.formats import build_table, format_estimate

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
VERDICTS = ("better than", "not clearly better than", "worse than")  # interval above, over, below 0
SUMS = ("moved", "missed", "unclear")
# rank correlations after a change that should not matter, and after all learning is destroyed
STEADY, SOMEWHAT_STEADY, VANISHED = 0.7, 0.4, 0.2
CHANGES = {
    "fine": "with 256 points on the path",
    "noise": "after a little noise",
    "closing": "after a polite closing sentence",
}


def format_explanations(results: ExplanationResults) -> str:
    """Formats the results as plain text; "-" stands for an undefined value."""
    return format_text([build_explanations(results)], notice="")


def build_explanations(results: ExplanationResults) -> Section:
    """Builds tables of what was measured, and says how far explanations can be trusted."""
    moved = results.contributions
    parts = {
        "photo": "image",
        "text": "text",
        "the photo's share of the two, 0 to 1": "image_share",
    }
    return Section(
        "Explanations",
        [
            f"Explanations of {results.cases} cases ({results.split}): evidence for or against"
            " eczema. Gain: above 0 is better.",
            *_build_modality("Photo", "heatmaps", results.photo),
            *_build_modality("Text", "words", results.text),
            build_table(
                "How far photo and text move the answer, in logits, in cases with both"
                f" ({results.with_both} cases).",
                ("of", "moved"),
                [[name, moved[part]] for name, part in parts.items()],
            ),
        ],
    )


def _build_modality(name: str, things: str, results: ModalityResults | str) -> list[Block]:
    if isinstance(results, str):
        return [f"{name}: {results}"]
    counts = [f"{count} {what.replace('_', ' ')}" for what, count in results.counts.items()]
    cascade = results.randomised
    blocks: list[Block] = [
        build_table(
            f"{name}: {things} by {results.method}, {', '.join(counts)}.",
            ("metric (what is better)", "of", "value", "gain", "cases"),
            _list_figures(things, results.comparisons),
        ),
        build_table(
            "Rank correlation of explanations before and after a change. Random: weights are random"
            " from the top of the model down to a layer"
            f" ({cascade.cases} cases, {cascade.draws} draws).",
            ("change", "correlation", "of absolute values"),
            [
                *([CHANGES[one], kept["correlation"], ""] for one, kept in results.changes.items()),
                *(
                    [f"random down to {depth}", left["correlation"], left["absolute_values"].value]
                    for depth, left in cascade.depths.items()
                ),
            ],
        ),
    ]
    if sums := results.sums:
        moved, missed, unclear = (format_estimate(sums[name]) for name in SUMS)
        blocks.append(
            f"On average, a text moves the logit by {moved}; the scores of its words miss {missed}"
            f" of that. Sum of the scores of texts labelled unclear: {unclear}."
        )
    explained = {
        figure: next(iter(summary.estimates.values()))
        for figure, summary in results.comparisons.items()
    }
    unknown = [f"{NAMES[at]}: {one.reason}" for at, one in explained.items() if one.value is None]
    return [*blocks, "How far to trust them:", Bullets([*unknown, *describe_trust(results)])]


def _list_figures(things: str, comparisons: Mapping[str, Comparison]) -> Iterator[list[object]]:
    """Yields the row of each metric, followed by those of its baselines."""
    for figure, summary in comparisons.items():
        explained = next(iter(summary.estimates.values()))
        yield [f"{NAMES[figure]} ({summary.better})", things, explained, "", summary.cases]
        for baseline, gain in summary.gain_over.items():
            yield ["", BASELINES[baseline], summary.estimates[baseline], gain, ""]


def describe_trust(results: ModalityResults) -> Iterator[str]:
    """Says in words what the results support; a verdict is clear if its interval excludes 0."""
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
        # if half of the maps are inverted, the mean is 0 although they show the same as before
        stressed = last["absolute_values"].value or 0.0
        stays = abs(left) >= VANISHED or stressed >= SOMEWHAT_STEADY
        rest = "they remain: do not trust them" if stays else "next to nothing is left of them"
        yield f"with all weights random: {rest}"
