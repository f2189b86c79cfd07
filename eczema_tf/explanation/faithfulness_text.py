"""Whether word scores are true: are the symptoms scored high, and does the answer depend on them?

Scores are float (words,). Erasure calls a model, given as a callable from kept words to
probabilities; everything else is NumPy.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.metrics import average_precision_score

# From kept words bool (n, words) to probabilities (n,) of the answer that is explained.
ScoreKept = Callable[[np.ndarray], np.ndarray]

# Shares of the words to erase or keep; DeYoung et al. 2020 also use 1 and 5 %, which is less than
# one word of our texts.
SHARES = (0.1, 0.2, 0.5)


def compute_erasure(
    scores: np.ndarray, score: ScoreKept, shares: Sequence[float] = SHARES
) -> tuple[float, float]:
    """Computes comprehensiveness and sufficiency.

    Source: DeYoung et al. 2020 (ERASER), with the areas over several shares from section 4.

    Args:
        scores: float (words,), at least one; higher means that a word supports the answer more.
        score: The model.
        shares: Of the words, each in (0, 1]; rounded up to whole words.

    Returns:
        Comprehensiveness: the mean drop in the answer's probability when the highest words are
            erased; higher is better.
        Sufficiency: the mean drop when only these words are kept; lower is better, and below 0 the
            other words counted against the answer.
    """
    rank = np.argsort(np.argsort(-scores, kind="stable"), kind="stable")
    highest = np.stack([rank < math.ceil(round(share * len(scores), 9)) for share in shares])
    everything = np.ones((1, len(scores)), bool)
    whole, *rest = score(np.concatenate([everything, ~highest, highest]))
    without, only = np.split(np.asarray(rest, "float64"), 2)
    return float(np.mean(whole - without)), float(np.mean(whole - only))


def compute_ranking_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Computes the average precision with which the strongest scores find the relevant words.

    Strength counts, not sign: a denied symptom matters, too. DeYoung et al. 2020 call this AUPRC
    and compute it from soft token scores in the same way.

    Args:
        scores: float (words,).
        relevant: bool (words,), the words of true phrases.

    Returns:
        A value in (0, 1]; NaN if all words are relevant, or none is.
    """
    if relevant.all() or not relevant.any():
        return float("nan")
    return float(average_precision_score(relevant, np.abs(scores)))


def compute_precision_recall(
    scores: np.ndarray, relevant: np.ndarray, share: float
) -> tuple[float, float]:
    """Computes how many shown words are relevant, and how many relevant words are shown.

    Args:
        scores: float (words,).
        relevant: bool (words,).
        share: A word is shown if its score is at least this share of the strongest, and not 0.

    Returns:
        Precision, NaN if nothing is shown; recall, NaN if nothing is relevant.
    """
    strength = np.abs(scores)
    shown = (strength >= share * strength.max(initial=0.0)) & (strength > 0)
    found = float((shown & relevant).sum())
    precision, recall = (
        found / words.sum() if words.any() else float("nan") for words in (shown, relevant)
    )
    return float(precision), float(recall)
