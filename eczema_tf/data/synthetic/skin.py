"""Skin, what lies on it, and the camera: the layers that a photo is painted of.

All images are float32 (height, width, 3) in [0, 1], all maps of a lesion (its outline, edges,
scratch marks and skin lines) float32 (height, width) in [0, 1]. `unit` is 1/192 of the photo's
shorter side in pixels, so that a lesion looks the same at every resolution.
"""

import math

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

TONES = ("I", "II", "III", "IV", "V", "VI")
SITES = ("arm", "leg", "trunk", "neck", "hand", "foot")
SIZES_PX = (160, 224)  # a side, drawn independently of everything else
_SKIN_RGB = np.array(
    [
        [244, 208, 192],
        [232, 190, 165],
        [208, 162, 132],
        [170, 122, 92],
        [122, 84, 62],
        [84, 58, 46],
    ],
    "float32",
) / np.float32(255)
_HAIRY = {"arm": 0.5, "leg": 0.6, "trunk": 0.3, "neck": 0.2, "hand": 0.2, "foot": 0.1}
# how much limbs darken to the sides
_FLAT = {"trunk": 0.02, "hand": 0.08, "foot": 0.08, "neck": 0.10, "arm": 0.14, "leg": 0.14}
FRAME_PX = 6  # nothing of a lesion lies this close to the photo's edge
_GROW = {"small": 0.72, "medium": 1.0, "large": 1.30}
_EDGE_SIGMA = {"sharp": 0.7, "blurred": 5.5}  # in units


def draw_noise(shape: tuple[int, int], sigma_px: float, rng: np.random.Generator) -> np.ndarray:
    """Draws smooth noise, mean 0 and standard deviation 1: float32 `shape`.

    Coarse noise is drawn small and enlarged, for speed.
    """
    step = max(1, int(sigma_px / 2))
    small = tuple(-(-side // step) + 1 for side in shape)
    noise = gaussian_filter(
        rng.standard_normal(small, dtype="float32"), sigma_px / step, mode="wrap", truncate=3
    )
    noise = (noise - noise.mean()) / max(float(noise.std()), 1e-6)
    return np.asarray(Image.fromarray(noise).resize(shape[::-1], Image.Resampling.BICUBIC))


def start_drawing(shape: tuple[int, ...]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Returns a black uint8 layer of (height, width, ...) and a pen for it."""
    layer = Image.new("L", (shape[1], shape[0]))
    return layer, ImageDraw.Draw(layer)


def render_skin(shape: tuple[int, int], tone: str, rng: np.random.Generator) -> np.ndarray:
    """Renders bare skin: its colour, blotchiness and fine grain."""
    unit = min(shape) / 192
    colour = (
        _SKIN_RGB[TONES.index(tone)]
        * rng.uniform(0.94, 1.06)
        * rng.uniform(0.98, 1.02, 3).astype("float32")
    )
    blotches = 0.025 * draw_noise(shape, 22 * unit, rng) + 0.012 * draw_noise(shape, 6 * unit, rng)
    grain = 0.022 * draw_noise(shape, 0.9, rng)
    return colour * (1 + blotches + grain)[..., None].astype("float32")


def add_hair(image: np.ndarray, site: str, rng: np.random.Generator) -> np.ndarray:
    """Lays a few thin curved hairs over the photo."""
    if rng.random() > _HAIRY[site]:
        return image
    height, width = image.shape[:2]
    layer, pen = start_drawing(image.shape)
    direction = rng.uniform(0, np.pi)
    for _ in range(int(rng.integers(3, 12))):
        along = np.linspace(-0.5, 0.5, 8) * rng.uniform(12, 30)
        bend = rng.uniform(-0.02, 0.02) * along**2
        angle = direction + rng.normal(0, 0.3)
        x = rng.uniform(0, width) + along * np.cos(angle) - bend * np.sin(angle)
        y = rng.uniform(0, height) + along * np.sin(angle) + bend * np.cos(angle)
        pen.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=int(rng.integers(90, 170)))
    opacity = np.asarray(layer, "float32")[..., None] / 255
    return image * (1 - opacity) + np.array([0.13, 0.09, 0.07], "float32") * opacity


def take_photo(image: np.ndarray, site: str, rng: np.random.Generator) -> np.ndarray:
    """Lights and photographs skin.

    The body is curved, the lamp to one side; colour cast, exposure, vignette, slight blur and
    sensor noise are the camera's.

    Returns:
        uint8 (height, width, 3).
    """
    height, width = image.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype("float32")
    angle, lamp = rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi)
    glow = rng.uniform(0, 0.08)
    light = 1 - _FLAT[site] * (x * math.cos(angle) + y * math.sin(angle)) ** 2
    light = light - rng.uniform(0, 0.06) * (x * x + y * y)
    light += x * (glow * math.cos(lamp)) + y * (glow * math.sin(lamp))
    cast = rng.normal(1, 0.025, 3).astype("float32") * rng.uniform(0.90, 1.08)
    image = image * light[..., None] * cast
    if rng.random() < 0.4:
        sigma_px = rng.uniform(0.3, 0.7)
        image = gaussian_filter(image, (sigma_px, sigma_px, 0), truncate=3)
    image += rng.uniform(0.004, 0.014) * rng.standard_normal((height, width, 1), dtype="float32")
    return (np.clip(image, 0, 1) * 255 + 0.5).astype("uint8")


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
    margin = min(radius_px * 1.12 + 8, 0.5 * min(shape) - 1)
    farthest = np.array(shape[::-1]) - margin  # (x, y)
    centres = [rng.uniform(margin, farthest)]
    while len(centres) < count:
        tries = rng.uniform(margin, farthest, (12, 2))
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
