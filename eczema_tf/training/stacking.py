"""How far the fusion trusts the photo and the text: seen on cases that were not trained on.

A head that has learned few photos by heart is surest on those, and wrong on others. On other cases
its evidence has the slope that it deserves.
"""

import keras
import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from eczema_tf.data.pipeline import build_evaluation_dataset
from eczema_tf.model.features import predict_logits
from eczema_tf.schema import ECZEMA_HEADS, MODALITIES
from eczema_tf.training.data import TrainingData

# Of the slopes' squared distance from 1, where evidence is as strong as it says and independent.
# Four undecided cases with evidence of 1 weigh as much. Chosen on development data (docs/log.md).
PENALTY = 1.0
ROWS = 256  # at once


def find_slopes(model: keras.Model, data: TrainingData, prior: float) -> np.ndarray:
    """Finds the slopes of a model's fusion on the validation rows with photo and text.

    Args:
        model: Just trained, its slopes 1; takes what `data.inputs` gives.
        data: With validation rows, or without: then the slopes stay 1.
        prior: Log-odds of its fusion.

    Returns:
        float64 (2,), of the photo's evidence and the text's.
    """
    present = [data.inputs.present(modality)[data.val_rows] for modality in MODALITIES]
    rows = data.val_rows[np.logical_and(*present) & data.labelled[data.val_rows]]
    if not len(rows):
        return np.ones(2)
    logits = predict_logits(model, build_evaluation_dataset(data.inputs, rows, ROWS))
    evidence = np.hstack([logits[ECZEMA_HEADS[name]] - prior for name in MODALITIES])  # (rows, 2)
    rest = logits["eczema"][:, 0] - evidence.sum(axis=1)  # prior and joint term
    return fit_slopes(evidence, rest, data.targets["eczema"][rows, 0], data.weights["eczema"][rows])


def fit_slopes(
    evidence: np.ndarray, rest: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Fits log-odds rest + evidence @ slopes by logistic regression, with a ridge around 1.

    Stacking with slopes that are not negative (Wolpert 1992; Breiman 1996).

    Args:
        evidence: float (rows, parts), log-odds.
        rest: float (rows,), log-odds that are taken as they are.
        targets: float (rows,) in [0, 1].
        weights: float (rows,), at least 0.

    Returns:
        float64 (parts,), at least 0.
    """

    def loss(slopes: np.ndarray) -> tuple[float, np.ndarray]:
        logits = rest + evidence @ slopes
        losses = weights * (np.logaddexp(0, logits) - targets * logits)
        residuals = weights * (expit(logits) - targets)
        away = slopes - 1
        return losses.sum() + PENALTY / 2 * away @ away, residuals @ evidence + PENALTY * away

    start = np.ones(evidence.shape[1])
    return minimize(loss, start, jac=True, bounds=[(0, None)] * len(start)).x
