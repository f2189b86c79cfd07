"""Features of frozen encoders, computed once, and logits of all rows."""

import json
from collections.abc import Collection, Iterator

import keras
import numpy as np

from eczema_tf.data.cache import ArrayCache, fingerprint
from eczema_tf.data.inputs import Column, Inputs
from eczema_tf.model.multimodal import POOLED_TEXT, encoder_of, feature_name, heads_of
from eczema_tf.schema import HEADS, IMAGE, PADDING_MASK, TOKEN_IDS

ENCODE_ROWS = 16  # photos or texts at once; more is no faster on a CPU and needs memory


def compute_features(
    model: keras.Model, inputs: Inputs, frozen: Collection[str], cache: ArrayCache
) -> Inputs:
    """Replaces the inputs of frozen encoders by their features, each distinct photo and text encoded once.

    Args:
        model: With the encoders' weights loaded.
        inputs: Pixels or embeddings, and tokens.
        frozen: Which of "image" and "text" are frozen.
        cache: Where features are kept, by weights, preprocessing and contents.

    Returns:
        Inputs for `heads_of(model, frozen)`.
    """
    for modality in sorted(frozen):
        inputs = _encode_modality(model, modality, inputs, cache)
    return inputs


def _encode_modality(
    model: keras.Model, modality: str, inputs: Inputs, cache: ArrayCache
) -> Inputs:
    old, new = (IMAGE if modality == "image" else TOKEN_IDS), feature_name(model, modality)
    encoder, source = encoder_of(model, modality), inputs.columns[old]
    values = (
        [source.values]
        if modality == "image"
        else [source.values, inputs.columns[PADDING_MASK].values]
    )
    shape = [
        len(source.values),
        *encoder.output.shape[1:],
    ]  # a vector, a grid of them (fusion by regions), or one for each token
    tokens = modality == "text" and len(shape) == 3
    if tokens:
        shape[1] = values[0].shape[1]
    dtype = (
        "float32" if len(shape) == 2 else "float16"
    )  # a grid or a sequence is 30 to 60 times as much as a vector
    key = fingerprint(source.digest, weights_digest(encoder), new, dtype, keras.version())
    features = cache.load_or_compute(
        f"{modality}_features", key, shape, dtype, lambda: _encode(encoder, values, tokens)
    )
    inputs = inputs.with_features(old, new, Column(features, source.index, key))
    if new == POOLED_TEXT:
        columns = {name: column for name, column in inputs.columns.items() if name != PADDING_MASK}
        inputs = Inputs(columns, inputs.token_counts, inputs.token_columns)
    return inputs


def weights_digest(model: keras.Model) -> str:
    """Hashes a model's weights and its layers' settings (not their names, which Keras counts up within a process)."""
    settings = [
        {key: value for key, value in layer.get_config().items() if key != "name"}
        for layer in model.layers
    ]
    return fingerprint(
        json.dumps(settings, sort_keys=True, default=str),
        *[weight.numpy() for weight in model.weights],
    )


def _encode(encoder: keras.Model, values: list[np.ndarray], tokens: bool) -> Iterator[np.ndarray]:
    """Encodes in blocks; texts are cut to the longest of their block, since padding costs as much as words."""
    for start in range(0, len(values[0]), ENCODE_ROWS):
        block = [array[start : start + ENCODE_ROWS] for array in values]
        if len(block) == 1:
            yield encoder.predict_on_batch({IMAGE: block[0].astype("float32")})
            continue
        longest = int(block[1].sum(axis=1).max())
        ids, mask = (array[:, :longest] for array in block)
        encoded = encoder.predict_on_batch({TOKEN_IDS: ids, PADDING_MASK: mask})
        yield (
            np.pad(encoded, ((0, 0), (0, values[0].shape[1] - longest), (0, 0)))
            if tokens
            else encoded
        )


def predict_logits(model: keras.Model, dataset) -> dict[str, np.ndarray]:
    """Runs a model over an evaluation dataset.

    Returns:
        float32 (rows, ...) logits by head, in the order of the dataset.
    """
    outputs = [model.predict_on_batch(batch) for batch in dataset]
    return {head: np.concatenate([output[head] for output in outputs]) for head in HEADS}


def frozen_model(model: keras.Model, frozen: Collection[str]) -> keras.Model:
    """Returns the model that takes what `compute_features` gives."""
    return heads_of(model, frozen) if frozen else model
