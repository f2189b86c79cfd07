"""Fusion of the photo's and the text's evidence: one small function each, chosen by `model.fusion`.

Each takes `Evidence` and returns the logits of two heads, `eczema` (batch, 1) and `severity_score`
(batch, 1).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from eczema_tf.config import ModelConfig
from eczema_tf.errors import ConfigError
from eczema_tf.model.layers import AverageOfPresent, ImageRegions, MissingModality

Scores = dict[str, Any]  # "eczema" and "severity_score"


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


def fuse_by_concatenation(evidence: Evidence, config: ModelConfig) -> Scores:
    """Concatenates both embeddings and adds a hidden layer that mixes them."""
    return _score(_mix([evidence.image, evidence.text], config))


def fuse_by_gate(evidence: Evidence, config: ModelConfig) -> Scores:
    """Lets each unit choose, row by row, how far to follow the photo or the text (gated multimodal unit, Arevalo et al. 2017)."""
    image = keras.layers.Dense(config.embedding_units, activation="tanh", name="fusion_image")(
        evidence.image
    )
    text = keras.layers.Dense(config.embedding_units, activation="tanh", name="fusion_text")(
        evidence.text
    )
    both = keras.layers.Concatenate(name="fusion_concat")([evidence.image, evidence.text])
    gate = keras.layers.Dense(config.embedding_units, activation="sigmoid", name="fusion_gate")(
        both
    )
    mixed = keras.layers.Add(name="fusion_sum")([gate * image, (1 - gate) * text])
    return _score(keras.layers.Dropout(config.dropout, name="fusion_dropout")(mixed))


def fuse_by_cross_attention(evidence: Evidence, config: ModelConfig) -> Scores:
    """Lets the text attend to the regions of the photo (Vaswani et al. 2017, cross-attention) and mixes in what it found.

    Raises:
        ConfigError: If there are no regions.
    """
    if len(evidence.image_features.shape) != 4:
        raise ConfigError(
            "model.fusion: cross_attention: one embedding a photo has no regions; allowed:"
            f" {', '.join(set(FUSIONS) - {'cross_attention'})}"
        )
    regions = keras.layers.LayerNormalization(dtype="float32", name="fusion_region_norm")(
        ImageRegions(name=REGIONS)(evidence.image_features)
    )
    regions = keras.layers.Dense(
        config.embedding_units, activation="relu", dtype="float32", name="fusion_region"
    )(regions)
    query = keras.layers.Reshape((1, -1), name="fusion_query")(evidence.text)
    attention = keras.layers.MultiHeadAttention(
        ATTENTION_HEADS,
        max(config.embedding_units // ATTENTION_HEADS, 1),
        dropout=config.dropout,
        dtype="float32",
        name="fusion_attention",
    )
    found = keras.layers.Flatten(name="fusion_found")(attention(query, regions))
    found = MissingModality(name="fusion_found_or_missing")([found, evidence.image_present])
    return _score(_mix([evidence.image, evidence.text, found], config))


def fuse_late(evidence: Evidence, config: ModelConfig) -> Scores:
    """Averages the logits of the single heads over what is present; nothing is learned across modalities."""
    del config
    present = [evidence.image_present, evidence.text_present]
    severity = [_head(evidence.image, "severity_image"), _head(evidence.text, "severity_text")]
    return {
        "eczema": AverageOfPresent(dtype="float32", name="eczema")(
            [evidence.image_logit, evidence.text_logit, *present]
        ),
        "severity_score": AverageOfPresent(dtype="float32", name="severity_score")(
            [*severity, *present]
        ),
    }


def _mix(parts: list[Any], config: ModelConfig) -> Any:
    """The parts and a hidden layer over them: the heads can simply add up the evidence, or weigh one part by another."""
    together = keras.layers.Concatenate(name="fusion_concat")(parts)
    mixed = keras.layers.Dense(config.embedding_units, activation="relu", name="fusion_hidden")(
        together
    )
    mixed = keras.layers.Dropout(config.dropout, name="fusion_dropout")(mixed)
    return keras.layers.Concatenate(name="fusion_embedding")([together, mixed])


def _score(embedding: Any) -> Scores:
    return {name: _head(embedding, name) for name in ("eczema", "severity_score")}


def _head(embedding: Any, name: str) -> Any:
    return keras.layers.Dense(1, dtype="float32", name=name)(embedding)


ATTENTION_HEADS = 4
REGIONS = (  # the layer by which a fusion reaches the photo's regions, not only their mean
    "fusion_regions"
)
FUSIONS: dict[str, Callable[[Evidence, ModelConfig], Scores]] = {
    "concat": fuse_by_concatenation,
    "gated": fuse_by_gate,
    "cross_attention": fuse_by_cross_attention,
    "late": fuse_late,
}
