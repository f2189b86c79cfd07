"""Low-rank adaptation (LoRA: Hu et al. 2022): trains a few weights added to an encoder's own.

The product of two thin matrices is added to a kernel of attention. Only they, and the biases there,
are trained. Afterwards they are added to the kernel for good, so that the model keeps its form.
"""

import keras

from eczema_tf.errors import ConfigError

ADAPTED = ("query", "value", "query_dense", "value_dense")  # as KerasHub's `Backbone.enable_lora`


def add_low_rank(encoder: keras.Model, rank: int) -> list[keras.layers.Layer]:
    """Lets trainable queries and values learn by low-rank additions; freezes everything else.

    Args:
        encoder: Trainable from some layer on.
        rank: Rank of the additions, at least 1.

    Returns:
        The adapted layers, for `merge_low_rank`.

    Raises:
        ConfigError: If none of the trainable layers has attention.
    """
    leaves = [layer for layer in encoder._flatten_layers() if layer.weights and not layer._layers]
    adapted = [layer for layer in leaves if layer.trainable and layer.name in ADAPTED]
    if not adapted:
        raise ConfigError(
            f"train.fine_tune.lora_rank: {encoder.name} has no attention to adapt from the named"
            f" layer on; allowed: 0, received {rank}"
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
