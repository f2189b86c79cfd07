"""Where a lesion lies: its outline, edges, scratch marks and skin lines, as maps over the photo.

All maps are float32 (height, width) in [0, 1]. `unit` is 1/192 of the photo's side in pixels.
"""

import math

import numpy as np
from scipy.ndimage import gaussian_filter

from eczema_tf.data.synthetic.skin import draw_noise, start_drawing

FRAME_PX = 6  # nothing of a lesion lies this close to the photo's edge
_GROW = {"small": 0.72, "medium": 1.0, "large": 1.30}
_EDGE_SIGMA = {"sharp": 0.7, "blurred": 5.5}  # in units


def draw_outline(
    shape: tuple[int, int], arrangement: str, extent: str, rng: np.random.Generator
) -> np.ndarray:
    """Draws the lesion's area, with hard edges.

    Args:
        shape: (height, width) of the photo.
        arrangement: "patch" (one), "ring" (one, clear in the middle), "grouped" (three to four) or
            "scattered" (many, small).
        extent: "small", "medium" or "large".
        rng: Where randomness comes from.
    """
    side, grow = min(shape), _GROW[extent]
    layer, pen = start_drawing(shape)
    count, radius = {
        "patch": (1, 0.29),
        "ring": (1, 0.31),
        "grouped": (int(rng.integers(3, 5)), 0.155),
        "scattered": (int(rng.integers(9, 14)), 0.075),
    }[arrangement]
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    for x, y in _draw_centres(shape, count, radius * grow * side, rng):
        # an irregular closed outline around (0, 0): float64 (points, 2)
        radius_px = radius * grow * side * rng.uniform(0.95, 1.05)
        waves = np.zeros(len(angle))
        for k in range(2, 6):
            waves += rng.normal(0, 0.10 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        outline = radius_px * (1 + waves)[:, None] * circle
        pen.polygon([(x + dx, y + dy) for dx, dy in outline], fill=255)
        if arrangement == "ring":
            pen.polygon([(x + 0.56 * dx, y + 0.56 * dy) for dx, dy in outline], fill=0)
    return np.asarray(layer, "float32") / 255


def soften(outline: np.ndarray, border: str, unit: float) -> np.ndarray:
    """Gives an outline its border and fades it out before the photo's edge."""
    area = gaussian_filter(outline, _EDGE_SIGMA[border] * unit)
    return area * _draw_frame(outline.shape, 10 * unit)


def draw_scratches(area: np.ndarray, unit: float, rng: np.random.Generator) -> np.ndarray:
    """Draws scratch marks through the lesion: long, thin, roughly parallel."""
    layer, pen = start_drawing(area.shape)
    ys, xs = np.nonzero(area > 0.4)
    direction = rng.uniform(0, np.pi)
    for _ in range(int(rng.integers(8, 12))):
        centre = int(rng.integers(len(xs)))
        angle, half = direction + rng.normal(0, 0.12), rng.uniform(17, 28) * unit
        along = np.linspace(-half, half, 9)
        x = xs[centre] + along * np.cos(angle) + rng.normal(0, 0.4 * unit, 9)
        y = ys[centre] + along * np.sin(angle) + rng.normal(0, 0.4 * unit, 9)
        pen.line(
            list(zip(x.tolist(), y.tolist(), strict=True)),
            fill=255,
            width=max(2, round(3.2 * unit)),
        )
    return np.asarray(layer, "float32") / 255 * _draw_frame(area.shape, 10 * unit)


def draw_skin_lines(shape: tuple[int, int], unit: float, rng: np.random.Generator) -> np.ndarray:
    """Draws the crossed, deepened skin lines of thickened (lichenified) skin."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype("float32")
    warp = 2.0 * unit * draw_noise(shape, 12 * unit, rng)
    spacing = rng.uniform(8.5, 10.5) * unit
    turn = rng.uniform(0, np.pi)
    lines = np.zeros(shape, "float32")
    for angle in (turn, turn + rng.uniform(1.1, 1.6)):
        phase = (x * math.cos(angle) + y * math.sin(angle) + warp) * (math.pi / spacing)
        lines = np.maximum(lines, 1 - np.minimum(1, np.abs(np.sin(phase)) * 1.9))
    return lines


def draw_dots(area: np.ndarray, count: int, unit: float, rng: np.random.Generator) -> np.ndarray:
    """Draws round dots of 3 to 4.5 units inside the lesion."""
    layer, pen = start_drawing(area.shape)
    ys, xs = np.nonzero(area > 0.5)
    for centre in rng.integers(len(xs), size=count):
        x, y, radius = float(xs[centre]), float(ys[centre]), rng.uniform(2.6, 4.2) * unit
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    dots = gaussian_filter(np.asarray(layer, "float32") / 255, 0.6 * unit)
    return dots * _draw_frame(area.shape, 10 * unit)


def _draw_centres(
    shape: tuple[int, int], count: int, radius_px: float, rng: np.random.Generator
) -> np.ndarray:
    """Draws centres well inside the photo, each the farthest from those before of twelve tries."""
    height, width = shape
    margin = min(radius_px * 1.12 + 8, 0.5 * min(shape) - 1)
    low, high = np.array([margin, margin]), np.array([width - margin, height - margin])
    centres = [rng.uniform(low, high)]
    while len(centres) < count:
        tries = rng.uniform(low, high, (12, 2))
        gaps = np.linalg.norm(tries[:, None] - np.array(centres), axis=2).min(axis=1)
        centres.append(tries[gaps.argmax()])
    return np.array(centres)


def _draw_frame(shape: tuple[int, int], ramp_px: float) -> np.ndarray:
    """0 within `FRAME_PX` of the edge, rising to 1."""
    ramps = [
        np.clip((np.minimum(np.arange(side), np.arange(side)[::-1]) - FRAME_PX) / ramp_px, 0, 1)
        for side in shape
    ]
    return np.minimum.outer(*ramps).astype("float32")
