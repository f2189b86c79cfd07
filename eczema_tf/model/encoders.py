"""Image and text encoders: KerasHub backbones, networks from scratch, SavedModels, embeddings.

An `EncoderSpec` describes an encoder in plain JSON. `specify_*` makes one from the configuration
(reading the preset); `build_encoder` makes the Keras model from the spec alone. So a run folder
needs no preset. Only a SavedModel is a program; `harmless` checks it before it is loaded.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import keras
import keras_hub
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from eczema_tf.config import ImageConfig, TextConfig
from eczema_tf.errors import ConfigError, PresetError, RunError
from eczema_tf.model import scratch
from eczema_tf.model.saved_model import DEFAULT_SIZE_PX, SavedModelEncoder
from eczema_tf.model.weights.packaged import HOW_TO_INSTALL, REGISTRY, find_preset

WAYS_TO_PROVIDE = (
    f"give (1) {', '.join(REGISTRY)}, after {HOW_TO_INSTALL}, (2) another KerasHub preset name,"
    " with internet access to Kaggle, (3) a local KerasHub preset folder (config.json,"
    " model.weights.h5), or (4) a Hugging Face folder (config.json, model.safetensors); or null for"
    " a small network from scratch"
)
OWN_KINDS = ("small_image_network", "small_text_network", "saved_model", "precomputed")


class EncoderSpec(BaseModel):
    """What is needed to rebuild an encoder; saved in the run folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str  # a KerasHub backbone class, or one of `OWN_KINDS`
    settings: dict[str, Any]
    pretrained: bool
    source: str = "from scratch"  # where the weights come from, for people
    size_px: Annotated[int, Field(ge=0)] = 0  # image encoders: side of the photo
    # image encoders: photo * scale + offset is what the encoder was trained on
    scale: float | list[float] = 1.0
    offset: float | list[float] = 0.0
    dimension: int = 0  # precomputed, saved_model: length of an embedding
    last_layers: int = 1  # BERT: how many last layers, whose outputs are side by side


def specify_image_encoder(
    config: ImageConfig, embedding_dimension: int | None = None
) -> EncoderSpec:
    """Describes the image encoder.

    Args:
        config: The preset and the size of the photo.
        embedding_dimension: Length of the precomputed embeddings that stand in for photos, if any.

    Raises:
        PresetError: If the preset is not available, or is not an image encoder.
        ConfigError: If the size of the photo does not fit it, or a SavedModel does not take such
            photos.
    """
    if embedding_dimension is not None:
        return EncoderSpec(
            kind="precomputed",
            settings={},
            pretrained=True,
            source="precomputed embeddings",
            dimension=embedding_dimension,
        )
    if config.saved_model is not None:
        return _specify_saved_model(config.saved_model, config)
    if config.preset is not None:
        return _specify_image_preset(config.preset, config.size_px)
    size_px = config.size_px or scratch.IMAGE_SIZE_PX
    kind, settings = scratch.IMAGE_ARCHITECTURES[config.architecture]
    if "patch_size" in settings:
        if size_px % settings["patch_size"]:
            raise ConfigError(
                f"model.image.size_px: must be a multiple of the patch, {settings['patch_size']}"
                f" px, received {size_px}"
            )
        settings = {**settings, "image_shape": [size_px, size_px, 3]}
    return EncoderSpec(
        kind=kind,
        settings=settings,
        pretrained=False,
        size_px=size_px,
        scale=1 / 127.5,
        offset=-1.0,
    )


def _specify_saved_model(handle: str, config: ImageConfig) -> EncoderSpec:
    encoder = SavedModelEncoder(handle, config.saved_model_input)
    size_px = config.size_px or encoder.size_px or DEFAULT_SIZE_PX
    return EncoderSpec(
        kind="saved_model",
        settings={"handle": handle, "input_kind": encoder.input_kind, "digest": encoder.digest},
        pretrained=True,
        source="a SavedModel",
        size_px=size_px,
        dimension=encoder.find_dimension(size_px),
    )


def _specify_image_preset(preset: str, size_px: int | None) -> EncoderSpec:
    key = "model.image.preset"
    backbone = _read_backbone(preset, key, load_weights=False)
    inputs, output = backbone.inputs, _see_with(backbone).output
    one_photo_in = len(inputs) == 1 and len(inputs[0].shape) == 4
    # a feature map, or the sequence of a vision transformer's tokens
    if not (one_photo_in and hasattr(output, "shape") and len(output.shape) in (3, 4)):
        raise PresetError(
            f"{key}: {preset!r} is a {type(backbone).__name__}, not an image encoder;"
            f" {WAYS_TO_PROVIDE}"
        )
    converter = _read_preset(keras_hub.layers.ImageConverter, preset, key)
    if converter is None:  # KerasHub has none for ViT, DeiT and DINOv2 of Hugging Face
        converter = _read_image_processor(preset, key)
    size_px = size_px or (converter.image_size or (224,))[0]
    settings = _describe(backbone, "image_encoder")
    own_size = settings.get("image_shape", (None,))[0]
    if own_size not in (None, size_px) and "patch_size" in settings:
        raise ConfigError(
            f"model.image.size_px: {preset!r} has learned positions for {own_size} px only,"
            f" received {size_px}"
        )
    return EncoderSpec(
        kind=type(backbone).__name__,
        settings=settings,
        pretrained=True,
        source=find_preset(preset).source,
        size_px=size_px,
        scale=np.asarray(converter.scale or 1.0).tolist(),
        offset=np.asarray(converter.offset or 0.0).tolist(),
    )


def _describe(backbone: keras_hub.models.Backbone, name: str) -> dict[str, Any]:
    """Returns a backbone's settings, except this process's precision, which may be training's."""
    settings = {**backbone.get_config(), "name": name}
    del settings["dtype"]
    return settings


def _read_image_processor(preset: str, key: str) -> keras_hub.layers.ImageConverter:
    """Reads how photos are normalised from Hugging Face's own file."""
    path = Path(preset).expanduser() / "preprocessor_config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        side = settings["size"]["height"]
        mean, std = np.array([settings["image_mean"], settings["image_std"]]).reshape(2, 3)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PresetError(
            f"{key}: {preset!r} does not say how its photos are normalised: {path.name} must have"
            " size.height, image_mean and image_std"
        ) from error
    scale = settings.get("rescale_factor", 1 / 255) / std
    return keras_hub.layers.ImageConverter(
        image_size=(side, side), scale=scale.tolist(), offset=(-mean / std).tolist()
    )


def specify_text_encoder(config: TextConfig, vocabulary_size: int) -> EncoderSpec:
    """Describes the text encoder.

    Args:
        config: The preset.
        vocabulary_size: Number of word pieces of the tokenizer.

    Raises:
        PresetError: If the preset is not available, or is not a BERT.
        ConfigError: If it has fewer positions or layers than asked for.
    """
    if config.preset is None:
        kind, settings = scratch.TEXT_ARCHITECTURES[config.architecture]
        settings = {**settings, "vocabulary_size": vocabulary_size}
        if kind == "BertBackbone":
            settings["max_sequence_length"] = config.max_tokens
        return EncoderSpec(kind=kind, settings=settings, pretrained=False)
    key = "model.text.preset"
    backbone = _read_preset(keras_hub.models.Backbone, config.preset, key, load_weights=False)
    if not isinstance(backbone, keras_hub.models.BertBackbone):
        raise PresetError(
            f"{key}: {config.preset!r} is a {type(backbone).__name__}; allowed: a BERT"
            f" (BertBackbone); {WAYS_TO_PROVIDE}"
        )
    if config.max_tokens > (most := backbone.max_sequence_length):
        raise ConfigError(
            f"model.text.max_tokens: {config.preset!r} has positions for {most} tokens; allowed: at"
            f" most {most}, received {config.max_tokens}"
        )
    settings = _describe(backbone, "text_encoder")
    if config.layers is not None:
        if config.layers > settings["num_layers"]:
            raise ConfigError(
                f"model.text.layers: {config.preset!r} has {settings['num_layers']} layers,"
                f" received {config.layers}"
            )
        settings["num_layers"] = config.layers
    source = find_preset(config.preset).source
    return EncoderSpec(
        kind=type(backbone).__name__,
        settings=settings,
        pretrained=True,
        source=source,
        last_layers=min(config.last_layers, settings["num_layers"]),
    )


def build_encoder(spec: EncoderSpec) -> keras.Model:
    """Builds an encoder with untrained weights.

    Raises:
        RunError: If the kind is not one that this project builds.
    """
    match spec.kind:
        case "small_image_network":
            return scratch.build_small_image_network(**spec.settings)
        case "small_text_network":
            return scratch.build_small_text_network(**spec.settings)
        case "saved_model":
            if spec.settings.get("digest") is None:
                raise RunError(
                    "encoder saved_model: settings.digest is missing; it identifies the module"
                )
            inputs = keras.Input((spec.size_px, spec.size_px, 3), name="pixels")
            layer = SavedModelEncoder(**spec.settings, dimension=spec.dimension, name="saved_model")
        case "precomputed":
            inputs = keras.Input((spec.dimension,), name="embedding")
            layer = keras.layers.Activation("linear", name="embedding_features")
        case _:
            backbone: Any = getattr(keras_hub.models, spec.kind, None)
            is_class = isinstance(backbone, type)
            if not (is_class and issubclass(backbone, keras_hub.models.Backbone)):
                raise RunError(
                    f"encoder kind {spec.kind!r}: allowed: a KerasHub backbone,"
                    f" {', '.join(OWN_KINDS)}"
                )
            encoder = backbone.from_config(spec.settings)
            return _see_with(encoder) if spec.last_layers == 1 else _join_last_layers(encoder, spec)
    return keras.Model(inputs, layer(inputs), name="image_encoder")


def _join_last_layers(bert: keras_hub.models.BertBackbone, spec: EncoderSpec) -> keras.Model:
    """Returns the last layers' outputs, side by side, as a BERT's `sequence_output`.

    The last layer alone is biased towards its pretraining; several layers contain more for other
    tasks (Peters et al. 2018; Devlin et al. 2019, table 7, where this did best).
    """
    layers = spec.settings["num_layers"]
    outputs = [
        bert.get_layer(f"transformer_layer_{layer}").output  # (batch, tokens, channels)
        for layer in range(layers - spec.last_layers, layers)
    ]
    joined = keras.layers.Concatenate(name="last_layers")(outputs)
    return keras.Model(bert.input, {"sequence_output": joined}, name="text_encoder")


def _see_with(backbone: keras_hub.models.Backbone) -> keras.Model:
    """Returns an image backbone as a model of one tensor, whatever its input is called.

    SigLIP (Zhai et al. 2023) returns its patches, for heatmaps, and not the vector pooled from
    them.
    """
    if len(backbone.inputs) > 1 or not isinstance(backbone.input, dict):
        return backbone
    siglip = isinstance(backbone, keras_hub.models.SigLIPVisionEncoder)
    output = backbone.post_layer_norm.output if siglip else backbone.output
    return keras.Model(backbone.inputs[0], output, name="image_encoder")


def load_preset_weights(encoder: keras.Model, preset: str) -> None:
    """Copies a preset's weights into an encoder built from its spec.

    A BERT may have fewer layers than the preset.
    """
    source = _read_backbone(preset, "preset")
    if not isinstance(source, keras_hub.models.BertBackbone):
        encoder.set_weights(_see_with(source).get_weights())
        return
    for layer in (layer for layer in encoder.layers if layer.weights):
        layer.set_weights(source.get_layer(layer.name).get_weights())


def _read_backbone(preset: str, key: str, **options: Any) -> keras_hub.models.Backbone:
    """Reads a backbone; if it matches photos with texts, the half that sees."""
    backbone = _read_preset(keras_hub.models.Backbone, preset, key, **options)
    return getattr(backbone, "vision_encoder", backbone)


def _read_preset(reader: Any, preset: str, key: str, **options: Any) -> Any:
    """Calls `from_preset`; a single error says how a preset can be provided."""
    if preset.startswith((".", "/", "~")) and not Path(preset).expanduser().is_dir():
        raise PresetError(f"{key}: {preset}: no such folder; {WAYS_TO_PROVIDE}")
    location = find_preset(preset).location
    try:
        return reader.from_preset(location, **options)
    except Exception as error:  # KerasHub, Kaggle and Hugging Face raise whatever they like
        reason = " ".join(str(error).split())[:300]
        raise PresetError(
            f"{key}: {preset!r} is not available ({reason}); {WAYS_TO_PROVIDE}"
        ) from error
