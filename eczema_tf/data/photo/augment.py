"""Random changes to batches of training photos, decided by stateless seeds.

A run can therefore be repeated and resumed.

Photos go in and come out as float32 (batch, height, width, 3) in [0, 255]. Rotation, crop and flip
are one affine map, so that pixels are interpolated once.
"""

import math

import tensorflow as tf

from eczema_tf.config import AugmentConfig


def augment_photos(photos: tf.Tensor, seed: tf.Tensor, config: AugmentConfig) -> tf.Tensor:
    """Applies every change that the configuration turns on.

    Args:
        photos: float32 (batch, height, width, 3) in [0, 255].
        seed: int32 (2,); the same seed gives the same changes.
        config: Which changes to make, and how strong they are.

    Returns:
        float32 (batch, height, width, 3) in [0, 255].
    """
    seeds = tf.unstack(tf.random.split(seed, 4))
    photos = _warp(photos, seeds[0], config)
    if config.color > 0:
        photos = _jitter_color(photos, seeds[1], config.color)
    if config.blur > 0:
        photos = _blur_some(photos, seeds[2], config.blur)
    if config.cutout > 0:
        photos = _cut_out(photos, seeds[3], config.cutout)
    return tf.clip_by_value(photos, 0.0, 255.0)


def _uniform(shape: tuple, seed: tf.Tensor, low: float, high: float) -> tf.Tensor:
    return tf.random.stateless_uniform(shape, seed, low, high)


def _warp(photos: tf.Tensor, seed: tf.Tensor, config: AugmentConfig) -> tf.Tensor:
    """Rotates, crops (zooms in at a random place) and flips, interpolating once; mirrored edges."""
    batch, height, width = tf.shape(photos)[0], tf.shape(photos)[1], tf.shape(photos)[2]
    seeds = tf.unstack(tf.random.split(seed, 4))
    radians = config.rotation_deg * math.pi / 180
    angle = _uniform((batch,), seeds[0], -radians, radians)
    # shares of the side: how much stays in view, and where
    kept = 1 - _uniform((batch,), seeds[1], 0.0, config.crop)
    shift = _uniform((batch, 2), seeds[2], -0.5, 0.5) * (1 - kept)[:, None]
    sides = _uniform((batch, 2), seeds[3], -0.5, 0.5)
    signs = tf.where(sides < 0, -1.0, 1.0) if config.flip else tf.ones((batch, 2))
    center_x, center_y = (tf.cast(width, tf.float32) - 1) / 2, (tf.cast(height, tf.float32) - 1) / 2
    a0, a1 = signs[:, 0] * kept * tf.cos(angle), -signs[:, 1] * kept * tf.sin(angle)
    b0, b1 = signs[:, 0] * kept * tf.sin(angle), signs[:, 1] * kept * tf.cos(angle)
    a2 = center_x - a0 * center_x - a1 * center_y + shift[:, 0] * tf.cast(width, tf.float32)
    b2 = center_y - b0 * center_x - b1 * center_y + shift[:, 1] * tf.cast(height, tf.float32)
    zeros = tf.zeros((batch,))
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=photos,
        transforms=tf.stack([a0, a1, a2, b0, b1, b2, zeros, zeros], axis=1),
        output_shape=tf.stack([height, width]),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )


def _jitter_color(photos: tf.Tensor, seed: tf.Tensor, strength: float) -> tf.Tensor:
    """Scales brightness, contrast and saturation, each by 1 plus or minus `strength`."""
    factors = _uniform((3, tf.shape(photos)[0], 1, 1, 1), seed, 1 - strength, 1 + strength)
    photos = photos * factors[0]
    mean = tf.reduce_mean(photos, axis=(1, 2), keepdims=True)
    photos = mean + (photos - mean) * factors[1]
    gray = tf.reduce_mean(photos, axis=-1, keepdims=True)
    return gray + (photos - gray) * factors[2]


def _blur_some(photos: tf.Tensor, seed: tf.Tensor, share: float) -> tf.Tensor:
    """Blurs a share of the photos with a 3 x 3 binomial filter."""
    chosen = _uniform((tf.shape(photos)[0], 1, 1, 1), seed, 0.0, 1.0) < share
    line = tf.constant([0.25, 0.5, 0.25])
    kernel = tf.tile((line[:, None] * line[None, :])[:, :, None, None], (1, 1, 3, 1))
    padded = tf.pad(photos, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="REFLECT")
    return tf.where(chosen, tf.nn.depthwise_conv2d(padded, kernel, (1, 1, 1, 1), "VALID"), photos)


def _cut_out(photos: tf.Tensor, seed: tf.Tensor, side: float) -> tf.Tensor:
    """Fills a square of each photo with its mean colour (DeVries and Taylor 2017, 1708.04552)."""
    center = _uniform((2, tf.shape(photos)[0], 1, 1, 1), seed, 0.0, 1.0)
    rows = tf.linspace(0.0, 1.0, tf.shape(photos)[1])[None, :, None, None]
    columns = tf.linspace(0.0, 1.0, tf.shape(photos)[2])[None, None, :, None]
    inside = (tf.abs(rows - center[0]) < side / 2) & (tf.abs(columns - center[1]) < side / 2)
    return tf.where(inside, tf.reduce_mean(photos, axis=(1, 2), keepdims=True), photos)
