"""Tests encoders: from scratch, from presets and from SavedModels, and errors for unusable ones."""

import sys
import tarfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue, NameAttrList
from tensorflow.core.framework.function_pb2 import FunctionDef, FunctionDefLibrary
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from eczema_tf.config import Config, ImageConfig, TextConfig
from eczema_tf.errors import ConfigError, PresetError
from eczema_tf.model.encoders import (
    EncoderSpec,
    build_encoder,
    load_preset_weights,
    specify_image_encoder,
    specify_text_encoder,
)
from eczema_tf.model.graphs import list_functions
from eczema_tf.model.harmless import find_harmful
from eczema_tf.model.saved_model import SavedModelEncoder


@pytest.mark.parametrize("architecture", ["small", "efficientnet", "vit", "deit"])
def test_image_encoder_rebuilt_from_its_spec_gives_the_same_features(architecture: str):
    spec = specify_image_encoder(ImageConfig(architecture=architecture, size_px=32))
    again = EncoderSpec.model_validate_json(spec.model_dump_json())
    first, second = build_encoder(spec), build_encoder(again)
    second.set_weights(first.get_weights())
    photos = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(first(photos), second(photos), atol=1e-6)
    assert not spec.pretrained


def test_bert_from_scratch_fits_the_vocabulary_and_token_limit():
    spec = specify_text_encoder(TextConfig(architecture="bert", max_tokens=24), 77)
    assert (spec.kind, spec.settings["vocabulary_size"], spec.settings["max_sequence_length"]) == (
        "BertBackbone",
        77,
        24,
    )
    assert EncoderSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("architecture", ["vit", "deit"])
def test_photo_size_that_is_not_a_multiple_of_the_patch_is_refused(architecture: str):
    with pytest.raises(ConfigError, match="multiple of the patch, 8 px, received 50"):
        specify_image_encoder(ImageConfig(architecture=architecture, size_px=50))


@pytest.mark.parametrize(
    "model",
    [
        {"image": {"preset": "x", "architecture": "vit"}},
        {"image": {"preset": "x", "saved_model": "y"}},
        {"text": {"preset": "x", "architecture": "bert"}},
    ],
)
def test_two_encoders_for_one_modality_are_refused(model: dict):
    with pytest.raises(ConfigError, match="give one of them"):
        Config.parse({"model": model})


def test_preset_of_the_other_modality_is_refused(shared: Path):
    presets = shared / "presets"
    with pytest.raises(PresetError, match="BertBackbone, not an image encoder"):
        specify_image_encoder(ImageConfig(preset=str(presets / "all_minilm_l6_v2_en")))
    with pytest.raises(PresetError, match="allowed: a BERT"):
        specify_text_encoder(TextConfig(preset=str(presets / "efficientnet_lite0_imagenet")), 0)


def test_more_tokens_than_a_preset_has_positions_are_refused(
    tmp_path: Path, build_tiny_bert: Callable[..., Any]
):
    tiny = build_tiny_bert()
    tiny.save_to_preset(str(tmp_path / "tiny"))
    with pytest.raises(ConfigError, match=r"positions for 16 tokens; .* at most 16, received 512"):
        specify_text_encoder(TextConfig(preset=str(tmp_path / "tiny")), 0)


def test_encoder_specified_in_mixed_precision_is_rebuilt_in_float32(
    tmp_path: Path, build_tiny_bert: Callable[..., Any]
):
    """Training may run an encoder in float16, but evaluation and export use float32."""
    build_tiny_bert().save_to_preset(str(tmp_path))
    config = TextConfig(preset=str(tmp_path), max_tokens=16)
    try:
        keras.config.set_dtype_policy("mixed_float16")
        spec = specify_text_encoder(config, 0)
        assert build_encoder(spec).get_layer("token_embedding").compute_dtype == "float16"
    finally:
        keras.config.set_dtype_policy("float32")
    layers = build_encoder(spec)._flatten_layers()
    assert {layer.compute_dtype for layer in layers} == {"float32"}


def test_vit_preset_accepts_only_its_own_photo_size(tmp_path: Path):
    import keras_hub

    vit = keras_hub.models.ViTBackbone(
        image_shape=(32, 32, 3), patch_size=8, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16
    )
    vit.save_to_preset(str(tmp_path / "vit"))
    keras_hub.layers.ViTImageConverter(image_size=(32, 32), scale=1 / 255.0).save_to_preset(
        str(tmp_path / "vit")
    )
    spec = specify_image_encoder(ImageConfig(preset=str(tmp_path / "vit")))
    assert (spec.kind, spec.size_px, spec.pretrained) == ("ViTBackbone", 32, True)
    with pytest.raises(ConfigError, match="learned positions for 32 px only, received 48"):
        specify_image_encoder(ImageConfig(preset=str(tmp_path / "vit"), size_px=48))


class MeanColor(tf.Module):
    """Embeds a photo as its mean colour, from pixels, bytes or an example."""

    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32)])
    def from_pixels(self, images: tf.Tensor) -> dict:
        return {"embedding": tf.reduce_mean(images, [1, 2])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def from_bytes(self, images: tf.Tensor) -> dict:
        return {
            "embedding": tf.map_fn(
                self._mean_of_png, images, fn_output_signature=tf.TensorSpec([3], tf.float32)
            )
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def from_examples(self, inputs: tf.Tensor) -> dict:
        parsed = tf.io.parse_example(
            inputs, {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
        )
        return {
            "embedding": tf.map_fn(
                self._mean_of_png,
                parsed["image/encoded"],
                fn_output_signature=tf.TensorSpec([3], tf.float32),
            )
        }

    @staticmethod
    def _mean_of_png(data: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(
            tf.cast(tf.ensure_shape(tf.io.decode_png(data, 3), (None, None, 3)), tf.float32) / 255,
            [0, 1],
        )


def save_module(folder: Path, function: str) -> str:
    module = MeanColor()
    tf.saved_model.save(
        module, str(folder), signatures={"serving_default": getattr(module, function)}
    )
    return str(folder)


@pytest.mark.parametrize(
    ("function", "kind", "size_px"),
    [("from_pixels", None, 16), ("from_bytes", "bytes", 20), ("from_examples", "example", 20)],
)
def test_saved_model_embeds_photos_from_pixels_bytes_or_examples(
    tmp_path: Path, function: str, kind: str | None, size_px: int
):
    config = ImageConfig(
        saved_model=save_module(tmp_path / "module", function),
        saved_model_input=kind,
        size_px=size_px,
    )
    spec = specify_image_encoder(config)
    assert (spec.kind, spec.size_px, spec.dimension, spec.pretrained) == (
        "saved_model",
        size_px,
        3,
        True,
    )
    photos = np.random.default_rng(0).integers(0, 256, (2, size_px, size_px, 3)).astype("float32")
    np.testing.assert_allclose(
        build_encoder(spec)(photos), photos.mean(axis=(1, 2)) / 255, atol=1e-5
    )


def test_saved_model_that_takes_strings_needs_the_kind_of_input(tmp_path: Path):
    handle = save_module(tmp_path / "module", "from_bytes")
    with pytest.raises(
        ConfigError, match=r"takes strings; allowed: bytes or example .* received None"
    ):
        SavedModelEncoder(handle)


class Taker(tf.Module):
    """Takes inputs of any signature and returns zeros as the embedding."""

    def __init__(self, *taken: tf.TensorSpec):
        super().__init__()
        self.embed = tf.function(lambda *given: {"embedding": tf.zeros([2, 3])}, taken)


@pytest.mark.parametrize(
    ("taken", "received"),
    [
        (tf.TensorSpec([None, 3, 16, 16]), r"takes float32 \(None, 3, 16, 16\)"),
        (tf.TensorSpec([None, 16, 12, 3]), r"takes float32 \(None, 16, 12, 3\)"),
        (tf.TensorSpec([None, None, 12, 1]), r"takes float32 \(None, None, 12, 1\)"),
        (tf.TensorSpec([1, 16, 16, 3]), r"takes float32 \(1, 16, 16, 3\)"),
        (tf.TensorSpec([None, 16, 16, 3], tf.uint8), r"takes uint8 \(None, 16, 16, 3\)"),
        (tf.TensorSpec([], tf.string), r"takes string \(\)"),
    ],
)
def test_saved_model_that_does_not_take_photos_is_refused(
    tmp_path: Path, taken: tf.TensorSpec, received: str
):
    module = Taker(taken)
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.embed})
    allowed = r"; allowed: float32 \(None, size, size, 3\) or string \(None,\)"
    with pytest.raises(ConfigError, match=rf"^model\.image\.saved_model: .*{received}{allowed}"):
        specify_image_encoder(ImageConfig(saved_model=str(tmp_path)))


def test_saved_model_must_have_a_signature_with_one_input(tmp_path: Path):
    module = Taker(tf.TensorSpec([None], name="photo"), tf.TensorSpec([None], name="age"))
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.embed})
    with pytest.raises(
        ConfigError, match="one input, the photo; has serving_default of age and photo"
    ):
        SavedModelEncoder(str(tmp_path))
    tf.saved_model.save(Taker(tf.TensorSpec([])), str(tmp_path), signatures={})
    with pytest.raises(ConfigError, match="has none"):
        SavedModelEncoder(str(tmp_path))


@pytest.mark.parametrize(
    ("function", "asked", "fault"),
    [
        ("from_pixels", {"size_px": 20}, "size_px: .* 16 px only, received 20; set it to 16"),
        ("from_bytes", {"saved_model_input": "example"}, "photos of 448 px as example; set model"),
        ("from_examples", {"saved_model_input": "bytes"}, "photos of 448 px as bytes; set model"),
    ],
)
def test_photos_that_do_not_fit_a_saved_model_are_a_one_line_error(
    tmp_path: Path, function: str, asked: dict, fault: str
):
    handle = save_module(tmp_path / "module", function)
    with pytest.raises(ConfigError, match=rf"^model\.image\..*{fault}") as caught:
        specify_image_encoder(ImageConfig(saved_model=handle, **asked))
    assert "\n" not in str(caught.value)


def test_damaged_saved_model_is_a_clear_error(tmp_path: Path):
    handle = save_module(tmp_path / "module", "from_pixels")
    (tmp_path / "module" / "variables" / "variables.index").unlink()
    with pytest.raises(PresetError, match="damaged or incomplete"):
        SavedModelEncoder(handle)
    (tmp_path / "module" / "saved_model.pb").write_bytes(b"\xff")
    with pytest.raises(PresetError, match="damaged or incomplete"):
        SavedModelEncoder(handle)


def test_saved_model_that_changed_since_the_run_is_refused(tmp_path: Path):
    handle = save_module(tmp_path / "module", "from_pixels")
    spec = specify_image_encoder(ImageConfig(saved_model=handle))
    # the key of cached features includes the layer's settings
    config = build_encoder(spec).get_layer("saved_model").get_config()
    assert {name: config[name] for name in spec.settings} == spec.settings
    with (tmp_path / "module" / "saved_model.pb").open("ab") as file:
        file.write(b"\x12\x00")  # an empty meta graph: still readable
    with pytest.raises(PresetError, match="not the module that the run was started with"):
        build_encoder(spec)


class Reader(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32)])
    def read(self, images: tf.Tensor) -> dict:
        length = tf.cast(tf.strings.length(tf.io.read_file("/etc/passwd")), tf.float32)
        return {"embedding": tf.reduce_mean(images, [1, 2]) + length}


def test_saved_model_that_reads_files_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    module = Reader()
    tf.saved_model.save(
        module, str(tmp_path / "reader"), signatures={"serving_default": module.read}
    )
    monkeypatch.setattr(tf.saved_model, "load", lambda _: pytest.fail("was loaded"))
    with pytest.raises(PresetError, match="ReadFile"):
        SavedModelEncoder(str(tmp_path / "reader"))


class Writer(tf.Module):
    """Writes a file with the operations that the savers of every SavedModel use."""

    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32)])
    def write(self, images: tf.Tensor) -> dict:
        for line in tf.data.TextLineDataset("/etc/passwd"):
            tf.raw_ops.SaveV2(
                prefix="stolen", tensor_names=["x"], shape_and_slices=[""], tensors=[line]
            )
        return {"embedding": tf.reduce_mean(images, [1, 2])}


def test_only_savers_may_save_and_nothing_may_call_them(tmp_path: Path):
    module = Writer()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.write})
    saved = SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes())
    assert find_harmful(saved) == ["SaveV2", "TextLineDataset"]
    (meta,) = saved.meta_graphs
    functions = list_functions(meta.graph_def)
    (saver,) = {f.signature.name for f in functions if "traced_save" in f.signature.name}
    for node in (node for function in functions for node in function.node_def):
        node.op = "Identity" if node.op in ("SaveV2", "TextLineDataset") else node.op
    assert find_harmful(saved) == []
    harmless = saved.SerializeToString()
    add_function(meta.graph_def, NodeDef(op="NeverHeardOf"))
    assert find_harmful(saved) == ["NeverHeardOf"]
    saved.ParseFromString(harmless)
    called = AttrValue(func=NameAttrList(name=saver))
    add_function(saved.meta_graphs[0].graph_def, NodeDef(op="PartitionedCall", attr={"f": called}))
    assert find_harmful(saved) == [saver]
    saved.ParseFromString(harmless)
    saved.meta_graphs[0].object_graph_def.concrete_functions[saver].bound_inputs.append(1)
    assert find_harmful(saved) == [saver]


@pytest.mark.parametrize("operation", ["GenerateVocabRemapping", "PyFuncStateless", "ReadFile"])
def test_harmful_operations_without_declared_state_are_found(operation: str):
    saved = SavedModel()
    saved.meta_graphs.add().graph_def.node.add(name="x", op=operation)
    assert find_harmful(saved) == [operation]


def add_function(graph: GraphDef, node: NodeDef) -> None:
    """Adds a function of one node to a graph, where nothing calls it."""
    function = FunctionDef(signature=OpDef(name="spy"), node_def=[node])
    graph.MergeFrom(GraphDef(library=FunctionDefLibrary(function=[function])))


def test_missing_saved_model_is_a_clear_error(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for handle in (str(tmp_path / "empty"), str(tmp_path / "none")):
        with pytest.raises(PresetError, match="TensorFlow Hub handle"):
            SavedModelEncoder(handle)


def test_local_saved_model_needs_no_tensorflow_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tensorflow_hub", None)
    handle = save_module(tmp_path / "module", "from_pixels")
    assert SavedModelEncoder(handle).size_px == 16
    with pytest.raises(PresetError, match=r"pip install -r requirements-hub\.txt") as caught:
        SavedModelEncoder("https://tfhub.dev/google/nowhere/1")
    assert "\n" not in str(caught.value)


def test_handle_is_downloaded_by_tensorflow_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip(
        "tensorflow_hub", reason="needs tensorflow-hub: pip install -r requirements-hub.txt"
    )
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    save_module(tmp_path / "module", "from_pixels")
    with tarfile.open(tmp_path / "module.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "module", arcname=".")

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path.startswith("/module/1?")
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write((tmp_path / "module.tar.gz").read_bytes() if found else b"")

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        spec = specify_image_encoder(ImageConfig(saved_model=f"{address}/module/1"))
        assert (spec.size_px, spec.dimension) == (16, 3)
        photos = np.full((1, 16, 16, 3), 51.0, "float32")
        np.testing.assert_allclose(build_encoder(spec)(photos), [[0.2] * 3], atol=1e-6)
        with pytest.raises(PresetError, match=r"other/1' is not available \(.*404"):
            SavedModelEncoder(f"{address}/other/1")
        server.shutdown()


@pytest.mark.parametrize(
    ("layers", "last", "expected"),
    [(2, 1, [1]), (None, 1, [2]), (None, 2, [1, 2]), (2, 2, [0, 1]), (2, 3, [0, 1])],
)
def test_bert_with_fewer_or_joined_layers_gives_the_presets_outputs(
    tmp_path: Path,
    layers: int | None,
    last: int,
    expected: list[int],
    build_tiny_bert: Callable[..., Any],
):
    whole = build_tiny_bert(layers=3)
    whole.save_to_preset(str(tmp_path / "tiny"))
    preset = str(tmp_path / "tiny")
    config = TextConfig(preset=preset, layers=layers, last_layers=last, max_tokens=16)
    encoder = build_encoder(specify_text_encoder(config, 0))
    load_preset_weights(encoder, preset)
    ids = np.arange(10, dtype="int32").reshape(2, 5)
    inputs = {
        "token_ids": ids,
        "padding_mask": np.ones_like(ids),
        "segment_ids": np.zeros_like(ids),
    }
    outputs = [whole.get_layer(f"transformer_layer_{layer}").output for layer in expected]
    encoded = keras.Model(whole.inputs, outputs)(inputs)
    np.testing.assert_allclose(
        encoder.predict_on_batch(inputs)["sequence_output"],
        np.concatenate(encoded if last > 1 else [encoded], axis=-1),
        atol=1e-6,
    )


def test_more_layers_than_a_bert_has_are_refused(
    tmp_path: Path, build_tiny_bert: Callable[..., Any]
):
    tiny = build_tiny_bert(layers=3)
    tiny.save_to_preset(str(tmp_path))
    config = TextConfig(preset=str(tmp_path), max_tokens=16, layers=4)
    with pytest.raises(ConfigError, match=r"layers: .* has 3 layers, rec"):
        specify_text_encoder(config, 0)


@pytest.mark.parametrize("named", [{"architecture": "vit"}, {"saved_model": "folder"}])
def test_naming_another_encoder_replaces_the_default_preset(named: dict):
    assert ImageConfig().preset
    assert ImageConfig(**named).preset is None
    assert TextConfig(architecture="bert").preset is None
    assert ImageConfig(saved_model=None, size_px=193).preset
