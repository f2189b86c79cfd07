"""Freezing: functions of variables become functions of constants and are saved as signatures.

Large matrices become variables again, shared by all signatures: a SavedModel of only constants was
nearly twice as large, and took over twice as long to load and to answer first, as TensorFlow copies
constants whenever it works on a graph. Everything else stays constant: kernels of convolutions are
therefore folded, prepared once, and fused with what follows, and answers take no longer
(docs/results_before.md).
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework.convert_to_constants import (
    _FunctionConverterDataInEager,
    _replace_variables_by_constants,
)

from eczema_tf.data.memory import give_memory_back
from eczema_tf.errors import EczemaError
from eczema_tf.serving.graph.rewrites import fold_convolutions, keep_data_flow

MAX_BYTES = 2_000_000_000  # a frozen graph is one protocol buffer, limited to 2 GiB
LARGE_BYTES = 500_000  # a matrix of BERT's attention at 384 units has 590 KB
KERNEL_RANK = 4  # of a convolution: height, width, channels in, channels out


class Weights(tf.Module):
    """Variables by digest of their contents, so that signatures share them."""

    def __init__(self) -> None:
        super().__init__(name="weights")
        self._by_digest: dict[str, tf.Variable] = {}

    def take_out(self, graph: GraphDef) -> dict[str, tf.Variable]:
        """Replaces large constants, except kernels of convolutions, by placeholders.

        Args:
            graph: Changed in place.

        Returns:
            The variables to feed, by name of the placeholder.
        """
        taken = {}
        for node in graph.node:
            if node.op != "Const":
                continue
            value = node.attr["value"].tensor
            rank = len(value.tensor_shape.dim)
            if len(value.tensor_content) < LARGE_BYTES or rank == KERNEL_RANK:
                continue
            about = value.tensor_shape.SerializeToString() + bytes([value.dtype])
            digest = hashlib.sha256(about + value.tensor_content).hexdigest()
            if digest not in self._by_digest:
                self._by_digest[digest] = tf.Variable(
                    tf.make_ndarray(value), trainable=False, name=f"weight_{len(self._by_digest)}"
                )
            taken[node.name] = self._by_digest[digest]
            placeholder = NodeDef(name=node.name, op="Placeholder", device=node.device)
            placeholder.attr["dtype"].type = value.dtype
            placeholder.attr["shape"].shape.CopyFrom(value.tensor_shape)
            node.CopyFrom(placeholder)
        return taken


def save_frozen(
    functions: Mapping[str, Any],
    folder: Path,
    shorter: Mapping[str, str] | None = None,
    specs: Sequence[tf.TensorSpec] = (),
) -> None:
    """Writes a SavedModel whose only variables are `Weights`.

    Args:
        functions: `tf.function`s with input signatures, by the name they are served under. They
            take tensors by position and return a dict of tensors.
        folder: Where to write.
        shorter: Further signatures, by name: each is the named function with "" as its last input.
        specs: The inputs of these further signatures.

    Raises:
        EczemaError: If a function cannot be frozen, or is too large.
    """
    weights = Weights()
    frozen = {
        name: freeze(function.get_concrete_function(), weights)
        for name, function in functions.items()
    }
    for name, whole in (shorter or {}).items():
        frozen[name] = tf.function(
            partial(_leave_out_last, frozen[whole]), input_signature=specs, autograph=False
        )
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(weights, str(folder), frozen, options)


def _leave_out_last(function: Any, *tensors: tf.Tensor) -> dict[str, tf.Tensor]:
    return function(*tensors, tf.zeros_like(tensors[-1]))


def freeze(function: Any, weights: Weights) -> Any:
    """Freezes a function and rewrites its graph.

    Args:
        function: A `tf.types.experimental.ConcreteFunction`.
        weights: Takes the large constants.

    Returns:
        A `tf.function` of the same inputs and outputs.

    Raises:
        EczemaError: If it uses a resource that is not a variable, such as a lookup table; or if its
            variables are too large for one graph.
    """
    size = sum(variable.numpy().nbytes for variable in function.variables)
    if size > MAX_BYTES:
        raise EczemaError(
            f"the weights take {size:,} bytes; a frozen graph may have {MAX_BYTES:,}; choose"
            " smaller encoders (model.image.preset, model.text.preset, model.text.layers)"
        )
    # `convert_variables_to_constants_v2` would also make a function of the graph, and copy the
    # weights again and again for it
    data = _FunctionConverterDataInEager(
        function, lower_control_flow=False, aggressive_inlining=False
    )
    graph, _ = _replace_variables_by_constants(data)
    del data
    outputs = [tensor.name for tensor in function.outputs]
    graph = keep_data_flow(graph, outputs)
    large = weights.take_out(graph)
    give_memory_back()
    graph = fold_convolutions(graph, outputs)
    specs, _ = function.structured_input_signature
    needed = {node.name for node in graph.node if node.op == "Placeholder"} - large.keys()
    if unknown := needed - {spec.name for spec in specs}:
        raise EczemaError(
            "cannot be frozen: the graph uses resources that are not variables:"
            f" {', '.join(sorted(unknown))}"
        )

    @tf.function(input_signature=specs, autograph=False)
    def run_frozen(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        named = {spec.name: tensor for spec, tensor in zip(specs, tensors, strict=True)}
        fed = {name: named[name] for name in needed} | large
        flat = tf.graph_util.import_graph_def(
            graph,
            input_map={f"{name}:0": tf.convert_to_tensor(tensor) for name, tensor in fed.items()},
            return_elements=outputs,
            name="",
        )
        return tf.nest.pack_sequence_as(function.structured_outputs, flat)

    return run_frozen
