"""Rewrites of a frozen graph: the same answers but for rounding, less work. Each takes a `GraphDef` without variables and changes it.

TensorFlow's own optimizer (Grappler) does none of these, but builds on all of them: it fuses a
convolution or a product, its bias and its activation into one operation once they stand side by
side. What each brings: docs/results.md.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import tensorflow as tf

GraphDef, NodeDef, AttrValue = tf.compat.v1.GraphDef, tf.compat.v1.NodeDef, tf.compat.v1.AttrValue
CONVOLUTION, DEPTHWISE = "Conv2D", "DepthwiseConv2dNative"


class Wiring:
    """Who feeds whom in a graph. To be read again after a rewrite."""

    def __init__(self, graph: GraphDef):
        """Reads the graph."""
        self.nodes: dict[str, NodeDef] = {node.name: node for node in graph.node}
        self._consumers: dict[str, list[NodeDef]] = defaultdict(list)
        for node in graph.node:
            for tensor in node.input:
                self._consumers[_producer(tensor)].append(node)
        inputs = [node.name for node in graph.node if not node.input and node.op != "Const"]
        self._varying = _reach(
            inputs, lambda name: [consumer.name for consumer in self._consumers[name]]
        )

    def convolutions(self) -> Iterator[NodeDef]:
        """The convolutions whose kernel is constant."""
        return (
            node
            for node in self.nodes.values()
            if node.op in (CONVOLUTION, DEPTHWISE) and self.is_constant(node.input[1])
        )

    def source(self, tensor: str) -> NodeDef:
        """The node that makes a tensor."""
        return self.nodes[_producer(tensor)]

    def only_consumer(self, node: NodeDef, op: str) -> NodeDef | None:
        """The node that takes what a node makes, if it is the only one and of the given kind."""
        consumers = self._consumers[node.name]
        return consumers[0] if len(consumers) == 1 and consumers[0].op == op else None

    def is_constant(self, tensor: str) -> bool:
        """Whether a tensor is the same whatever goes into the graph."""
        return _producer(tensor) not in self._varying


def keep_data_flow(graph: GraphDef, outputs: Iterable[str]) -> GraphDef:
    """Keeps what the outputs are computed from, and of the edges only those that carry data.

    Control edges are for side effects, and nothing that is served has any. They made the text wait
    for the photo, by way of assertions in library code (on ragged tensors that are valid by
    construction), which hang on control edges alone and so are not run any more.

    Args:
        graph: Stays as it is.
        outputs: Names of tensors.
    """
    nodes = {node.name: node for node in graph.node}
    needed = _reach(
        [_producer(name) for name in outputs],
        lambda name: map(_producer, _data_inputs(nodes[name])),
    )
    kept = GraphDef(versions=graph.versions)
    for node in (node for node in graph.node if node.name in needed):
        copy = kept.node.add()
        copy.CopyFrom(node)
        copy.ClearField("input")
        copy.input.extend(_data_inputs(node))
    functions = {function.signature.name: function for function in graph.library.function}
    called = _reach(
        _find_calls(kept.node, functions),
        lambda name: _find_calls(functions[name].node_def, functions),
    )
    kept.library.function.extend(functions[name] for name in sorted(called))
    return kept


def _data_inputs(node: NodeDef) -> list[str]:
    return [tensor for tensor in node.input if not tensor.startswith("^")]


def _find_calls(nodes: Iterable[NodeDef], functions: Mapping[str, object]) -> set[str]:
    """Names of the functions that some nodes call."""
    values = [value for node in nodes for value in node.attr.values()]
    names = {value.func.name for value in values} | {
        function.name for value in values for function in value.list.func
    }
    return names & functions.keys()


def _reach(starts: Iterable[str], follow: Callable[[str], Iterable[str]]) -> set[str]:
    """All that can be reached by following names to further names."""
    reached, found = set(), list(starts)
    while found:
        name = found.pop()
        if name not in reached:
            reached.add(name)
            found += follow(name)
    return reached


def fold_batch_norms(graph: GraphDef) -> int:
    """Multiplies a kernel by the scale of the batch norm that follows, whose shift becomes a bias (Jacob et al. 2018, section 3.2).

    Returns:
        How many were folded.
    """
    found = list(_find_batch_norms(Wiring(graph)))
    values = _evaluate(graph, [tensor for _, _, constants in found for tensor in constants])
    folded = 0
    for place, (convolution, add, _) in enumerate(found):
        kernel, scale, shift = values[3 * place : 3 * place + 3]
        outputs = kernel.shape[2:] if convolution.op == DEPTHWISE else kernel.shape[3:]
        if any(
            vector.shape[-1:] != (np.prod(outputs),) or vector.size != vector.shape[-1]
            for vector in (scale, shift)
        ):
            continue  # not one number for each channel
        convolution.input[1] = _add_constant(
            graph, f"{convolution.name}/folded_kernel", kernel * scale.reshape(outputs)
        )
        bias = _add_constant(graph, f"{convolution.name}/folded_bias", shift.ravel())
        _replace(add, "BiasAdd", [convolution.name, bias], T=convolution.attr["T"])
        folded += 1
    return folded


def _find_batch_norms(wiring: Wiring) -> Iterator[tuple[NodeDef, NodeDef, list[str]]]:
    """A convolution, the node that adds the shift, and the constant kernel, scale and shift."""
    for convolution in wiring.convolutions():
        multiply = wiring.only_consumer(convolution, "Mul")
        add = multiply and wiring.only_consumer(multiply, "AddV2")
        if add:
            scale, shift = _other_input(multiply, convolution), _other_input(add, multiply)
            if wiring.is_constant(scale) and wiring.is_constant(shift):
                yield convolution, add, [convolution.input[1], scale, shift]


def fold_paddings(graph: GraphDef) -> int:
    """Takes out zero padding before a convolution whose own "SAME" pads by as much; whether it does depends on the photo's size.

    ("EXPLICIT" would do for any size, but in TensorFlow 2.21 with oneDNN it aborts the process
    before a depthwise convolution.)

    Returns:
        How many were folded.
    """
    wiring = Wiring(graph)
    valid = [
        convolution
        for convolution in wiring.convolutions()
        if convolution.attr["padding"].s == b"VALID"
    ]
    found = [
        (convolution, pad)
        for convolution in valid
        if (pad := wiring.source(convolution.input[0])).op == "Pad"
    ]
    paddings = _evaluate(graph, [pad.input[1] for _, pad in found])
    shape_of = _infer_shapes(graph)
    folded = 0
    for (convolution, pad), padding in zip(found, paddings, strict=True):
        sizes, kernels = shape_of(pad.input[0])[1:3], shape_of(convolution.input[1])[:2]
        strides = convolution.attr["strides"].list.i[1:3]
        if padding.tolist() == [[0, 0], *map(_pad_same, sizes, kernels, strides), [0, 0]]:
            convolution.input[0] = pad.input[0]
            convolution.attr["padding"].s = b"SAME"
            folded += 1
    return folded


def _pad_same(size: int | None, kernel: int, stride: int) -> list[int]:
    """What "SAME" pads before and after an axis, by TensorFlow's definition (`tf.nn`, "Padding"); nothing sure if the size is not known."""
    if size is None:
        return []
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return [total // 2, total - total // 2]


def add_biases_before_reshapes(graph: GraphDef) -> int:
    """Moves the bias of a dense layer on tokens from after the reshape of its product to before it, where it can be fused with the product.

    Returns:
        How many were moved.
    """
    wiring, moved = Wiring(graph), 0
    for bias in [node for node in graph.node if node.op == "BiasAdd"]:
        reshape = wiring.source(bias.input[0])
        product = wiring.source(reshape.input[0]) if reshape.op == "Reshape" else reshape
        if (
            product.op == "MatMul"
            and wiring.only_consumer(product, "Reshape")
            and wiring.only_consumer(reshape, "BiasAdd")
        ):
            early = graph.node.add(name=f"{bias.name}/early")
            _replace(early, "BiasAdd", [product.name, bias.input[1]], T=bias.attr["T"])
            _replace(
                bias,
                "Reshape",
                [early.name, reshape.input[1]],
                T=reshape.attr["T"],
                Tshape=reshape.attr["Tshape"],
            )
            moved += 1
    return moved


def _producer(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]


def _other_input(node: NodeDef, known: NodeDef) -> str:
    return node.input[1] if _producer(node.input[0]) == known.name else node.input[0]


def _replace(node: NodeDef, op: str, inputs: list[str], **attributes: AttrValue) -> None:
    """Makes another operation of a node, which keeps its name and so its consumers."""
    name, attributes = (
        node.name,
        {key: AttrValue.FromString(value.SerializeToString()) for key, value in attributes.items()},
    )
    node.Clear()
    node.name, node.op = name, op
    node.input.extend(inputs)
    for key, value in attributes.items():
        node.attr[key].CopyFrom(value)


def _add_constant(graph: GraphDef, name: str, value: np.ndarray) -> str:
    node = graph.node.add(name=name, op="Const")
    node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return name


def _import(graph: GraphDef) -> tf.Graph:
    imported = tf.Graph()
    with imported.as_default():
        tf.import_graph_def(graph, name="")
    return imported


def _evaluate(graph: GraphDef, tensors: list[str]) -> list[np.ndarray]:
    """Computes tensors that depend on constants only."""
    imported = _import(graph)
    with tf.compat.v1.Session(graph=imported) as session:
        return session.run([_find_tensor(imported, name) for name in tensors])


def _infer_shapes(graph: GraphDef) -> Callable[[str], list[int | None]]:
    """Shapes of the graph's tensors, by name."""
    imported = _import(graph)
    return lambda name: _find_tensor(imported, name).shape.as_list()


def _find_tensor(imported: tf.Graph, name: str) -> tf.Tensor:
    return imported.get_tensor_by_name(name if ":" in name else f"{name}:0")
