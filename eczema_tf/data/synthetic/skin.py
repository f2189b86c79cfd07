"""Healthy skin and the camera: what every photo has, whatever the condition.

All images are float32 (height, width, 3) in [0, 1]; lengths are in units of 1/192 of the photo's
side, so that a lesion looks the same at every resolution.
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
    if step == 1 and small == shape:
        return noise
    height, width = shape
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def start_drawing(shape: tuple[int, ...]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Returns a black uint8 layer of (height, width, ...) and a pen for it."""
    layer = Image.new("L", (shape[1], shape[0]))
    return layer, ImageDraw.Draw(layer)


def render_skin(shape: tuple[int, int], tone: str, rng: np.random.Generator) -> np.ndarray:
    """Renders bare skin: its colour, blotchiness and fine grain."""
    height, width = shape
    unit = min(height, width) / 192
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
