"""Thresholds and bounds of each head, chosen on validation and kept for every later use."""

import logging
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.special import logit

from eczema_tf.evaluation.predictions import PROBABILITY_COLUMNS, is_scored, take_scored
from eczema_tf.schema import ECZEMA_HEADS

Thresholds = dict[str, float]  # in (0, 1], by "image", "text" and "fusion"
Bounds = dict[str, tuple[float, float]]  # log-odds, by kind of case as in `Thresholds`
DEFAULT_THRESHOLD = 0.5  # where validation cannot tell
COVERAGE = 0.9  # of prediction sets
_ROUNDING = 1e-12  # of shares
_log = logging.getLogger(__name__)


def choose_kind(image_used: bool, text_used: bool) -> str:
    """Returns whose threshold applies to a case: its only modality, or "fusion" with both."""
    if image_used == text_used:
        return "fusion"
    return "image" if image_used else "text"


def choose_thresholds(cases: pd.DataFrame, label_threshold: float) -> Thresholds:
    """Chooses a threshold for each head; a probability at or above it is called eczema.

    Fusion's threshold is for cases with photo and text, and is chosen on them, or on all cases if
    there are none. A case with only one modality is answered by that modality's head, and decided
    by its threshold.

    If a head's threshold is undefined (with one class only, say), it is 0.5 and a warning is
    logged.

    Args:
        cases: From `average_rows_by_case`, of the validation split.
        label_threshold: A label greater than this is positive.
    """
    thresholds = {}
    for modality, probabilities, positive in _divide_by_head(cases, label_threshold):
        thresholds[modality], reason = maximise_youden(probabilities, positive)
        if reason:
            _log.warning("threshold of %s: %s; %s is used", modality, reason, DEFAULT_THRESHOLD)
    return thresholds


def choose_points(
    cases: pd.DataFrame,
    label_threshold: float,
    *,
    sensitivities: Sequence[float],
    specificities: Sequence[float],
) -> dict[str, Thresholds]:
    """Chooses thresholds at which a share of eczema is found, or a share of the rest left alone.

    Of all thresholds that reach the share on validation, it takes the one that errs least on the
    other side.

    Args:
        cases: As in `choose_thresholds`.
        label_threshold: A label greater than this is positive.
        sensitivities: Sensitivities to reach, each in (0, 1).
        specificities: Specificities to reach, each in (0, 1).

    Returns:
        Thresholds by aim, such as "sensitivity 0.9"; without the heads that have one class only.
    """
    points: dict[str, Thresholds] = {}
    for modality, probabilities, positive in _divide_by_head(cases, label_threshold):
        if positive.all() or not positive.any():
            continue
        cuts, sensitivity, specificity = _measure_cuts(probabilities, positive)
        for name, aims, reached, best in (
            ("sensitivity", sensitivities, sensitivity, -1),
            ("specificity", specificities, specificity, 0),
        ):
            for aim in aims:
                threshold = float(cuts[reached >= aim - _ROUNDING][best])
                points.setdefault(f"{name} {aim:g}", {})[modality] = threshold
    return points


def _divide_by_head(
    cases: pd.DataFrame, label_threshold: float
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields each head, its probabilities, and which of its cases are eczema, (cases,) both."""
    for modality in PROBABILITY_COLUMNS:
        both = is_scored(cases, modality) & cases["image_used"] & cases["text_used"]
        chosen = cases[both] if modality == "fusion" and both.any() else cases
        yield modality, *take_scored(chosen, modality, label_threshold)


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
    cuts, sensitivity, specificity = _measure_cuts(probabilities, positive)
    cuts, youden = cuts[1:-1], (sensitivity + specificity - 1)[1:-1]  # the ends call all or none
    if not len(youden) or youden.max() <= _ROUNDING:
        return DEFAULT_THRESHOLD, "no threshold separates the validation cases better than chance"
    best = cuts[np.isclose(youden, youden.max(), rtol=0, atol=_ROUNDING)]
    return float(best[np.abs(best - DEFAULT_THRESHOLD).argmin()]), ""


def _measure_cuts(
    probabilities: np.ndarray, positive: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measures sensitivity and specificity at all distinct thresholds, (cuts,) each, rising.

    They lie halfway between neighbouring probabilities; the first calls all cases, the last none.
    """
    distinct = np.unique(probabilities)
    low, high = distinct[:-1], distinct[1:]
    halfway = low + (high - low) / 2
    # between neighbouring floats there is no halfway
    between = np.where(halfway > low, halfway, high)
    cuts = np.array([distinct[0], *between, np.nextafter(distinct[-1], np.inf)])
    missed, left_alone = (
        np.searchsorted(np.sort(probabilities[of_class]), cuts) / of_class.sum()
        for of_class in (positive, ~positive)
    )
    return cuts, 1 - missed, left_alone


def choose_bounds(cases: pd.DataFrame, thresholds: Thresholds, label_threshold: float) -> Bounds:
    """Chooses the bounds of each kind of case; the threshold is always between them.

    A case with one modality is answered by its head, so all cases that have the modality are used.
    This is class-conditional split conformal prediction (Vovk 2012; Sadinle, Lei and Wasserman
    2019): in the long run, at most one new case in ten of each kind and class is left out, if cases
    come as those of validation did.

    Args:
        cases: From `average_rows_by_case`, of the validation split.
        thresholds: From `choose_thresholds`.
        label_threshold: A label greater than this is positive.

    Returns:
        Two bounds by kind: below the first the case is not eczema, above the second it is; infinite
        if a kind has fewer than nine validation cases of a class.
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
        A score that at most one in ten of those to come is below; minus infinity if there are too
        few.
    """
    rank = math.floor((1 - COVERAGE) * (len(scores) + 1) + 1e-9)
    return float(np.sort(scores)[rank - 1]) if rank else -math.inf
