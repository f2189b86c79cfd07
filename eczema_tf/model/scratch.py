"""Encoders to be trained from scratch on a laptop.

Two small networks of our own, and small versions of the well-known ones.
"""

from collections.abc import Sequence
from typing import Any

import keras

IMAGE_SIZE_PX = 96
_PATCH_SIZE_PX = 8

# where `preset` is null: by `model.image.architecture`, `kind` and `settings` of an `EncoderSpec`
IMAGE_ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "small": ("small_image_network", {"filters": [16, 32, 64, 128]}),
    "efficientnet": (
        "EfficientNetBackbone",
        {
            "name": "image_encoder",
            "stackwise_kernel_sizes": [3, 3, 5, 3],
            "stackwise_width_coefficients": [1.0, 1.0, 1.0, 1.0],
            "stackwise_depth_coefficients": [1.0, 1.0, 1.0, 1.0],
            "stackwise_num_repeats": [1, 2, 2, 2],
            "stackwise_input_filters": [16, 16, 24, 40],
            "stackwise_output_filters": [16, 24, 40, 80],
            "stackwise_expansion_ratios": [1, 4, 4, 4],
            "stackwise_squeeze_and_excite_ratios": [0.25, 0.25, 0.25, 0.25],
            "stackwise_strides": [1, 2, 2, 2],
            "stackwise_block_types": ["v1", "v1", "v1", "v1"],
            "stackwise_force_input_filters": [0, 0, 0, 0],
            "stackwise_nores_option": [False, False, False, False],
            "dropout": 0.1,
            "num_features": 128,
        },
    ),
    "vit": (
        "ViTBackbone",
        {
            "name": "image_encoder",
            "patch_size": _PATCH_SIZE_PX,
            "num_layers": 3,
            "num_heads": 4,
            "hidden_dim": 96,
            "mlp_dim": 192,
        },
    ),
    "deit": (
        "DeiTBackbone",
        {
            "name": "image_encoder",
            "patch_size": _PATCH_SIZE_PX,
            "num_layers": 3,
            "num_heads": 4,
            "hidden_dim": 96,
            "intermediate_dim": 192,
        },
    ),
}
# the same by `model.text.architecture`; the size of the vocabulary is added later
TEXT_ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "small": ("small_text_network", {"units": 96}),
    "bert": (
        "BertBackbone",
        {
            "name": "text_encoder",
            "num_layers": 2,
            "num_heads": 4,
            "hidden_dim": 96,
            "intermediate_dim": 192,
            "dropout": 0.1,
        },
    ),
}


def build_small_image_network(filters: Sequence[int]) -> keras.Model:
    """Builds stages of two 3 x 3 convolutions (the first: one), each stage at half the size.

    Args:
        filters: Channels of each stage.

    Returns:
        A model from (batch, size, size, 3) to (batch, size / 16, size / 16, channels), for four
        stages.
    """
    photo = keras.Input((None, None, 3), name="pixels")
    x = photo
    for stage, channels in enumerate(filters, start=1):
        for number in (1, 2) if stage > 1 else (1,):
            name = f"stage{stage}_conv{number}"
            x = keras.layers.Conv2D(
                channels,
                kernel_size=3,
                strides=2 if number == 1 else 1,
                padding="same",
                use_bias=False,
                kernel_initializer="he_normal",
                name=name,
            )(x)  # (batch, size / 2**stage, size / 2**stage, channels)
            x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
            x = keras.layers.Activation("relu", name=f"{name}_relu")(x)
    return keras.Model(photo, x, name="image_encoder")


def build_small_text_network(vocabulary_size: int, units: int) -> keras.Model:
    """Word-piece embeddings and one convolution over five tokens: enough for negated phrases.

    After Kim (2014, arXiv 1408.5882). Returns a model from tokens to a `sequence_output` of (batch,
    tokens, 2 * units).
    """
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    padding_mask = keras.Input((None,), dtype="int32", name="padding_mask")
    segment_ids = keras.Input((None,), dtype="int32", name="segment_ids")
    x = keras.layers.Embedding(vocabulary_size, units, name="token_embedding")(token_ids)
    x = keras.layers.Dropout(0.2, name="token_dropout")(x)  # (batch, tokens, units)
    real = keras.layers.Reshape((-1, 1), name="token_mask")(keras.ops.cast(padding_mask, x.dtype))
    # so that padding cannot reach a real token
    x = keras.layers.Multiply(name="masked_embedding")([x, real])
    nearby = keras.layers.Conv1D(units, 5, padding="same", activation="relu", name="phrase_conv")(x)
    x = keras.layers.Concatenate(name="token_and_phrase")([x, nearby])  # (batch, tokens, 2 * units)
    inputs = {"token_ids": token_ids, "padding_mask": padding_mask, "segment_ids": segment_ids}
    return keras.Model(inputs, {"sequence_output": x}, name="text_encoder")
