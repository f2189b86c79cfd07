"""Between which log-odds a case is undecided: conformal prediction sets of both answers.

A set holds every answer that the case does not contradict; a decision is a set of one. Of the cases
of each kind and each class, one in ten at most is left out of the set in the long run, as long as
new cases come as those of validation did: class-conditional split conformal prediction (Vovk 2012;
Sadinle, Lei and Wasserman 2019). Two order statistics a kind, so no library is needed for it.
"""

import math

import numpy as np
import pandas as pd
from scipy.special import logit

from eczema_tf.evaluation.predictions import is_scored
from eczema_tf.evaluation.thresholds import Thresholds
from eczema_tf.schema import ECZEMA_HEADS

COVERAGE = 0.9
Bounds = dict[str, tuple[float, float]]  # log-odds, by kind of case as in `Thresholds`


def choose_bounds(
    cases: pd.DataFrame, thresholds: Thresholds, label_threshold: float = 0.5
) -> Bounds:
    """Chooses the bounds of each kind of case; the threshold is always between them.

    A case with one modality is answered by its head, so that all cases that have it are looked at.

    Args:
        cases: From `average_rows_by_case`, of the validation split.
        thresholds: From `choose_thresholds`.
        label_threshold: A label greater than this is positive.

    Returns:
        Below the first of two the case is not eczema, above the second it is; infinite where a kind
        has fewer than nine validation cases of a class.
    """
    bounds = {}
    for kind, threshold in thresholds.items():
        scored = cases[is_scored(cases, kind)]
        if kind == "fusion":
            scored = scored[scored["image_used"] & scored["text_used"]]
        logits = scored[f"{ECZEMA_HEADS[kind]}_logit"].to_numpy("float64")
        positive = (scored["eczema"] > label_threshold).to_numpy(bool)
        low, high = find_lowest(logits[positive]), -find_lowest(-logits[~positive])
        cut = float(logit(threshold))
        bounds[kind] = min(low, cut), max(high, cut)
    return bounds


def find_lowest(scores: np.ndarray) -> float:
    """Finds the lowest score that still belongs to a class.

    Args:
        scores: float (cases,) of the class, exchangeable with those to come.

    Returns:
        A score that at most one in ten of those to come is below; minus infinity for too few.
    """
    rank = math.floor((1 - COVERAGE) * (len(scores) + 1) + 1e-9)
    return float(np.sort(scores)[rank - 1]) if rank else -math.inf
