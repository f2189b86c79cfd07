"""95 % intervals by a bootstrap over groups.

Photos of one patient are alike, so groups are drawn, not cases: with all their cases or not at all
(cluster bootstrap; Field and Welsh 2007). The interval is the middle 95 % of the resampled values
(percentile method; Efron and Tibshirani 1993, chapter 13). Two metrics computed with the same
weights are paired: their difference has an interval of its own.

A known limit: a perfect value (AUROC 1) is perfect in every resample, so its interval has no
width.
"""

import numpy as np
import pandas as pd

from eczema_tf.files import Record

LEVEL = 0.95
# share of resamples in which a metric may be undefined; beyond it an interval would describe the
# lucky ones
MAX_UNDEFINED = 0.05


class Estimate(Record):
    """A metric with its interval; what is undefined is None, and `reason` says why."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None = None


def draw_weights(
    groups: np.ndarray | pd.Series, replicates: int = 1000, seed: int = 0
) -> np.ndarray:
    """Draws resamples of whole groups, with replacement, as weights of the cases.

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
    names, group_of_case = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    weights = np.ones((1 + replicates, len(group_of_case)))
    if len(names) < 2:
        weights[1:] = 0
        return weights
    drawn = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=replicates
    )
    weights[1:] = drawn[:, group_of_case]
    return weights


def summarise(values: np.ndarray, reason: str = "undefined") -> Estimate:
    """Turns a metric's values in the sample and in the resamples into an estimate.

    Args:
        values: float64 (1 + replicates,), computed with the weights of `draw_weights`; NaN where
            undefined.
        reason: Why the metric is undefined, if it is.

    Returns:
        With a `reason` if the value or its interval is None.
    """
    value, resampled = values[0], values[1:]
    if not np.isfinite(value):
        return Estimate(value=None, low=None, high=None, reason=reason)
    undefined = float(np.mean(~np.isfinite(resampled))) if len(resampled) else 1.0
    if undefined > MAX_UNDEFINED:
        reason = f"no interval: undefined in {undefined:.0%} of the resamples"
        return Estimate(value=float(value), low=None, high=None, reason=reason)
    low, high = np.nanquantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value=float(value), low=float(low), high=float(high))
