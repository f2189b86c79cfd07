"""Low-rank adaptation (LoRA: Hu et al. 2022): few weights of an encoder learn, beside its own.

A kernel of attention gets the product of two thin matrices added to it. They alone are trained, and
the biases there, and they are added to the kernel for good afterwards, so that the model keeps its
form.
"""

import keras

from eczema_tf.errors import ConfigError

ADAPTED = ("query", "value", "query_dense", "value_dense")  # as KerasHub's `Backbone.enable_lora`


def add_low_rank(encoder: keras.Model, rank: int) -> list[keras.layers.Layer]:
    """Lets queries and values of what is trainable learn by additions of low rank, all else not.

    Args:
        encoder: Trainable from some layer on.
        rank: Of the additions, at least 1.

    Returns:
        The adapted layers, for `merge_low_rank`.

    Raises:
        ConfigError: If there is no attention among what is trainable.
    """
    leaves = [layer for layer in encoder._flatten_layers() if layer.weights and not layer._layers]
    adapted = [layer for layer in leaves if layer.trainable and layer.name in ADAPTED]
    if not adapted:
        raise ConfigError(
            f"train.fine_tune.lora_rank: {encoder.name} has no attention to adapt from the layer"
            f" named on; allowed: 0, received {rank}"
        )
    for layer in leaves:
        layer.trainable = any(layer is one for one in adapted)
    for layer in adapted:
        layer.enable_lora(rank)
    return adapted


def merge_low_rank(adapted: list[keras.layers.Layer]) -> None:
    """Adds to each kernel for good what it has learned, which changes no output."""
    for layer in adapted:
        layer._kernel.assign(layer.kernel)  # `kernel` is the sum
        layer.lora_kernel_b.assign(keras.ops.zeros_like(layer.lora_kernel_b))
