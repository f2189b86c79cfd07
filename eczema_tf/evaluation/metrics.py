"""Metrics of a weighted sample, for many weightings at once.

A bootstrap resample is a row of weights: how often each case was drawn.

`weights` is float (..., cases), results are float64 (...); NaN means undefined, for example with
one class only. Confusion matrices are (..., true, predicted).
"""

import numpy as np


def compute_auroc(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray, models: np.ndarray | None = None
) -> np.ndarray:
    """Computes P(a positive case scores higher than a negative one); ties count one half.

    (Hanley and McNeil 1982; scikit-learn's does one weighting at a time.)

    In cross-validation, only pairs that were scored by the same model are compared: two models'
    scores have different offsets, so that pooling them all gives too low a figure (Parker, Guenter
    and Bedo 2007; Airola et al. 2011).

    Args:
        scores: float (cases,), higher means more likely positive.
        positive: bool (cases,).
        weights: float (..., cases), at least 0.
        models: (cases,), the model that scored each case; None if it was one.

    Returns:
        float64 (...) in [0, 1]; NaN where no pair has weight.
    """
    won, pairs = np.zeros(weights.shape[:-1]), np.zeros(weights.shape[:-1])
    models = np.zeros(len(scores)) if models is None else models
    for model in np.unique(models):
        own = models == model
        counted = _count_pairs(scores[own], positive[own], weights[..., own])
        won, pairs = won + counted[0], pairs + counted[1]
    return _divide(won, pairs)


def _count_pairs(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the pairs of one case of each class that are in the right order, and of all."""
    order = np.argsort(scores, kind="stable")
    first_of_tie = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 0)
    sorted_weights = weights[..., order]
    positives = np.add.reduceat(sorted_weights * positive[order], first_of_tie, axis=-1)
    negatives = np.add.reduceat(sorted_weights * ~positive[order], first_of_tie, axis=-1)
    below = np.cumsum(negatives, axis=-1) - negatives
    return (positives * (below + negatives / 2)).sum(axis=-1), positives.sum(
        axis=-1
    ) * negatives.sum(axis=-1)


def compute_confusion(
    truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray, classes: int
) -> np.ndarray:
    """Counts cases by true and predicted class.

    Args:
        truth: int or bool (cases,), 0 to classes - 1.
        predicted: The same.
        weights: float (..., cases).
        classes: How many.

    Returns:
        float64 (..., classes, classes): [..., true, predicted].
    """
    cells = np.zeros((len(truth), classes * classes))
    cells[np.arange(len(truth)), truth.astype(int) * classes + predicted.astype(int)] = 1
    return (weights @ cells).reshape(*weights.shape[:-1], classes, classes)


def compute_sensitivity(confusion: np.ndarray) -> np.ndarray:
    """Returns the share of positive cases that are found, from (..., 2, 2); NaN without any."""
    return _divide(confusion[..., 1, 1], confusion[..., 1, :].sum(axis=-1))


def compute_specificity(confusion: np.ndarray) -> np.ndarray:
    """Returns the share of negative cases called negative, from (..., 2, 2); NaN without any."""
    return _divide(confusion[..., 0, 0], confusion[..., 0, :].sum(axis=-1))


def compute_precision(confusion: np.ndarray) -> np.ndarray:
    """Returns the share of positive predictions that are right, from (..., 2, 2); NaN without any."""
    return _divide(confusion[..., 1, 1], confusion[..., :, 1].sum(axis=-1))


def compute_f1(confusion: np.ndarray) -> np.ndarray:
    """Returns the harmonic mean of precision and sensitivity, from (..., 2, 2).

    It is 0 where no positive case is found. NaN with one true class only: without negatives,
    calling everything positive would score 1.
    """
    return np.where(_true_classes(confusion) > 1, _f1_by_class(confusion)[..., 1], np.nan)


def compute_macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Returns the mean F1 over the classes that occur, as label or prediction.

    From (..., classes, classes); NaN with one true class only.
    """
    by_class = _f1_by_class(confusion)
    mean = _divide(np.nansum(by_class, axis=-1), np.isfinite(by_class).sum(axis=-1))
    return np.where(_true_classes(confusion) > 1, mean, np.nan)


def compute_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Returns the share of cases on the diagonal of (..., classes, classes); NaN without cases."""
    return _divide(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def compute_quadratic_kappa(confusion: np.ndarray) -> np.ndarray:
    """Returns agreement beyond chance of ordered grades (weighted kappa, Cohen 1968).

    A miss weighs the square of its distance.

    Args:
        confusion: (..., grades, grades).

    Returns:
        At most 1; 0 is chance. NaN with one true grade only.
    """
    miss = _grade_distances(confusion.shape[-1]) ** 2
    by_chance = confusion.sum(axis=-1)[..., :, None] * confusion.sum(axis=-2)[..., None, :]
    total = confusion.sum(axis=(-2, -1))
    kappa = 1 - _divide(
        (miss * confusion).sum(axis=(-2, -1)) * total, (miss * by_chance).sum(axis=(-2, -1))
    )
    return np.where(_true_classes(confusion) > 1, kappa, np.nan)


def compute_grade_error(confusion: np.ndarray) -> np.ndarray:
    """Returns the mean absolute error in grades, from (..., grades, grades); NaN without cases."""
    return _divide(
        (_grade_distances(confusion.shape[-1]) * confusion).sum(axis=(-2, -1)),
        confusion.sum(axis=(-2, -1)),
    )


def _f1_by_class(confusion: np.ndarray) -> np.ndarray:
    """(..., classes); NaN for a class that is neither true nor predicted anywhere."""
    found = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _divide(2 * found, confusion.sum(axis=-1) + confusion.sum(axis=-2))


def _true_classes(confusion: np.ndarray) -> np.ndarray:
    return (confusion.sum(axis=-1) > 0).sum(axis=-1)


def _grade_distances(grades: int) -> np.ndarray:
    return np.abs(np.subtract.outer(np.arange(grades), np.arange(grades))).astype("float64")


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divides; NaN where the whole is 0."""
    whole = np.asarray(whole, dtype="float64")
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
