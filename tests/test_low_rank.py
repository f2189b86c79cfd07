"""Tests low-rank adaptation: what is trainable, and merging it into the encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from eczema_tf.config import ImageConfig
from eczema_tf.errors import ConfigError
from eczema_tf.model.encoders import build_encoder, specify_image_encoder
from eczema_tf.training.low_rank import add_low_rank, merge_low_rank
from eczema_tf.training.stages import unfreeze_from


def test_low_rank_weights_are_trainable_and_merge_into_the_kernels(
    tmp_path: Path, build_tiny_bert: Callable[..., Any]
):
    bert, plain = build_tiny_bert(layers=2), build_tiny_bert(layers=2)
    tokens = {"token_ids": np.arange(1, 13).reshape(2, 6), "segment_ids": np.zeros((2, 6), "int32")}
    tokens |= {"padding_mask": np.ones((2, 6), "int32")}
    traced = tf.function(lambda: bert(tokens)["sequence_output"], autograph=False)
    untaught = traced()
    unfreeze_from(bert, "transformer_layer_1", "key")
    adapted = add_low_rank(bert, 2)
    learning = {tuple(variable.path.split("/")[-4:]) for variable in bert.trainable_variables}
    assert learning == {
        ("transformer_layer_1", "self_attention_layer", part, weight)
        for part in ("query", "value")
        for weight in ("bias", "lora_kernel_a", "lora_kernel_b")
    }
    for layer in adapted:
        layer.lora_kernel_b.assign(keras.ops.ones_like(layer.lora_kernel_b))
    taught = bert(tokens)["sequence_output"]
    merge_low_rank(adapted)
    bert.save_weights(tmp_path / "bert.weights.h5")
    plain.load_weights(tmp_path / "bert.weights.h5")
    assert np.abs(taught - untaught).max() > 0.01
    for again in (bert(tokens)["sequence_output"], plain(tokens)["sequence_output"], traced()):
        np.testing.assert_allclose(again, taught, atol=1e-5)


def test_low_rank_is_refused_for_an_encoder_without_attention():
    encoder = build_encoder(specify_image_encoder(ImageConfig(preset=None, size_px=32)))
    with pytest.raises(ConfigError, match="lora_rank: image_encoder has no attention"):
        add_low_rank(encoder, 2)
