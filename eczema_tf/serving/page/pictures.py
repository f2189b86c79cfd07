"""The pictures of an answer as data URLs: the photo at the size of a screen, and the heatmap to be laid over it."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from PIL import Image

from eczema_tf.serving.page.photo import as_url

# readable with every common colour blindness and in grey (Nunez, Anderton and Renslow 2018, PLOS
# ONE)
COLOURS = "viridis"
LONGEST_SIDE_PX = 1024  # of the photo in the answer
HEATMAP_SIDE_PX = 256  # the browser stretches it over the photo


def shrink_photo(jpeg: bytes) -> str:
    """Returns a photo, no larger than a screen shows it, as a data URL.

    Args:
        jpeg: Upright.
    """
    with Image.open(io.BytesIO(jpeg)) as photo:
        photo.draft("RGB", (LONGEST_SIDE_PX, LONGEST_SIDE_PX))  # decodes large ones at a fraction
        small = photo.convert("RGB")
    small.thumbnail((LONGEST_SIDE_PX, LONGEST_SIDE_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    return as_url(buffer.getvalue())


def paint_heatmap(grid: Sequence[Sequence[float]]) -> str:
    """Returns a heatmap as a PNG in a data URL: the stronger the evidence, the less clear.

    Args:
        grid: Rows of values in [0, 1]. It covers the whole photo, whatever its shape, since photos
            are stretched to the model's square.
    """
    heatmap = Image.fromarray(np.asarray(grid, "float32")).resize(
        (HEATMAP_SIDE_PX, HEATMAP_SIDE_PX), Image.Resampling.BILINEAR
    )
    values = np.clip(np.asarray(heatmap), 0, 1)
    pixels = colormaps[COLOURS](values, bytes=True)
    pixels[..., 3] = np.round(255 * values)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def list_colours(stops: int = 9) -> str:
    """Returns the heatmap's colours for a CSS gradient, from none to most."""
    return ", ".join(
        "#{:02x}{:02x}{:02x}".format(*colormaps[COLOURS](place, bytes=True)[:3])
        for place in np.linspace(0, 1, stops)
    )
