"""Corrupted photos: blurred, too bright or dark, turned, covered.

Strengths are those of ImageNet-C (Hendrycks and Dietterich 2019, "Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations", ICLR) where it has the same kind; they are
meant for photos as `shrink` makes them. The wrong white balance is an idea of Afifi and Brown
(2019, ICCV); its strengths, and those of turning and covering, are our own.
"""

import io

import numpy as np
from PIL import Image, ImageFilter
from scipy.ndimage import rotate

from eczema_tf.data.corruption import Corruption
from eczema_tf.data.photo.files import encode_image

SHORTER_SIDE_PX = 256  # of ImageNet's photos before a square of 224 is cut out


def shrink(photo: Image.Image) -> Image.Image:
    """Reduces a photo until its shorter side is `SHORTER_SIDE_PX`; small ones stay as they are."""
    factor = SHORTER_SIDE_PX / min(photo.size)
    if factor >= 1:
        return photo
    size = (round(photo.width * factor), round(photo.height * factor))
    return photo.resize(size, Image.Resampling.BOX)


def _light(photo: Image.Image, shift: float, rng: np.random.Generator) -> Image.Image:
    """Raises HSV's value, as ImageNet-C does, or lowers it: photos can be too dark as well."""
    hue, saturation, value = photo.convert("HSV").split()
    levels = 255 * shift * rng.choice((-1, 1))
    value = _to_image(np.asarray(value, "float64") + levels)
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _cast(photo: Image.Image, gain: float, rng: np.random.Generator) -> Image.Image:
    """Raises red and lowers blue, or the other way round."""
    gains = (1 + gain) ** (rng.choice((-1, 1)) * np.array([1.0, 0.0, -1.0]))
    return _to_image(np.asarray(photo) * gains)


def _add_noise(photo: Image.Image, sd: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(photo)
    return _to_image(pixels + 255 * sd * rng.standard_normal(pixels.shape))


def _compress(photo: Image.Image, quality: float, _: np.random.Generator) -> Image.Image:
    return Image.open(io.BytesIO(encode_image(photo, "JPEG", quality=int(quality))))


def _turn(photo: Image.Image, degrees: float, rng: np.random.Generator) -> Image.Image:
    """Turns to either side; corners mirror the photo, since black ones would be another fault."""
    angle = degrees * rng.choice((-1, 1))
    turned = rotate(np.asarray(photo), angle, reshape=False, order=1, mode="reflect")
    return Image.fromarray(turned)


def _cover(photo: Image.Image, side: float, rng: np.random.Generator) -> Image.Image:
    """Covers a square, `side` of the shorter side, in mean colour (DeVries and Taylor 2017)."""
    pixels = np.array(photo)  # (height, width, 3)
    length = round(side * min(photo.size))
    top, left = (int(rng.random() * (room - length + 1)) for room in pixels.shape[:2])
    pixels[top : top + length, left : left + length] = pixels.mean(axis=(0, 1))
    return Image.fromarray(pixels)


def _coarsen(photo: Image.Image, share: float, _: np.random.Generator) -> Image.Image:
    small = (max(round(photo.width * share), 1), max(round(photo.height * share), 1))
    reduced = photo.resize(small, Image.Resampling.BOX)
    return reduced.resize(photo.size, Image.Resampling.BOX)


def _keep_border(photo: Image.Image, share: float, _: np.random.Generator) -> Image.Image:
    """Leaves a frame, `share` of the sides wide, around its own mean colour."""
    pixels = np.array(photo)  # (height, width, 3)
    rows, columns = (max(round(share * length), 1) for length in pixels.shape[:2])
    inside = np.zeros(pixels.shape[:2], bool)
    inside[rows:-rows, columns:-columns] = True
    pixels[inside] = pixels[~inside].mean(axis=0)
    return Image.fromarray(pixels)


def _to_image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.round(values), 0, 255).astype("uint8"))


# by name, of RGB photos
PHOTO_CORRUPTIONS: dict[str, Corruption[Image.Image]] = {
    "border_only": Corruption(_keep_border, (0.1,)),
    "blur": Corruption(
        lambda photo, sigma_px, _: photo.filter(ImageFilter.GaussianBlur(sigma_px)), (1, 2, 3, 4, 6)
    ),
    "brightness": Corruption(_light, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "colour_cast": Corruption(_cast, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "noise": Corruption(_add_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "jpeg": Corruption(_compress, (25, 18, 15, 10, 7)),
    "rotation": Corruption(_turn, (15, 30, 45, 60, 90)),
    "occlusion": Corruption(_cover, (0.2, 0.3, 0.4, 0.5, 0.6)),
    "resolution": Corruption(_coarsen, (0.6, 0.5, 0.4, 0.3, 0.25)),
}
