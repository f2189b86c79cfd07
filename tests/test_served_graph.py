"""Tests of the frozen graph (unchanged answers, operations that servers have) and its rewrites."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from test_serving import build_explained, photo

from eczema_tf.config import ImageConfig, ModelConfig, TextConfig
from eczema_tf.data.text.tokenizer import learn_tokenizer
from eczema_tf.errors import EczemaError
from eczema_tf.model.encoders import specify_image_encoder, specify_text_encoder
from eczema_tf.model.graphs import list_nodes
from eczema_tf.model.multimodal import Encoders, build_model
from eczema_tf.serving.graph import freeze, rewrites
from eczema_tf.serving.graph.served_model import ServedModel, save_served

SIZE_PX = 65  # 32k + 1: here EfficientNet's symmetric padding equals that of "SAME"
SIGNATURES = ("serving_default", "explain")
OPS_OF_SERVER = Path(__file__).parent / "tf_serving_2.20_ops.txt"
PHOTOS, TEXTS = (
    [photo(), b"", photo("PNG", seed=1), b"\xff\xd8\xff"],
    ["itchy & dry", "the rash", "", "red, my skin is red"],
)


@pytest.fixture(scope="module")
def served() -> ServedModel:
    """An untrained EfficientNet and BERT, with batch norms that change their input."""
    keras.utils.set_random_seed(0)
    tokenizer = learn_tokenizer(["my skin is itchy and dry", "the rash is red"] * 5, 100, 16)
    config = ModelConfig(
        embedding_units=8,
        image=ImageConfig(architecture="efficientnet", size_px=SIZE_PX),
        text=TextConfig(architecture="bert", max_tokens=16),
    )
    image = specify_image_encoder(config.image)
    model = build_model(
        config, Encoders(image, specify_text_encoder(config.text, len(tokenizer.vocabulary)))
    )
    rng = np.random.default_rng(0)
    for layer in batch_norms(model):
        layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return build_explained((model, image, tokenizer))


def batch_norms(model: keras.Model) -> list[keras.layers.Layer]:
    return [
        layer
        for layer in model.get_layer("image_encoder").layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


@pytest.fixture(scope="module")
def export(served: ServedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(freeze, "LARGE_BYTES", 2000)  # makes some of these small weights "large"
        save_served(served, folder)
    return folder


@pytest.fixture(scope="module")
def bodies(export: Path) -> dict[str, list]:
    """All nodes of the SavedModel by name of their function; "" is the main graph."""
    saved = SavedModel.FromString((export / "saved_model.pb").read_bytes())
    return dict(list_nodes(saved.meta_graphs[0].graph_def))


@pytest.mark.parametrize("signature", SIGNATURES)
def test_freezing_does_not_change_answers(served: ServedModel, export: Path, signature: str):
    loaded = tf.saved_model.load(str(export))
    answers = loaded.signatures[signature](image=tf.constant(PHOTOS), text=tf.constant(TEXTS))
    expected = served.signatures()[signature](tf.constant(PHOTOS), tf.constant(TEXTS))
    assert answers.keys() == expected.keys()
    for name, value in expected.items():
        if value.dtype == tf.float32:
            np.testing.assert_allclose(answers[name], value, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(answers[name], value, err_msg=name)


def test_graph_has_no_function_that_nothing_calls(bodies: dict[str, list]):
    called = {
        function.name
        for nodes in bodies.values()
        for node in nodes
        for attribute in node.attr.values()
        for function in (attribute.func, *attribute.list.func)
    }
    # TensorFlow itself adds functions that save and restore, and a wrapper for each signature
    assert not {name for name in bodies.keys() - called if not name.startswith("__inference_")}


def test_signatures_share_large_weights(served: ServedModel, export: Path, bodies: dict[str, list]):
    loaded = tf.saved_model.load(str(export))
    plain, explained = (
        {variable.handle.ref() for variable in loaded.signatures[name].variables}
        for name in SIGNATURES
    )
    assert plain
    assert plain <= explained  # `explain` also has its own kernels before batch norms
    written = sum(file.stat().st_size for file in (export / "variables").glob("*.data*"))
    most = max(weight.numpy().nbytes for weight in served.model.variables)
    assert most < written < 3 * sum(weight.numpy().nbytes for weight in served.model.variables)
    constants = [
        len(node.attr["value"].tensor.tensor_content)
        for nodes in network_bodies(bodies)
        for node in nodes
        if node.op == "Const" and len(node.attr["value"].tensor.tensor_shape.dim) != 4
    ]
    assert 0 < max(constants) < 2000
    assert not list((export / "assets").glob("*"))


def test_weights_are_shared_only_if_values_shape_and_type_are_equal():
    values = [
        np.zeros((500, 400), "float32"),
        np.zeros((400, 500), "float32"),
        np.zeros((500, 400), "int32"),
        np.zeros((500, 400), "float32"),
    ]
    graph = tf.Graph()
    with graph.as_default():
        for index, value in enumerate(values):
            tf.constant(value + 1, name=f"w{index}")  # +1: constants of zeros are not written out
    weights, definition = freeze.Weights(), graph.as_graph_def()
    taken = weights.take_out(definition)
    assert {node.op for node in definition.node} == {"Placeholder"}
    assert len(weights.variables) == 3
    assert taken["w0"] is taken["w3"]
    for index, value in enumerate(values):
        np.testing.assert_array_equal(taken[f"w{index}"], value + 1)


def test_tensorflow_serving_has_every_operation_of_the_graph(bodies: dict[str, list]):
    known = {line for line in OPS_OF_SERVER.read_text().splitlines() if not line.startswith("#")}
    used = {node.op for nodes in bodies.values() for node in nodes} - bodies.keys()
    assert {"FastWordpieceTokenizeWithOffsets", "DecodeJpeg", "Conv2D"} <= used
    assert used <= known, f"TensorFlow Serving 2.20 lacks {sorted(used - known)}"


def test_graph_has_no_operation_internal_to_the_runtime(bodies: dict[str, list]):
    assert not [node.op for nodes in bodies.values() for node in nodes if node.op.startswith("_")]


def test_batch_norms_and_paddings_are_folded_into_convolutions(
    served: ServedModel, bodies: dict[str, list]
):
    """In `explain`, those after the fine map stay.

    The backward pass needs the values between the convolution and the batch norm.
    """
    folded = []
    for nodes in network_bodies(bodies):
        in_trunk = [
            node
            for node in nodes
            if "image_encoder" in node.name and "from_fine_map" not in node.name
        ]
        assert [node.op for node in in_trunk if node.op in ("Pad", "Rsqrt")] == []
        folded.append(len([node for node in in_trunk if node.op == "BiasAdd"]))
    assert max(folded) >= len(batch_norms(served.model)) > 0
    assert min(folded) > 0


def network_bodies(bodies: dict[str, list]) -> list[list]:
    found = [nodes for nodes in bodies.values() if any(node.op == "Conv2D" for node in nodes)]
    assert len(found) == len(SIGNATURES)
    return found


def test_text_branch_does_not_wait_for_the_photo(bodies: dict[str, list]):
    for nodes in network_bodies(bodies):
        by_name = {node.name: node for node in nodes}
        attention = next(node for node in nodes if node.op == "Softmax" and "text" in node.name)
        reached, found = set(), [attention.name]
        while found:
            name = found.pop()
            if name in by_name and name not in reached:
                reached.add(name)
                found += [tensor.removeprefix("^").split(":")[0] for tensor in by_name[name].input]
        before = {by_name[name].op for name in reached}
        assert "FastWordpieceTokenizeWithOffsets" in before
        assert "DatasetToSingleElement" not in before


def test_graph_can_decode_jpegs_at_reduced_sizes(bodies: dict[str, list]):
    ratios = {
        node.attr["ratio"].i
        for nodes in bodies.values()
        for node in nodes
        if node.op == "DecodeJpeg"
    }
    assert ratios - {0} | {1} == {1, 2, 4, 8}  # the default, 1, is not written out and reads as 0


def test_export_runs_in_a_process_without_this_package(export: Path, tmp_path: Path):
    (tmp_path / "photo.jpg").write_bytes(photo())
    program = f"""
import sys
import tensorflow as tf, tensorflow_text
model = tf.saved_model.load({str(export)!r})
photo = open({str(tmp_path / "photo.jpg")!r}, "rb").read()
for name in {SIGNATURES}:
    answer = model.signatures[name](image=tf.constant([photo]), text=tf.constant(["itchy rash"]))
    assert answer["status"].numpy().tolist() == [b"ok"]
    assert answer["image_used"].numpy().all() and answer["text_used"].numpy().all()
assert not {{"eczema_tf", "keras_hub"}} & sys.modules.keys()
"""
    subprocess.run(
        [sys.executable, "-I", "-c", program],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=300,
    )


def test_freezing_refuses_a_lookup_table(tmp_path: Path):
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [1.0]), 0.0)
    function = tf.function(
        lambda text: {"out": table.lookup(text)},
        input_signature=[tf.TensorSpec([None], tf.string, name="text")],
    )
    with pytest.raises(EczemaError, match="resources that are not variables"):
        freeze.save_frozen({"serving_default": function}, tmp_path / "1")


def test_freezing_refuses_too_many_weights_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(freeze, "MAX_BYTES", 11)
    variable = tf.Variable([1.0, 2.0, 3.0])
    function = tf.function(
        lambda x: {"out": x * variable}, input_signature=[tf.TensorSpec([3], tf.float32, name="x")]
    )
    with pytest.raises(EczemaError, match="take 12 bytes"):
        freeze.save_frozen({"serving_default": function}, tmp_path / "1")
    assert not (tmp_path / "1").exists()


def test_signature_keeps_unused_inputs(tmp_path: Path):
    specs = [tf.TensorSpec([None], tf.float32, name=name) for name in ("used", "unused")]
    freeze.save_frozen(
        {
            "serving_default": tf.function(
                lambda used, unused: {"out": used + 1}, input_signature=specs
            )
        },
        tmp_path / "1",
    )
    signature = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    assert signature(used=tf.constant([1.0]), unused=tf.constant([5.0]))[
        "out"
    ].numpy().tolist() == [2.0]


# Rewrites, on small handmade graphs

RNG = np.random.default_rng(0)
KERNEL, DEPTHWISE_KERNEL = (
    RNG.normal(size=(3, 3, 4, 6)).astype("float32"),
    RNG.normal(size=(3, 3, 4, 2)).astype("float32"),
)
INPUT = RNG.normal(size=(2, 9, 9, 4)).astype("float32")


def trace(function) -> rewrites.GraphDef:
    """Returns the graph of a function: its input is a photo-like tensor, `x`, its result `y`."""
    named = tf.function(
        lambda x: tf.identity(function(x), name="y"),
        input_signature=[tf.TensorSpec([None, *INPUT.shape[1:]], name="x")],
    )
    return named.get_concrete_function().graph.as_graph_def()


def run(graph: rewrites.GraphDef, x: np.ndarray = INPUT) -> np.ndarray:
    imported = tf.Graph()
    with imported.as_default():
        tf.graph_util.import_graph_def(graph, name="")
    with tf.compat.v1.Session(graph=imported) as session:
        return session.run("y:0", {"x:0": x})


def count(graph: rewrites.GraphDef, op: str) -> int:
    return sum(node.op == op for node in graph.node)


def normalize(x: tf.Tensor, channels: int, seed: int = 1) -> tf.Tensor:
    mean, variance, offset, scale = (
        np.random.default_rng(seed).uniform(0.5, 1.5, (4, channels)).astype("float32")
    )
    return tf.nn.batch_normalization(x, mean, variance, offset, scale, 1e-3)


@pytest.mark.parametrize(
    ("convolve", "channels"),
    [
        (lambda x: tf.nn.conv2d(x, KERNEL, 1, "SAME"), 6),
        (lambda x: tf.nn.depthwise_conv2d(x, DEPTHWISE_KERNEL, [1, 1, 1, 1], "SAME"), 8),
    ],
)
def test_batch_norm_is_folded_into_the_kernel(convolve, channels: int):
    graph = trace(lambda x: tf.nn.relu6(normalize(convolve(x), channels)))
    before = run(graph)
    rewrites.fold_batch_norms(graph)
    graph = rewrites.keep_data_flow(graph, ["y:0"])
    assert (
        count(graph, "Mul"),
        count(graph, "AddV2"),
        count(graph, "Rsqrt"),
        count(graph, "BiasAdd"),
    ) == (0, 0, 0, 1)
    np.testing.assert_allclose(run(graph), before, atol=1e-5)


def convolve_used_twice(x: tf.Tensor) -> tf.Tensor:
    convolved = tf.nn.conv2d(x, KERNEL, 1, "SAME")
    return normalize(convolved, 6) + convolved


def scale_by_the_input(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(x, KERNEL, 1, "SAME") * tf.reduce_mean(x) + tf.ones(6)


def scale_by_place(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(x, KERNEL, 1, "SAME") * tf.reshape(tf.range(9.0), (1, 1, 9, 1)) + tf.ones(6)


def scale_alike(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(x, KERNEL, 1, "SAME") * 2.0 + 1.0


@pytest.mark.parametrize(
    "function", [convolve_used_twice, scale_by_the_input, scale_by_place, scale_alike]
)
def test_folding_skips_shared_convolutions_and_scales_not_per_channel(function):
    graph = trace(function)
    before = run(graph)
    rewrites.fold_batch_norms(graph)
    assert count(graph, "BiasAdd") == 0
    np.testing.assert_array_equal(run(graph), before)


def padded(sides: tuple[int, int], stride: int):
    paddings = [[0, 0], list(sides), list(sides), [0, 0]]
    return lambda x: tf.nn.conv2d(tf.pad(x, paddings), KERNEL, stride, "VALID")


@pytest.mark.parametrize(
    ("sides", "stride", "folded"), [((1, 1), 1, 1), ((1, 1), 2, 1), ((2, 0), 1, 0), ((2, 2), 1, 0)]
)
def test_padding_is_folded_only_if_same_padding_equals_it(
    sides: tuple[int, int], stride: int, folded: int
):
    graph = trace(padded(sides, stride))
    before = run(graph)
    rewrites.fold_paddings(graph)
    graph = rewrites.keep_data_flow(graph, ["y:0"])
    assert count(graph, "Pad") == 1 - folded
    np.testing.assert_allclose(run(graph), before, atol=1e-5)


def test_padding_is_kept_if_the_size_is_even_or_unknown():
    """At stride 2, "SAME" pads an even side at one end only; symmetric padding shifts the grid."""
    function = padded((1, 1), 2)
    for size in (8, None):
        spec = tf.TensorSpec([None, size, size, 4], name="x")
        graph = (
            tf.function(lambda x: tf.identity(function(x), name="y"), input_signature=[spec])
            .get_concrete_function()
            .graph.as_graph_def()
        )
        before = graph.SerializeToString(deterministic=True)
        rewrites.fold_paddings(graph)
        assert graph.SerializeToString(deterministic=True) == before
