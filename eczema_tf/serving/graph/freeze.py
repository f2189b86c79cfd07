"""Freezing: functions of variables become functions of constants, rewritten for inference, and are saved as signatures."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from eczema_tf.errors import EczemaError
from eczema_tf.serving.graph.rewrites import (
    GraphDef,
    add_biases_before_reshapes,
    fold_batch_norms,
    fold_paddings,
    keep_data_flow,
)

REWRITES: tuple[Callable[[GraphDef], int], ...] = (
    fold_batch_norms,
    fold_paddings,
    add_biases_before_reshapes,
)
MAX_BYTES = 2_000_000_000  # protocol buffers end at 2 GiB, and a frozen SavedModel is a single one


def save_frozen(functions: Mapping[str, Any], folder: Path) -> None:
    """Writes a SavedModel without variables.

    Args:
        functions: `tf.function`s with input signatures, by the name they are served under. Tensors
            by position in, a dict of tensors out.
        folder: To be written.

    Raises:
        EczemaError: If a function cannot be frozen, or all of them together are too large.
    """
    traced = {name: function.get_concrete_function() for name, function in functions.items()}
    size = sum(
        variable.numpy().nbytes for function in traced.values() for variable in function.variables
    )
    if size > MAX_BYTES:
        raise EczemaError(
            f"the weights, once for each of {', '.join(traced)}, make {size:,} bytes; a frozen"
            f" SavedModel can hold {MAX_BYTES:,}; choose smaller encoders (model.image.preset,"
            " model.text.preset, model.text.layers)"
        )
    frozen = {name: freeze(function) for name, function in traced.items()}
    tf.saved_model.save(
        tf.Module(),
        str(folder),
        frozen,
        tf.saved_model.SaveOptions(experimental_custom_gradients=False),
    )


def freeze(function: Any) -> Any:
    """Freezes a function and rewrites its graph.

    Args:
        function: A `tf.types.experimental.ConcreteFunction`.

    Returns:
        A `tf.function` of the same inputs and outputs.

    Raises:
        EczemaError: If it uses a resource that is not a variable, such as a lookup table.
    """
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    outputs = [tensor.name for tensor in frozen.outputs]
    graph = keep_data_flow(frozen.graph.as_graph_def(), outputs)
    for rewrite in REWRITES:
        rewrite(graph)
    return _build_function(keep_data_flow(graph, outputs), outputs, function)


def _build_function(graph: GraphDef, outputs: list[str], original: Any) -> Any:
    inputs, _ = original.structured_input_signature
    needed = [node.name for node in graph.node if node.op == "Placeholder"]
    if unknown := set(needed) - {spec.name for spec in inputs}:
        raise EczemaError(
            "cannot be frozen: the graph uses resources that are not variables:"
            f" {', '.join(sorted(unknown))}"
        )

    @tf.function(input_signature=inputs, autograph=False)
    def function(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        feeds = {
            f"{spec.name}:0": tensor
            for spec, tensor in zip(inputs, tensors, strict=True)
            if spec.name in needed
        }
        flat = tf.graph_util.import_graph_def(
            graph, input_map=feeds, return_elements=outputs, name=""
        )
        return tf.nest.pack_sequence_as(original.structured_outputs, flat)

    return function
