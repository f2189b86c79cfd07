"""Losses, targets and probabilities of the heads.

Heads return logits; this is the one place that says what the logits mean.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from eczema_tf.schema import CONSISTENCY, ECZEMA_HEADS, FINDINGS, HEADS, SEVERITY, SEVERITY_HEADS


@keras.saving.register_keras_serializable("eczema_tf")
class FindingsCrossentropy(keras.losses.Loss):
    """Binary cross-entropy of every finding, added up: each is a question of its own.

    `y_true`, `y_pred`: (batch, findings), 0 or 1, and logits.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns one loss per row."""
        y_true = ops.cast(y_true, y_pred.dtype)
        return ops.sum(ops.binary_crossentropy(y_true, y_pred, from_logits=True), axis=-1)


def build_losses(heads: Iterable[str] = HEADS) -> dict[str, keras.losses.Loss]:
    """Makes one loss per head, each taking logits and soft labels."""
    # for grades, every "worse than grade k" (Frank and Hall 2001; CORAL, Cao et al. 2020): a miss
    # by two grades costs more than a miss by one
    losses: dict[str, keras.losses.Loss] = {
        head: keras.losses.BinaryCrossentropy(from_logits=True)
        for head in (*ECZEMA_HEADS.values(), *SEVERITY_HEADS.values())
    }
    losses["consistency"] = keras.losses.CategoricalCrossentropy(from_logits=True)
    losses[FINDINGS] = FindingsCrossentropy()
    return {head: losses[head] for head in heads}


def compute_targets(
    eczema: np.ndarray, consistency: np.ndarray, severity: np.ndarray
) -> dict[str, np.ndarray]:
    """Turns labels into what the losses take. Missing labels become zeros, to be weighted by 0.

    Args:
        eczema: float (rows,) in [0, 1], NaN for none.
        consistency: str (rows,), "" for none.
        severity: str (rows,), "" for none.

    Returns:
        float32 arrays by head: (rows, 1) for eczema heads, (rows, 3) one-hot consistency, (rows, 2)
            cumulative for severity heads.
    """
    label = np.nan_to_num(np.asarray(eczema, "float32"))[:, None]
    grade = np.array([SEVERITY.index(name) if name else 0 for name in severity], dtype="int64")
    one_hot = np.array(
        [[name == label for label in CONSISTENCY] for name in consistency], dtype="float32"
    ).reshape(-1, len(CONSISTENCY))
    cumulative = (grade[:, None] > np.arange(len(SEVERITY) - 1)).astype("float32")
    return {
        **dict.fromkeys(ECZEMA_HEADS.values(), label),
        "consistency": one_hot,
        **dict.fromkeys(SEVERITY_HEADS.values(), cumulative),
    }


def compute_probabilities(logits: Mapping[str, Any]) -> dict[str, Any]:
    """Turns the heads' logits into probabilities.

    Uses ops that work on NumPy, in graphs and in the served model.

    Args:
        logits: By head: (rows, 1) eczema heads, (rows, 3) consistency, (rows, 2) cumulative
            severity.

    Returns:
        By head: (rows,) for the eczema heads, (rows, 3) for consistency and severity; rows of 3 sum
            to 1.
    """
    probabilities = {
        head: ops.sigmoid(ops.squeeze(logits[head], -1)) for head in ECZEMA_HEADS.values()
    }
    probabilities["consistency"] = ops.softmax(logits["consistency"], axis=-1)
    worse = ops.sigmoid(logits["severity"])  # P(worse than mild), P(worse than moderate)
    probabilities["severity"] = ops.stack(
        [1 - worse[:, 0], worse[:, 0] - worse[:, 1], worse[:, 1]], axis=-1
    )
    return probabilities
