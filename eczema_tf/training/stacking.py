"""How far to trust each head, and each part of the fusion, as other cases show.

A head that has memorised a few photos is surest on those, and wrong on others. Other cases show the
slope that its evidence deserves, for each kind of case: a photo, a text, and both.
"""

from collections.abc import Sequence

import keras
import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from eczema_tf.model.features import predict_rows
from eczema_tf.model.fusion import ECZEMA_SUM
from eczema_tf.schema import ECZEMA_HEADS, MODALITIES
from eczema_tf.training.data import TrainingData

# Penalty on the slopes' squared distance from 1 and the shift's from 0, which is where evidence is
# independent and as strong as it says. Four undecided cases with evidence of 1 weigh as much.
# Chosen on development data (docs/log.md).
PENALTY = 1.0
FLATTEST = 0.05  # slope: evidence keeps its order
# Slopes of the evidence's parts, then a shift, all on log-odds: by "image" and "text", for that
# head only; by "fusion", for the photo's, the text's and the joint evidence of cases with both
Scales = dict[str, np.ndarray]


def find_scales(model: keras.Model, data: TrainingData, prior: float) -> Scales:
    """Finds, on the validation rows, the scales that make log-odds mean what they say.

    For a single head, that is Platt scaling (Platt 1999; Guo et al. 2017); for the fusion, it is
    stacking (Wolpert 1992) of what the scaled heads say and the joint term.

    Args:
        model: Just trained, with the scales it was built with; takes what `data.inputs` gives.
        data: With validation rows; a kind of case without any keeps its scale.
        prior: Prior log-odds of its fusion.
    """
    scales = {
        **{name: np.array([1.0, 0]) for name in MODALITIES},
        "fusion": np.array([1.0, 1, 1, 0]),
    }
    rows = data.val_rows[data.labelled[data.val_rows]]
    if not len(rows):
        return scales
    logits = predict_rows(model, data.inputs, rows)
    alone = np.hstack([logits[ECZEMA_HEADS[name]] - prior for name in MODALITIES])  # (rows, 2)
    parts = np.hstack([alone, logits["eczema"] - prior - alone.sum(axis=1, keepdims=True)])
    targets = data.targets["eczema"][rows, 0]
    present = {name: data.inputs.present(name)[rows] for name in MODALITIES}
    present["fusion"] = np.logical_and(*present.values())
    for index, name in enumerate(MODALITIES):
        own, weights = present[name], data.weights[ECZEMA_HEADS[name]][rows]
        slope, shift = fit_scale(parts[own, index : index + 1], prior, targets[own], weights[own])
        scales[name] = np.array([slope, shift])
        parts[:, index] = parts[:, index] * slope + shift
    own, weights = present["fusion"], data.weights["eczema"][rows]
    scales["fusion"] = fit_scale(parts[own], prior, targets[own], weights[own])
    return scales


def fit_scale(
    parts: np.ndarray, prior: float, targets: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Fits log-odds prior + parts @ slopes + shift by logistic regression.

    With a ridge around slopes of 1 and no shift; slopes are not negative (Breiman 1996).

    Args:
        parts: float (rows, parts), log-odds of evidence.
        prior: Log-odds.
        targets: float (rows,) in [0, 1].
        weights: float (rows,), at least 0.

    Returns:
        float64 (parts + 1,), slopes, at least `FLATTEST`, and the shift.
    """
    start = np.append(np.ones(parts.shape[1]), 0.0)
    design = np.column_stack([parts, np.ones(len(parts))])
    bounds = [(FLATTEST, None)] * parts.shape[1] + [(None, None)]
    return fit_log_odds(design, prior, targets, weights, start, PENALTY, bounds)


def fit_log_odds(
    design: np.ndarray,
    offset: np.ndarray | float,
    targets: np.ndarray,
    weights: np.ndarray,
    start: np.ndarray,
    penalty: np.ndarray | float,
    bounds: Sequence[tuple[float | None, float | None]] | None = None,
) -> np.ndarray:
    """Fits log-odds offset + design @ coefficients by logistic regression.

    Args:
        design: float (rows, coefficients).
        offset: float (rows,), or one for all.
        targets: As in `fit_scale`.
        weights: As in `fit_scale`.
        start: float (coefficients,), the result if nothing is known.
        penalty: On the squared distance from there, of each coefficient or of all.
        bounds: Bounds of each coefficient; None for none.

    Returns:
        float64 (coefficients,).
    """

    def loss(found: np.ndarray) -> tuple[float, np.ndarray]:
        logits = offset + design @ found
        losses = weights * (np.logaddexp(0, logits) - targets * logits)
        residuals, away = weights * (expit(logits) - targets), found - start
        return losses.sum() + (penalty * away) @ away / 2, residuals @ design + penalty * away

    return minimize(loss, start, method="L-BFGS-B", jac=True, bounds=bounds).x


def scale_log_odds(model: keras.Model, scales: Scales, prior: float) -> None:
    """Puts scales into the heads' own weights and into the fusion's sum.

    Args:
        model: As `find_scales` took it.
        scales: From `find_scales`.
        prior: As in `find_scales`.
    """
    for name in MODALITIES:
        head, (slope, shift) = model.get_layer(ECZEMA_HEADS[name]), scales[name]
        head.kernel.assign(head.kernel * slope)
        head.bias.assign(prior + slope * (head.bias - prior) + shift)
    total, (*slopes, shift) = model.get_layer(ECZEMA_SUM), scales["fusion"]
    total.slopes.assign(slopes)
    total.shift.assign(shift)
