"""The halves of the model before they meet: a photo to an embedding, a text to an embedding.

             +---------> inner maps -> textures ----+
image -> image_encoder -> image_features -> pooling -> summary -> projection ----> embedding
tokens -> text_encoder -> text_features --> pooling ------------> projection -+--> embedding
                               |                                              |
                               +-> windows -> findings ---------> projection -+
"""

import math
from typing import Any, NamedTuple

import keras
import numpy as np

from eczema_tf.config import ModelConfig
from eczema_tf.model.encoders import EncoderSpec, build_encoder
from eczema_tf.model.inner_map import Texture, find_inner_maps
from eczema_tf.model.layers import AnyWindow, HeldWindows, MaskedPooling, PatchGrid, WindowMean
from eczema_tf.schema import FINDINGS, PADDING_MASK, TOKEN_IDS

# names of layers, and what they return
NORMALIZATION = "image_normalization"
IMAGE_FEATURES = "image_features"  # (batch, height, width, channels), embeddings: (batch, channels)
TEXT_FEATURES = "text_features"  # (batch, tokens, channels)
POOLED_IMAGE = "image_pooling"  # (batch, channels)
# (batch, 2 * channels); a number follows, 0 for the finest map; only with pretrained encoders that
# have inner maps
TEXTURE = "image_texture_"
SUMMARY = "image_summary"  # (batch, channels), of a photo: pooled features, then textures
POOLED_TEXT = "text_pooling"  # (batch, channels); only where the pooling has no weights
TEXT_WINDOWS = "text_windows"  # (batch, windows, channels); only where findings are detected
WINDOW_TOKENS = 4  # about a phrase
RARE = -4.0  # log-odds of a finding in a window, before anything is learned


class PhotoFeatures(NamedTuple):
    """What an encoder makes of photos.

    Attributes:
        features: (batch, height, width, channels), outside the nested encoder, where Grad-CAM can
            reach it; for embeddings (batch, channels).
        summary: (batch, channels), the features' average and then textures, side by side.
        ends: The number of channels up to the end of each part of `summary`.
    """

    features: Any
    summary: Any
    ends: list[int]


def encode_image(image: Any, spec: EncoderSpec, textures: int | None) -> PhotoFeatures:
    """Encodes photos (batch, size, size, 3), or embeddings.

    Args:
        image: The photos.
        spec: Spec of the encoder.
        textures: How many inner maps to measure the texture of, the finest first, if the encoder is
            pretrained and has any; None for all.
    """
    if spec.kind != "precomputed":
        image = keras.layers.Rescaling(spec.scale, spec.offset, name=NORMALIZATION)(image)
    encoder = build_encoder(spec)
    inner = find_inner_maps(encoder, image)[:textures] if spec.pretrained else []
    if inner:
        # not the maps themselves: where the model is cut, an output cannot be its input
        taps = [
            keras.layers.Identity(name=f"inner_map_{number}")(tensor)
            for number, tensor in enumerate(inner)
        ]
        encoder = keras.Model(encoder.input, [encoder.output, *taps], name=encoder.name)
    features, *inner = keras.tree.flatten(encoder(image))
    measured = [
        Texture(dtype="float32", name=f"{TEXTURE}{number}")(tensor)
        for number, tensor in enumerate(inner)
    ]
    if len(features.shape) == 3:  # (batch, tokens, channels) of a vision transformer
        patch_px = int(np.ravel(spec.settings["patch_size"])[0])  # KerasHub: a number, or a pair
        side, tokens = spec.size_px // patch_px, features.shape[1]
        if side**2 > tokens:  # Swin merges patches from stage to stage, and has no other tokens
            side = math.isqrt(tokens)
        features = PatchGrid(side, name="patch_grid")(features)
    features = keras.layers.Activation("linear", name=IMAGE_FEATURES)(features)
    if len(features.shape) == 2:
        pooled = keras.layers.Activation("linear", name=POOLED_IMAGE)(features)
    else:
        pooled = keras.layers.GlobalAveragePooling2D(name=POOLED_IMAGE)(features)
    if measured:
        summary = keras.layers.Concatenate(dtype="float32", name=SUMMARY)([pooled, *measured])
    else:
        summary = keras.layers.Activation("linear", name=SUMMARY)(pooled)
    ends = np.cumsum([part.shape[-1] for part in (pooled, *measured)]).tolist()
    return PhotoFeatures(features, summary, ends)


def pooling_of(model: keras.Model) -> keras.Model:
    """Takes the part from the image encoder's outputs, a list of maps, to `SUMMARY`."""
    textures = sorted(layer.name for layer in model.layers if layer.name.startswith(TEXTURE))
    maps = [
        model.get_layer(IMAGE_FEATURES).output,
        *(model.get_layer(name).input for name in textures),
    ]
    return keras.Model(maps, model.get_layer(SUMMARY).output, name="image_maps_pooled")


def embed_text(
    inputs: dict[str, Any], spec: EncoderSpec, findings: int, config: ModelConfig
) -> tuple[Any, Any, Any]:
    """Turns tokens into pooled features, the embedding and the detected findings.

    Args:
        inputs: Inputs of the model; tokens and their mask, int32 (batch, tokens), are used.
        spec: Spec of the encoder.
        findings: How many findings are detected; with none, the embedding is made of pooled
            features only.
        config: Widths, dropout, pooling.

    Returns:
        Of shapes (batch, channels), (batch, units) and (batch, findings), the last a probability;
        None if there are no findings.
    """
    tokens, mask, units = inputs[TOKEN_IDS], inputs[PADDING_MASK], config.embedding_units
    one_text = keras.ops.zeros_like(tokens)  # and not a pair of texts
    given = {"token_ids": tokens, "padding_mask": mask, "segment_ids": one_text}
    features = build_encoder(spec)(given)["sequence_output"]  # (batch, tokens, channels)
    features = keras.layers.Activation("linear", name=TEXT_FEATURES)(features)
    if not findings:
        pooled = _pool_text(features, mask, config)
        return pooled, project(pooled, "text", config, units), None
    windows = WindowMean(WINDOW_TOKENS, name=TEXT_WINDOWS)([features, mask])
    # in training, whole windows are left out, as if they had not been written
    windows = keras.layers.Dropout(
        config.window_dropout, noise_shape=(None, None, 1), name="left_out_windows"
    )(windows)
    held = HeldWindows(name="held_windows")(windows)  # (batch, windows)
    pooled = _pool_text(windows, held, config)
    embedding = project(pooled, "text", config, units // 2)  # the other half is for the findings
    said = _detect(windows, held, findings, config)
    projected = _project_findings(said, config, units - units // 2)
    embedding = keras.layers.Concatenate(name="text_and_findings")([embedding, projected])
    return pooled, embedding, said


def _pool_text(features: Any, mask: Any, config: ModelConfig) -> Any:
    """Turns encoded tokens or windows (batch, tokens, channels) into (batch, channels)."""
    if config.text.pooling != "max":
        return MaskedPooling(config.text.pooling, name=POOLED_TEXT)([features, mask])
    phrases = keras.layers.Dropout(config.dropout, name="text_token_dropout")(features)
    phrases = keras.layers.Dense(
        2 * config.embedding_units, activation="relu", name="text_phrases"
    )(phrases)  # (batch, tokens, 2 * units)
    return MaskedPooling("max", name="text_max")([phrases, mask])


def take_last_layer(pooled: Any, spec: EncoderSpec, config: ModelConfig) -> Any:
    """Takes the mean of the last layer from pooled text, if several layers are side by side.

    A few hundred cases suffice to learn from what sentence encoders are trained to put there; a
    logistic regression on three layers is worse (docs/log.md).

    Args:
        pooled: (batch, channels), from `embed_text`.
        spec: Spec of the encoder.
        config: The pooling; a maximum no longer has layers, and is taken whole.
    """
    if config.text.pooling == "max":
        return pooled
    kinds = 2 if config.text.pooling == "mean_max" else 1  # side by side, the mean first
    width = pooled.shape[-1] // (kinds * spec.last_layers)
    return pooled[:, (spec.last_layers - 1) * width : spec.last_layers * width]


def _detect(windows: Any, mask: Any, findings: int, config: ModelConfig) -> Any:
    """Detects findings in windows of tokens (batch, windows, channels).

    They are learned from labels of their own, a hundred times as many as there are diagnoses, and
    do not depend on how much else is said: a concept bottleneck (Koh et al. 2020) with a way around
    it.

    Returns:
        Probabilities (batch, findings); the layer `FINDINGS` returns their logits.
    """
    x = keras.layers.LayerNormalization(
        center=False, scale=False, dtype="float32", name="window_norm"
    )(windows)
    x = keras.layers.Dropout(config.dropout, dtype="float32", name="window_dropout")(x)
    rare = keras.initializers.Constant(RARE)
    here = keras.layers.Dense(
        findings, bias_initializer=rare, dtype="float32", name="window_findings"
    )(x)  # (batch, windows, findings)
    logits = AnyWindow(dtype="float32", name=FINDINGS)([here, mask])
    said = keras.layers.Activation("sigmoid", dtype="float32", name="findings_said")(logits)
    return keras.layers.Dropout(config.dropout, dtype="float32", name="findings_dropout")(said)


def _project_findings(said: Any, config: ModelConfig, units: int) -> Any:
    """Turns probabilities of findings (batch, findings) into (batch, units)."""
    if not config.embedding_units:
        return said
    return keras.layers.Dense(
        units, activation="relu", dtype="float32", name="findings_projection"
    )(said)


def project(pooled: Any, modality: str, config: ModelConfig, units: int) -> Any:
    """Puts both modalities on the same scale: (batch, channels) to (batch, units).

    It computes in float32, whatever the policy. Without units, it returns the normalised features
    themselves, for linear heads: dropout is then a ridge penalty, stronger on common features
    (Wager, Wang and Liang 2013).
    """
    x = keras.layers.LayerNormalization(dtype="float32", name=f"{modality}_norm")(pooled)
    x = keras.layers.Dropout(config.dropout, dtype="float32", name=f"{modality}_dropout")(x)
    if not config.embedding_units:
        return x
    return keras.layers.Dense(
        units, activation="relu", dtype="float32", name=f"{modality}_projection"
    )(x)
