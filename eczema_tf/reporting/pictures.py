"""Photo and heatmap as pictures: overlaid in one PNG, or separate for a page."""

import base64
import io

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from eczema_tf.data.photo.files import encode_image
from eczema_tf.explanation.maps import upsample_heatmap

# readable with every common colour blindness and in grey (Nunez, Anderton and Renslow 2018, PLOS
# ONE); answer.css lists its colours, too
COLOURS = "viridis"
OPACITY = 0.55  # of the strongest evidence; the weakest is transparent, to keep the skin visible
LONGEST_SIDE_INCHES, DOTS_PER_INCH = 5.0, 192
LONGEST_SIDE_PX = 1024  # of a photo, about what a screen shows
HEATMAP_SIDE_PX = 256  # on a page, where the browser stretches it over the photo


def draw_overlay(
    photo: np.ndarray, heatmap: np.ndarray, label: str, ends: tuple[str, str] = ("none", "most")
) -> bytes:
    """Draws a photo under its heatmap, with a colour bar.

    Args:
        photo: uint8 (height, width, 3), upright.
        heatmap: float (rows, columns) in [0, 1]; all zero for no evidence, which the picture then
            says.
        label: Of the colour bar.
        ends: Labels of its two ends.

    Returns:
        A PNG file.
    """
    height_px, width_px, _ = photo.shape
    stretched = upsample_heatmap(heatmap, height_px, width_px)
    scale = LONGEST_SIDE_INCHES / max(height_px, width_px)
    size = (max(width_px * scale, 3.0) + 1.2, max(height_px * scale, 3.0))  # inches
    figure = Figure(size, DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(photo)
    colours = axes.imshow(stretched, cmap=COLOURS, vmin=0, vmax=1, alpha=OPACITY * stretched)
    axes.set_axis_off()
    bar = figure.colorbar(colours, ax=axes, fraction=0.05, pad=0.02, label=label, ticks=[0, 1])
    bar.ax.set_yticklabels(ends)
    if bar.solids is not None:
        bar.solids.set_alpha(1)
    if not heatmap.any():
        axes.set_title("no evidence found in the photo", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # same map, same bytes
    return buffer.getvalue()


def shrink_photo(jpeg: bytes) -> Image.Image:
    """Decodes an upright JPEG as RGB, no larger than a screen shows it."""
    with Image.open(io.BytesIO(jpeg)) as photo:
        photo.draft("RGB", (LONGEST_SIDE_PX, LONGEST_SIDE_PX))  # decodes large ones at a fraction
        small = photo.convert("RGB")
    small.thumbnail((LONGEST_SIDE_PX, LONGEST_SIDE_PX))
    return small


def paint_heatmap(heatmap: np.ndarray) -> Image.Image:
    """Paints a heatmap as RGBA, `HEATMAP_SIDE_PX` square: the stronger, the more opaque.

    Args:
        heatmap: float (rows, columns) in [0, 1].
    """
    values = upsample_heatmap(heatmap, HEATMAP_SIDE_PX, HEATMAP_SIDE_PX)
    pixels = colormaps[COLOURS](values, bytes=True)
    pixels[..., 3] = np.round(255 * values)
    return Image.fromarray(pixels)


def as_data_url(picture: Image.Image, kind: str) -> str:
    """Returns a picture as a data URL; `kind` is "jpeg" or "png"."""
    data = encode_image(picture, kind, quality=88)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
