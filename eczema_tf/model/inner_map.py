"""Finer maps inside an image encoder, for heatmaps and for distances from training.

The features that answers are made from show a lesion in few cells, and little of its texture.
"""

from typing import Any

import keras

FINE_CELLS = 12  # per side: coarser maps miss small lesions, finer ones follow edges (docs/log.md)
SMALLEST_VARIANCE = 1e-12


def find_inner_maps(encoder: keras.Model, photo: Any) -> list[Any]:
    """Finds the last inner map of each resolution that everything flows through, finest first.

    Maps are taken where residual blocks meet, if there are any: everything else is half a step. A
    vision transformer has one resolution throughout, and no inner maps.

    Args:
        encoder: Encoder of photos.
        photo: What it is called with, (batch, size, size, 3).

    Returns:
        Tensors of the encoder, (batch, height, width, channels): first that of the lowest
        resolution with at least `FINE_CELLS` cells per side, then coarser ones; empty without the
        first.
    """
    if len(encoder.outputs[0].shape) != 4:
        return []
    for kind in (keras.layers.Add, keras.layers.Activation):
        inner = [layer.output for layer in encoder.layers if isinstance(layer, kind)]
        found = keras.Model(encoder.input, inner)(photo) if inner else []
        maps: dict[int, Any] = {}  # by cells a side
        for tensor, here in reversed(list(zip(inner, keras.tree.flatten(found), strict=True))):
            cells = min(here.shape[1:3]) if len(here.shape) == 4 else 0
            if cells and cells not in maps and carries_all(tensor, encoder):
                maps[cells] = tensor
                if cells >= FINE_CELLS:
                    return list(reversed(maps.values()))
    return []


def carries_all(tensor: Any, encoder: keras.Model) -> bool:
    """Says whether nothing flows around one of an encoder's tensors."""
    try:
        keras.Model(tensor, encoder.outputs[0])
    except ValueError:  # Keras' way of saying that something does
        return False
    return True


@keras.saving.register_keras_serializable("eczema_tf")
class Texture(keras.layers.Layer):
    """Mean and standard deviation of each channel over a map.

    They give the diagonal of its Gram matrix, which characterises texture (Gatys, Ecker and Bethge
    2015) and thereby reveals unfamiliar photos (Sastry and Oore 2020). Call with (batch, height,
    width, channels); returns (batch, 2 * channels).
    """

    def call(self, features: Any) -> Any:
        """Measures."""
        mean = keras.ops.mean(features, axis=(1, 2), keepdims=True)
        variance = keras.ops.mean(keras.ops.square(features - mean), axis=(1, 2))
        # at 0 a root has no gradient
        deviation = keras.ops.sqrt(keras.ops.maximum(variance, SMALLEST_VARIANCE))
        return keras.ops.concatenate([mean[:, 0, 0], deviation], axis=-1)
