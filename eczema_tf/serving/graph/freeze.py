"""Freezing: functions of variables become functions of constants and are saved as signatures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from eczema_tf.data.memory import give_memory_back
from eczema_tf.errors import EczemaError
from eczema_tf.serving.graph.rewrites import rewrite_graph

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
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(tf.Module(), str(folder), frozen, options)


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
    graph = rewrite_graph(frozen.graph.as_graph_def(), outputs)
    del frozen
    give_memory_back()
    specs, _ = function.structured_input_signature
    needed = {node.name for node in graph.node if node.op == "Placeholder"}
    if unknown := needed - {spec.name for spec in specs}:
        raise EczemaError(
            "cannot be frozen: the graph uses resources that are not variables:"
            f" {', '.join(sorted(unknown))}"
        )

    @tf.function(input_signature=specs, autograph=False)
    def run_frozen(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        named = {spec.name: tensor for spec, tensor in zip(specs, tensors, strict=True)}
        flat = tf.graph_util.import_graph_def(
            graph,
            input_map={f"{name}:0": named[name] for name in needed},
            return_elements=outputs,
            name="",
        )
        return tf.nest.pack_sequence_as(function.structured_outputs, flat)

    return run_frozen
