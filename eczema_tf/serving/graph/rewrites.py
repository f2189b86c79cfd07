"""Rewrites of a frozen graph: the same answers, except for rounding, with less work.

TensorFlow's own optimizer (Grappler) does none of these, but builds on all of them: it fuses a
convolution, its bias and its activation into one operation once they are adjacent. docs/results.md
says what each rewrite saves.
"""

from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.function_pb2 import FunctionDefLibrary
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from eczema_tf.model.graphs import keep_called, list_called

DEPTHWISE = "DepthwiseConv2dNative"


def keep_data_flow(graph: GraphDef, outputs: Iterable[str]) -> GraphDef:
    """Keeps only the nodes that the outputs are computed from, and only edges that carry data.

    It also removes names of custom gradients: what is served is never differentiated, and loading
    would warn.

    Control edges are for side effects, and nothing that is served has any. They made the text wait
    for the photo, through assertions in library code (on ragged tensors that are valid by
    construction). These assertions depend only on control edges, so they no longer run. Functions
    that nothing calls any more are also removed: they were two thirds of all, and loading imports
    each.

    Args:
        graph: Not changed.
        outputs: Names of tensors.
    """
    nodes = {}
    for original in graph.node:
        node = nodes[original.name] = NodeDef()
        node.CopyFrom(original)
        data = [tensor for tensor in node.input if not tensor.startswith("^")]
        del node.input[:]
        node.input.extend(data)
        node.attr.pop("_gradient_op_type", None)
    needed: set[str] = set()
    found = [tensor.partition(":")[0] for tensor in outputs]
    while found:
        name = found.pop()
        if name not in needed:
            needed.add(name)
            found += [tensor.partition(":")[0] for tensor in nodes[name].input]
    kept = [node for name, node in nodes.items() if name in needed]
    called = FunctionDefLibrary(function=keep_called(graph, list_called(kept)))
    return GraphDef(node=kept, versions=graph.versions, library=called)


def fold_convolutions(graph: GraphDef, outputs: Iterable[str]) -> GraphDef:
    """Folds batch norms and paddings next to convolutions into them.

    Args:
        graph: From `keep_data_flow`; changed in place.
        outputs: Names of the tensors to keep.

    Returns:
        The graph without what is no longer needed.
    """
    fold_batch_norms(graph)
    fold_paddings(graph)
    return keep_data_flow(graph, outputs)


def fold_batch_norms(graph: GraphDef) -> None:
    """Multiplies a kernel by the following batch norm's scale; its shift becomes a bias.

    Source: Jacob et al. 2018, section 3.2.
    """
    imported, nodes = _import(graph), {node.name: node for node in graph.node}
    constant = _find_constants(imported)
    found = []
    for convolution in _find_convolutions(imported, constant):
        multiply = _find_only_consumer(convolution, "Mul")
        add = multiply and _find_only_consumer(multiply, "AddV2")
        if add:
            scale, shift = _other_input(multiply, convolution), _other_input(add, multiply)
            if {scale.op, shift.op} <= constant:
                found.append((convolution, add, (convolution.inputs[1], scale, shift)))
    with tf.compat.v1.Session(graph=imported) as session:
        values = session.run([tensors for *_, tensors in found])
    for (convolution, add, _), (kernel, scale, shift) in zip(found, values, strict=True):
        channels = kernel.shape[2:] if convolution.type == DEPTHWISE else kernel.shape[3:]
        if any(
            vector.shape[-1:] != (vector.size,) or vector.size != np.prod(channels)
            for vector in (scale, shift)
        ):
            continue  # not one number for each channel
        node = nodes[convolution.name]
        node.input[1] = _add_constant(
            graph, f"{node.name}/folded_kernel", kernel * scale.reshape(channels)
        )
        bias = _add_constant(graph, f"{node.name}/folded_bias", shift.ravel())
        attributes = {"T": node.attr["T"]}
        nodes[add.name].CopyFrom(
            NodeDef(name=add.name, op="BiasAdd", input=[node.name, bias], attr=attributes)
        )


def fold_paddings(graph: GraphDef) -> None:
    """Removes zero padding before a convolution if its own "SAME" padding is the same.

    Whether it is the same depends on the photo's size. ("EXPLICIT" would work for any size, but in
    TensorFlow 2.21 with oneDNN it aborts the process before a depthwise convolution.)
    """
    imported, nodes = _import(graph), {node.name: node for node in graph.node}
    for convolution in _find_convolutions(imported, _find_constants(imported)):
        pad = convolution.inputs[0].op
        if pad.type != "Pad" or convolution.get_attr("padding") != b"VALID":
            continue
        sizes, kernels = pad.inputs[0].shape[1:3].as_list(), convolution.inputs[1].shape[:2]
        paddings = tf.get_static_value(pad.inputs[1])
        if paddings is None or None in sizes:
            continue
        same = []
        for size, kernel, stride in zip(
            sizes, kernels, convolution.get_attr("strides")[1:3], strict=True
        ):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)  # `tf.nn`, "Padding"
            same.append([total // 2, total - total // 2])
        if paddings.tolist() == [[0, 0], *same, [0, 0]]:
            node = nodes[convolution.name]
            node.input[0] = nodes[pad.name].input[0]
            node.attr["padding"].s = b"SAME"


def _import(graph: GraphDef) -> tf.Graph:
    imported = tf.Graph()
    with imported.as_default():
        tf.import_graph_def(graph, name="")
    return imported


def _find_constants(imported: tf.Graph) -> set[tf.Operation]:
    """Finds the operations whose result does not depend on the graph's inputs."""
    constant: set[tf.Operation] = set()
    for op in imported.get_operations():  # each comes after those that feed it
        if op.type == "Const" or (op.inputs and all(fed.op in constant for fed in op.inputs)):
            constant.add(op)
    return constant


def _find_convolutions(imported: tf.Graph, constant: set[tf.Operation]) -> list[tf.Operation]:
    """Finds the convolutions whose kernel is constant."""
    return [
        op
        for op in imported.get_operations()
        if op.type in ("Conv2D", DEPTHWISE) and op.inputs[1].op in constant
    ]


def _find_only_consumer(op: tf.Operation, kind: str) -> tf.Operation | None:
    consumers = op.outputs[0].consumers()
    return consumers[0] if len(consumers) == 1 and consumers[0].type == kind else None


def _other_input(op: tf.Operation, known: tf.Operation) -> tf.Tensor:
    return op.inputs[1] if op.inputs[0].op is known else op.inputs[0]


def _add_constant(graph: GraphDef, name: str, value: np.ndarray) -> str:
    tensor = tf.make_tensor_proto(value)
    attributes = {"dtype": AttrValue(type=tensor.dtype), "value": AttrValue(tensor=tensor)}
    graph.node.add(name=name, op="Const", attr=attributes)
    return name
