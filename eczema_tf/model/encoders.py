"""Image and text encoders: KerasHub backbones, small networks from scratch, and precomputed embeddings.

An `EncoderSpec` says in plain JSON what an encoder is. `specify_*` makes one from the configuration (reading the preset), `build_encoder`
makes the Keras model from it alone: so a run folder needs no preset, and nothing executable is ever loaded.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_hub
from pydantic import BaseModel, ConfigDict

from eczema_tf.config import ImageConfig, TextConfig
from eczema_tf.errors import PresetError, RunError

SCRATCH_SIZE_PX = 96
WAYS_TO_PROVIDE = (
    "give (1) a KerasHub preset name, with internet access to Kaggle, (2) a local KerasHub preset folder (config.json, model.weights.h5), "
    "or (3) a Hugging Face folder (config.json, model.safetensors); or null for a small network from scratch"
)


class EncoderSpec(BaseModel):
    """What is needed to rebuild an encoder; saved in the run folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str  # a KerasHub backbone class, or one of `_SCRATCH`, or "precomputed"
    settings: dict[str, Any]
    pretrained: bool
    size_px: int = 0  # image encoders: side of the photo
    scale: float | list[float] = 1.0  # image encoders: photo * scale + offset is what the encoder was trained on
    offset: float | list[float] = 0.0
    dimension: int = 0  # precomputed: length of an embedding


def specify_image_encoder(config: ImageConfig, embedding_dimension: int | None = None) -> EncoderSpec:
    """Says what the image encoder is.

    Args:
        config: The preset and the size of the photo.
        embedding_dimension: Length of the precomputed embeddings that stand in for photos, if they do.

    Raises:
        PresetError: If the preset cannot be had.
    """
    if embedding_dimension is not None:
        return EncoderSpec(kind="precomputed", settings={}, pretrained=True, dimension=embedding_dimension)
    if config.preset is None:
        size_px = config.size_px or SCRATCH_SIZE_PX
        settings = {"filters": [16, 32, 64, 128]}
        return EncoderSpec(kind="small_image_network", settings=settings, pretrained=False, size_px=size_px, scale=1 / 127.5, offset=-1.0)
    backbone = _read_preset(keras_hub.models.Backbone, config.preset, "model.image.preset", load_weights=False)
    converter = _read_preset(keras_hub.layers.ImageConverter, config.preset, "model.image.preset")
    size_px = config.size_px or (converter.image_size or (224,))[0]
    return EncoderSpec(
        kind=type(backbone).__name__,
        settings={**backbone.get_config(), "name": "image_encoder"},
        pretrained=True,
        size_px=size_px,
        scale=_plain(converter.scale, 1.0),
        offset=_plain(converter.offset, 0.0),
    )


def specify_text_encoder(config: TextConfig, vocabulary_size: int) -> EncoderSpec:
    """Says what the text encoder is.

    Args:
        config: The preset.
        vocabulary_size: Number of word pieces of the tokenizer.

    Raises:
        PresetError: If the preset cannot be had.
    """
    if config.preset is None:
        settings = {"vocabulary_size": vocabulary_size, "units": 96}
        return EncoderSpec(kind="small_text_network", settings=settings, pretrained=False)
    backbone = _read_preset(keras_hub.models.Backbone, config.preset, "model.text.preset", load_weights=False)
    return EncoderSpec(kind=type(backbone).__name__, settings={**backbone.get_config(), "name": "text_encoder"}, pretrained=True)


def build_encoder(spec: EncoderSpec) -> keras.Model:
    """Builds an encoder with untrained weights.

    Raises:
        RunError: If the kind is none that this project builds.
    """
    if spec.kind in _SCRATCH:
        return _SCRATCH[spec.kind](spec)
    backbone = getattr(keras_hub.models, spec.kind, None)
    if not (isinstance(backbone, type) and issubclass(backbone, keras_hub.models.Backbone)):
        raise RunError(f"encoder kind {spec.kind!r}: allowed: a KerasHub backbone, {', '.join(_SCRATCH)}")
    return backbone.from_config(spec.settings)


def load_preset_weights(encoder: keras.Model, preset: str) -> None:
    """Copies a preset's weights into an encoder built from its spec."""
    source = _read_preset(keras_hub.models.Backbone, preset, "preset")
    encoder.set_weights(source.get_weights())


def _read_preset(reader: type, preset: str, key: str, **options: Any) -> Any:
    """Calls `from_preset`, and says in one error how a preset can be provided."""
    if preset.startswith((".", "/", "~")) and not Path(preset).expanduser().is_dir():
        raise PresetError(f"{key}: {preset}: no such folder; {WAYS_TO_PROVIDE}")
    try:
        return reader.from_preset(preset, **options)
    except Exception as error:  # KerasHub, Kaggle and Hugging Face raise whatever they like
        reason = " ".join(str(error).split())[:300]
        raise PresetError(f"{key}: {preset!r} cannot be loaded ({reason}); {WAYS_TO_PROVIDE}") from error


def _plain(value: Any, default: float) -> float | list[float]:
    if value is None:
        return default
    return [float(item) for item in value] if hasattr(value, "__len__") else float(value)


def _build_small_image_network(spec: EncoderSpec) -> keras.Model:
    """Four stages of two 3 x 3 convolutions, each stage at half the size: (size, size, 3) to (size / 16, size / 16, channels)."""
    photo = keras.Input((spec.size_px, spec.size_px, 3), name="pixels")
    x = photo
    for stage, filters in enumerate(spec.settings["filters"], start=1):
        x = _convolution(x, filters, 2, f"stage{stage}_conv1")
        x = _convolution(x, filters, 1, f"stage{stage}_conv2") if stage > 1 else x
    return keras.Model(photo, x, name="image_encoder")


def _convolution(x: Any, filters: int, stride: int, name: str) -> Any:
    x = keras.layers.Conv2D(filters, 3, stride, "same", use_bias=False, kernel_initializer="he_normal", name=name)(x)
    x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
    return keras.layers.Activation("relu", name=f"{name}_relu")(x)


def _build_small_text_network(spec: EncoderSpec) -> keras.Model:
    """Word-piece embeddings and one convolution over five tokens (Kim 2014, arXiv 1408.5882): enough for negated phrases."""
    units = spec.settings["units"]
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    padding_mask = keras.Input((None,), dtype="int32", name="padding_mask")
    segment_ids = keras.Input((None,), dtype="int32", name="segment_ids")
    x = keras.layers.Embedding(spec.settings["vocabulary_size"], units, name="token_embedding")(token_ids)
    x = keras.layers.Dropout(0.2, name="token_dropout")(x)
    real = keras.layers.Reshape((-1, 1), name="token_mask")(keras.ops.cast(padding_mask, x.dtype))
    x = keras.layers.Multiply(name="masked_embedding")([x, real])  # so that padding cannot reach a real token
    nearby = keras.layers.Conv1D(units, 5, padding="same", activation="relu", name="phrase_conv")(x)
    x = keras.layers.Concatenate(name="token_and_phrase")([x, nearby])
    inputs = {"token_ids": token_ids, "padding_mask": padding_mask, "segment_ids": segment_ids}
    return keras.Model(inputs, {"sequence_output": x}, name="text_encoder")


def _build_precomputed(spec: EncoderSpec) -> keras.Model:
    embedding = keras.Input((spec.dimension,), name="embedding")
    return keras.Model(embedding, keras.layers.Activation("linear", name="embedding_features")(embedding), name="image_encoder")


_SCRATCH: dict[str, Callable[[EncoderSpec], keras.Model]] = {
    "small_image_network": _build_small_image_network,
    "small_text_network": _build_small_text_network,
    "precomputed": _build_precomputed,
}
