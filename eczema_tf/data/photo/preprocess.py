"""Photo bytes to pixels: decoding, resizing and colour constancy, as TensorFlow ops.

The training pipeline and the serving graph both call `preprocess_photo`, so the two cannot drift
apart. Pixels are returned as uint8, so what is cached on disk for training equals what the serving
graph computes, bit for bit. The encoder's own normalisation is a layer of the model
(`model/branches.py`).
"""

from functools import partial

import numpy as np
import tensorflow as tf

from eczema_tf.config import PreprocessConfig

# raised whenever the pixels of a photo change, so that cached ones are computed again
PIXELS_VERSION = 3
REDUCTIONS = (8, 4, 2)  # libjpeg decodes straight to 1/2, 1/4 or 1/8 of the size


def preprocess_photo(data: tf.Tensor, size_px: int, config: PreprocessConfig) -> tf.Tensor:
    """Turns a photo file into the encoder's pixels.

    Args:
        data: string (), a JPEG or PNG file, upright; training and all clients of this project pass
            what `upright_jpeg` makes.
        size_px: Side of the square result; the photo is stretched to it, so that no part of the
            skin is cut off.
        config: Colour constancy on or off, and its norm.

    Returns:
        uint8 (size_px, size_px, 3), RGB.

    Raises:
        tf.errors.InvalidArgumentError: When the data cannot be decoded.
    """
    # resized as bytes: as floats, a PNG of 25 megapixels would take 300 MB
    photo = decode_photo(data, size_px)
    photo = tf.image.resize(photo, (size_px, size_px), method="bilinear", antialias=True)  # float32
    if config.color_constancy.enabled:
        photo = shades_of_gray(photo, config.color_constancy.norm)
    photo = tf.cast(tf.clip_by_value(tf.round(photo), 0.0, 255.0), tf.uint8)
    photo.set_shape((size_px, size_px, 3))
    return photo


def decode_photo(data: tf.Tensor, size_px: int) -> tf.Tensor:
    """Decodes a JPEG or PNG.

    A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, never below twice `size_px`.

    Args:
        data: string ().
        size_px: The side that the photo will be resized to.

    Returns:
        uint8 (height, width, 3).
    """
    is_jpeg = tf.equal(tf.strings.substr(data, 0, 2), b"\xff\xd8")
    return tf.cond(
        is_jpeg, lambda: _decode_jpeg(data, size_px), lambda: tf.io.decode_png(data, channels=3)
    )


def _decode_jpeg(data: tf.Tensor, size_px: int) -> tf.Tensor:
    shorter_px = tf.reduce_min(tf.io.extract_jpeg_shape(data)[:2])

    def decode(reduction: int) -> tf.Tensor:
        return tf.io.decode_jpeg(data, channels=3, ratio=reduction)

    cases = [
        (shorter_px >= 2 * size_px * reduction, partial(decode, reduction))
        for reduction in REDUCTIONS
    ]
    return tf.case(cases, default=partial(decode, 1))


def shades_of_gray(photo: tf.Tensor, norm: float) -> tf.Tensor:
    """Removes the colour of the light.

    (Finlayson and Trezzi, "Shades of gray and colour constancy", CIC 2004.)

    The illuminant is the Minkowski norm of each channel; channels are scaled so that it becomes
    grey while the total intensity is kept. Powers come from a table of the 256 levels and are added
    up in float64. Sums in float32 depend on the number of threads, and the last bit of a scale
    sometimes decides how a pixel is rounded, so training and serving would not see exactly the same
    pixels.

    Args:
        photo: float32 (height, width, 3) in [0, 255].
        norm: Minkowski norm; 1 is grey-world, 6 is the paper's best.

    Returns:
        float32 (height, width, 3); may exceed 255. A black photo stays black.
    """
    powers = tf.constant((np.arange(256) / 255.0) ** norm)
    levels = tf.cast(tf.clip_by_value(tf.round(photo), 0.0, 255.0), tf.int32)
    mean = tf.reduce_mean(tf.gather(powers, levels), axis=(0, 1))  # (3,), float64
    illuminant = mean ** (1.0 / norm)
    gray = tf.sqrt(tf.reduce_mean(illuminant**2))
    scale = tf.where(illuminant > 1e-6, gray / tf.maximum(illuminant, 1e-6), 1.0)
    return photo * tf.cast(scale, tf.float32)
