"""Tests a tiny encoder of each pretrained family: it can be used, or is refused by name."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras_hub import layers, models

from eczema_tf.config import ImageConfig, ModelConfig, TextConfig
from eczema_tf.errors import PresetError
from eczema_tf.model.branches import IMAGE_FEATURES
from eczema_tf.model.encoders import (
    EncoderSpec,
    load_preset_weights,
    specify_image_encoder,
    specify_text_encoder,
)
from eczema_tf.model.multimodal import Encoders, build_model
from eczema_tf.model.probe import probe_encoder

SIZE_PX = 32
WORDS = {"vocabulary_size": 20, "num_layers": 1, "num_heads": 2, "hidden_dim": 8}
WORDS |= {"intermediate_dim": 8, "max_sequence_length": 16}
PATCHES = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 8}
PATCHES |= {"image_shape": (SIZE_PX, SIZE_PX, 3)}


def efficientnet(block: str) -> keras.Model:
    """Builds an EfficientNet of "v1" blocks, or of V2's blocks, "fused" or "unfused"."""
    return models.EfficientNetBackbone(
        stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[1, 2],
        stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[1, 2],
        stackwise_strides=[1, 2],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        stackwise_block_types=[block, block],
        stackwise_width_coefficients=[1.0, 1.0],
        stackwise_depth_coefficients=[1.0, 1.0],
    )


def mobilenet_v3() -> keras.Model:
    return models.MobileNetBackbone(
        stackwise_expansion=[[16]],
        stackwise_num_blocks=[1],
        stackwise_num_filters=[[8]],
        stackwise_kernel_size=[[5]],
        stackwise_num_strides=[[2]],
        stackwise_se_ratio=[[0.25]],
        stackwise_activation=[["hard_swish"]],
        stackwise_padding=[[2]],
        output_num_filters=8,
        input_num_filters=8,
        input_activation="hard_swish",
        output_activation="hard_swish",
        depthwise_filters=8,
        depthwise_stride=1,
        depthwise_residual=False,
        last_layer_filter=8,
        image_shape=(SIZE_PX, SIZE_PX, 3),
    )


def siglip() -> keras.Model:
    return models.SigLIPBackbone(
        models.SigLIPVisionEncoder(**PATCHES, intermediate_dim=8),
        models.SigLIPTextEncoder(**WORDS, embedding_dim=8),
    )


IMAGE_FAMILIES: dict[str, Callable[[], keras.Model]] = {
    "EfficientNet": lambda: efficientnet("unfused"),
    "MobileNet": mobilenet_v3,
    "DINOV2": lambda: models.DINOV2Backbone(
        **PATCHES,
        intermediate_dim=8,
        num_register_tokens=2,
        position_embedding_shape=(SIZE_PX, SIZE_PX, 3),
    ),
    "DINOV3": lambda: models.DINOV3Backbone(**PATCHES, intermediate_dim=8),
    "SigLIP": siglip,
}


@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_image_family_gives_a_grid_of_features_with_preset_weights(
    family: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
):
    backbone, preset = IMAGE_FAMILIES[family](), str(tmp_path)
    backbone.save_to_preset(preset)
    convert = getattr(layers, f"{family}ImageConverter")
    convert(image_size=(SIZE_PX, SIZE_PX), scale=1 / 255.0).save_to_preset(preset)
    text = specify_text_encoder(TextConfig(preset=None), 20)
    said = specify_image_encoder(ImageConfig(preset=preset)).model_dump_json()
    spec = EncoderSpec.model_validate_json(said)
    model = build_model(ModelConfig(embedding_units=4), Encoders(spec, text))
    encoder = model.get_layer("image_encoder")
    load_preset_weights(encoder, preset)
    probe_encoder(model, "image", family)
    _, height, width, _ = model.get_layer(IMAGE_FEATURES).output.shape
    assert height == width > 1

    photos = np.random.default_rng(0).uniform(0, 1, (2, SIZE_PX, SIZE_PX, 3)).astype("float32")
    own = getattr(backbone, "vision_encoder", backbone)
    features = keras.tree.flatten(encoder(photos))[0]  # a map for textures may follow
    if family == "SigLIP":  # our encoder returns the patches; SigLIP's own pools them
        features = own.head(features)
    named = dict.fromkeys(own.input, photos) if isinstance(own.input, dict) else photos
    np.testing.assert_allclose(features, own(named), atol=1e-5)
    assert not [w for w in recwarn if "structure of `inputs`" in str(w.message)]


TEXT_FAMILIES: dict[str, Callable[[], keras.Model]] = {
    "RobertaBackbone": lambda: models.RobertaBackbone(**WORDS),
    "XLMRobertaBackbone": lambda: models.XLMRobertaBackbone(**WORDS),
    "DebertaV3Backbone": lambda: models.DebertaV3Backbone(**WORDS, bucket_size=4),
    "SigLIPBackbone": siglip,
}


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_text_family_with_another_tokenizer_is_refused_by_name(family: str, tmp_path: Path):
    TEXT_FAMILIES[family]().save_to_preset(str(tmp_path))
    with pytest.raises(PresetError, match=rf"is a {family}; allowed: a BERT"):
        specify_text_encoder(TextConfig(preset=str(tmp_path)), 0)
