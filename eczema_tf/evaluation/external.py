"""External data: how their inputs differ from those of training, and how results change."""

import math
from collections.abc import Mapping

import pandas as pd

from eczema_tf.data.distributions import Distribution
from eczema_tf.evaluation.calibration import fit_offset
from eczema_tf.evaluation.intervals import Estimate, estimate_mean, estimate_unpaired
from eczema_tf.evaluation.records import Beside, External, HeadMetrics, Metrics, Shift
from eczema_tf.schema import ECZEMA_HEADS

_ONE_CLASS = "one class only: no number added to the log-odds makes the mean right"


def compare_inputs(
    training: Mapping[str, Distribution], here: Mapping[str, Distribution]
) -> dict[str, Shift]:
    """Compares how inputs are distributed.

    For numbers, the difference is between the means, in standard deviations (of the mean of both
    variances; Austin 2009); None if both are constant and differ. For names, it is the total
    variation distance: the share of cases that would need another name.

    Args:
        training: From `describe_inputs`, for training rows.
        here: From `describe_inputs`, for other rows.

    Returns:
        By name, of the inputs that both have.
    """
    both = {name: (one, here[name]) for name, one in training.items() if name in here}
    return {
        name: Shift(training=one, here=other, difference=_measure_shift(one, other))
        for name, (one, other) in both.items()
    }


def _measure_shift(one: Distribution, other: Distribution) -> float | None:
    if one.shares is not None and other.shares is not None:
        names = one.shares.keys() | other.shares.keys()
        return sum(abs(one.shares.get(name, 0) - other.shares.get(name, 0)) for name in names) / 2
    if one.mean is None or other.mean is None or one.deviation is None or other.deviation is None:
        return None
    apart, spread = other.mean - one.mean, math.hypot(one.deviation, other.deviation) / math.sqrt(2)
    return apart / spread if spread else 0.0 if apart == 0 else None


def judge_external(
    cases: pd.DataFrame, here: Metrics, internal: Metrics, shift: Mapping[str, Shift]
) -> External:
    """Compares results on other data with those on the run's own test cases.

    Args:
        cases: The other data, from `average_rows_by_case`.
        here: Their metrics.
        internal: Metrics of the run's own test cases.
        shift: From `compare_inputs`.
    """
    sample = here.take(cases)
    heads, recalibration = {}, {}
    for head in ECZEMA_HEADS:
        part = sample.of_kind(head)
        offset = fit_offset(part.probability(head), part.labels())
        classes = part.positive(), ~part.positive()
        recalibration[head] = estimate_mean(offset, part.sampling, _ONE_CLASS, classes)
        own, others = _list_metrics(internal.heads[head]), _list_metrics(here.heads[head])
        heads[head] = {
            name: Beside(internal=own[name], here=one, difference=estimate_unpaired(one, own[name]))
            for name, one in others.items()
            if name in own
        }
    return External(shift=dict(shift), heads=heads, recalibration=recalibration)


def _list_metrics(head: HeadMetrics) -> dict[str, Estimate]:
    found = {name: getattr(head, name) for name in ("auroc", "sensitivity", "specificity", "f1")}
    if head.calibration is None:
        return found
    return found | {
        "in_the_large": head.calibration.in_the_large,
        "slope": head.calibration.slope,
        "ece": head.calibration.ece.error,
    }
