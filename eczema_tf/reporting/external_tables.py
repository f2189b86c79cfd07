"""Tables of other data beside the run's own: how far from training, and what that costs."""

from eczema_tf.data.distributions import Distribution
from eczema_tf.evaluation.records import External
from eczema_tf.reporting.document import Block, Table
from eczema_tf.reporting.formats import (
    HEAD_NAMES,
    KIND_NAMES,
    METRIC_NAMES,
    format_estimate,
    format_number,
)


def build_external(external: External) -> list[Block]:
    """Builds the shift of inputs, metrics beside the internal ones, and recalibration."""
    metrics = [
        [
            HEAD_NAMES[head],
            METRIC_NAMES.get(metric, metric),
            *(format_estimate(one) for one in (beside.internal, beside.here, beside.difference)),
        ]
        for head, by_metric in external.heads.items()
        for metric, beside in by_metric.items()
        if beside.here.value is not None
    ]
    offsets = [
        [KIND_NAMES[kind], format_estimate(offset)]
        for kind, offset in external.recalibration.items()
    ]
    return [
        *_tabulate_shift(external),
        Table(
            "Beside the run's own test cases; the difference is not paired",
            ("P(eczema) from", "of", "own", "here", "difference"),
            metrics,
        ),
        Table(
            "Recalibration in the large: what added to the log-odds makes the mean probability here"
            " the share of eczema. It is offered, not used: no result above has it",
            ("case", "add to the log-odds"),
            offsets,
        ),
    ]


def _tabulate_shift(external: External) -> list[Block]:
    if not external.shift:
        return ["The run has not kept how its training inputs are distributed: train it anew."]
    rows = [
        [name, *map(_format_inputs, (one.training, one.here)), format_number(one.difference)]
        for name, one in external.shift.items()
    ]
    title = "What these cases hold, beside training: median and the middle 90 %, or shares"
    return [
        Table(title, ("input", "training", "here", "difference"), rows),
        "Difference: of the means in standard deviations, where 0.1 is small and 0.8 large; of"
        " shares, how many cases would have to bear another name.",
    ]


def _format_inputs(found: Distribution) -> str:
    if found.shares is not None:
        return ", ".join(f"{name} {share:.0%}" for name, share in found.shares.items())
    return f"{found.median:.3g} [{found.low:.3g}, {found.high:.3g}]"
