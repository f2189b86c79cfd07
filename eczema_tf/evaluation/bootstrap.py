"""Intervals of metrics without a closed form: the middle 95 % of a bootstrap over groups."""

import numpy as np
import pandas as pd

from eczema_tf.evaluation.intervals import LEVEL, Estimate, number_groups

# share of resamples in which a metric may be undefined; beyond it an interval would describe the
# lucky ones
MAX_UNDEFINED = 0.05


def draw_weights(groups: np.ndarray | pd.Series, replicates: int, seed: int) -> np.ndarray:
    """Draws resamples of whole groups, with replacement, as weights of the cases.

    (Cluster bootstrap; Field and Welsh 2007.)

    Args:
        groups: str (cases,), the group of each case.
        replicates: How many resamples.
        seed: Any non-negative integer; the same seed and groups give the same weights, whatever the
            order of the cases.

    Returns:
        float64 (1 + replicates, cases). Row 0 is the sample itself (all 1), the others say how
        often each case was drawn. With fewer than two groups they are all 0: one group says nothing
        about how groups differ.
    """
    group_of_case = number_groups(groups)
    count = group_of_case.max(initial=-1) + 1
    weights = np.ones((1 + replicates, len(group_of_case)))
    if count < 2:
        weights[1:] = 0
        return weights
    drawn = np.random.default_rng(seed).multinomial(
        count, np.full(count, 1 / count), size=replicates
    )
    weights[1:] = drawn[:, group_of_case]
    return weights


def summarise(
    values: np.ndarray,
    reason: str = "undefined",
    *,
    inflation: float = 1.0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """Turns a metric's values in the sample and in the resamples into an estimate.

    The interval is the middle 95 % of the resampled values (percentile method; Efron and
    Tibshirani 1993, chapter 13).

    Args:
        values: float64 (1 + replicates,), computed with the weights of `draw_weights`; NaN where
            undefined.
        reason: Why the metric is undefined, if it is.
        inflation: What the variance of the resampled values is multiplied by.
        bounds: Bounds of the metric.

    Returns:
        With a `reason` if the value or its interval is None.
    """
    value, resampled = values[0], values[1:]
    if not np.isfinite(value):
        return Estimate(value=None, low=None, high=None, reason=reason)
    if not len(resampled):
        reason = "no interval: nothing was resampled, or too few groups"
        return Estimate(value=float(value), low=None, high=None, reason=reason)
    undefined = float(np.mean(~np.isfinite(resampled)))
    if undefined > MAX_UNDEFINED:
        reason = f"no interval: undefined in {undefined:.0%} of the resamples"
        return Estimate(value=float(value), low=None, high=None, reason=reason)
    ends = np.nanquantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if ends[0] == ends[1]:
        reason = "no interval: it is the same in all resamples"
        return Estimate(value=float(value), low=None, high=None, reason=reason)
    low, high = np.clip(value + np.sqrt(inflation) * (ends - value), *bounds)
    return Estimate(value=float(value), low=float(low), high=float(high))
