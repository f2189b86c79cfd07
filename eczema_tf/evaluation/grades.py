"""Grades of severity from cumulative logits: their probabilities, and the grade that is named."""

import numpy as np

from eczema_tf.schema import SEVERITY


def compute_sigmoid(logits: np.ndarray) -> np.ndarray:
    """Unlike SciPy's `expit`, gives the same last bit as earlier runs have written."""
    small = np.exp(-np.abs(logits))  # no overflow, however large the logit
    return np.where(logits >= 0, 1, small) / (1 + small)


def compute_grade_probabilities(logits: np.ndarray) -> np.ndarray:
    """Turns cumulative logits into a probability for each grade.

    Args:
        logits: float (cases, grades - 1); sigmoid(logits[:, k]) = P(grade > k), so they should not
            increase along a row.

    Returns:
        float64 (cases, grades), each at least 0, rows sum to 1; NaN where a logit is.
    """
    edge = np.ones((len(logits), 1))
    worse = np.concatenate([edge, compute_sigmoid(logits), 0 * edge], axis=1)
    steps = np.clip(-np.diff(worse, axis=1), 0, None)
    return steps / steps.sum(axis=1, keepdims=True)


def has_learned(probabilities: np.ndarray) -> np.ndarray:
    """Finds where one of several labels is likelier than the others, bool (cases,).

    A head that had no label to learn from finds all equally likely. Probabilities are float (cases,
    labels).
    """
    return probabilities.max(axis=1) > 1 / probabilities.shape[1] + 1e-3


def name_grades(probabilities: np.ndarray, silent: np.ndarray) -> np.ndarray:
    """Names the grade that is shown and scored: the median of its distribution.

    That is the number of thresholds passed with a probability above one half (Cao, Mirjalili and
    Raschka 2020). It minimises the expected error in grades, which the most probable grade does
    not.

    Args:
        probabilities: float (cases, grades), rows sum to 1, or are NaN.
        silent: bool (cases,), where what the model saw says nothing: only an unclear text.

    Returns:
        object (cases,): the grade; "" where it is not known, which is where there is no
        probability, where what was seen is silent, and where no grade is likelier than another
        (what a head says that had no grade to learn from).
    """
    median = (probabilities.cumsum(axis=1)[:, :-1] < 0.5).sum(axis=1)
    known = has_learned(probabilities) & ~silent
    return np.where(known, np.array(SEVERITY, dtype=object)[median], "")
