"""Tables of comparisons: between subgroups, other data and the run's own, runs, and seeds."""

from collections.abc import Mapping, Sequence

from eczema_tf.data.distributions import Distribution
from eczema_tf.evaluation.paired_runs import PairedHead, Spread
from eczema_tf.evaluation.records import External
from eczema_tf.evaluation.subgroups import FACTORS, SUBGROUP_METRICS, Subgroups
from eczema_tf.reporting.document import Block, Bullets, Section, Table
from eczema_tf.reporting.formats import HEAD_NAMES, KIND_NAMES, METRIC_NAMES, build_table, format_p

_NOTES = (
    "Each run is evaluated at its own thresholds. For the Brier score (mean squared error), lower"
    " is better; for the others, higher.",
    "In brackets: 95 % intervals of the paired difference, in which the cases of one group count as"
    " drawn together. They hold for these cases only: they do not include how results vary when"
    " training is repeated with the same settings.",
    "The p-values are not corrected for looking at several metrics and runs.",
)
_SUBGROUPS_EXPLAINED = (
    "The answers use everything that a case has. Too high by: the mean probability minus the mean"
    " label. Too few: fewer than {} groups with a case of each class."
)
_SPREAD_NAMES = {f"auroc_{head}": f"AUROC, {name}" for head, name in HEAD_NAMES.items()}
_SPREAD_NAMES |= {
    "answered": "share answered",
    "consistency_macro_f1": "macro F1, consistency",
    "severity_kappa": "kappa, severity",
}
_SPREAD_NOTES = (
    "A seed decides the initial weights, the order of training and, unless the manifest gives the"
    " splits, who is in which split.",
    "Sensitivity, specificity, F1, ECE and the share answered are those of fusion. SD: between"
    " runs; the intervals of each run are over its test cases.",
)


def build_subgroups(subgroups: Subgroups, positive_class: str) -> list[Block]:
    """Builds the tables of subgroups: one for each factor, and one of the gaps between them."""
    metrics = {metric: METRIC_NAMES.get(metric, metric) for metric in SUBGROUP_METRICS}
    tables = [
        build_table(
            f"By {FACTORS[name]}",
            ("cases", positive_class, *metrics.values()),
            [
                [
                    value,
                    f"{found.positives} of {found.cases}",
                    "too few" if found.auroc.value is None else found.auroc,
                    *(getattr(found, metric) for metric in metrics if metric != "auroc"),
                ]
                for value, found in factor.subgroups.items()
            ],
            digits=2,
        )
        for name, factor in subgroups.factors.items()
    ]
    gaps = _tabulate_gaps(subgroups)
    explained = _SUBGROUPS_EXPLAINED.format(subgroups.minimum)
    return [explained, *tables, *([gaps] if gaps.rows else [])]


def _tabulate_gaps(subgroups: Subgroups) -> Table:
    return build_table(
        "The clearest gap between two subgroups. Intervals and p-values are corrected for looking"
        f" at all pairs and at {subgroups.comparisons} gaps. A gap marked 'not shown' may still"
        " exist: its interval says how large it may be.",
        ("by", "of", "between", "difference", "p", "a gap?"),
        [
            [
                FACTORS[name],
                METRIC_NAMES.get(metric, metric),
                f"{gap.high} over {gap.low}",
                gap.difference,
                format_p(gap.difference.p),
                "yes" if gap.found else "not shown",
            ]
            for name, factor in subgroups.factors.items()
            for metric, gap in factor.gaps.items()
        ],
    )


def build_external(external: External, positive_class: str) -> list[Block]:
    """Builds the shift of inputs, the metrics next to the internal ones, and recalibration."""
    metrics = [
        [HEAD_NAMES[head], METRIC_NAMES.get(metric, metric), one.internal, one.here, one.difference]
        for head, by_metric in external.heads.items()
        for metric, one in by_metric.items()
        if one.here.value is not None
    ]
    return [
        *_tabulate_shift(external),
        build_table(
            "Compared with the run's own test cases; the difference is not paired",
            (f"P({positive_class}) from", "of", "own", "here", "difference"),
            metrics,
        ),
        build_table(
            "Recalibration in the large: what to add to the log-odds to make the mean probability"
            f" here equal the mean label ({positive_class}: 1). It is offered, not used: no result"
            " above includes it",
            ("case", "add to the log-odds"),
            [[KIND_NAMES[kind], offset] for kind, offset in external.recalibration.items()],
        ),
    ]


def _tabulate_shift(external: External) -> list[Block]:
    if not external.shift:
        return ["The run did not record how its training inputs are distributed: train it again."]
    return [
        build_table(
            "Inputs of these cases and of training: median and the middle 90 %, or shares",
            ("input", "training", "here", "difference"),
            [
                [name, _format_inputs(one.training), _format_inputs(one.here), one.difference]
                for name, one in external.shift.items()
            ],
        ),
        "Difference: for numbers, between the means, in standard deviations (0.1 is small, 0.8"
        " large); for shares, the share of cases that would have to change category.",
    ]


def _format_inputs(found: Distribution) -> str:
    if found.shares is not None:
        return ", ".join(f"{name} {share:.0%}" for name, share in found.shares.items())
    return f"{found.median:.3g} [{found.low:.3g}, {found.high:.3g}]"


def build_comparison(
    first: str, others: Mapping[str, Mapping[str, PairedHead]], described: str, positive_class: str
) -> Section:
    """Builds one table per comparison.

    Args:
        first: Name of the run that the others are compared with.
        others: By name of a run, what `pair_runs` found for each head.
        described: Which cases they are compared on.
        positive_class: What positive cases are called.
    """
    tables: list[Table] = []
    for name, heads in others.items():
        rows = [
            [
                HEAD_NAMES[modality],
                head.cases,
                METRIC_NAMES.get(metric, metric),
                paired.first,
                paired.second,
                paired.difference,
                format_p(paired.difference.p),
            ]
            for modality, head in heads.items()
            for metric, paired in head.metrics.items()
        ]
        columns = (f"P({positive_class}) from", "cases", "of", first, name, "difference", "p")
        tables.append(build_table(f"{name} compared with {first}", columns, rows))
    return Section("Paired differences", [described, *tables, Bullets(_NOTES)])


def build_spread(spreads: Mapping[str, Spread], seeds: Sequence[int]) -> Section:
    """Builds the table of how a run's metrics vary when it is repeated with other seeds.

    Args:
        spreads: By metric, from `measure_spread`.
        seeds: Of the runs.
    """
    table = build_table(
        f"{len(seeds)} runs, seeds {seeds[0]} to {seeds[-1]}",
        ("metric", "mean", "SD", "lowest", "highest"),
        [
            [
                _SPREAD_NAMES.get(name, METRIC_NAMES.get(name, name.replace("_", " "))),
                *(spread.mean, spread.sd, spread.lowest, spread.highest),
            ]
            for name, spread in spreads.items()
        ],
    )
    return Section("Spread between seeds", [table, Bullets(_SPREAD_NOTES)])
