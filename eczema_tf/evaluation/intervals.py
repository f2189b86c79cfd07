"""95 % intervals and p-values that know which cases belong together.

Photos of one patient are alike, so a group counts as one draw, not each of its cases. Shares have
Wilson's interval at the number of independent cases that would vary as much (design effect); AUROC
has DeLong's on the logit scale; means and paired differences have Student's. Everything else has a
bootstrap's (`bootstrap.py`). `scripts/measure_coverage.py` measures how often the intervals contain
the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm, t

from eczema_tf.evaluation.metrics import Statistic, measure_mean
from eczema_tf.files import Record

LEVEL = 0.95
# groups with a case of each class; with fewer, no interval of AUROC keeps its coverage
MIN_GROUPS = 10
_RARER = " have a case of the rarer class"
_DUST = 1e-12  # of rounding, where all cases are alike
_FEWEST_COPIES, _ONE_GROUP = 2, "one group has most of the cases"


class Estimate(Record):
    """A metric with its interval; what is undefined is None, and `reason` says why."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None = None


class Difference(Estimate):
    """A paired difference; `p` is two-sided, for the hypothesis that there is none."""

    p: float | None = None


@dataclass(frozen=True)
class Sampling:
    """How cases were drawn.

    Attributes:
        groups: int (cases,), 0 and up.
        inflation: What variances are multiplied by, at least 1; see `inflate_for_training`.
    """

    groups: np.ndarray
    inflation: float = 1.0

    def where(self, mask: np.ndarray) -> "Sampling":
        """Selects some cases: `mask` is bool (cases,), or their indices."""
        return Sampling(self.groups[mask], self.inflation)

    def count(self, mask: np.ndarray | None = None) -> int:
        """Counts the groups of some cases, or of all."""
        return len(np.unique(self.groups if mask is None else self.groups[mask]))

    def count_copies(self, mask: np.ndarray) -> float:
        """Counts how many independent cases some are worth if a group's are copies (Kish 1965)."""
        sizes = np.bincount(self.groups[mask])
        return float(sizes.sum() ** 2 / (sizes**2).sum())

    def compute_variance(self, influence: np.ndarray) -> float:
        """Computes the variance of a statistic between groups (linearised; Binder 1983)."""
        return self.inflation * float((np.bincount(self.groups, influence) ** 2).sum())

    def measure_error(
        self, influence: np.ndarray, kinds: Sequence[np.ndarray]
    ) -> tuple[float, list[float]]:
        """Measures the standard error of a statistic, as a sample shows it.

        Args:
            influence: float64 (cases,).
            kinds: bool (cases,) each, without overlap: the kinds of cases that it uses. A kind has
                one degree of freedom less than its cases are worth as copies, so few groups, or
                very unequal ones, tell less.

        Returns:
            The error, and the degrees of freedom of each kind, at least 1.
        """
        free = [max(self.count_copies(own) - 1, 1) for own in kinds]
        widened = influence.copy()
        for own, freedom in zip(kinds, free, strict=True):
            widened[own] *= np.sqrt((freedom + 1) / freedom)
        return float(np.sqrt(self.compute_variance(widened))), free


def number_groups(groups: np.ndarray | pd.Series) -> np.ndarray:
    """Numbers groups by their names, from 0: int64 (cases,)."""
    return np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]


def inflate_for_training(folds: int) -> float:
    """Computes what a cross-validation's variances are multiplied by.

    Its models have learned from the same cases, so the cases alone vary less than the whole: the
    variance of a mean over k folds is S^2 / k from the cases, plus S^2 / (k - 1), by the ratio of
    judged to learned cases, for other training sets (Nadeau and Bengio 2003).

    Args:
        folds: How many, at least 2.
    """
    return 1 + folds / (folds - 1)


def estimate_share(
    share: Statistic, counted: np.ndarray, sampling: Sampling, reason: str
) -> Estimate:
    """Gives a share Wilson's interval (1927), with the effective number of cases for their number.

    The effective number is how many independent cases would vary as much: at most all, and at least
    what they are worth as copies (Kish 1965). It is smaller if few groups tell how much that is
    (Korn and Graubard 1998), with Satterthwaite's degrees of freedom (1946): the part of the
    variance of copies that independent cases would have is known from all cases, the rest from
    groups. A share of 0 or 1 shows no variation; its cases count as copies.

    Args:
        share: From `measure_mean`, of values in [0, 1].
        counted: bool (cases,), the cases it is a share of.
        sampling: How all cases were drawn.
        reason: Why it is undefined, if it is.
    """
    if np.isnan(share.value):
        return Estimate(value=None, low=None, high=None, reason=reason)
    p, cases = share.value, int(counted.sum())
    independent = copies = sampling.count_copies(counted)
    if 0 < p < 1 and copies > 1:
        variance = sampling.compute_variance(share.influence) / sampling.inflation
        variance *= (1 - 1 / cases) / (1 - 1 / copies)  # so many fewer are free to vary
        own = copies / cases
        freedom = 1 / (own**2 / (cases - 1) + (1 - own) ** 2 / (copies - 1))
        known, told = t.ppf((1 + LEVEL) / 2, [cases - 1, freedom])
        independent = p * (1 - p) / max(variance, 1e-12) * (known / told) ** 2
    independent = min(max(independent, copies), cases)
    low, high = compute_wilson(p, independent / sampling.inflation)
    return Estimate(value=p, low=low, high=high)


def estimate_f1(
    positive: np.ndarray, called: np.ndarray, sampling: Sampling, reason: str
) -> Estimate:
    """Gives F1 the interval of J, the share of cases that are both among those that are either.

    F1 = 2 J / (1 + J) rises with J, Jaccard's index (1912).

    Args:
        positive: bool (cases,).
        called: bool (cases,), which are called positive.
        sampling: How the cases were drawn.
        reason: Why it is undefined, if it is.
    """
    varied = positive.any() and not positive.all()
    either = (positive | called) & varied
    found = estimate_share(measure_mean(positive & called, either), either, sampling, reason)
    rising = {
        name: 2 * share / (1 + share)
        for name, share in (("value", found.value), ("low", found.low), ("high", found.high))
        if share is not None
    }
    return found.model_copy(update=rising)


def compute_wilson(share: float, cases: float) -> tuple[float, float]:
    """Computes Wilson's score interval of a share.

    Args:
        share: In [0, 1].
        cases: Above 0; need not be whole.
    """
    weight = norm.ppf((1 + LEVEL) / 2) ** 2 / cases
    middle = share + weight / 2
    reach = np.sqrt(weight * (share * (1 - share) + weight / 4))
    low, high = (middle - reach) / (1 + weight), (middle + reach) / (1 + weight)
    return max(float(low), 0.0), min(float(high), 1.0)


def estimate_auroc(
    auroc: Statistic, positive: np.ndarray, sampling: Sampling, reason: str
) -> Estimate:
    """Gives an AUROC DeLong's interval for grouped cases on the logit scale.

    (Obuchowski 1997; logit: Qin and Hotilovac 2008.) Student's t has the degrees of freedom of
    Brunner and Munzel (2000), those of both classes' variances (Satterthwaite 1946); a class has as
    many cases as they are worth as copies. A perfect AUROC shows no variation; it has the interval
    of a share that is found in every group of the rarer class.

    Args:
        auroc: From `measure_auroc`.
        positive: bool (cases,).
        sampling: How the cases were drawn.
        reason: Why it is undefined, if it is.
    """
    if np.isnan(auroc.value):
        return Estimate(value=None, low=None, high=None, reason=reason)
    value, rarer = auroc.value, count_rarer_class(positive, sampling)
    if rarer < MIN_GROUPS:
        return Estimate(value=value, low=None, high=None, reason=explain_too_few(rarer))
    if not 0 < value < 1:
        low, high = compute_wilson(value, rarer / sampling.inflation)
        return Estimate(value=value, low=low, high=high)
    classes, parts, unsure = (positive, ~positive), 0.0, 0.0
    error, free = sampling.measure_error(auroc.influence, classes)
    for own, of_class in zip(classes, free, strict=True):
        variance = sampling.measure_error(np.where(own, auroc.influence, 0), [own])[0] ** 2
        parts, unsure = parts + variance, unsure + variance**2 / of_class
    freedom = max(parts**2 / max(unsure, 1e-300), 1)
    reach = t.ppf((1 + LEVEL) / 2, freedom) * error / (value * (1 - value))
    low, high = expit(logit(value) - reach), expit(logit(value) + reach)
    return Estimate(value=value, low=float(low), high=float(high))


def count_rarer_class(positive: np.ndarray, sampling: Sampling) -> int:
    """Counts the groups with a case of the class that fewer groups have."""
    return min(sampling.count(positive), sampling.count(~positive))


def explain_too_few(groups: int, having: str = _RARER) -> str:
    """Says why there is no interval."""
    return f"no interval: {groups} groups{having}, {MIN_GROUPS} are needed"


def estimate_mean(
    mean: Statistic, sampling: Sampling, reason: str, kinds: Sequence[np.ndarray] = ()
) -> Estimate:
    """Gives a mean or a coefficient Student's interval.

    There is none with fewer than `MIN_GROUPS` groups, or if one group has most of the cases, or if
    no case differs from the others: after twelve that agree, one more may differ.

    Args:
        mean: The statistic.
        sampling: How the cases were drawn.
        reason: Why it is undefined, if it is.
        kinds: bool (cases,) each: the kinds of cases that it uses, such as both classes; the rarer
            one gives the degrees of freedom. Empty: all cases are of one kind.
    """
    return _estimate_mean(mean, sampling, reason, kinds)[0]


def _estimate_mean(
    mean: Statistic, sampling: Sampling, reason: str, kinds: Sequence[np.ndarray]
) -> tuple[Estimate, float]:
    """Also returns a p-value, for a mean of 0; NaN without an interval."""
    if np.isnan(mean.value):
        return Estimate(value=None, low=None, high=None, reason=reason), np.nan
    kinds = kinds or [np.ones(len(sampling.groups), bool)]
    groups = min(sampling.count(own) for own in kinds)
    if groups < MIN_GROUPS:
        reason = explain_too_few(groups, _RARER if len(kinds) > 1 else "")
        return Estimate(value=mean.value, low=None, high=None, reason=reason), np.nan
    error, free = sampling.measure_error(mean.influence, kinds)
    alike = error <= _DUST * max(abs(mean.value), 1)
    if alike or min(sampling.count_copies(own) for own in kinds) < _FEWEST_COPIES:
        reason = f"no interval: {'no case differs from the others' if alike else _ONE_GROUP}"
        return Estimate(value=mean.value, low=None, high=None, reason=reason), np.nan
    reach = float(t.ppf((1 + LEVEL) / 2, min(free)) * error)
    p = float(2 * t.sf(abs(mean.value) / error, min(free)))
    return Estimate(value=mean.value, low=mean.value - reach, high=mean.value + reach), p


def clip_ends(estimate: Estimate, lowest: float, highest: float) -> Estimate:
    """Clips an interval to the range of the metric."""
    ends = {"low": estimate.low, "high": estimate.high}
    clipped = {
        name: min(max(end, lowest), highest) for name, end in ends.items() if end is not None
    }
    return estimate.model_copy(update=clipped)


def estimate_difference(
    difference: Statistic, sampling: Sampling, reason: str, kinds: Sequence[np.ndarray] = ()
) -> Difference:
    """Gives a paired difference Student's interval and p-value; arguments as `estimate_mean`."""
    estimate, p = _estimate_mean(difference, sampling, reason, kinds)
    found = estimate.model_dump(exclude_unset=True)
    return Difference(**found) if np.isnan(p) else Difference(**found, p=p)


def estimate_unpaired(one: Estimate, other: Estimate) -> Difference:
    """Gives the difference of two estimates, on different cases, an interval from theirs.

    (Newcombe 1998, method 10, for shares; Zou and Donner 2008 for any.) It is undefined, or without
    an interval, if one of the two is.
    """
    if one.value is None or other.value is None:
        reason = one.reason or other.reason
        return Difference(value=None, low=None, high=None, reason=reason)
    value = one.value - other.value
    if one.low is None or one.high is None or other.low is None or other.high is None:
        reason = one.reason or other.reason
        return Difference(value=value, low=None, high=None, reason=reason)
    below = np.hypot(one.value - one.low, other.high - other.value)
    above = np.hypot(one.high - one.value, other.value - other.low)
    return Difference(value=value, low=float(value - below), high=float(value + above))
