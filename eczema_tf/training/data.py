"""What a stage of training learns from: targets of every head, and how much each row counts."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from eczema_tf.config import Config
from eczema_tf.data.inputs import Inputs
from eczema_tf.model.losses import compute_targets
from eczema_tf.schema import ECZEMA_HEADS


@dataclass(frozen=True)
class TrainingData:
    """All rows of a manifest, and which of them are learned from.

    Attributes:
        inputs: Of all rows.
        targets: float32 (rows, ...) by head.
        weights: float32 (rows,) by head; 0 where a row has no label for the head, or not what the
            head looks at.
        positive: bool (rows,), for the validation AUROC.
        labelled: bool (rows,), whether there is an eczema label.
        cases: str (rows,), equal for the rows of one case.
        train_rows: int64.
        val_rows: int64; may be empty where the last epoch is kept.
    """

    inputs: Inputs
    targets: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    positive: np.ndarray
    labelled: np.ndarray
    cases: np.ndarray
    train_rows: np.ndarray
    val_rows: np.ndarray

    def count_steps(self, batch_size: int) -> int:
        """Counts the steps of an epoch; the last batch may be smaller."""
        return -(-len(self.train_rows) // batch_size)


def build_training_data(
    config: Config, table: pd.DataFrame, inputs: Inputs, splits: pd.Series
) -> TrainingData:
    """Turns labels into targets and sample weights.

    Args:
        config: Label threshold, soft labels, balancing.
        table: Of the manifest.
        inputs: Of all rows.
        splits: Of each row; "train" is learned from, "val" decides when to stop.
    """
    train_rows, val_rows = (np.flatnonzero(splits == split) for split in ("train", "val"))
    eczema = table["eczema"].to_numpy("float64")
    labelled, positive = ~np.isnan(eczema), eczema > config.data.label_threshold
    if not config.train.soft_labels:
        eczema = np.where(labelled, positive.astype("float64"), np.nan)
    balance = config.train.balance_classes
    eczema_weight = labelled * (class_weights(eczema, train_rows) if balance else 1.0)
    has_image, has_text = inputs.present("image"), inputs.present("text")
    seen = {"image": has_image, "text": has_text, "fusion": np.ones(len(table), bool)}
    weights = {head: eczema_weight * seen[modality] for modality, head in ECZEMA_HEADS.items()}
    weights["consistency"] = (table["consistency"] != "").to_numpy() * has_text
    weights["severity"] = (table["severity"] != "").to_numpy(dtype=float)
    return TrainingData(
        inputs=inputs,
        targets=compute_targets(
            eczema, table["consistency"].to_numpy(), table["severity"].to_numpy()
        ),
        weights={head: np.nan_to_num(weight).astype("float32") for head, weight in weights.items()},
        positive=positive,
        labelled=labelled,
        cases=table["case_id"].to_numpy(str),
        train_rows=train_rows,
        val_rows=val_rows,
    )


def class_weights(eczema: np.ndarray, train_rows: np.ndarray) -> np.ndarray:
    """Weighs rows so that eczema and the rest count the same; a soft label shares both weights.

    Args:
        eczema: float (rows,) in [0, 1], NaN for none.
        train_rows: int64; the prevalence is theirs.

    Returns:
        float (rows,), averaging 1 over the labelled training rows; NaN for rows without a label.
    """
    labels = eczema[train_rows]
    labels = labels[~np.isnan(labels)]
    prevalence = labels.mean() if len(labels) else 0.0
    if prevalence in (0.0, 1.0):
        return np.where(np.isnan(eczema), np.nan, 1.0)
    return eczema * 0.5 / prevalence + (1 - eczema) * 0.5 / (1 - prevalence)
