"""The model: one Keras functional model from a photo and tokens to the logits of five heads.

    image -> image_normalization -> image_encoder -> image_features -> pooling -> projection -+->
    eczema_image
                                                        (Grad-CAM)                            |
                                                                missing or dropped? ----------+->
                                                                fusion -> eczema, severity
                                                                                              |
    tokens ------------------------> text_encoder -> text_features -> pooling -> projection --+->
    eczema_text, consistency

An absent modality is a learned vector. Every input, layer of interest and output is named. The half
after `image_features` and `text_features` can be taken as a model of its own that shares the layers
(`heads_of`), to be trained on cached features.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from eczema_tf.config import ModelConfig
from eczema_tf.model.encoders import EncoderSpec, build_encoder, patch_size_px
from eczema_tf.model.fusion import FUSIONS, REGIONS, Evidence
from eczema_tf.model.layers import (
    MaskedPooling,
    MissingModality,
    ModalityDropout,
    OrderedLogits,
    PatchGrid,
)
from eczema_tf.schema import (
    CONSISTENCY,
    HEADS,
    IMAGE,
    IMAGE_PRESENT,
    PADDING_MASK,
    SEVERITY,
    TEXT_PRESENT,
    TOKEN_IDS,
)

# (batch, height, width, channels), or (batch, dimension) for precomputed embeddings
IMAGE_FEATURES = "image_features"
TEXT_FEATURES = "text_features"  # (batch, tokens, channels)
POOLED_IMAGE = "image_pooling"  # (batch, channels)
POOLED_TEXT = "text_pooling"  # (batch, channels); only where the pooling has no weights


@dataclass(frozen=True)
class Encoders:
    """Both encoders' specs: with the configuration's `model` section and the weights, all that makes a model."""

    image: EncoderSpec
    text: EncoderSpec

    @property
    def pretrained(self) -> frozenset[str]:
        """Which of "image" and "text" are pretrained networks, which the first stage of training leaves as they are."""
        specs = {"image": self.image, "text": self.text}
        return frozenset(
            name for name, spec in specs.items() if spec.pretrained and spec.kind != "precomputed"
        )


def build_model(config: ModelConfig, encoders: Encoders) -> keras.Model:
    """Builds the model with untrained weights.

    Args:
        config: Widths, dropout, fusion.
        encoders: What the encoders are.

    Returns:
        A functional model. In: `image` float32 (batch, size, size, 3) in [0, 255] (or (batch,
            dimension)), `image_present` (batch,),
        `token_ids` and `padding_mask` int32 (batch, tokens), `text_present` (batch,). Out: logits
        by head name.
    """
    inputs = _build_inputs(encoders.image)
    image_features = _encode_image(inputs[IMAGE], encoders.image)
    image = _project(_pool_image(image_features), "image", config)
    text = _embed_text(inputs[TOKEN_IDS], inputs[PADDING_MASK], encoders.text, config)
    dropped = ModalityDropout(config.modality_dropout, name="modality_dropout")(
        [inputs[IMAGE_PRESENT], inputs[TEXT_PRESENT]]
    )
    image_known = MissingModality(name="image_known_or_missing")(
        [image, inputs[IMAGE_PRESENT]]
    )  # not dropped: what there really is
    text_known = MissingModality(name="text_known_or_missing")([text, inputs[TEXT_PRESENT]])
    logits = {
        "eczema_image": _head(image_known, 1, "eczema_image"),
        "eczema_text": _head(text_known, 1, "eczema_text"),
    }
    evidence = Evidence(
        image=MissingModality(name="image_or_missing")([image, dropped[0]]),
        text=MissingModality(name="text_or_missing")([text, dropped[1]]),
        image_present=dropped[0],
        text_present=dropped[1],
        image_features=image_features,
        image_logit=logits["eczema_image"],
        text_logit=logits["eczema_text"],
    )
    fused = FUSIONS[config.fusion](evidence, config)
    logits["eczema"] = fused["eczema"]
    logits["consistency"] = _head(text_known, len(CONSISTENCY), "consistency")
    logits["severity"] = OrderedLogits(len(SEVERITY), dtype="float32", name="severity")(
        fused["severity_score"]
    )
    return keras.Model(inputs, {head: logits[head] for head in HEADS}, name="eczema_assistant")


def heads_of(model: keras.Model, frozen: Collection[str]) -> keras.Model:
    """Takes the part of the model that does not depend on frozen encoders, sharing its layers.

    Args:
        model: From `build_model`.
        frozen: Which of "image" and "text" enter as features.

    Returns:
        A model whose `image` input is replaced by the features named by `feature_name(model,
        "image")` and whose `token_ids` input by those of the text, where frozen.
    """
    inputs = dict(model.input)
    for modality, old in (("image", IMAGE), ("text", TOKEN_IDS)):
        if modality in frozen:
            name = feature_name(model, modality)
            inputs[name] = model.get_layer(name).output
            inputs[
                name
            ].name = name  # Keras wants a model's inputs to be called what their keys are
            del inputs[old]
    if "text" in frozen and POOLED_TEXT in inputs:
        del inputs[PADDING_MASK]  # was used up by the pooling
    return keras.Model(
        inputs,
        dict(zip(HEADS, [model.get_layer(head).output for head in HEADS], strict=True)),
        name="eczema_heads",
    )


def encoder_of(model: keras.Model, modality: str) -> keras.Model:
    """Takes the part of the model that turns one modality's inputs into the features that `heads_of` takes."""
    names = [IMAGE] if modality == "image" else [TOKEN_IDS, PADDING_MASK]
    output = model.get_layer(feature_name(model, modality)).output
    return keras.Model(
        {name: model.input[name] for name in names}, output, name=f"{modality}_features_only"
    )


def feature_name(model: keras.Model, modality: str) -> str:
    """Names the last layer of a modality before anything trainable: pooled where pooling has no weights."""
    names = {layer.name for layer in model.layers}
    if modality == "image":
        return IMAGE_FEATURES if REGIONS in names else POOLED_IMAGE
    return POOLED_TEXT if POOLED_TEXT in names else TEXT_FEATURES


def _build_inputs(image: EncoderSpec) -> dict[str, Any]:
    shape = (image.dimension,) if image.kind == "precomputed" else (image.size_px, image.size_px, 3)
    return {
        IMAGE: keras.Input(shape, name=IMAGE),
        IMAGE_PRESENT: keras.Input((), name=IMAGE_PRESENT),
        TOKEN_IDS: keras.Input((None,), dtype="int32", name=TOKEN_IDS),
        PADDING_MASK: keras.Input((None,), dtype="int32", name=PADDING_MASK),
        TEXT_PRESENT: keras.Input((), name=TEXT_PRESENT),
    }


def _encode_image(image: Any, spec: EncoderSpec) -> Any:
    """(batch, size, size, 3) to a feature map. The `image_features` layer is outside the nested encoder, where Grad-CAM can reach it."""
    if spec.kind != "precomputed":
        image = keras.layers.Rescaling(spec.scale, spec.offset, name="image_normalization")(image)
    features = build_encoder(spec)(image)
    if len(features.shape) == 3:  # tokens of a vision transformer
        features = PatchGrid(spec.size_px // patch_size_px(spec), name="patch_grid")(features)
    return keras.layers.Activation("linear", name=IMAGE_FEATURES)(features)


def _pool_image(features: Any) -> Any:
    """(batch, height, width, channels) to (batch, channels); embeddings are pooled already."""
    if len(features.shape) == 2:
        return keras.layers.Activation("linear", name=POOLED_IMAGE)(features)
    return keras.layers.GlobalAveragePooling2D(name=POOLED_IMAGE)(features)


def _embed_text(token_ids: Any, padding_mask: Any, spec: EncoderSpec, config: ModelConfig) -> Any:
    """(batch, tokens) to (batch, units)."""
    encoder = build_encoder(spec)
    sequence = encoder(
        {
            "token_ids": token_ids,
            "padding_mask": padding_mask,
            "segment_ids": ops.zeros_like(token_ids),
        }
    )["sequence_output"]
    features = keras.layers.Activation("linear", name=TEXT_FEATURES)(sequence)
    if config.text.pooling != "max":
        pooled = MaskedPooling(config.text.pooling, name=POOLED_TEXT)([features, padding_mask])
    else:
        phrases = keras.layers.Dropout(config.dropout, name="text_token_dropout")(features)
        phrases = keras.layers.Dense(
            2 * config.embedding_units, activation="relu", name="text_phrases"
        )(phrases)
        pooled = MaskedPooling("max", name="text_max")([phrases, padding_mask])
    return _project(pooled, "text", config)


def _project(pooled: Any, modality: str, config: ModelConfig) -> Any:
    """(batch, channels) to (batch, units), both modalities on the same scale, in float32 whatever the policy.

    Without units, the normalised features themselves, for linear heads: dropout is then a ridge
    penalty, stronger on common features (Wager, Wang and Liang 2013).
    """
    x = keras.layers.LayerNormalization(dtype="float32", name=f"{modality}_norm")(pooled)
    x = keras.layers.Dropout(config.dropout, dtype="float32", name=f"{modality}_dropout")(x)
    if not config.embedding_units:
        return x
    return keras.layers.Dense(
        config.embedding_units, activation="relu", dtype="float32", name=f"{modality}_projection"
    )(x)


def _head(embedding: Any, logits: int, name: str) -> Any:
    return keras.layers.Dense(logits, dtype="float32", name=name)(embedding)
