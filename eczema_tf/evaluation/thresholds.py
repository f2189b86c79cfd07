"""The threshold of each head, chosen on validation cases and kept for every later use."""

import logging

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from eczema_tf.evaluation.predictions import PROBABILITY_COLUMNS, is_scored
from eczema_tf.schema import ECZEMA_HEADS

Thresholds = dict[str, float]  # in (0, 1], by "image", "text" and "fusion"
DEFAULT_THRESHOLD = 0.5  # where validation cannot tell
_log = logging.getLogger(__name__)


def choose_kind(image_used: bool, text_used: bool) -> str:
    """Says whose threshold decides on a case: of what was used alone, or of both ("fusion")."""
    if image_used == text_used:
        return "fusion"
    return "image" if image_used else "text"


def choose_thresholds(cases: pd.DataFrame, label_threshold: float = 0.5) -> Thresholds:
    """Chooses a threshold for each head; a probability at or above it is called eczema.

    That of fusion is for cases with photo and text, and chosen on them; without any, on all. A case
    with only one of them is answered by its head, and decided by its threshold.

    Where a head's threshold is undefined (one class only, say), it is 0.5 and a warning is logged.

    Args:
        cases: From `average_rows_by_case`, of the validation split.
        label_threshold: A label greater than this is positive.
    """
    thresholds = {}
    for modality in ECZEMA_HEADS:
        scored = cases[is_scored(cases, modality)]
        both = scored["image_used"] & scored["text_used"]
        if modality == "fusion" and both.any():
            scored = scored[both]
        positive = (scored["eczema"] > label_threshold).to_numpy(bool)
        thresholds[modality], reason = maximise_youden(
            scored[PROBABILITY_COLUMNS[modality]].to_numpy("float64"), positive
        )
        if reason:
            _log.warning("threshold of %s: %s; %s is used", modality, reason, DEFAULT_THRESHOLD)
    return thresholds


def maximise_youden(probabilities: np.ndarray, positive: np.ndarray) -> tuple[float, str]:
    """Finds the threshold with the largest sensitivity + specificity - 1 (Youden 1950).

    It lies halfway between two neighbouring probabilities; among equally good ones it is the
    nearest to 0.5.

    Args:
        probabilities: float64 (cases,) in [0, 1].
        positive: bool (cases,).

    Returns:
        The threshold and "", or `DEFAULT_THRESHOLD` and the reason why there is none.
    """
    if positive.all() or not positive.any():
        reason = f"undefined on {len(positive)} validation cases, {positive.sum()} of them eczema"
        return DEFAULT_THRESHOLD, reason
    false_alarms, sensitivity, distinct = roc_curve(
        positive, probabilities, drop_intermediate=False
    )  # from the highest probability down
    youden = (sensitivity - false_alarms)[1:-1]  # the ends call none or all cases positive
    if not len(youden) or youden.max() <= 0:
        return DEFAULT_THRESHOLD, "no threshold separates the validation cases better than chance"
    high, low = distinct[1:-1], distinct[2:]
    halfway = low + (high - low) / 2
    # between neighbouring floats there is no halfway
    candidates = np.where(halfway > low, halfway, high)
    best = candidates[np.isclose(youden, youden.max(), rtol=0, atol=1e-12)]
    return float(best[np.abs(best - DEFAULT_THRESHOLD).argmin()]), ""
