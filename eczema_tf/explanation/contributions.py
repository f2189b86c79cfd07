"""How much the photo and the text each moved an answer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Contributions:
    """What moved the overall answer of one case, in logits.

    Attributes:
        logit: Of the case as it is; `neither + image + text`.
        image: The photo's Shapley value; 0 where there is none.
        text: The text's.
        without_image: How the logit changes when the photo is taken away and the text stays.
        without_text: How it changes when the text is taken away.
        neither: The logit where both are missing, the starting point.
    """

    logit: float
    image: float
    text: float
    without_image: float
    without_text: float
    neither: float


def compute_contributions(
    both: float, image_only: float, text_only: float, neither: float
) -> Contributions:
    """Splits the overall logit among photo and text.

    Shapley values (Shapley 1953): the mean over both orders in which the two can be added.

    Args:
        both: The logit of the case as it is.
        image_only: With the text replaced by "missing".
        text_only: With the photo replaced by "missing".
        neither: With both replaced.
    """
    return Contributions(
        logit=both,
        image=((image_only - neither) + (both - text_only)) / 2,
        text=((text_only - neither) + (both - image_only)) / 2,
        without_image=text_only - both,
        without_text=image_only - both,
        neither=neither,
    )
