"""Answers as columns of a table, for callers that ask about more than one row."""

from collections.abc import Mapping, Sequence

import numpy as np

from eczema_tf.evaluation.predictions import FLAGS
from eczema_tf.schema import CONSISTENCY, SEVERITY
from eczema_tf.serving.reading import join_statuses

PROBABILITIES = (
    "eczema",
    "eczema_image",
    "eczema_text",
    *(f"consistency_{label}" for label in CONSISTENCY),
    *(f"severity_{label}" for label in SEVERITY),
)

Columns = dict[str, np.ndarray]


def arrange_answers(outputs: Mapping[str, np.ndarray], faults: Sequence[str]) -> Columns:
    """Turns the signature's outputs into plain columns.

    Args:
        outputs: Of the signature `serving_default`.
        faults: What was wrong with photos that the model was not shown, "" for none.

    Returns:
        `PROBABILITIES` float32 (batch,), NaN where their modality was not used, `FLAGS` int8
        (batch,), and `status` and `decision` object (batch,).
    """
    image, text = outputs["image_used"], outputs["text_used"]
    figures = [  # in the order of `PROBABILITIES`; (batch,) or (batch, labels), and where it counts
        (outputs["eczema"], image | text),
        (outputs["eczema_image"], image),
        (outputs["eczema_text"], text),
        (outputs["consistency"], text),
        (outputs["severity"], image | text),
    ]
    # (probabilities, batch)
    table = np.vstack([np.where(used, values.T, np.nan) for values, used in figures])
    statuses = join_statuses(outputs["status"], faults)
    return {
        **dict(zip(PROBABILITIES, table.astype("float32"), strict=True)),
        # not bool, which `predict_batch_udf` does not accept
        **{name: outputs[name].astype("int8") for name in FLAGS},
        "status": np.array([status.decode() for status in statuses], object),
        "decision": np.array([decision.decode() for decision in outputs["decision"]], object),
    }
