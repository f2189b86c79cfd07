"""Fusion of the photo's and the text's evidence: one small function each, named by `model.fusion`.

Each takes `Evidence` and returns `FusedLogits`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras

from eczema_tf.config import ModelConfig
from eczema_tf.errors import ConfigError
from eczema_tf.model.layers import MaskedMean, MissingModality

ATTENTION_HEADS = 4
# the layer by which a fusion reaches the photo's regions, not only their mean
REGIONS = "fusion_regions"


class FusedLogits(NamedTuple):
    """What a fusion concludes."""

    eczema: Any  # (batch, 1)
    severity_score: Any  # (batch, 1)


@dataclass(frozen=True)
class Evidence:
    """What a fusion may look at.

    Attributes:
        image: (batch, units); the learned vector where there is no photo.
        text: (batch, units); the learned vector where there is no text.
        image_present: (batch,) 0 or 1; in training some are dropped.
        text_present: Likewise.
        image_features: (batch, height, width, channels), or (batch, channels) for embeddings;
            without meaning where there is no photo.
        image_logit: (batch, 1), of the head `eczema_image`.
        text_logit: (batch, 1), of the head `eczema_text`.
    """

    image: Any
    text: Any
    image_present: Any
    text_present: Any
    image_features: Any
    image_logit: Any
    text_logit: Any


def fuse_by_concatenation(evidence: Evidence, config: ModelConfig) -> FusedLogits:
    """Concatenates both embeddings and adds a hidden layer that mixes them."""
    return _score(_mix([evidence.image, evidence.text], config))


def fuse_by_gate(evidence: Evidence, config: ModelConfig) -> FusedLogits:
    """Lets each unit choose, row by row, how far to follow the photo or the text.

    The gated multimodal unit (Arevalo et al. 2017).
    """
    units = config.embedding_units
    image = keras.layers.Dense(units, activation="tanh", name="fusion_image")(evidence.image)
    text = keras.layers.Dense(units, activation="tanh", name="fusion_text")(evidence.text)
    both = keras.layers.Concatenate(name="fusion_concat")([evidence.image, evidence.text])
    gate = keras.layers.Dense(units, activation="sigmoid", name="fusion_gate")(both)
    mixed = keras.layers.Add(name="fusion_sum")([gate * image, (1 - gate) * text])  # (batch, units)
    return _score(keras.layers.Dropout(config.dropout, name="fusion_dropout")(mixed))


def fuse_by_cross_attention(evidence: Evidence, config: ModelConfig) -> FusedLogits:
    """Lets the text attend to the regions of the photo and mixes in what it found.

    Cross-attention (Vaswani et al. 2017).

    Raises:
        ConfigError: If there are no regions.
    """
    if len(evidence.image_features.shape) != 4:
        raise ConfigError(
            "model.fusion: cross_attention: one embedding a photo has no regions; allowed:"
            f" {', '.join(set(FUSIONS) - {'cross_attention'})}"
        )
    units, channels = config.embedding_units, evidence.image_features.shape[-1]
    regions = keras.layers.Reshape((-1, channels), name=REGIONS)(evidence.image_features)
    regions = keras.layers.LayerNormalization(dtype="float32", name="fusion_region_norm")(regions)
    regions = keras.layers.Dense(units, activation="relu", dtype="float32", name="fusion_region")(
        regions
    )  # (batch, height * width, units)
    query = keras.layers.Reshape((1, -1), name="fusion_query")(evidence.text)  # (batch, 1, units)
    found = keras.layers.MultiHeadAttention(
        ATTENTION_HEADS,
        max(units // ATTENTION_HEADS, 1),
        dropout=config.dropout,
        dtype="float32",
        name="fusion_attention",
    )(query, regions)  # (batch, 1, units)
    found = keras.layers.Flatten(name="fusion_found")(found)  # (batch, units)
    found = MissingModality(name="fusion_found_or_missing")([found, evidence.image_present])
    return _score(_mix([evidence.image, evidence.text, found], config))


def fuse_late(evidence: Evidence, config: ModelConfig) -> FusedLogits:
    """Averages the logits of the single heads over what is present.

    Nothing is learned across modalities.
    """
    del config
    present = [evidence.image_present, evidence.text_present]
    image = keras.layers.Dense(1, dtype="float32", name="severity_image")(evidence.image)
    text = keras.layers.Dense(1, dtype="float32", name="severity_text")(evidence.text)
    return FusedLogits(
        MaskedMean(dtype="float32", name="eczema")(
            [evidence.image_logit, evidence.text_logit, *present]
        ),
        MaskedMean(dtype="float32", name="severity_score")([image, text, *present]),
    )


def _mix(parts: list[Any], config: ModelConfig) -> Any:
    """The parts, each (batch, units), and a hidden layer over them.

    So the heads can simply add up the evidence, or weigh one part by another. Returns (batch,
    (parts + 1) * units).
    """
    together = keras.layers.Concatenate(name="fusion_concat")(parts)  # (batch, parts * units)
    mixed = keras.layers.Dense(config.embedding_units, activation="relu", name="fusion_hidden")(
        together
    )
    mixed = keras.layers.Dropout(config.dropout, name="fusion_dropout")(mixed)  # (batch, units)
    return keras.layers.Concatenate(name="fusion_embedding")([together, mixed])


def _score(embedding: Any) -> FusedLogits:
    return FusedLogits(
        keras.layers.Dense(1, dtype="float32", name="eczema")(embedding),
        keras.layers.Dense(1, dtype="float32", name="severity_score")(embedding),
    )


FUSIONS: dict[str, Callable[[Evidence, ModelConfig], FusedLogits]] = {
    "concat": fuse_by_concatenation,
    "gated": fuse_by_gate,
    "cross_attention": fuse_by_cross_attention,
    "late": fuse_late,
}
