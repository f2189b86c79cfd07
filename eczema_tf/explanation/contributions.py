"""How much the photo and the text each moved an answer: the fusion logit with each replaced by "missing", and their Shapley split."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Contributions:
    """Contributions of a batch, all float64 (batch,) in logits.

    Attributes:
        image: The photo's Shapley value; `image + text` is the logit minus that of neither.
        text: The text's.
        without_image: How the logit changes when the photo is taken away and the text stays.
        without_text: How it changes when the text is taken away.
        neither: The logit where both are missing, the starting point.
    """

    image: np.ndarray
    text: np.ndarray
    without_image: np.ndarray
    without_text: np.ndarray
    neither: np.ndarray


def compute_contributions(
    both: np.ndarray, image_only: np.ndarray, text_only: np.ndarray, neither: np.ndarray
) -> Contributions:
    """Splits the fusion logit among photo and text (Shapley 1953: the mean over both orders in which they can be added).

    Args:
        both: float (batch,), the fusion logit of what there is.
        image_only: With the text replaced by "missing".
        text_only: With the photo replaced by "missing".
        neither: With both replaced.

    Returns:
        Where a modality is missing anyway, its contribution is 0.
    """
    both, image_only, text_only, neither = (
        np.asarray(logit, "float64") for logit in (both, image_only, text_only, neither)
    )
    return Contributions(
        image=((image_only - neither) + (both - text_only)) / 2,
        text=((text_only - neither) + (both - image_only)) / 2,
        without_image=text_only - both,
        without_text=image_only - both,
        neither=neither,
    )
