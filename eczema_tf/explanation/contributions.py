"""How far the photo, the text and clinical fields each moved an answer."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Contributions:
    """What moved the answer to one case, in logits.

    Attributes:
        neither: The logit without a photo, for a text that says nothing: the starting point.
        image: The photo's Shapley value; 0 without a photo.
        text: The text's Shapley value, the sum of its words' scores; 0 without a text.
        clinical: What clinical fields add; 0 if none is known, None for models without them.
    """

    neither: float
    image: float
    text: float
    clinical: float | None = None

    @property
    def logit(self) -> float:
        """The logit of the case as it is."""
        return self.neither + self.image + self.text + (self.clinical or 0.0)


def split_evidence(both: Any, image_only: Any, text_only: Any, neither: Any) -> tuple[Any, ...]:
    """Splits a logit between photo and text; all are numbers, arrays or tensors of one shape.

    These are Shapley values (Shapley 1953): means over both orders in which the two can be added.

    Args:
        both: The logit of the case as it is.
        image_only: With a text that says nothing.
        text_only: Without the photo.
        neither: Without the photo, and with a text that says nothing.

    Returns:
        `neither` and how far photo and text move the logit; the three add up to `both`.
    """
    image = ((image_only - neither) + (both - text_only)) / 2
    text = ((text_only - neither) + (both - image_only)) / 2
    return neither, image, text
