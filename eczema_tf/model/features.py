"""Features of frozen encoders, computed once, and logits of all rows."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial

import keras
import keras_hub
import numpy as np
import tensorflow as tf

from eczema_tf.config import TrainConfig
from eczema_tf.data.cache import ArrayCache, fingerprint, release_maps
from eczema_tf.data.inputs import Column, Inputs
from eczema_tf.data.pipeline import build_evaluation_dataset
from eczema_tf.model.branches import TEXT_FEATURES, TEXT_WINDOWS, WINDOW_TOKENS
from eczema_tf.model.layers import LAYERS_VERSION
from eczema_tf.model.multimodal import ENCODED_INPUTS, Encoders, encoder_of, feature_name
from eczema_tf.schema import IMAGE, PADDING_MASK

Batches = Iterable[dict[str, np.ndarray]]
Predictor = Callable[[Batches], dict[str, np.ndarray]]
ENCODE_ROWS = 16  # photos or texts at once; more is no faster on a CPU and needs memory
PREDICTED_ROWS = 256  # of features, at once
SORTED_ROWS = 512  # texts that are sorted by length before they are encoded


def frozen_encoders(train: TrainConfig, encoders: Encoders) -> frozenset[str]:
    """Returns which of "image" and "text" stay frozen throughout training."""
    tuning = train.fine_tune
    first_layers = {"image": tuning.image_from, "text": tuning.text_from}
    tuned = {name for name, first in first_layers.items() if tuning.epochs and first is not None}
    return encoders.pretrained - tuned


def open_cache(train: TrainConfig) -> ArrayCache:
    """Opens the cache of pixels and features, which may be kept or not."""
    return ArrayCache(train.cache_folder, keep=train.cache_features)


def compute_features(
    model: keras.Model, inputs: Inputs, cached: Collection[str], cache: ArrayCache
) -> Inputs:
    """Replaces inputs with their encoders' features; encodes each distinct photo and text once.

    Args:
        model: With the encoders' weights loaded.
        inputs: Pixels or embeddings, and tokens.
        cached: Which of "image" and "text" to replace.
        cache: Where features are kept, by weights, preprocessing and contents.

    Returns:
        Inputs for `heads_of(model, cached)`.
    """
    for modality in sorted(cached):
        encoder, name = encoder_of(model, modality), feature_name(model, modality)
        arrays = {given: inputs.columns[given].values for given in encoder.input}
        old = ENCODED_INPUTS[modality]
        source = inputs.columns[old]
        # a vector, a grid of them (fusion by regions), or one for each token or window of tokens
        rows = 0 if modality in inputs.absent else len(source.values)  # they are not used
        shape = [rows, *encoder.output.shape[1:]]
        tokens = {TEXT_FEATURES: 1, TEXT_WINDOWS: WINDOW_TOKENS}.get(name)
        if tokens:
            shape[1] = -(-source.values.shape[1] // tokens)
        # a grid or a sequence is 30 to 60 times as much as a vector
        dtype = "float32" if len(shape) == 2 else "float16"
        made_by = [name, dtype, LAYERS_VERSION, keras.version(), keras_hub.version()]
        key = fingerprint(source.digest, weights_digest(encoder), *made_by)
        features = cache.load_or_compute(
            f"{modality}_features", key, shape, dtype, partial(_encode, encoder, arrays, shape[1])
        )
        inputs = inputs.with_features(old, name, Column(features, source.index, key), tokens)
        if modality == "text" and name != TEXT_FEATURES:
            columns = {
                given: kept for given, kept in inputs.columns.items() if given != PADDING_MASK
            }
            inputs = replace(inputs, columns=columns)
    release_maps()  # of what was encoded
    return inputs


def weights_digest(model: keras.Model) -> str:
    """Hashes a model's weights and its layers' settings.

    Leaves out the layers' names, which Keras numbers within a process, and whether they are
    trainable: training freezes what a loaded model does not, and features are those of inference.
    """
    settings = json.dumps(_list_settings(model), sort_keys=True, default=str)
    return fingerprint(settings, *[weight.numpy() for weight in model.weights])


def _list_settings(layer: keras.layers.Layer) -> list:
    """Lists the settings of a layer, or of all layers in a model."""
    if isinstance(layer, keras.Model):
        return [_list_settings(inner) for inner in layer.layers]
    not_hashed = ("name", "trainable")
    return [{key: value for key, value in layer.get_config().items() if key not in not_hashed}]


def _encode(
    encoder: keras.Model, arrays: dict[str, np.ndarray], length: int
) -> Iterator[np.ndarray]:
    """Encodes in chunks, texts of similar length together, since padding costs as much as words.

    Features with a row for each token, or window of tokens, are padded with zeros to `length`.
    """
    for start in range(0, len(next(iter(arrays.values()))), SORTED_ROWS):
        chunk = {name: array[start : start + SORTED_ROWS] for name, array in arrays.items()}
        order = np.arange(len(next(iter(chunk.values()))))
        if PADDING_MASK in chunk:
            order = np.argsort(chunk[PADDING_MASK].sum(axis=1), kind="stable")
        blocks = [
            _encode_block(encoder, {name: array[rows] for name, array in chunk.items()}, length)
            for rows in np.split(order, range(ENCODE_ROWS, len(order), ENCODE_ROWS))
        ]
        yield np.concatenate(blocks)[np.argsort(order)]


def _encode_block(encoder: keras.Model, block: dict[str, np.ndarray], length: int) -> np.ndarray:
    """Encodes rows together, with texts cut to the longest of them."""
    if IMAGE in block:
        return encoder.predict_on_batch({IMAGE: block[IMAGE].astype("float32")})
    longest = int(block[PADDING_MASK].sum(axis=1).max())
    encoded = encoder.predict_on_batch({name: array[:, :longest] for name, array in block.items()})
    if encoded.ndim == 3:
        encoded = np.pad(encoded, ((0, 0), (0, length - encoded.shape[1]), (0, 0)))
    return encoded


def predict_logits(model: keras.Model, batches: Batches) -> dict[str, np.ndarray]:
    """Runs a model over an evaluation dataset; see `build_predictor`."""
    return build_predictor(model)(batches)


def predict_rows(model: keras.Model, inputs: Inputs, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Runs a model over some rows, int64 (rows,); see `build_predictor`."""
    return predict_logits(model, build_evaluation_dataset(inputs, rows, PREDICTED_ROWS))


def build_predictor(model: keras.Model) -> Predictor:
    """Builds a function that runs a model over an evaluation dataset.

    It uses one graph for all numbers of rows and tokens. Keras's own graph depends on the shapes
    seen before, which would decide about the last bits.

    Returns:
        A function that returns float32 (rows, ...) by output of the model, in the order of the
        dataset.
    """
    specs = {name: tf.TensorSpec(taken.shape, taken.dtype) for name, taken in model.input.items()}
    run = tf.function(
        lambda inputs: model(inputs, training=False), input_signature=[specs], autograph=False
    )

    def predict(batches: Batches) -> dict[str, np.ndarray]:
        outputs = [
            run({name: tf.cast(batch[name], spec.dtype) for name, spec in specs.items()})
            for batch in batches
        ]
        return {name: np.concatenate([output[name] for output in outputs]) for name in model.output}

    return predict
