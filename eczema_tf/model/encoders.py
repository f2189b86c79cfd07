"""Image and text encoders: KerasHub backbones, networks from scratch, SavedModels and precomputed embeddings.

An `EncoderSpec` says in plain JSON what an encoder is. `specify_*` makes one from the configuration
(reading the preset), `build_encoder` makes the Keras model from it alone: so a run folder needs no
preset, and nothing executable is ever loaded.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_hub
from pydantic import BaseModel, ConfigDict

from eczema_tf.config import ImageConfig, TextConfig
from eczema_tf.errors import ConfigError, PresetError, RunError
from eczema_tf.model import scratch
from eczema_tf.model.saved_model import SavedModelEncoder, describe_saved_model

WAYS_TO_PROVIDE = (
    "give (1) a KerasHub preset name, with internet access to Kaggle, (2) a local KerasHub preset"
    " folder (config.json, model.weights.h5), or (3) a Hugging Face folder (config.json,"
    " model.safetensors); or null for a small network from scratch"
)


class EncoderSpec(BaseModel):
    """What is needed to rebuild an encoder; saved in the run folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str  # a KerasHub backbone class, or one of `_OWN`
    settings: dict[str, Any]
    pretrained: bool
    size_px: int = 0  # image encoders: side of the photo
    scale: float | list[float] = (
        1.0  # image encoders: photo * scale + offset is what the encoder was trained on
    )
    offset: float | list[float] = 0.0
    dimension: int = 0  # precomputed: length of an embedding


def specify_image_encoder(
    config: ImageConfig, embedding_dimension: int | None = None
) -> EncoderSpec:
    """Says what the image encoder is.

    Args:
        config: The preset and the size of the photo.
        embedding_dimension: Length of the precomputed embeddings that stand in for photos, if they
            do.

    Raises:
        PresetError: If the preset cannot be had.
    """
    if embedding_dimension is not None:
        return EncoderSpec(
            kind="precomputed", settings={}, pretrained=True, dimension=embedding_dimension
        )
    if config.saved_model is not None:
        description = describe_saved_model(
            config.saved_model, config.saved_model_input, config.size_px
        )
        return EncoderSpec(kind="saved_model", pretrained=True, **description._asdict())
    return (
        _specify_image_preset(config)
        if config.preset is not None
        else _specify_image_scratch(config)
    )


def _specify_image_scratch(config: ImageConfig) -> EncoderSpec:
    size_px = config.size_px or scratch.IMAGE_SIZE_PX
    kind, settings = "small_image_network", {"filters": [16, 32, 64, 128]}
    if config.architecture != "small":
        kind, settings = scratch.IMAGE_ARCHITECTURES[config.architecture]
        settings = {**settings, "name": "image_encoder"}
        if "patch_size" in settings:
            settings["image_shape"] = [size_px, size_px, 3]
            _check_patches(size_px, settings["patch_size"])
    return EncoderSpec(
        kind=kind,
        settings=settings,
        pretrained=False,
        size_px=size_px,
        scale=1 / 127.5,
        offset=-1.0,
    )


def _specify_image_preset(config: ImageConfig) -> EncoderSpec:
    backbone = _read_preset(
        keras_hub.models.Backbone, config.preset, "model.image.preset", load_weights=False
    )
    if not _is_image_backbone(backbone):
        raise PresetError(
            f"model.image.preset: {config.preset!r} is a {type(backbone).__name__}, not an image"
            f" encoder; {WAYS_TO_PROVIDE}"
        )
    converter = _read_preset(keras_hub.layers.ImageConverter, config.preset, "model.image.preset")
    size_px = config.size_px or (converter.image_size or (224,))[0]
    settings = {**backbone.get_config(), "name": "image_encoder"}
    own_size = settings.get("image_shape", (None,))[0]
    if own_size not in (None, size_px) and "patch_size" in settings:
        raise ConfigError(
            f"model.image.size_px: {config.preset!r} has learned positions for {own_size} px only,"
            f" received {size_px}"
        )
    return EncoderSpec(
        kind=type(backbone).__name__,
        settings=settings,
        pretrained=True,
        size_px=size_px,
        scale=_plain(converter.scale, 1.0),
        offset=_plain(converter.offset, 0.0),
    )


def _is_image_backbone(backbone: keras.Model) -> bool:
    """One photo in, one feature map or one sequence of patch tokens out."""
    inputs = backbone.inputs
    return (
        len(inputs) == 1
        and len(inputs[0].shape) == 4
        and hasattr(backbone.output, "shape")
        and len(backbone.output.shape) in (3, 4)
    )


def patch_size_px(spec: EncoderSpec) -> int:
    """The side of a vision transformer's patch."""
    size = spec.settings["patch_size"]
    return int(size if isinstance(size, int) else size[0])


def _check_patches(size_px: int, patch_px: int) -> None:
    if size_px % patch_px:
        raise ConfigError(
            f"model.image.size_px: must be a multiple of the patch, {patch_px} px, received"
            f" {size_px}"
        )


def specify_text_encoder(config: TextConfig, vocabulary_size: int) -> EncoderSpec:
    """Says what the text encoder is.

    Args:
        config: The preset.
        vocabulary_size: Number of word pieces of the tokenizer.

    Raises:
        PresetError: If the preset cannot be had.
    """
    if config.preset is None and config.architecture == "small":
        settings = {"vocabulary_size": vocabulary_size, "units": 96}
        return EncoderSpec(kind="small_text_network", settings=settings, pretrained=False)
    if config.preset is None:
        kind, settings = scratch.TEXT_ARCHITECTURES[config.architecture]
        sizes = {
            "vocabulary_size": vocabulary_size,
            "max_sequence_length": config.max_tokens,
            "name": "text_encoder",
        }
        return EncoderSpec(kind=kind, settings={**settings, **sizes}, pretrained=False)
    backbone = _read_preset(
        keras_hub.models.Backbone, config.preset, "model.text.preset", load_weights=False
    )
    if not isinstance(backbone, keras_hub.models.BertBackbone):
        raise PresetError(
            f"model.text.preset: {config.preset!r} is a {type(backbone).__name__}; allowed: a BERT"
            f" (BertBackbone); {WAYS_TO_PROVIDE}"
        )
    if config.max_tokens > backbone.max_sequence_length:
        raise ConfigError(
            f"model.text.max_tokens: {config.preset!r} has positions for"
            f" {backbone.max_sequence_length} tokens, received {config.max_tokens}"
        )
    settings = {**backbone.get_config(), "name": "text_encoder"}
    if config.layers is not None:
        if config.layers > settings["num_layers"]:
            raise ConfigError(
                f"model.text.layers: {config.preset!r} has {settings['num_layers']}, received"
                f" {config.layers}"
            )
        settings["num_layers"] = config.layers
    return EncoderSpec(kind=type(backbone).__name__, settings=settings, pretrained=True)


def build_encoder(spec: EncoderSpec) -> keras.Model:
    """Builds an encoder with untrained weights.

    Raises:
        RunError: If the kind is none that this project builds.
    """
    if spec.kind in _OWN:
        return _OWN[spec.kind](spec)
    backbone = getattr(keras_hub.models, spec.kind, None)
    if not (isinstance(backbone, type) and issubclass(backbone, keras_hub.models.Backbone)):
        raise RunError(
            f"encoder kind {spec.kind!r}: allowed: a KerasHub backbone, {', '.join(_OWN)}"
        )
    return backbone.from_config(spec.settings)


def load_preset_weights(encoder: keras.Model, preset: str) -> None:
    """Copies a preset's weights into an encoder built from its spec; a BERT may have fewer layers than the preset."""
    source = _read_preset(keras_hub.models.Backbone, preset, "preset")
    if not isinstance(source, keras_hub.models.BertBackbone):
        encoder.set_weights(source.get_weights())
        return
    for layer in encoder.layers:
        layer.set_weights(source.get_layer(layer.name).get_weights())


def _read_preset(reader: type, preset: str, key: str, **options: Any) -> Any:
    """Calls `from_preset`, and says in one error how a preset can be provided."""
    if preset.startswith((".", "/", "~")) and not Path(preset).expanduser().is_dir():
        raise PresetError(f"{key}: {preset}: no such folder; {WAYS_TO_PROVIDE}")
    try:
        return reader.from_preset(preset, **options)
    except Exception as error:  # KerasHub, Kaggle and Hugging Face raise whatever they like
        reason = " ".join(str(error).split())[:300]
        raise PresetError(
            f"{key}: {preset!r} cannot be loaded ({reason}); {WAYS_TO_PROVIDE}"
        ) from error


def _plain(value: Any, default: float) -> float | list[float]:
    if value is None:
        return default
    return [float(item) for item in value] if hasattr(value, "__len__") else float(value)


def _build_saved_model(spec: EncoderSpec) -> keras.Model:
    photo = keras.Input((spec.size_px, spec.size_px, 3), name="pixels")
    return keras.Model(
        photo,
        SavedModelEncoder(spec.dimension, **spec.settings, name="saved_model")(photo),
        name="image_encoder",
    )


def _build_precomputed(spec: EncoderSpec) -> keras.Model:
    embedding = keras.Input((spec.dimension,), name="embedding")
    return keras.Model(
        embedding,
        keras.layers.Activation("linear", name="embedding_features")(embedding),
        name="image_encoder",
    )


_OWN: dict[str, Callable[[EncoderSpec], keras.Model]] = {
    "small_image_network": lambda spec: scratch.build_small_image_network(spec.settings),
    "small_text_network": lambda spec: scratch.build_small_text_network(spec.settings),
    "saved_model": _build_saved_model,
    "precomputed": _build_precomputed,
}
