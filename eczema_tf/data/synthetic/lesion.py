"""Paints a lesion on skin, from its drawn attributes (`tables.yaml`) and nothing else.

Shapes and conventions as in `skin`; `area` is how much of a pixel belongs to the lesion, in 0..1.
"""

import math

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from eczema_tf.data.synthetic.skin import TONES, blend, draw_noise, start_drawing

FRAME_PX = 6  # no part of a lesion is this close to the edge of the visible skin
# fewest and most spots, and the radius of one as a share of the shorter side
_ARRANGEMENTS = {
    "single": (1, 1, 0.24),
    "ring": (1, 1, 0.29),
    "patches": (3, 5, 0.15),
    "scattered": (10, 17, 0.065),
    "dots": (40, 70, 0.026),
    "clustered": (6, 10, 0.07),
    "band": (7, 10, 0.085),
    "diffuse": (1, 1, 0.36),
}
_GROW = {"small": 0.75, "medium": 1.0, "large": 1.30}
# the width over which an edge fades, in units: crisp to a little soft, or lost in the skin around
_EDGE_UNITS = {"sharp": (2, 14), "blurred": (25, 50)}
_STRENGTH = {"faint": 0.5, "marked": 0.76, "intense": 1.05}
# What inflammation multiplies skin by: pink to red on light skin, violaceous to grey-brown on dark
# skin (tones I to VI).
_INFLAMED = np.array(
    [
        [0.93, 0.55, 0.54],
        [0.92, 0.54, 0.53],
        [0.88, 0.50, 0.52],
        [0.80, 0.46, 0.54],
        [0.72, 0.46, 0.60],
        [0.68, 0.50, 0.70],
    ],
    "float32",
)
# what other colours multiply skin by
_TINTS = {
    "brown": np.array([0.46, 0.34, 0.30], "float32"),
    "violet": np.array([0.60, 0.36, 0.52], "float32"),
    "skin": np.array([0.97, 0.92, 0.90], "float32"),
}
_RGB = {
    "pale": np.array([0.97, 0.90, 0.85], "float32"),
    "fine_scale": np.array([0.93, 0.87, 0.82], "float32"),
    "thick_scale": np.array([0.88, 0.86, 0.85], "float32"),
    "crust": np.array([0.78, 0.54, 0.18], "float32"),
    "dark crust": np.array([0.34, 0.15, 0.10], "float32"),
    "wart": np.array([0.72, 0.64, 0.52], "float32"),
    "pus": np.array([0.93, 0.88, 0.70], "float32"),
    "fluid": np.array([0.95, 0.88, 0.84], "float32"),
    "burrow": np.array([0.42, 0.34, 0.30], "float32"),
    "scratch": np.array([0.45, 0.07, 0.06], "float32"),
    "scratch on dark skin": np.array([0.62, 0.20, 0.17], "float32"),
}


def paint_lesion(
    image: np.ndarray,
    relief: np.ndarray,
    attributes: dict[str, str],
    tone: str,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paints colour, surface, spots, skin lines and scratches.

    Args:
        image: The skin, which fills it.
        relief: Its heights in pixels.
        attributes: All of `tables.yaml`, by name.
        tone: Fitzpatrick type.
        rng: Where randomness comes from.

    Returns:
        The image and the relief with the lesion, and its area.
    """
    shape = relief.shape
    unit = min(shape) / 192
    area = draw_area(
        shape, attributes["arrangement"], attributes["extent"], attributes["border"], rng
    )
    colour = _tint(image, attributes["colour"], tone)
    uneven = 1 + 0.12 * draw_noise(shape, 6 * unit, rng) + 0.08 * draw_noise(shape, 2 * unit, rng)
    image = blend(image, area * uneven * _STRENGTH[attributes["intensity"]], colour)
    image, height = _paint_surface(image, area, attributes["surface"], unit, rng)
    image, bumps = _paint_elements(image, area, colour, attributes["elements"], unit, rng)
    height = height + bumps + 1.5 * area
    if attributes["lichenification"] == "thickened":
        lines = _draw_skin_lines(shape, unit, rng) * np.clip(area * 1.5, 0, 1)
        lines = lines * np.clip(uneven + 0.2, 0.4, 1.2)
        image, height = image * (1 - 0.28 * lines)[..., None], height - 1.4 * lines
    if attributes["excoriation"] == "scratched":
        scratch = _RGB["scratch" if tone < "V" else "scratch on dark skin"]
        image = blend(image, 0.85 * _draw_scratches(area, unit, rng), scratch)
    return image, relief + height * unit, area


def draw_area(
    shape: tuple[int, ...], arrangement: str, extent: str, border: str, rng: np.random.Generator
) -> np.ndarray:
    """Draws where the lesion is: spots around centres, with outlines that noise makes irregular.

    Args:
        shape: (height, width) of the visible skin.
        arrangement: One of `tables.yaml`.
        extent: "small", "medium" or "large".
        border: "sharp" or "blurred".
        rng: Where randomness comes from.
    """
    fewest, most, share = _ARRANGEMENTS[arrangement]
    unit, radius_px = min(shape) / 192, share * _GROW[extent] * min(shape)
    # with large spots, only so many fit
    centres = _draw_centres(shape, arrangement, int(rng.integers(fewest, most + 1)), radius_px, rng)
    nowhere = np.ones(shape, bool)
    nowhere[tuple(centres.astype(int).T)] = False
    oblong = math.exp(rng.normal(0, 0.15))
    distance_px = distance_transform_edt(nowhere, sampling=(oblong, 1 / oblong)).astype("float32")
    warp = draw_noise(shape, max(0.5 * radius_px, 2), rng)
    warp = warp + 0.4 * draw_noise(shape, max(0.15 * radius_px, 1), rng)
    inside_px = radius_px * (1 + rng.uniform(0.05, 0.2) * warp) - distance_px
    if arrangement == "ring":  # clear in the middle
        inside_px = 0.24 * radius_px - np.abs(inside_px - 0.24 * radius_px)
    edge_px = min(
        rng.uniform(*_EDGE_UNITS[border]) * unit,
        {"sharp": 0.45, "blurred": 1.6}[border] * radius_px,
    )
    area = np.clip(0.5 + inside_px / edge_px, 0, 1)
    return area * area * (3 - 2 * area) * _draw_frame(shape)


def _draw_centres(
    shape: tuple[int, ...], arrangement: str, count: int, radius_px: float, rng: np.random.Generator
) -> np.ndarray:
    """Draws centres (count, 2) well inside; apart, in a heap or along a line."""
    side = min(shape)
    margin = min(radius_px * 1.15 + 8, 0.5 * side - 1)
    low, high = np.full(2, margin), np.array(shape) - margin
    if arrangement in ("clustered", "band"):
        along = np.linspace(-0.42, 0.42, count) * (arrangement == "band")
        angle, spread = rng.uniform(0, math.pi), {"clustered": 0.13, "band": 0.045}[arrangement]
        middle = rng.uniform(0.4, 0.6, 2) * shape
        offsets = along[:, None] * (math.sin(angle), math.cos(angle))
        scattered = middle + side * (offsets + rng.normal(0, spread, (count, 2)))
        return np.clip(scattered, low, high)
    centres = [rng.uniform(low, high)]
    while len(centres) < count:  # of a few tries, the farthest from those before
        tries = rng.uniform(low, high, (6, 2))
        gaps = np.linalg.norm(tries[:, None] - np.array(centres), axis=2).min(axis=1)
        centres.append(tries[gaps.argmax()])
    return np.array(centres)


def _draw_frame(shape: tuple[int, ...]) -> np.ndarray:
    """Returns 0 within `FRAME_PX` of the edge, rising to 1 over ten units."""
    ramp_px = 10 * (min(shape) / 192)
    ramps = [
        np.clip((np.minimum(np.arange(side), np.arange(side)[::-1]) - FRAME_PX) / ramp_px, 0, 1)
        for side in shape
    ]
    return np.minimum.outer(*ramps).astype("float32")


def _tint(image: np.ndarray, colour: str, tone: str) -> np.ndarray:
    """Returns the skin as it looks in the lesion."""
    if colour == "pale":
        return 0.3 * image + 0.7 * _RGB["pale"]
    return image * (_INFLAMED[TONES.index(tone)] if colour == "red" else _TINTS[colour])


def _paint_surface(
    image: np.ndarray, area: np.ndarray, surface: str, unit: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paints what lies on the lesion; returns the image and the surface's relief, in units."""
    noise = draw_noise(area.shape, 2 * unit, rng)
    if surface == "swollen":  # a weal: paler towards the middle
        middle = np.clip(gaussian_filter(area, 4 * unit) * 2 - 1, 0, 1)
        return image * (1 + 0.16 * middle[..., None]), 5 * gaussian_filter(area, 3 * unit)
    if surface == "fine_scale":  # small pale flakes all over
        flakes = np.clip((draw_noise(area.shape, 1.5 * unit, rng) + noise - 1.2) * 3, 0, 1)
        flakes = flakes * np.clip(area * 1.4, 0, 1)
        return blend(image, 0.7 * flakes, _RGB["fine_scale"]), 0.8 * flakes
    if surface == "thick_scale":  # large silvery plates with cracks between them
        cracks = np.abs(draw_noise(area.shape, 3.6 * unit, rng) + 0.2 * noise)
        plates = np.clip((cracks - 0.25) * 2, 0, 1) * np.clip(area * 2 - 0.5, 0, 1)
        return blend(image, 0.75 * plates, _RGB["thick_scale"]), 2.5 * plates
    if surface == "crust":  # honey-coloured to black, over wet skin
        crusts = np.clip(draw_noise(area.shape, 4 * unit, rng) + 0.5 * noise + 0.1, 0, 1)
        crusts = crusts * np.clip(area * 1.6 - 0.2, 0, 1)
        dark = rng.uniform(0, 0.8)
        colour = (1 - dark) * _RGB["crust"] + dark * _RGB["dark crust"]
        return blend(image, 0.85 * crusts, colour * (1 + 0.25 * noise)[..., None]), 2.5 * crusts
    if surface == "warty":  # horny knobs with furrows between them
        knobs = np.clip(1 - np.exp(-3 * np.abs(noise)), 0, 1) * area
        return blend(image, 0.35 * knobs, _RGB["wart"]), 4 * knobs + 4 * area
    return image, np.zeros_like(area)


def _paint_elements(
    image: np.ndarray,
    area: np.ndarray,
    colour: np.ndarray,
    elements: str,
    unit: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Paints papules, vesicles, pustules or burrows; returns the image and their relief."""
    if elements == "none":
        return image, np.zeros_like(area)
    if elements == "burrows":
        lines = _draw_lines(area, int(rng.integers(8, 15)), (5, 11), 2.2, math.pi, unit, rng)
        return blend(image, 0.8 * lines, _RGB["burrow"]), lines
    layer, pen = start_drawing(area.shape)
    ys, xs = np.nonzero(area > 0.5)
    for centre in rng.integers(len(xs), size=int(rng.integers(16, 34))):
        x, y, radius = float(xs[centre]), float(ys[centre]), rng.uniform(2.2, 4.8) * unit
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    domes = gaussian_filter(np.asarray(layer, "float32") / 255, 1.1 * unit)
    domes = domes * _draw_frame(area.shape)
    if elements == "papules":
        return blend(image, 0.8 * domes, np.float32(0.75) * colour), 6 * domes
    halo = np.clip(gaussian_filter(domes, 3 * unit) * 2, 0, 1)
    image = blend(image, 0.6 * halo, image * np.array([0.92, 0.62, 0.62], "float32"))
    if elements == "pustules":  # white-yellow heads, each in a red halo
        return blend(image, 0.95 * domes, _RGB["pus"]), 3 * domes
    # vesicles: clear, with a highlight
    image = blend(image, 0.45 * domes, _RGB["fluid"])
    highlight = np.roll(domes, (-int(2 * unit), -int(2 * unit)), (0, 1)) * domes - 0.75
    return blend(image, 4 * highlight, np.ones(3, "float32")), 5 * domes


def _draw_scratches(area: np.ndarray, unit: float, rng: np.random.Generator) -> np.ndarray:
    """Draws scratch marks through the lesion: long, thin, broken, roughly parallel."""
    lines = _draw_lines(area, int(rng.integers(8, 13)), (14, 28), 2.4, 0.12, unit, rng)
    return lines * np.clip(1 + 0.6 * draw_noise(area.shape, 2 * unit, rng), 0.3, 1)


def _draw_lines(
    area: np.ndarray,
    count: int,
    half_units: tuple[float, float],
    width_units: float,
    turn: float,
    unit: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws wavy lines through the lesion, whose directions spread by `turn`, in radians."""
    layer, pen = start_drawing(area.shape)
    ys, xs = np.nonzero(area > 0.4)
    direction = rng.uniform(0, np.pi)
    for _ in range(count):
        centre = int(rng.integers(len(xs)))
        angle, half = direction + rng.normal(0, turn), rng.uniform(*half_units) * unit
        along = np.linspace(-half, half, 9)
        x = xs[centre] + along * np.cos(angle) + rng.normal(0, 0.5 * unit, 9)
        y = ys[centre] + along * np.sin(angle) + rng.normal(0, 0.5 * unit, 9)
        width = max(1, round(width_units * unit))
        pen.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=255, width=width)
    lines = gaussian_filter(np.asarray(layer, "float32") / 255, 0.4 * unit)
    return lines * _draw_frame(area.shape)


def _draw_skin_lines(shape: tuple[int, ...], unit: float, rng: np.random.Generator) -> np.ndarray:
    """Draws the crossed, deepened skin lines of thickened (lichenified) skin."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype("float32")
    warp = 4.0 * unit * draw_noise(shape, 10 * unit, rng)
    spacing = rng.uniform(7, 10) * unit
    turn = rng.uniform(0, np.pi)
    lines = np.zeros(shape, "float32")
    for angle in (turn, turn + rng.uniform(0.9, 1.6)):
        phase = (x * math.cos(angle) + y * math.sin(angle) + warp) * (math.pi / spacing)
        lines = np.maximum(lines, 1 - np.minimum(1, np.abs(np.sin(phase)) * 1.9))
    return lines
