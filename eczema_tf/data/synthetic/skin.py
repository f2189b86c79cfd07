"""Skin, what surrounds it, and the camera: all of a photo that the condition does not affect.

All images are float32 (height, width, 3) in [0, 1], all maps float32 (height, width). `unit` is
1/192 of a shorter side in pixels, so that things look the same at every resolution.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

TONES = ("I", "II", "III", "IV", "V", "VI")
SITES = ("arm", "leg", "trunk", "neck", "hand", "foot")
SIZES_PX = (168, 232)  # a side, drawn independently of everything else
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
_MELANIN = np.array([0.72, 0.58, 0.48], "float32")  # what a freckle multiplies skin by
_BLOOD = np.array([0.10, 0.35, 0.30], "float32")  # what skin full of blood takes away
_HAIR_RGB = np.array([[30, 22, 18], [70, 48, 32], [150, 118, 80], [190, 188, 184]]) / 255
_HAIRY = {"arm": 0.5, "leg": 0.6, "trunk": 0.3, "neck": 0.2, "hand": 0.2, "foot": 0.1}
# half the width of the part of the body, in half widths of the photo: above 1, a close-up
_BREADTH = {
    "arm": (0.72, 2.0),
    "leg": (0.75, 2.2),
    "trunk": (0.90, 4.0),
    "neck": (0.75, 2.0),
    "hand": (0.75, 1.8),
    "foot": (0.75, 1.8),
}


class Scene(NamedTuple):
    """A part of the body before its photo is taken.

    Attributes:
        image: float32 (height, width, 3), colours in even light.
        relief: float32 (height, width), heights in pixels.
        light: float32 (height, width), how bright the curved body is.
        skin: A rectangle that is skin all over: rows, columns.
    """

    image: np.ndarray
    relief: np.ndarray
    light: np.ndarray
    skin: tuple[slice, slice]


def draw_noise(
    shape: tuple[int, ...], sigma_px: float | tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Draws smooth noise, mean 0 and standard deviation 1: float32 `shape`.

    Coarse noise is drawn small and enlarged, for speed.
    """
    sigmas_px = np.broadcast_to(sigma_px, 2)
    steps = np.maximum(1, (sigmas_px / 2).astype(int))
    noise = gaussian_filter(
        rng.standard_normal(-(-np.array(shape) // steps) + 1, dtype="float32"),
        sigmas_px / steps,
        mode="wrap",
        truncate=3,
    )
    noise = (noise - noise.mean()) / max(float(noise.std()), 1e-6)
    return np.asarray(Image.fromarray(noise).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def start_drawing(shape: tuple[int, ...]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Returns a black uint8 layer of (height, width, ...) and a pen for it."""
    layer = Image.new("L", (shape[1], shape[0]))
    return layer, ImageDraw.Draw(layer)


def blend(image: np.ndarray, opacity: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Lays a colour, or another image, over an image: `opacity` in 0..1, cut off outside."""
    opacity = np.clip(opacity, 0, 1)[..., None]
    return image + opacity * (colour - image)


def draw_scene(tone: str, site: str, rng: np.random.Generator) -> Scene:
    """Draws a limb in front of a background, or skin so close that nothing else is visible."""
    height, width = shape = tuple(rng.integers(*SIZES_PX, 2, endpoint=True).tolist())
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype("float32")
    breadth = math.exp(rng.uniform(*np.log(_BREADTH[site]))) * (1 + rng.normal(0, 0.06) * y)
    bend, bulge = rng.normal(0, 0.07, 2)
    # -1 at one side of the limb, 1 at the other
    across = (x - rng.uniform(-0.25, 0.25) - bend * y - bulge * y**2) / breadth
    body = np.clip((1 - np.abs(across)) * (breadth * width / 3), 0, 1)
    sleeve = rng.uniform(0.6, 1) if rng.random() < 0.25 else 2.0  # where it begins along the limb
    body = body * (y < sleeve + 0.03 * np.sin(x * rng.uniform(1, 6)))
    columns = np.flatnonzero((np.abs(across) < 0.93).all(axis=0))
    rows = np.flatnonzero(y[:, 0] < sleeve - 0.06)
    image, relief = _draw_skin(shape, tone, math.exp(rng.uniform(-0.5, 1.1)), rng)
    rounded = np.sqrt(1 - 0.98 * np.clip(np.abs(across), 0, 1) ** 2)
    shade = rng.uniform(0.3, 1)
    light = np.where(body > 0.5, 1 - shade + shade * rounded, rng.uniform(0.5, 1.1))
    return Scene(
        blend(_draw_fabric(shape, rng), body, image),
        relief * body,
        light.astype("float32"),
        (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)),
    )


def _draw_skin(
    shape: tuple[int, ...], tone: str, zoom: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws bare skin and its relief: blotches, freckles, pores, furrows and creases."""
    unit = min(shape) / 192 * zoom
    colour = _SKIN_RGB[TONES.index(tone)] * rng.normal(1, (0.02, 0.035, 0.06)).astype("float32")
    blotches = draw_noise(shape, 20 * unit, rng) + 0.8 * draw_noise(
        shape, rng.uniform(3, 9) * unit, rng
    )
    redness = rng.uniform(0, 0.12) + rng.uniform(0.04, 0.25) * blotches
    image = colour * (1 - redness[..., None] * _BLOOD)
    freckles = draw_noise(shape, rng.uniform(1.2, 5) * unit, rng) - rng.uniform(0.8, 4)
    image = blend(image, rng.uniform(0.3, 1.2) * freckles, image * _MELANIN)
    pores = np.clip(draw_noise(shape, 0.9 * unit, rng) - 1.2, 0, 1)
    # furrows run where smooth noise crosses zero
    furrows = np.exp(-4 * np.abs(draw_noise(shape, 1.5 * unit, rng)))
    creases = np.exp(-6 * np.abs(draw_noise(shape, (3 * unit, rng.uniform(3, 40) * unit), rng)))
    relief = -rng.gamma(2, 0.3) * furrows - rng.gamma(1, 0.5) * creases - 0.7 * pores
    # fine wrinkles, down, dust and sweat glint
    glints = np.clip(draw_noise(shape, rng.uniform(0.6, 1.2) * unit, rng) - 1, 0, 2)
    grain = 0.015 * draw_noise(shape, 0.9, rng) + rng.gamma(1, 0.07) * glints
    return image * (1 + 0.06 * relief + grain)[..., None], relief * unit


def _draw_fabric(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draws what is not skin: cloth, striped or plain, a sheet, a table, a dark room."""
    colours = rng.uniform(0, 1) + rng.normal(0, 0.06, (2, 3)) * rng.choice([0.5, 3])
    direction = rng.uniform(0, math.pi)
    y, x = np.mgrid[: shape[0], : shape[1]].astype("float32")
    waves = np.sin((x * math.cos(direction) + y * math.sin(direction)) / rng.uniform(0.6, 8))
    threads = rng.uniform(0, 0.06) * draw_noise(shape, rng.uniform(0.6, 6), rng)
    folds = 0.12 * draw_noise(shape, rng.uniform(10, 50), rng)
    image = blend(
        np.broadcast_to(colours[0], (*shape, 3)), waves * rng.choice([0, 0.3, 4]), colours[1]
    )
    return (image * (1 + threads + folds)[..., None]).astype("float32")


def add_hair_and_ink(image: np.ndarray, site: str, rng: np.random.Generator) -> np.ndarray:
    """Lays curved hairs over the photo, and now and then a doctor's pen mark."""
    height, width = image.shape[:2]
    if rng.random() < 0.08:
        layer, pen = start_drawing(image.shape)
        x, y = rng.uniform(0.2, 0.8, 2) * (width, height)
        a, b = rng.uniform(0.1, 0.35, 2) * min(height, width)
        pen.ellipse((x - a, y - b, x + a, y + b), outline=200, width=int(rng.integers(1, 4)))
        ink = gaussian_filter(np.asarray(layer, "float32") / 255, 0.8)
        image = blend(image, ink, np.array([0.2, 0.15, 0.45], "float32"))
    if rng.random() > _HAIRY[site]:
        return image
    layer, pen = start_drawing(image.shape)
    direction, length = rng.uniform(0, np.pi), rng.uniform(10, 50)
    for _ in range(int(rng.gamma(1, 16)) + 2):
        along = np.linspace(-0.5, 0.5, 8) * length * rng.uniform(0.5, 1.2)
        bend = rng.normal(0, 0.02) * along**2
        angle = direction + rng.normal(0, 0.3)
        x = rng.uniform(0, width) + along * np.cos(angle) - bend * np.sin(angle)
        y = rng.uniform(0, height) + along * np.sin(angle) + bend * np.cos(angle)
        pen.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=int(rng.integers(90, 220)))
    opacity = gaussian_filter(np.asarray(layer, "float32") / 255, rng.uniform(0, 0.6))
    return blend(image, opacity, rng.choice(_HAIR_RGB).astype("float32"))


def take_photo(
    image: np.ndarray, relief: np.ndarray, light: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Lights and photographs a scene.

    A lamp from one side shades the relief, a flash glares; colour cast, exposure, contrast,
    vignette, focus and noise are the camera's.

    Returns:
        uint8 (height, width, 3).
    """
    height, width = image.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype("float32")
    lamp, glow = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.25)
    down, right = np.gradient(relief)
    shade = rng.uniform(0.12, 0.3) * (right * math.cos(lamp) + down * math.sin(lamp))
    light = light * (1 + np.clip(shade, -0.4, 0.4))
    light = light * (1 + glow * (x * math.cos(lamp) + y * math.sin(lamp)))
    light = light * (1 - rng.uniform(0, 0.15) * (x * x + y * y))
    flash_x, flash_y = rng.uniform(-0.8, 0.8, 2)
    flash = np.exp(-((x - flash_x) ** 2 + (y - flash_y) ** 2) / rng.uniform(0.1, 1))
    glare = rng.gamma(0.7, 0.14) * flash * np.clip(0.5 + 6 * shade, 0, 3)
    cast = rng.normal(1, (0.06, 0.03, 0.08)).astype("float32") * rng.uniform(0.75, 1.15)
    image = np.clip(image * light[..., None] * cast + glare[..., None], 0, 1)
    image = image ** rng.uniform(0.85, 1.25)
    if rng.random() < 0.5:
        sigma_px = rng.gamma(2, 0.3)
        image = gaussian_filter(image, (sigma_px, sigma_px, 0), truncate=3)
    image = image + rng.gamma(2, 0.005) * rng.standard_normal(image.shape, dtype="float32")
    return (np.clip(image, 0, 1) * 255 + 0.5).astype("uint8")
