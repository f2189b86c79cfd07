"""Encoders to be trained from scratch on a laptop: two small networks of our own, and small versions of the well-known ones."""

from typing import Any

import keras

IMAGE_SIZE_PX = 96
_PATCH_SIZE_PX = 8

# Where `preset` is null: by `model.image.architecture`, the KerasHub backbone and its settings.
# "small" is `build_small_image_network`.
IMAGE_ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "efficientnet": (
        "EfficientNetBackbone",
        {
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
            "patch_size": _PATCH_SIZE_PX,
            "num_layers": 3,
            "num_heads": 4,
            "hidden_dim": 96,
            "intermediate_dim": 192,
        },
    ),
}
TEXT_ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": (
        "BertBackbone",
        {
            "num_layers": 2,
            "num_heads": 4,
            "hidden_dim": 96,
            "intermediate_dim": 192,
            "dropout": 0.1,
        },
    ),
}


def build_small_image_network(settings: dict[str, Any]) -> keras.Model:
    """Four stages of two 3 x 3 convolutions, each stage at half the size: (size, size, 3) to (size / 16, size / 16, channels)."""
    photo = keras.Input((None, None, 3), name="pixels")
    x = photo
    for stage, filters in enumerate(settings["filters"], start=1):
        x = _convolution(x, filters, 2, f"stage{stage}_conv1")
        x = _convolution(x, filters, 1, f"stage{stage}_conv2") if stage > 1 else x
    return keras.Model(photo, x, name="image_encoder")


def _convolution(x: Any, filters: int, stride: int, name: str) -> Any:
    x = keras.layers.Conv2D(
        filters, 3, stride, "same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)
    x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
    return keras.layers.Activation("relu", name=f"{name}_relu")(x)


def build_small_text_network(settings: dict[str, Any]) -> keras.Model:
    """Word-piece embeddings and one convolution over five tokens (Kim 2014, arXiv 1408.5882): enough for negated phrases."""
    units = settings["units"]
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    padding_mask = keras.Input((None,), dtype="int32", name="padding_mask")
    segment_ids = keras.Input((None,), dtype="int32", name="segment_ids")
    x = keras.layers.Embedding(settings["vocabulary_size"], units, name="token_embedding")(
        token_ids
    )
    x = keras.layers.Dropout(0.2, name="token_dropout")(x)
    real = keras.layers.Reshape((-1, 1), name="token_mask")(keras.ops.cast(padding_mask, x.dtype))
    x = keras.layers.Multiply(name="masked_embedding")(
        [x, real]
    )  # so that padding cannot reach a real token
    nearby = keras.layers.Conv1D(units, 5, padding="same", activation="relu", name="phrase_conv")(x)
    x = keras.layers.Concatenate(name="token_and_phrase")([x, nearby])
    inputs = {"token_ids": token_ids, "padding_mask": padding_mask, "segment_ids": segment_ids}
    return keras.Model(inputs, {"sequence_output": x}, name="text_encoder")
