"""Curves over all thresholds: ROC and precision-recall. A case is called positive when its score is at least the threshold."""

import numpy as np


def compute_roc_curve(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the ROC curve, one point for each distinct score.

    Args:
        scores: float (cases,).
        positive: bool (cases,), both classes present.

    Returns:
        1 - specificity and sensitivity, float64 (points,) each, from (0, 0) to (1, 1); all NaN the
        one whose class is absent.
    """
    true_positives, false_positives = _count_by_threshold(scores, positive)
    return false_positives / _or_nan((~positive).sum()), true_positives / _or_nan(positive.sum())


def compute_pr_curve(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the precision-recall curve, one point for each distinct score.

    Args:
        scores: float (cases,).
        positive: bool (cases,), both classes present.

    Returns:
        Recall and precision, float64 (points,) each, by rising recall; no point where nothing is
        called positive. Recall is all NaN without positives.
    """
    true_positives, false_positives = (
        counts[1:] for counts in _count_by_threshold(scores, positive)
    )
    return true_positives / _or_nan(positive.sum()), true_positives / (
        true_positives + false_positives
    )


def compute_average_precision(recall: np.ndarray, precision: np.ndarray) -> float:
    """Returns the area under a precision-recall curve as a sum of steps: interpolating it would flatter (Davis and Goadrich 2006)."""
    return float((np.diff(recall, prepend=0) * precision).sum())


def _count_by_threshold(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives at each distinct score, from the highest down, with (0, 0) first."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.flatnonzero(np.diff(scores[order], append=-np.inf) < 0)
    true_positives = np.cumsum(positive[order])[last_of_tie]
    return np.r_[0, true_positives], np.r_[0, last_of_tie + 1 - true_positives]


def _or_nan(count: int) -> float:
    return float(count) if count else np.nan
