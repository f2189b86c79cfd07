"""One sentence on why the model decides as it does, or says that it cannot tell."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from eczema_tf.schema import CONSISTENCY, DECISIONS, MOSTLY_UNKNOWN, READ_TO

NOT_SURE = (
    "the probability lies in a range where eczema and other conditions are too often mixed up on"
    " validation cases"
)
SURE = {
    "eczema": "at most one in ten validation cases without eczema had a probability this high",
    "not eczema": "at most one in ten validation cases of eczema had a probability this low",
}
OF_TEXT = {  # by the notice in the status; the first one found there applies
    MOSTLY_UNKNOWN: "the text is mostly words that the model does not know",
    READ_TO: "too much of the text is not read, or it is unlike the training texts",
}
UNCLEAR = "the text points to nothing in particular, and there is no photo"
UNLIKE = "the {} is unlike anything the model was trained on"
NONE_LIKE = "no photo is like those that the model was trained on"


def give_reason(outputs: Mapping[str, Any], photos: int = 1) -> str:
    """Gives the reason for a decision.

    Args:
        outputs: One row of a signature's outputs: `consistency`, `decision`, `image_used`,
            `text_used`, `known_image`, `known_text` and `status`.
        photos: How many photos there are.
    """
    if outputs["decision"] != DECISIONS[1]:
        return SURE[outputs["decision"]]
    if not outputs["image_used"] and not outputs["text_used"]:
        return "nothing could be used"
    unlike = (NONE_LIKE if photos > 1 else UNLIKE.format("photo"), UNLIKE.format("text"))
    of_text = (reason for notice, reason in OF_TEXT.items() if notice in outputs["status"])
    reasons = {
        unlike[0]: outputs["image_used"] and not outputs["known_image"],
        next(of_text, unlike[1]): outputs["text_used"] and not outputs["known_text"],
    }
    if not outputs["image_used"]:  # then there is a text, and what it suggests
        reasons[UNCLEAR] = CONSISTENCY[int(np.argmax(outputs["consistency"]))] == "unclear"
    return "; ".join(reason for reason, holds in reasons.items() if holds) or NOT_SURE
