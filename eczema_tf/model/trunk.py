"""Cuts the image encoder where fine-tuning begins: what lies below is computed once.

Augmentation changes what the lower layers see, so they are computed for a number of augmented views
of each photo, and every epoch learns from another view.
"""

from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from eczema_tf.config import AugmentConfig
from eczema_tf.data.cache import ArrayCache, fingerprint
from eczema_tf.data.inputs import Column, Inputs
from eczema_tf.data.photo.augment import augment_photos
from eczema_tf.errors import ConfigError
from eczema_tf.model.branches import IMAGE_FEATURES, NORMALIZATION, SUMMARY, pooling_of
from eczema_tf.model.features import ENCODE_ROWS, weights_digest
from eczema_tf.model.inner_map import find_inner_maps
from eczema_tf.model.layers import LAYERS_VERSION
from eczema_tf.model.multimodal import ENCODER_LAYERS, feature_name, heads_of
from eczema_tf.schema import IMAGE

TRUNK = "image_trunk"  # what the lower layers return: (batch, height, width, channels)


def split_at(model: keras.Model, first: str) -> tuple[keras.Model, keras.Model]:
    """Splits the image encoder before a layer, sharing its layers.

    Args:
        model: From `build_model`.
        first: Name of the layer, or how it begins.

    Returns:
        A model from photos (batch, size, size, 3) in [0, 255] to what the layer takes, or to the
        fine map if that comes earlier; and a model from there to the encoder's outputs.

    Raises:
        ConfigError: If something flows around that place, or the encoder has no such layer.
    """
    encoder = model.get_layer(ENCODER_LAYERS["image"])
    photos = model.get_layer(NORMALIZATION).output
    found = [layer for layer in encoder.layers if layer.name.startswith(first)][:1]
    # what needs an inner map cannot use a place above it: the fine one lies below all others
    fine = find_inner_maps(encoder, photos)[:1] if encoder.outputs[1:] else []
    single = [layer.input for layer in found if not isinstance(layer.input, list)]
    for place in [*single, *fine]:
        with suppress(ValueError):  # Keras' way to say that something flows around it
            upper = keras.Model(place, encoder.outputs, name="image_encoder_top")
            if found and found[0] in upper.layers:
                break
    else:
        raise ConfigError(
            f"train.fine_tune.views: the encoder cannot be cut before {first!r}; name the first"
            " layer of a block in train.fine_tune.image_from, or set views to 0"
        )
    lower = keras.Model(encoder.input, place, name="image_encoder_trunk")
    return keras.Model(model.input[IMAGE], lower(photos), name=TRUNK), upper


def top_of(
    model: keras.Model,
    trunk: keras.Model,
    upper: keras.Model,
    cached: Collection[str],
    outputs: Collection[str],
) -> keras.Model:
    """Takes what `heads_of` takes, and the upper layers of the image encoder before it.

    Args:
        model: From `build_model`.
        trunk: From `split_at`.
        upper: From `split_at`.
        cached: Whether "text" enters as features; "image" is not among them.
        outputs: Names of the layers whose outputs the part has.

    Returns:
        A model whose `image` input is replaced by `TRUNK`.
    """
    heads, entry = heads_of(model, {*cached, "image"}, outputs), feature_name(model, "image")
    grid = keras.Input(trunk.output.shape[1:], name=TRUNK)
    last, *inner = keras.tree.flatten(upper(grid))
    last = model.get_layer(IMAGE_FEATURES)(last)
    features = pooling_of(model)([last, *inner]) if entry == SUMMARY else last
    others = {name: taken for name, taken in heads.input.items() if name != entry}
    answers = heads({**others, entry: features})
    return keras.Model({**others, TRUNK: grid}, answers, name="top")


def encode_views(
    trunk: keras.Model,
    inputs: Inputs,
    views: int,
    augment: AugmentConfig,
    seed: int,
    cache: ArrayCache,
) -> Inputs:
    """Replaces photos with what the lower layers make of them and of augmented views of them.

    Args:
        trunk: From `split_at`.
        inputs: With pixels.
        views: Number of views of each photo, besides the photo itself.
        augment: How a view differs.
        seed: Seed of the views.
        cache: Where they are kept, by weights, preprocessing and contents.

    Returns:
        All rows with their photos as they are, then all of them again with the first view, with
        the second and so on.
    """
    source = inputs.columns[IMAGE]
    photos, times = len(source.values), 1 + views
    made_by = [augment.model_dump(), views, seed, LAYERS_VERSION, keras.version()]
    key = fingerprint(source.digest, weights_digest(trunk), *made_by)
    values = cache.load_or_compute(
        "image_views",
        key,
        (photos * times, *trunk.output.shape[1:]),
        "float16",
        partial(_encode_views, trunk, source.values, times, augment, seed),
    )
    shifts = photos * np.repeat(np.arange(times), len(inputs))
    rows, index = np.tile(np.arange(len(inputs)), times), np.tile(source.index, times)
    repeated = inputs.pair(rows, rows, rows)
    column = Column(values, np.where(index < 0, -1, index + shifts), key)
    return repeated.with_features(IMAGE, TRUNK, column)


def _encode_views(
    trunk: keras.Model, photos: np.ndarray, times: int, augment: AugmentConfig, seed: int
) -> Iterator[np.ndarray]:
    @tf.function
    def encode(pixels: tf.Tensor, key: tf.Tensor, changed: bool) -> tf.Tensor:
        pixels = tf.cast(pixels, tf.float32)
        return trunk(augment_photos(pixels, key, augment) if changed else pixels, training=False)

    for view in range(times):
        for start in range(0, len(photos), ENCODE_ROWS):
            key = tf.random.fold_in(tf.constant([seed, view]), start)
            yield encode(photos[start : start + ENCODE_ROWS], key, view > 0).numpy()
