"""A photo from drawn attributes: `render_photo` paints a lesion on skin and photographs it.

Only the attributes depend on the condition. Tone, body site, size, light, hair, blur and noise are
drawn without looking at it.
"""

import io
import math

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from eczema_tf.data.synthetic.skin import (
    SIZES_PX,
    TONES,
    add_hair,
    draw_dots,
    draw_noise,
    draw_outline,
    draw_scratches,
    draw_skin_lines,
    render_skin,
    soften,
    take_photo,
)

# a photo's file is padded to a size drawn from here: its size says nothing about its content
FILE_BYTES = (22_000, 30_000)
_COMMENT_BYTES = 4  # what an empty JPEG comment takes by itself
_REDNESS = {"faint": 0.45, "marked": 0.75, "intense": 1.08}
# What inflammation multiplies skin with: pink to red on light skin, violaceous to grey-brown on
# dark skin (tones I to VI).
_INFLAMED = np.array(
    [
        [0.93, 0.55, 0.54],
        [0.92, 0.54, 0.53],
        [0.88, 0.50, 0.52],
        [0.80, 0.46, 0.54],
        [0.68, 0.42, 0.60],
        [0.56, 0.38, 0.66],
    ],
    "float32",
)
_RGB = {
    "fine_scale": np.array([0.93, 0.87, 0.82], "float32"),
    "thick_scale": np.array([0.93, 0.93, 0.95], "float32"),
    "crust": np.array([0.80, 0.56, 0.16], "float32"),
    "pus": np.array([0.97, 0.94, 0.76], "float32"),
    "scratch": np.array([0.45, 0.07, 0.06], "float32"),
    "scratch on dark skin": np.array([0.62, 0.20, 0.17], "float32"),
    # what a raised edge and the halo of a pustule take away
    "rim": np.array([0.25, 0.50, 0.45], "float32"),
    "halo": np.array([0.08, 0.35, 0.32], "float32"),
}


def render_photo(
    attributes: dict[str, str], tone: str, site: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Renders a photo.

    Args:
        attributes: Value of each attribute; `lesion` alone where it is "none".
        tone: Fitzpatrick type, "I" to "VI".
        site: One of `skin.SITES`.
        rng: Where randomness comes from.

    Returns:
        The photo, uint8 (height, width, 3), and the lesion's mask, bool (height, width).
    """
    height, width = (int(side) for side in rng.integers(SIZES_PX[0], SIZES_PX[1] + 1, size=2))
    unit = min(height, width) / 192
    image = render_skin((height, width), tone, rng)
    area = np.zeros((height, width), "float32")
    if attributes["lesion"] == "visible":
        area = soften(
            draw_outline((height, width), attributes["arrangement"], attributes["extent"], rng),
            attributes["border"],
            unit,
        )
        image = _paint_lesion(image, area, attributes, tone, unit, rng)
    return take_photo(add_hair(image, site, rng), site, rng), area > 0.35


def encode_photo(pixels: np.ndarray, rng: np.random.Generator) -> bytes:
    """Encodes a JPEG of a quality and a file size that are drawn without looking at the pixels.

    Args:
        pixels: uint8 (height, width, 3).
        rng: Where randomness comes from.

    Returns:
        A JPEG without metadata but for a comment that pads it.
    """
    image = Image.fromarray(pixels)
    quality, wanted = int(rng.integers(78, 93)), int(rng.integers(*FILE_BYTES))
    while len(plain := _encode_jpeg(image, quality, b"")) + _COMMENT_BYTES + 1 > wanted:
        quality -= 6  # rare: a large, grainy photo
    return _encode_jpeg(image, quality, b"\0" * (wanted - len(plain) - _COMMENT_BYTES))


def _encode_jpeg(image: Image.Image, quality: int, comment: bytes) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, comment=comment)
    return buffer.getvalue()


def _paint_lesion(
    image: np.ndarray,
    area: np.ndarray,
    attributes: dict[str, str],
    tone: str,
    unit: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Lays inflammation, surface, skin lines and scratches over skin, and lights their relief."""
    rim = np.zeros_like(area)
    if attributes["border"] == "sharp":  # a raised, darker edge
        rim = np.clip(3 * (area - gaussian_filter(area, 3 * unit)), 0, 1)
    uneven = 1 + 0.09 * draw_noise(area.shape, 5 * unit, rng)
    strength = np.clip(area * uneven * _REDNESS[attributes["redness"]], 0, 1.15)
    image = image * (1 - strength[..., None] * (1 - _INFLAMED[TONES.index(tone)]))
    image, relief = _paint_surface(image, area, attributes["surface"], unit, rng)
    image = image * (1 - rim[..., None] * _RGB["rim"])
    relief = relief + area * 1.2
    if attributes["lichenification"] == "thickened":
        lines = draw_skin_lines(area.shape, unit, rng) * np.clip(area * 1.5, 0, 1)
        image, relief = image * (1 - 0.42 * lines)[..., None], relief - 1.2 * lines
    if attributes["excoriation"] == "scratched":
        colour = _RGB["scratch" if tone < "V" else "scratch on dark skin"]
        image = _blend(image, draw_scratches(area, unit, rng) * 0.85, colour)
    # a lamp from one side shades the relief
    down, right = map(np.asarray, np.gradient(relief * unit))
    lamp = rng.uniform(0, 2 * np.pi)
    shade = right * (0.22 * math.cos(lamp)) + down * (0.22 * math.sin(lamp))
    return image * (1 + np.clip(shade, -0.35, 0.35)[..., None])


def _paint_surface(
    image: np.ndarray, area: np.ndarray, surface: str, unit: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paints what lies on the lesion; returns the photo and the surface's relief, in units."""
    if surface == "smooth":  # a wheal: swollen, paler towards the middle, with a soft shine
        middle = np.clip(gaussian_filter(area, 4 * unit) * 2 - 1, 0, 1)
        return image * (1 + 0.16 * middle[..., None]), 5 * gaussian_filter(area, 3 * unit)
    if surface == "fine_scale":  # small pale flakes all over
        flakes = np.clip((draw_noise(area.shape, 1.3 * unit, rng) - 0.9) * 3, 0, 1)
        flakes = flakes * np.clip(area * 1.4, 0, 1)
        return _blend(image, 0.6 * flakes, _RGB["fine_scale"]), 0.8 * flakes
    if surface == "thick_scale":  # large silvery plates with cracks between them
        cracks = np.abs(draw_noise(area.shape, 3.6 * unit, rng))
        plates = np.clip((cracks - 0.22) * 3.5, 0, 1) * np.clip(area * 2 - 0.5, 0, 1)
        return _blend(image, 0.80 * plates, _RGB["thick_scale"]), 2.5 * plates
    if surface == "crust":  # honey-coloured crusts over wet skin
        crusts = np.clip((draw_noise(area.shape, 4.5 * unit, rng) - 0.1) * 2, 0, 1)
        crusts = crusts * np.clip(area * 1.6 - 0.2, 0, 1)
        shade = 1 + 0.15 * draw_noise(area.shape, 2 * unit, rng)[..., None]
        return _blend(image, 0.85 * crusts, _RGB["crust"] * shade), 2.5 * crusts
    # pustules: white-yellow heads, each in a red halo
    heads = draw_dots(area, int(rng.integers(22, 34)), unit, rng)
    halo = np.clip(gaussian_filter(heads, 3 * unit) * 2, 0, 1)
    return _blend(
        image * (1 - halo[..., None] * _RGB["halo"]), 0.95 * heads, _RGB["pus"]
    ), 3 * heads


def _blend(image: np.ndarray, opacity: np.ndarray, colour: np.ndarray) -> np.ndarray:
    opacity = np.clip(opacity, 0, 1)[..., None]
    return image * (1 - opacity) + colour * opacity
