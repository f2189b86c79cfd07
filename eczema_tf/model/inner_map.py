"""A finer map inside of an image encoder: heatmaps say by it where, and distances what is strange.

The features that answers are made of see a lesion in few cells, and know little of its texture.
"""

from typing import Any

import keras
from keras import ops

FINE_CELLS = 12  # a side: coarser maps miss small lesions, finer ones follow edges (docs/log.md)


def find_fine_map(encoder: keras.Model, photo: Any) -> Any | None:
    """Finds the last inner map of at least `FINE_CELLS` cells a side that all else flows through.

    Where residual blocks meet, if there are any: all else is half a step. A vision transformer has
    one resolution throughout, and none.

    Args:
        encoder: Of photos.
        photo: What it is called with, (batch, size, size, 3).

    Returns:
        A tensor of the encoder, (batch, height, width, channels); None if there is no such map.
    """
    if len(encoder.outputs[0].shape) != 4:
        return None
    for kind in (keras.layers.Add, keras.layers.Activation):
        inner = [layer.output for layer in encoder.layers if isinstance(layer, kind)]
        found = keras.Model(encoder.input, inner)(photo) if inner else []
        for tensor, here in reversed(list(zip(inner, found, strict=True))):
            if len(here.shape) != 4 or min(here.shape[1:3]) < FINE_CELLS:
                continue
            try:
                keras.Model(tensor, encoder.outputs[0])
            except ValueError:  # Keras' way to say that something flows around the tensor
                continue
            return tensor
    return None


@keras.saving.register_keras_serializable("eczema_tf")
class Texture(keras.layers.Layer):
    """Mean and standard deviation of each channel over a map.

    The diagonal of its Gram matrix, which tells unfamiliar photos by their texture (Sastry and Oore
    2020). Call with (batch, height, width, channels); returns (batch, 2 * channels).
    """

    def call(self, features: Any) -> Any:
        """Measures."""
        mean = ops.mean(features, axis=(1, 2), keepdims=True)
        variance = ops.mean(ops.square(features - mean), axis=(1, 2))
        return ops.concatenate([mean[:, 0, 0], ops.sqrt(variance)], axis=-1)
