"""What a stage of training learns from: targets of every head, and how much each row counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from eczema_tf.config import Config
from eczema_tf.data.inputs import Inputs
from eczema_tf.data.text.findings import encode_findings
from eczema_tf.model.losses import compute_targets
from eczema_tf.schema import ECZEMA_HEADS, FINDINGS, SEVERITY_HEADS


@dataclass(frozen=True)
class TrainingData:
    """All rows of a manifest, and which of them are learned from.

    Attributes:
        inputs: Inputs of all rows.
        targets: float32 (rows, ...) by head.
        weights: float32 (rows,) by head; 0 where a row has no label for the head, or lacks what the
            head looks at.
        positive: bool (rows,), for the validation AUROC.
        labelled: bool (rows,), whether there is an eczema label.
        cases: str (rows,), equal for the rows of one case.
        groups: str (rows,), equal for the rows that splits keep together.
        prevalence: Mean eczema label of the training rows, in [0, 1]; 0 without any.
        train_rows: int64.
        val_rows: int64; may be empty where the last epoch is kept.
        talk_rows: int64, the training rows whose text says nothing: it is labelled unclear.
    """

    inputs: Inputs
    targets: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    positive: np.ndarray
    labelled: np.ndarray
    cases: np.ndarray
    groups: np.ndarray
    prevalence: float
    train_rows: np.ndarray
    val_rows: np.ndarray
    talk_rows: np.ndarray

    def count_steps(self, batch_size: int) -> int:
        """Counts the steps of an epoch; the last batch may be smaller."""
        return -(-len(self.train_rows) // batch_size)


def build_training_data(
    config: Config,
    table: pd.DataFrame,
    inputs: Inputs,
    splits: pd.Series,
    findings: Sequence[str] = (),
) -> TrainingData:
    """Turns labels into targets and sample weights.

    Args:
        config: Label threshold, soft labels, balancing.
        table: Table of the manifest.
        inputs: Inputs of all rows.
        splits: Split of each row; "train" is learned from, "val" decides when to stop.
        findings: Findings that the model detects in texts.
    """
    train_rows, val_rows = (np.flatnonzero(splits == split) for split in ("train", "val"))
    eczema = table["eczema"].to_numpy("float64")
    labelled, positive = ~np.isnan(eczema), eczema > config.data.label_threshold
    if not config.train.soft_labels:
        eczema = np.where(labelled, positive.astype("float64"), np.nan)
    learned = train_rows[labelled[train_rows]]
    prevalence = float(eczema[learned].mean()) if len(learned) else 0.0
    eczema_weight = labelled.astype("float64")
    if config.train.balance_classes and 0 < prevalence < 1:
        eczema, eczema_weight = balance_labels(eczema, prevalence)
    has_image, has_text = inputs.present("image"), inputs.present("text")
    seen = {"image": has_image, "text": has_text, "fusion": np.ones(len(table), bool)}
    weights = {head: eczema_weight * seen[modality] for modality, head in ECZEMA_HEADS.items()}
    weights["consistency"] = (table["consistency"] != "").to_numpy() * has_text
    graded = (table["severity"] != "").to_numpy() & (positive | ~labelled)  # only of eczema
    weights |= {head: graded * seen[modality] for modality, head in SEVERITY_HEADS.items()}
    targets = compute_targets(eczema, table["consistency"].to_numpy(), table["severity"].to_numpy())
    if findings:
        targets[FINDINGS] = encode_findings(list(table[FINDINGS]), findings)
        weights[FINDINGS] = (table[FINDINGS] != "").to_numpy() * has_text
    return TrainingData(
        inputs=inputs,
        targets=targets,
        weights={head: np.nan_to_num(weight).astype("float32") for head, weight in weights.items()},
        positive=positive,
        labelled=labelled,
        cases=table["case_id"].to_numpy(str),
        groups=table["group_id"].to_numpy(str),
        prevalence=prevalence,
        train_rows=train_rows,
        val_rows=val_rows,
        talk_rows=train_rows[(has_text & (table["consistency"] == "unclear"))[train_rows]],
    )


def balance_labels(eczema: np.ndarray, prevalence: float) -> tuple[np.ndarray, np.ndarray]:
    """Makes targets and sample weights that train as if half of the rows were eczema.

    A label y stands for two rows: y of one with eczema, which weighs a = 0.5 / prevalence, and
    1 - y of one without, which weighs b = 0.5 / (1 - prevalence). The cross-entropy with target
    a y / (a y + b (1 - y)) and weight a y + b (1 - y) is the sum of theirs. So its minimum has the
    log-odds of E[y | x] minus logit(prevalence), whether labels are votes or yes and no; weighting
    the cross-entropy with y itself would not shift a soft label at all.

    Args:
        eczema: float (rows,) in [0, 1], NaN for none.
        prevalence: Their mean over the training rows, in (0, 1).

    Returns:
        Targets in [0, 1] and weights, which average 1 over the labelled training rows; float64
        (rows,), NaN for rows without a label.
    """
    with_eczema, without = eczema * 0.5 / prevalence, (1 - eczema) * 0.5 / (1 - prevalence)
    return with_eczema / (with_eczema + without), with_eczema + without
