"""Examples to try the page with: made-up texts, and a photo rendered like the built-in data's.

No patient is in them.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from eczema_tf.data.synthetic.photo import encode_photo, render_photo

LESION = {
    "lesion": "visible",
    "colour": "red",
    "border": "blurred",
    "surface": "fine_scale",
    "elements": "none",
    "arrangement": "patches",
    "excoriation": "scratched",
    "lichenification": "thickened",
    "extent": "medium",
    "intensity": "marked",
}
SEED = 7


class Example(NamedTuple):
    """What a button fills in.

    Attributes:
        name: On the button.
        has_photo: Whether it comes with the rendered photo.
        text: "" for none.
    """

    name: str
    has_photo: bool
    text: str


EXAMPLES = (
    Example(
        "Photo + text",
        True,
        "Dry, itchy patches in both elbow creases since I was a child. They get worse in winter and"
        " I scratch at night. No blisters. My mother has asthma and hay fever.",
    ),
    Example("Photo only", True, ""),
    Example(
        "Text only",
        False,
        "One round patch on my shin for three weeks. It does not itch. The edge is raised and scaly"
        " and it slowly gets larger. Nobody in my family has eczema or asthma.",
    ),
)


@cache
def draw_example_photo() -> bytes:
    """Renders the photo of the examples: a JPEG of less than 100 kB."""
    rng = np.random.default_rng(SEED)
    pixels, _ = render_photo(LESION, "III", "arm", rng)
    return encode_photo(pixels, rng)
