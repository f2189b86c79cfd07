"""Fusion of the photo's and the text's embeddings into one."""

from typing import Any

import keras

from eczema_tf.config import ModelConfig


def fuse_by_concatenation(image: Any, text: Any, config: ModelConfig) -> Any:
    """Concatenates both embeddings and mixes them by one hidden layer.

    Args:
        image: (batch, units); the learned vector where there is no photo.
        text: (batch, units); the learned vector where there is no text.
        config: Width and dropout.

    Returns:
        (batch, 2 * units), which also holds the inputs themselves, so that the heads can simply add up the evidence.
    """
    both = keras.layers.Concatenate(name="fusion_concat")([image, text])
    mixed = keras.layers.Dense(config.embedding_units, activation="relu", name="fusion_hidden")(both)
    mixed = keras.layers.Dropout(config.dropout, name="fusion_dropout")(mixed)
    return keras.layers.Concatenate(name="fusion_embedding")([both, mixed])


FUSIONS = {"concat": fuse_by_concatenation}
