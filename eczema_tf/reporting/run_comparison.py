"""Runs beside each other, for the terminal, as Markdown and as a page."""

from collections.abc import Mapping, Sequence

from eczema_tf.evaluation.paired_runs import PairedHead
from eczema_tf.evaluation.spread import Spread
from eczema_tf.reporting.document import Block, Bullets, Section, Table
from eczema_tf.reporting.formats import (
    HEAD_NAMES,
    METRIC_NAMES,
    format_estimate,
    format_number,
    format_p,
)

_NOTES = (
    "Each run at its own thresholds. Of the Brier score (mean squared error) less is better, of the"
    " others more.",
    "In brackets 95 % intervals of the paired difference; the cases of one group count as drawn"
    " together. They are of these cases: that another training of the same settings would come out"
    " otherwise is not in them.",
    "The p-values do not allow for looking at several metrics and runs.",
)

_SPREAD_NAMES = {f"auroc_{head}": f"AUROC, {name}" for head, name in HEAD_NAMES.items()}
_SPREAD_NAMES |= {
    "answered": "share answered",
    "consistency_macro_f1": "macro F1, consistency",
    "severity_kappa": "kappa, severity",
}


def build_comparison(
    first: str, others: Mapping[str, Mapping[str, PairedHead]], described: str
) -> Section:
    """Builds one table a comparison.

    Args:
        first: Name of the run that the others are compared with.
        others: By name of a run, what `pair_runs` found by head.
        described: Which cases they are compared on.
    """
    tables = [
        Table(
            f"{name} compared with {first}",
            ("P(eczema) from", "cases", "of", first, name, "difference", "p"),
            [
                [
                    HEAD_NAMES[modality],
                    str(head.cases),
                    METRIC_NAMES.get(metric, metric),
                    format_number(paired.first),
                    format_number(paired.second),
                    format_estimate(paired.difference),
                    format_p(paired.difference.p),
                ]
                for modality, head in heads.items()
                for metric, paired in head.metrics.items()
            ],
        )
        for name, heads in others.items()
    ]
    blocks: list[Block] = [described, *tables, Bullets(_NOTES)]
    return Section("Paired differences", blocks)


def build_spread(spreads: Mapping[str, Spread], seeds: Sequence[int]) -> Section:
    """Builds the table of what repeating a run with other seeds does to its figures.

    Args:
        spreads: By figure, from `measure_spread`.
        seeds: Of the runs.
    """
    rows = []
    for name, spread in spreads.items():
        shown = _SPREAD_NAMES.get(name, METRIC_NAMES.get(name, name.replace("_", " ")))
        of_runs = (spread.mean, spread.sd, spread.lowest, spread.highest)
        rows.append([shown, *map(format_number, of_runs)])
    title = f"{len(seeds)} runs on the test split, seeds {seeds[0]} to {seeds[-1]}"
    notes = (
        "A seed decides about initial weights, the order of training, and who is in which split,"
        " where the manifest does not say so itself.",
        "Sensitivity, specificity, F1, ECE and the share answered are of fusion. SD: between runs;"
        " the intervals of each run are of its test cases.",
    )
    columns = ("figure", "mean", "SD", "lowest", "highest")
    return Section("Spread between seeds", [Table(title, columns, rows), Bullets(notes)])
