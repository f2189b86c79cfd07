"""Tests that unusable encoders are refused before any work on data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import pytest
from safetensors.numpy import save_file

from eczema_tf.config import Config, ImageConfig, ModelConfig, TextConfig
from eczema_tf.data.text.tokenizer import SPECIAL_TOKENS
from eczema_tf.errors import ConfigError, PresetError
from eczema_tf.model import probe
from eczema_tf.model.branches import IMAGE_FEATURES
from eczema_tf.model.encoders import (
    build_encoder,
    load_preset_weights,
    specify_image_encoder,
    specify_text_encoder,
)
from eczema_tf.model.multimodal import Encoders, build_model
from eczema_tf.model.probe import probe_encoder
from eczema_tf.schema import IMAGE
from eczema_tf.workflows.fit import check_encoders

WIDTH, PATCH_PX, SIDE_PX = 16, 8, 32


def save_hugging_face_vit(folder: Path) -> dict[str, np.ndarray]:
    """Saves a vision transformer of one layer, with random weights, in Hugging Face's layout."""
    rng, tensors = np.random.default_rng(0), {}

    def add(name: str, *shape: int) -> None:
        tensors[f"vit.{name}"] = rng.normal(0, 0.1, shape).astype("float32")

    add("embeddings.cls_token", 1, 1, WIDTH)
    add("embeddings.position_embeddings", 1, (SIDE_PX // PATCH_PX) ** 2 + 1, WIDTH)
    add("embeddings.patch_embeddings.projection.weight", WIDTH, 3, PATCH_PX, PATCH_PX)
    add("embeddings.patch_embeddings.projection.bias", WIDTH)
    layer = "encoder.layer.0."
    dense = ["attention.attention.query", "attention.attention.key", "attention.attention.value"]
    dense += ["attention.output.dense", "intermediate.dense", "output.dense"]
    for name in dense:
        add(f"{layer}{name}.weight", WIDTH, WIDTH)
        add(f"{layer}{name}.bias", WIDTH)
    for name in ("layernorm", f"{layer}layernorm_before", f"{layer}layernorm_after"):
        add(f"{name}.weight", WIDTH)
        add(f"{name}.bias", WIDTH)
    config = {
        "model_type": "vit",
        "architectures": ["ViTModel"],
        "image_size": SIDE_PX,
        "patch_size": PATCH_PX,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "qkv_bias": True,
        "num_channels": 3,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return tensors


def save_preprocessor(folder: Path, **changes: object) -> None:
    settings = {"size": {"height": SIDE_PX, "width": SIDE_PX}, "rescale_factor": 1 / 255}
    settings |= {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 0.2], **changes}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def build_around(preset: Path) -> keras.Model:
    config = ModelConfig(image=ImageConfig(preset=str(preset)), text=TextConfig(preset=None))
    image = specify_image_encoder(config.image)
    return build_model(config, Encoders(image, specify_text_encoder(config.text, 50)))


def test_hugging_face_vit_is_read_with_its_normalisation(tmp_path: Path):
    tensors = save_hugging_face_vit(tmp_path / "vit")
    save_preprocessor(tmp_path / "vit")
    spec = specify_image_encoder(ImageConfig(preset=str(tmp_path / "vit")))
    assert spec.size_px == SIDE_PX
    white = 255 * np.array(spec.scale) + spec.offset
    np.testing.assert_allclose(white, (1 - np.array([0.5, 0.4, 0.3])) / [0.5, 0.25, 0.2], rtol=1e-5)
    encoder = build_encoder(spec)
    load_preset_weights(encoder, str(tmp_path / "vit"))
    projection = tensors["vit.embeddings.patch_embeddings.projection.bias"]
    assert any(np.array_equal(weight.numpy(), projection) for weight in encoder.weights)
    probe_encoder(build_around(tmp_path / "vit"), "image", "vit")


@pytest.mark.parametrize("change", [None, {"image_mean": None}, {"size": {"shortest_edge": 32}}])
def test_hugging_face_vit_without_normalisation_is_refused(tmp_path: Path, change: dict | None):
    save_hugging_face_vit(tmp_path / "vit")
    if change is not None:
        save_preprocessor(tmp_path / "vit", **change)
    with pytest.raises(
        PresetError, match=r"how its photos are normalised: preprocessor_config\.js"
    ):
        specify_image_encoder(ImageConfig(preset=str(tmp_path / "vit")))


def test_swin_gives_each_photo_its_own_grid_of_merged_patches(tmp_path: Path):
    """Its stride is not its patch size. Read as a 16 x 16 grid, four photos became one."""
    swin = keras_hub.models.SwinTransformerBackbone(
        image_shape=(64, 64, 3), embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    )
    swin.save_to_preset(str(tmp_path))
    converter = keras_hub.layers.SwinTransformerImageConverter(image_size=(64, 64), scale=1 / 255)
    converter.save_to_preset(str(tmp_path))
    model = build_around(tmp_path)
    assert model.get_layer(IMAGE_FEATURES).output.shape[1:3] == (8, 8)
    probe_encoder(model, "image", "swin")


class Encoder:
    def __init__(self, encode):
        self.input = {IMAGE: np.zeros((1, 4, 4, 3))}
        self.encode = encode

    def __call__(self, inputs, training):
        return self.encode(inputs[IMAGE])


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda photos: photos - photos.mean(), "does not encode each row of a batch by itself"),
        (lambda photos: photos[::-1], "does not encode each row of a batch by itself"),
        (lambda photos: photos * np.nan, "cannot encode: it returns nan for all"),
        (lambda photos: photos * 0, "cannot encode: it returns 0 for all"),
        (lambda photos: photos.reshape(1, -1), "cannot encode|does not encode"),
        (lambda photos: photos @ np.ones((5, 2)), "cannot encode: .*matmul"),
    ],
)
def test_unusable_encoder_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, encode, message: str):
    monkeypatch.setattr(probe, "encoder_of", lambda model, modality: Encoder(encode))
    with pytest.raises(ConfigError, match=message) as caught:
        probe_encoder(None, "image", "some/preset")
    assert str(caught.value).startswith("model.image: some/preset ")
    assert "\n" not in str(caught.value)


def test_check_encoders_probes_and_names_both_without_any_data(
    tmp_path: Path, capsys: pytest.CaptureFixture, build_tiny_bert: Callable[..., Any]
):
    bert = build_tiny_bert(vocabulary=8)
    bert.save_to_preset(str(tmp_path / "bert"))
    words = [*SPECIAL_TOKENS, "dry", "red", "skin"]
    keras_hub.models.BertTokenizer(words).save_to_preset(str(tmp_path / "bert"))
    save_hugging_face_vit(tmp_path / "vit")
    save_preprocessor(tmp_path / "vit")
    text = {"preset": str(tmp_path / "bert"), "last_layers": 1, "max_tokens": 16}
    values = {"model": {"image": {"preset": str(tmp_path / "vit")}, "text": text}}
    check_encoders(Config.parse(values))
    said = capsys.readouterr().err
    assert f"image encoder: {tmp_path / 'vit'}, a local folder" in said
    assert f"text encoder: {tmp_path / 'bert'}, a local folder" in said
    assert "preprocess.augment" not in said
    augmented = {**values, "preprocess": {"augment": {"rotation_deg": 90.0}}}
    check_encoders(Config.parse(augmented))
    assert "preprocess.augment has no effect" in capsys.readouterr().err
    tuned = {"train": {"fine_tune": {"epochs": 1, "image_from": "vit"}}}
    check_encoders(Config.parse({**augmented, **tuned}))
    assert "preprocess.augment" not in capsys.readouterr().err
    tuned["train"]["fine_tune"]["image_from"] = "blok"
    with pytest.raises(ConfigError, match="image_from: no layer's name begins with 'blok'"):
        check_encoders(Config.parse({**values, **tuned}))
    tuned["train"]["fine_tune"] = {"image_from": "blok"}
    check_encoders(Config.parse({**values, **tuned}))
    assert "nothing is fine-tuned, since train.fine_tune.epochs is 0" in capsys.readouterr().err
    (tmp_path / "vit" / "model.safetensors").unlink()
    with pytest.raises(PresetError, match="vit"):
        check_encoders(Config.parse(values))
