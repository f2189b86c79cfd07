"""Metrics of a sample.

AUROC, shares and means are `Statistic`s: the value and how each case influences it, from which
`intervals` derives intervals and paired differences in closed form. What is computed from a
confusion matrix and is not a share has no such form: there, a bootstrap resample is a row of
weights (how often each case was drawn), `weights` is float (..., cases), confusion matrices are
(..., true, predicted), results are float64 (...), and all resamples are computed at once. NaN means
undefined, for example with one class only.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata


@dataclass(frozen=True)
class Statistic:
    """A value and its empirical influence function (Hampel 1974).

    Attributes:
        value: NaN where it is undefined.
        influence: float64 (cases,), to first order what each case adds to `value - truth`. Cases of
            one group are added up, and the squares of the sums estimate the variance.
    """

    value: float
    influence: np.ndarray

    def __sub__(self, other: "Statistic") -> "Statistic":
        """Returns the paired difference of statistics on the same cases."""
        return Statistic(self.value - other.value, self.influence - other.influence)


def measure_mean(values: np.ndarray, where: np.ndarray | None = None) -> Statistic:
    """Measures the mean of some cases; of bool values it is a share.

    Args:
        values: float or bool (cases,).
        where: bool (cases,), which count; None for all.
    """
    counted = np.ones(len(values)) if where is None else where.astype("float64")
    return measure_ratio(np.where(counted > 0, values, 0), counted)


def measure_ratio(part: np.ndarray, whole: np.ndarray) -> Statistic:
    """Measures the sum of one thing over the sum of another.

    Args:
        part: float (cases,).
        whole: float (cases,), at least 0. If it is 0 throughout, the ratio is undefined.
    """
    total = whole.sum()
    if not total > 0:
        return Statistic(np.nan, np.zeros(len(whole)))
    ratio = float(part.sum() / total)
    return Statistic(ratio, (part - ratio * whole) / total)


def measure_f1(positive: np.ndarray, called: np.ndarray) -> Statistic:
    """Measures the harmonic mean of precision and sensitivity (van Rijsbergen 1979).

    Args:
        positive: bool (cases,).
        called: bool (cases,), which are called positive.

    Returns:
        0 where no positive case is found. NaN with one true class only: without negatives, calling
        everything positive would score 1.
    """
    varied = positive.any() and not positive.all()
    right = 2.0 * (positive & called)
    return measure_ratio(right, varied * (right + (positive != called)))


def measure_auroc(
    scores: np.ndarray, positive: np.ndarray, models: np.ndarray | None = None
) -> Statistic:
    """Measures P(a positive case scores higher than a negative one), ties counting one half.

    This is the area under the ROC curve (Hanley and McNeil 1982). In cross-validation, only pairs
    that were scored by the same model are compared: two models' scores have different offsets, so
    that pooling them all gives too low a value (Parker, Guenter and Bedo 2007; Airola et al. 2011).

    Args:
        scores: float (cases,), higher means more likely positive.
        positive: bool (cases,).
        models: (cases,), the model that scored each case; None if it was one.

    Returns:
        NaN without a pair. The influences are the structural components of DeLong, DeLong and
        Clarke-Pearson 1988, found by ranks (Sun and Xu 2014); where each case is a group of its own
        and there is one model, `Sampling.measure_error` of both classes is theirs.
    """
    won, pairs = np.zeros(len(scores)), np.zeros(len(scores))  # of each case, in its own model
    models = np.zeros(len(scores)) if models is None else models
    for model in np.unique(models):
        rank = rankdata(scores[models == model])
        for label in (False, True):
            own = (models == model) & (positive == label)
            others = (models == model) & (positive != label)
            below = rank[own[models == model]] - rankdata(scores[own])  # of the other class
            won[own] = below if label else others.sum() - below
            pairs[own] = others.sum()
    if not pairs.any():
        return Statistic(np.nan, np.zeros(len(scores)))
    total = pairs[positive].sum()
    auroc = float(won[positive].sum() / total)
    return Statistic(auroc, (won - auroc * pairs) / total)


def compute_confusion(
    true: np.ndarray, predicted: np.ndarray, weights: np.ndarray, classes: int
) -> np.ndarray:
    """Counts cases by true and predicted class.

    Args:
        true: int or bool (cases,), 0 to classes - 1.
        predicted: The same.
        weights: float (..., cases).
        classes: How many.

    Returns:
        float64 (..., classes, classes): [..., true, predicted].
    """
    cells = np.zeros((len(true), classes * classes))
    cells[np.arange(len(true)), true.astype(int) * classes + predicted.astype(int)] = 1
    return (weights @ cells).reshape(*weights.shape[:-1], classes, classes)


def compute_macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Computes the mean F1 over the classes that occur, whether true or predicted.

    Args:
        confusion: (..., classes, classes).

    Returns:
        NaN with one true class only.
    """
    found = np.diagonal(confusion, axis1=-2, axis2=-1)
    # (..., classes); NaN for a class that is neither true nor predicted anywhere
    by_class = _divide(2 * found, confusion.sum(axis=-1) + confusion.sum(axis=-2))
    mean = _divide(np.nansum(by_class, axis=-1), np.isfinite(by_class).sum(axis=-1))
    return _where_varied(confusion, mean)


def compute_quadratic_kappa(confusion: np.ndarray) -> np.ndarray:
    """Computes the agreement of ordered grades beyond chance (Cohen 1968).

    A miss is weighted by the square of its distance.

    Args:
        confusion: (..., grades, grades).

    Returns:
        At most 1; 0 is chance. NaN with one true grade only.
    """
    miss = _grade_distances(confusion) ** 2
    by_chance = confusion.sum(axis=-1)[..., :, None] * confusion.sum(axis=-2)[..., None, :]
    total = confusion.sum(axis=(-2, -1))
    kappa = 1 - _divide(
        (miss * confusion).sum(axis=(-2, -1)) * total, (miss * by_chance).sum(axis=(-2, -1))
    )
    return _where_varied(confusion, kappa)


def compute_best_kappa(expected: np.ndarray, grades: np.ndarray) -> float:
    """Computes the largest quadratic kappa that any rule on the same evidence can reach.

    For given shares of predicted grades, kappa only grows with their covariance with the expected
    grade, so the best rule cuts the expected grade in two places. All pairs of its percentiles are
    tried.

    Args:
        expected: float (cases,), the exact E[grade | evidence].
        grades: int (cases,), the true grade, 0 to 2.

    Returns:
        At most 1; NaN with one true grade only.
    """
    if len(np.unique(grades)) < 2:
        return np.nan
    cuts, best = np.array([-np.inf, *np.percentile(expected, np.arange(101))]), 0.0
    true = np.eye(3)[grades]  # (cases, grades)
    for low in cuts:
        predicted = (expected > low).astype(int) + (expected > cuts[cuts >= low, None])
        confusion = true.T @ np.eye(3)[predicted]  # (cuts from `low` on, true, predicted)
        best = max(best, float(compute_quadratic_kappa(confusion).max()))
    return best


def compute_grade_error(confusion: np.ndarray) -> np.ndarray:
    """Computes the mean absolute error in grades (mild 0, moderate 1, severe 2).

    Args:
        confusion: (..., grades, grades).

    Returns:
        NaN without cases.
    """
    errors = (_grade_distances(confusion) * confusion).sum(axis=(-2, -1))
    return _divide(errors, confusion.sum(axis=(-2, -1)))


def _where_varied(confusion: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns NaN where all cases are of one true class."""
    return np.where((confusion.sum(axis=-1) > 0).sum(axis=-1) > 1, values, np.nan)


def _grade_distances(confusion: np.ndarray) -> np.ndarray:
    grades = np.arange(confusion.shape[-1])
    return np.abs(np.subtract.outer(grades, grades)).astype("float64")


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divides; NaN where the whole is 0."""
    whole = np.asarray(whole, dtype="float64")
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
