"""Sample weights: which row trains which head, and how much."""

import numpy as np
import pandas as pd

from eczema_tf.schema import ECZEMA_HEADS


def compute_sample_weights(
    table: pd.DataFrame,
    image_present: np.ndarray,
    text_present: np.ndarray,
    train_rows: np.ndarray,
    *,
    balance: bool,
) -> dict[str, np.ndarray]:
    """Weighs every row for every head; 0 where the row has no label for the head, or not what the head looks at.

    Args:
        table: Of the manifest.
        image_present: bool (rows,).
        text_present: bool (rows,).
        train_rows: int64; class shares are taken from these rows only.
        balance: Whether both classes of the eczema heads shall weigh the same.

    Returns:
        float32 (rows,) by head.
    """
    eczema = table["eczema"].to_numpy("float64")
    labelled = ~np.isnan(eczema)
    eczema_weight = labelled * (class_weights(eczema, train_rows) if balance else 1.0)
    seen = {"image": image_present, "text": text_present, "fusion": np.ones(len(table), bool)}
    weights = {head: eczema_weight * seen[modality] for modality, head in ECZEMA_HEADS.items()}
    weights["consistency"] = (table["consistency"] != "").to_numpy() * text_present
    weights["severity"] = (table["severity"] != "").to_numpy(dtype=float)
    return {head: np.nan_to_num(weight).astype("float32") for head, weight in weights.items()}


def class_weights(eczema: np.ndarray, train_rows: np.ndarray) -> np.ndarray:
    """Weighs rows so that eczema and the rest count the same; a soft label shares both weights.

    Args:
        eczema: float (rows,) in [0, 1], NaN for none.
        train_rows: int64.

    Returns:
        float (rows,), averaging 1 over the labelled training rows; NaN for rows without a label.
    """
    share = positive_share(eczema, train_rows)
    if share in (0.0, 1.0):
        return np.where(np.isnan(eczema), np.nan, 1.0)
    return eczema * 0.5 / share + (1 - eczema) * 0.5 / (1 - share)


def positive_share(eczema: np.ndarray, train_rows: np.ndarray) -> float:
    """The mean label of the training rows, in [0, 1]; 0 if none has a label."""
    labels = eczema[train_rows]
    labels = labels[~np.isnan(labels)]
    return float(labels.mean()) if len(labels) else 0.0
