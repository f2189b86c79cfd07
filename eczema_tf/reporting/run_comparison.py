"""Runs beside each other on the same cases, for the terminal, as Markdown and as a page."""

from collections.abc import Mapping

from eczema_tf.evaluation.paired_runs import PairedHead
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
