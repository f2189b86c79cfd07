"""Whether probabilities mean what they say.

Of the cases that get 0.3, three in ten should be eczema. A label may be a share of votes: its mean
is then predicted.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.optimize import bisect
from scipy.special import expit, logit
from scipy.stats import norm, rankdata, t
from sklearn.isotonic import IsotonicRegression

from eczema_tf.evaluation.intervals import (
    LEVEL,
    MIN_GROUPS,
    Estimate,
    Sampling,
    clip_ends,
    count_rarer_class,
    estimate_mean,
    estimate_share,
    explain_too_few,
)
from eczema_tf.evaluation.metrics import Statistic, measure_mean
from eczema_tf.files import Record

MOST_BINS, CASES_A_BIN = 10, 20
_DRAWS = 1000
# logits beyond it would let one case decide slope and intercept; P = 0.0003
_LARGEST_LOGIT = 8.0
_FINITE_LOGIT = 36.0  # the largest that float64 tells from certainty
_UNFITTED = (
    "one class only, equal probabilities, or a threshold that parts the classes: no slope fits"
)


class Bin(Record):
    """Cases with neighbouring probabilities."""

    cases: int
    predicted: float  # mean probability
    observed: Estimate  # share of eczema


class CalibrationError(Record):
    """Expected calibration error (Naeini, Cooper and Hauskrecht 2015) over bins of equal counts.

    Even a perfect model has an error, since few cases scatter: `perfect_mean` on average, and above
    `perfect_limit` in one of 20 samples of this size.
    """

    error: Estimate
    perfect_mean: float | None
    perfect_limit: float | None
    bins: list[Bin]


class Brier(Record):
    """Mean squared error = miscalibration - discrimination + uncertainty.

    Miscalibration is what the best monotone recalibration would save, discrimination how much
    better that is than the prevalence, and uncertainty the score of the prevalence (CORP
    decomposition; Dimitriadis, Gneiting and Jordan 2021). It is exact and needs no bins.
    """

    score: Estimate
    miscalibration: float | None
    discrimination: float | None
    uncertainty: float | None


class Calibration(Record):
    """How well the probabilities of one head are calibrated.

    `in_the_large` is the mean probability minus the share of eczema. `slope` (1 is right, below 1
    answers are overconfident) and `intercept` are those of a logistic regression of the label on
    the logit (Cox 1958).
    """

    brier: Brier
    ece: CalibrationError
    in_the_large: Estimate
    slope: Estimate
    intercept: Estimate


def judge_calibration(
    probabilities: np.ndarray,
    labels: np.ndarray,
    positive: np.ndarray,
    sampling: Sampling,
    reason: str,
) -> Calibration:
    """Judges the probabilities of one head.

    Args:
        probabilities: float64 (cases,) in [0, 1].
        labels: float64 (cases,) in [0, 1].
        positive: bool (cases,), by label.
        sampling: How the cases were drawn.
        reason: Why something is undefined, if it is.
    """
    slope, intercept = (
        estimate_mean(one, sampling, _UNFITTED, (positive, ~positive))
        for one in fit_logistic(probabilities, labels)
    )
    miscalibration, discrimination, uncertainty = decompose_brier(probabilities, labels)
    return Calibration(
        brier=Brier(
            score=clip_ends(
                estimate_mean(measure_mean((probabilities - labels) ** 2), sampling, reason), 0, 1
            ),
            miscalibration=miscalibration,
            discrimination=discrimination,
            uncertainty=uncertainty,
        ),
        ece=estimate_calibration_error(probabilities, labels, positive, sampling, reason),
        in_the_large=clip_ends(
            estimate_mean(measure_mean(probabilities - labels), sampling, reason), -1, 1
        ),
        slope=slope,
        intercept=intercept,
    )


def fit_logistic(probabilities: np.ndarray, labels: np.ndarray) -> tuple[Statistic, Statistic]:
    """Fits logit P(label) = slope * logit(probability) + intercept (Cox 1958).

    Uses Newton's method, starting from a slope of 0; a step that makes it worse is halved.

    Args:
        probabilities: float64 (cases,) in [0, 1].
        labels: float64 (cases,) in [0, 1]; scikit-learn's regression takes no shares.

    Returns:
        Slope and intercept; NaN with one class only, or where a threshold separates the classes.
    """
    undefined = Statistic(np.nan, np.zeros(len(labels)))
    if not len(labels) or not 0 < labels.mean() < 1:
        return undefined, undefined
    logits = np.clip(logit(probabilities), -_LARGEST_LOGIT, _LARGEST_LOGIT)
    design = np.stack([logits, np.ones(len(logits))], axis=1)  # (cases, 2)

    def compute_loss(weights: np.ndarray) -> float:
        return float((np.logaddexp(0, design @ weights) - labels * (design @ weights)).sum())

    found = np.array([0.0, logit(labels.mean())])
    for _ in range(50):
        fitted = expit(design @ found)
        information = design.T @ (design * (fitted * (1 - fitted))[:, None])
        if np.linalg.cond(information) > 1e10 or np.abs(found).max() > 1e3:
            break
        step = np.linalg.solve(information, design.T @ (labels - fitted))
        while compute_loss(found + step) > compute_loss(found) and np.abs(step).max() > 1e-9:
            step /= 2
        found += step
        if np.abs(step).max() < 1e-9:
            influence = (design * (labels - fitted)[:, None]) @ np.linalg.inv(information)
            return Statistic(found[0], influence[:, 0]), Statistic(found[1], influence[:, 1])
    return undefined, undefined


def fit_offset(probabilities: np.ndarray, labels: np.ndarray) -> Statistic:
    """Fits the number that, added to the log-odds, makes the mean probability the mean label.

    That is the intercept of `fit_logistic` where the slope is held at 1.

    Args:
        probabilities: float64 (cases,) in [0, 1].
        labels: float64 (cases,) in [0, 1].

    Returns:
        NaN with one class only.
    """
    if not len(labels) or not 0 < labels.mean() < 1:
        return Statistic(np.nan, np.zeros(len(labels)))
    logits = np.clip(logit(probabilities), -_FINITE_LOGIT, _FINITE_LOGIT)
    offset = bisect(lambda added: (expit(logits + added) - labels).sum(), -80, 80, xtol=1e-12)
    fitted = expit(logits + offset)
    return Statistic(offset, (labels - fitted) / (fitted * (1 - fitted)).sum())


def decompose_brier(
    probabilities: np.ndarray, labels: np.ndarray
) -> tuple[float | None, float | None, float | None]:
    """Splits the Brier score; see `Brier`. None without cases."""
    if not len(labels):
        return None, None, None
    best = IsotonicRegression().fit_transform(probabilities, labels)
    given, recalibrated, constant = (
        float(np.mean((answer - labels) ** 2)) for answer in (probabilities, best, labels.mean())
    )
    return given - recalibrated, constant - recalibrated, constant


def count_bins(cases: int) -> int:
    """Returns how many bins of equal counts to use: 2 to 10, of about 20 cases each."""
    return int(np.clip(cases // CASES_A_BIN, 2, MOST_BINS))


def assign_bins(probabilities: np.ndarray, bins: int) -> np.ndarray:
    """Numbers each case's bin by rising probability, ties in the same bin: int64 (cases,)."""
    rank = rankdata(probabilities) - 1  # equal ones have their mean rank
    bin_of_case = (rank * bins // max(len(rank), 1)).astype("int64")
    return np.unique(bin_of_case, return_inverse=True)[1]  # some may be empty, of many equal ones


def estimate_calibration_error(
    probabilities: np.ndarray,
    labels: np.ndarray,
    positive: np.ndarray,
    sampling: Sampling,
    reason: str = "no cases",
) -> CalibrationError:
    """Estimates the expected calibration error and its interval.

    A bootstrap would not work, since scatter adds to the error instead of cancelling. So possible
    truths are tried, in which probabilities are off by more or less. The interval contains those
    whose samples have an error as large as the observed one, and as small, in at least 2.5 % each
    (test inversion; Casella and Berger 2002, section 9.2).

    Args:
        probabilities: float64 (cases,) in [0, 1].
        labels: float64 (cases,) in [0, 1].
        positive: bool (cases,), by label.
        sampling: How the cases were drawn.
        reason: Why there is no error, if there is none.
    """
    if not len(labels):
        error = Estimate(value=None, low=None, high=None, reason=reason)
        return CalibrationError(error=error, perfect_mean=None, perfect_limit=None, bins=[])
    bin_of_case = assign_bins(probabilities, count_bins(len(labels)))
    errors = labels - probabilities
    gaps = np.bincount(bin_of_case, errors) / np.bincount(bin_of_case)  # (bins,)
    seen = float(np.abs(gaps[bin_of_case]).mean())
    # half of a bin's gap is the one observed there, half is the mean over bins: what is observed is
    # partly chance, and bins that look right by chance would pass for right
    direction = np.where(gaps < 0, -1, 1) * (np.abs(gaps) + seen) / max(2 * seen, 1e-12)
    off = direction[bin_of_case]
    rest = errors - gaps[bin_of_case]
    scatter = _compute_scatter(rest, bin_of_case, sampling) * _measure_noise(labels, rest)
    perfect = _simulate_errors(probabilities, off, bin_of_case, scatter, size=0.0)[1]
    limit, rarer = float(np.quantile(perfect, 0.95)), count_rarer_class(positive, sampling)
    low, high, too_few = None, None, explain_too_few(rarer)
    if rarer >= MIN_GROUPS:
        wider = t.ppf((1 + LEVEL) / 2, rarer - 1) / norm.ppf((1 + LEVEL) / 2)  # as for a mean
        simulate = partial(_simulate_errors, probabilities, off, bin_of_case, wider * scatter)
        low, high = _invert(simulate, seen, largest=seen + 3 * limit)
        # chance makes most observed errors too large, and some of them entirely; no truth has
        # samples that are luckier than a perfect model's
        high = max(high or limit, seen)
    error = Estimate(value=seen, low=low, high=high, **({"reason": too_few} if low is None else {}))
    bins = [
        Bin(
            cases=int(own.sum()),
            predicted=float(probabilities[own].mean()),
            observed=estimate_share(measure_mean(labels, own), own, sampling, "no cases"),
        )
        for own in (bin_of_case == number for number in range(len(gaps)))
    ]
    return CalibrationError(
        error=error, perfect_mean=float(perfect.mean()), perfect_limit=limit, bins=bins
    )


def _compute_scatter(errors: np.ndarray, bin_of_case: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Computes what turns noise of independent cases into that of these: float64 (bins, bins).

    The cases of a group are alike within a bin, and tie bins together. The result is a square root
    of the bins' correlation between groups (Liang and Zeger 1986), times that of the mean design
    effect.

    Args:
        errors: float64 (cases,), with a mean of 0 in each bin.
        bin_of_case: int (cases,).
        sampling: How the cases were drawn.
    """
    sums = np.zeros((sampling.groups.max() + 1, bin_of_case.max() + 1))
    np.add.at(sums, (sampling.groups, bin_of_case), errors)
    covariance = sums.T @ sums
    alike = max(np.trace(covariance) / max(float((errors**2).sum()), 1e-12), 1)
    size = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    correlation = covariance / np.outer(size, size)
    np.fill_diagonal(correlation, 1)  # also of a bin whose cases are all the same
    values, vectors = np.linalg.eigh(correlation)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return np.sqrt(sampling.inflation * alike) * root


def _measure_noise(labels: np.ndarray, errors: np.ndarray) -> float:
    """Measures the noise of labels relative to yes or no: shares of votes have less."""
    if np.isin(labels, (0, 1)).all():
        return 1.0
    chances = np.clip(labels - errors, 0, 1)
    return float(np.sqrt((errors**2).sum() / max((chances * (1 - chances)).sum(), 1e-12)))


def _simulate_errors(
    probabilities: np.ndarray,
    direction: np.ndarray,
    bin_of_case: np.ndarray,
    scatter: np.ndarray,
    size: float,
) -> tuple[float, np.ndarray]:
    """Returns the error of a truth off by `size`, and those of samples of it, float64 (draws,).

    Noise is that of cases that differ, times `scatter`.
    """
    truth = np.clip(probabilities + size * direction, 0, 1)
    counts = np.bincount(bin_of_case)
    share = np.clip(np.bincount(bin_of_case, truth) / counts, 0, 1)  # of eczema, by bin
    drawn = np.random.default_rng(0).binomial(counts, share, (_DRAWS, len(counts))) / counts
    noise = (share - drawn) / np.sqrt(np.maximum(share * (1 - share), 1e-12) / counts)
    # cases of one bin differ, so they scatter less than equal ones would
    spread = np.sqrt(np.bincount(bin_of_case, truth * (1 - truth))) / counts
    off = np.bincount(bin_of_case, probabilities - truth) / counts
    weight = counts / counts.sum()
    samples = np.abs(off + spread * (noise @ scatter)) @ weight
    return float(np.abs(off) @ weight), samples


def _invert(
    simulate: Callable[[float], tuple[float, np.ndarray]], seen: float, largest: float
) -> tuple[float, float]:
    """Finds the errors of the smallest and of the largest truth that fits the observed one."""

    def excess(size: float, side: int) -> float:
        """Measures samples beyond the observed error (1 above, -1 below), less the tail's share."""
        return float((side * (simulate(size)[1] - seen) >= 0).mean()) - (1 - LEVEL) / 2

    def find_end(side: int) -> float:
        if side * excess(0, side) >= 0:
            return 0.0  # a perfect model looks like this too, or rarely this good
        if side * excess(largest, side) <= 0:
            return simulate(largest)[0]
        return simulate(bisect(excess, 0, largest, (side,), xtol=1e-4))[0]

    return find_end(1), find_end(-1)
