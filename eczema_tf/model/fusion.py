"""Fusion of the photo's and the text's evidence, in a form that cannot do much worse.

    log-odds = prior + the photo's evidence + the text's evidence + what only both tell together

Evidence is a single head's log-odds minus the prior: evidence that is independent given the answer
adds up (naive Bayes). Only the last term is learned from both, by one of the small functions named
by `model.fusion`; it starts at zero. If only one modality is there, the answer is the single
head's, bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from eczema_tf.config import ModelConfig
from eczema_tf.errors import ConfigError
from eczema_tf.model.layers import AddedEvidence, MissingModality

ATTENTION_HEADS = 4
ECZEMA_SUM = "eczema_sum"  # the layer that adds up evidence of eczema
ECZEMA_JOINT = "eczema_joint"  # the layer of what only both modalities tell together
# the layer by which a fusion reaches the photo's regions, not only their mean
REGIONS = "fusion_regions"


@dataclass(frozen=True)
class Evidence:
    """What a fusion may look at.

    Attributes:
        image: (batch, units); the learned vector where there is no photo.
        text: (batch, units); the learned vector where there is no text.
        image_present: (batch,) 0 or 1; in training some are dropped.
        text_present: The same for texts.
        image_features: (batch, height, width, channels), or (batch, channels) for embeddings;
            meaningless where there is no photo.
    """

    image: Any
    text: Any
    image_present: Any
    text_present: Any
    image_features: Any


def fuse(name: str, image_score: Any, text_score: Any, joint: Any, evidence: Evidence) -> Any:
    """Adds up what both modalities say, each (batch, 1), and what only both tell together.

    Args:
        name: Name of the question, for the layers' names.
        image_score: From the photo alone.
        text_score: From the text alone.
        joint: (batch, units), from one of `FUSIONS`; None if there is nothing but the sum.
        evidence: Says what is present.

    Returns:
        (batch, 1).
    """
    parts = [image_score, text_score, evidence.image_present, evidence.text_present]
    if joint is not None:
        # starts at zero, so that it has to prove itself
        together = keras.layers.Dense(
            1, kernel_initializer="zeros", use_bias=False, dtype="float32", name=f"{name}_joint"
        )
        parts.append(together(joint))
    return AddedEvidence(dtype="float32", name=f"{name}_sum")(parts)


def join_by_hidden_layer(evidence: Evidence, config: ModelConfig) -> Any:
    """Concatenates both embeddings and adds a hidden layer that mixes them."""
    return _mix([evidence.image, evidence.text], config)


def join_by_gate(evidence: Evidence, config: ModelConfig) -> Any:
    """Lets each unit choose, row by row, how far to follow the photo or the text.

    The gated multimodal unit (Arevalo et al. 2017).
    """
    units = config.embedding_units
    image = keras.layers.Dense(units, activation="tanh", name="fusion_image")(evidence.image)
    text = keras.layers.Dense(units, activation="tanh", name="fusion_text")(evidence.text)
    both = keras.layers.Concatenate(name="fusion_concat")([evidence.image, evidence.text])
    gate = keras.layers.Dense(units, activation="sigmoid", name="fusion_gate")(both)
    mixed = keras.layers.Add(name="fusion_sum")([gate * image, (1 - gate) * text])  # (batch, units)
    return keras.layers.Dropout(config.dropout, name="fusion_dropout")(mixed)


def join_by_cross_attention(evidence: Evidence, config: ModelConfig) -> Any:
    """Lets the text attend to the regions of the photo and mixes in what it found.

    Cross-attention (Vaswani et al. 2017).

    Raises:
        ConfigError: If there are no regions.
    """
    if len(evidence.image_features.shape) != 4:
        raise ConfigError(
            "model.fusion: cross_attention: one embedding per photo has no regions; allowed:"
            f" {', '.join(name for name in FUSIONS if name != 'cross_attention')}"
        )
    units, channels = config.embedding_units, evidence.image_features.shape[-1]
    regions = keras.layers.Reshape((-1, channels), name=REGIONS)(evidence.image_features)
    regions = keras.layers.LayerNormalization(dtype="float32", name="fusion_region_norm")(regions)
    project = keras.layers.Dense(units, activation="relu", dtype="float32", name="fusion_region")
    regions = project(regions)  # (batch, height * width, units)
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
    return _mix([evidence.image, evidence.text, found], config)


def join_nothing(evidence: Evidence, config: ModelConfig) -> None:
    """Late fusion: the sum, and nothing that is learned across modalities."""
    del evidence, config


def _mix(parts: list[Any], config: ModelConfig) -> Any:
    """Joins the parts, each (batch, units), and a hidden layer over them.

    The joint term can thus reweight one part, or weight it by another. Returns (batch, (parts + 1)
    * units).
    """
    together = keras.layers.Concatenate(name="fusion_concat")(parts)  # (batch, parts * units)
    hidden = keras.layers.Dense(config.embedding_units, activation="relu", name="fusion_hidden")
    mixed = hidden(together)  # (batch, units)
    mixed = keras.layers.Dropout(config.dropout, name="fusion_dropout")(mixed)
    return keras.layers.Concatenate(name="fusion_embedding")([together, mixed])


FUSIONS: dict[str, Callable[[Evidence, ModelConfig], Any]] = {
    "concat": join_by_hidden_layer,
    "gated": join_by_gate,
    "cross_attention": join_by_cross_attention,
    "late": join_nothing,
}
