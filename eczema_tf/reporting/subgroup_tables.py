"""Tables of subgroups, and of the gaps between them."""

from eczema_tf.evaluation.subgroups import FACTORS, METRICS, Subgroups
from eczema_tf.reporting.document import Block, Table
from eczema_tf.reporting.formats import METRIC_NAMES, format_estimate, format_p


def build_subgroups(subgroups: Subgroups, positive_class: str) -> list[Block]:
    """Builds what is said of the subgroups: a table for each factor, and the gaps between them."""
    blocks: list[Block] = [
        "The answer from all that a case has. Too high by: the mean probability minus the share of"
        f" positive cases. Too few: under {subgroups.minimum} groups with a case of each class."
    ]
    for name, factor in subgroups.factors.items():
        rows = []
        for value, found in factor.subgroups.items():
            estimates = [format_estimate(getattr(found, metric), 2) for metric in METRICS]
            if found.auroc.value is None:
                estimates[0] = "too few"
            rows.append([value, f"{found.positives} of {found.cases}", *estimates])
        columns = (
            "cases",
            positive_class,
            *(METRIC_NAMES.get(metric, metric) for metric in METRICS),
        )
        blocks.append(Table(f"By {FACTORS[name]}", columns, rows))
    gaps = [
        [
            FACTORS[name],
            METRIC_NAMES.get(metric, metric),
            f"{gap.high} over {gap.low}",
            format_estimate(gap.difference),
            format_p(gap.difference.p),
            "yes" if gap.found else "not shown",
        ]
        for name, factor in subgroups.factors.items()
        for metric, gap in factor.gaps.items()
    ]
    if gaps:
        title = (
            "The clearest gap between two subgroups. Intervals and p-values allow for having looked"
            f" at all pairs and at {subgroups.comparisons} gaps. One that is not shown may exist:"
            " the interval says how large it may be."
        )
        columns = ("by", "of", "between", "difference", "p", "a gap?")
        blocks.append(Table(title, columns, gaps))
    return blocks
