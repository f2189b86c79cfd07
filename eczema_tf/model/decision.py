"""When the model says "I cannot tell": on inputs that it does not know, and where it is not sure.

Both layers have values that are filled in after training, on other cases; they are saved, exported
and compared with Keras like all other weights.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from eczema_tf.schema import CONSISTENCY, DISTANCES, IMAGE_PRESENT, MODALITIES, SIDE, TEXT_PRESENT

DIRECTIONS = 512  # in which training features may vary freely
FARTHEST = 4.0  # squared distance of two vectors of length 1
KINDS = (*MODALITIES, "fusion")  # kinds of cases, by what they have; "fusion": both


def add_constant(
    layer: keras.layers.Layer, name: str, shape: tuple[int, ...], value: float
) -> keras.Variable:
    """Adds a weight that training does not change; all of it is `value` until it is filled in."""
    start = keras.initializers.Constant(value)
    return layer.add_weight(shape=shape, initializer=start, trainable=False, name=name)


@keras.saving.register_keras_serializable("eczema_tf")
class ScaledFeatures(keras.layers.Layer):
    """Signed square roots of pooled features, scaled to length 1.

    Features that fire rarely but strongly thus do not drown out the rest (Hellinger), and bright or
    long inputs do not look unfamiliar just for that (Sun et al. 2022). Call with (batch, channels);
    returns the same shape.
    """

    def call(self, features: Any) -> Any:
        """Scales."""
        roots = ops.sign(features) * ops.sqrt(ops.abs(features))
        return roots / ops.maximum(ops.norm(roots, axis=-1, keepdims=True), 1e-6)


@keras.saving.register_keras_serializable("eczema_tf")
class TypicalFeatures(keras.layers.Layer):
    """Passes features through, and stores what is typical of training features.

    Explanations of photos start from there (`training.familiarity.find_typical`). Call with (batch,
    channels).
    """

    def build(self, input_shape: Any) -> None:
        """Makes the typical features."""
        self.typical = add_constant(self, "typical", (input_shape[-1],), 0.0)

    def call(self, features: Any) -> Any:
        """Returns the features unchanged."""
        return features


@keras.saving.register_keras_serializable("eczema_tf")
class DistanceFromTraining(keras.layers.Layer):
    """How unlike the training rows a row's features are; up to 1, they count as known.

    A squared Mahalanobis distance (Lee et al. 2018), where the covariance is that of training in
    `DIRECTIONS` main directions and equal in all others. Call with scaled features (batch,
    channels); returns (batch,). Until it is fitted, everything is known.
    """

    def build(self, input_shape: Any) -> None:
        """Makes the centre, directions shrunk by how freely training varies, and the limit."""
        channels = input_shape[-1]
        shape = (channels, min(DIRECTIONS, channels))
        self.centre = add_constant(self, "centre", (channels,), 0.0)
        self.directions = add_constant(self, "directions", shape, 0.0)
        self.limit = add_constant(self, "limit", (), FARTHEST)

    def call(self, features: Any) -> Any:
        """Measures the distance from the centre that is left without the main directions."""
        away = features - self.centre  # (batch, channels)
        along = ops.matmul(away, self.directions)  # (batch, directions)
        left = ops.sum(ops.square(away), axis=-1) - ops.sum(ops.square(along), axis=-1)
        return left / self.limit


@keras.saving.register_keras_serializable("eczema_tf")
class SureSide(keras.layers.Layer):
    """On which side of the undecided range of its kind a case lies.

    Call with `[logit (batch, 1), image_present (batch,), text_present (batch,)]`; returns (batch,):
    1 for eczema, -1 for not, 0 between. Until it is fitted, everything is undecided.
    """

    def build(self, input_shape: Any) -> None:
        """Makes the log-odds between which cases are undecided, by `KINDS`."""
        del input_shape
        self.low = add_constant(self, "low", (len(KINDS),), -np.inf)
        self.high = add_constant(self, "high", (len(KINDS),), np.inf)

    def call(self, inputs: Any) -> Any:
        """Compares with the bounds of the case's kind."""
        logit, image_present, text_present = inputs
        alone = ops.where(image_present > text_present, 0, 1)  # (batch,)
        kind = ops.where(image_present == text_present, 2, alone)
        logit = logit[:, 0]
        above, below = logit > ops.take(self.high, kind), logit < ops.take(self.low, kind)
        return ops.cast(above, "float32") - ops.cast(below, "float32")


def measure_decision(
    image: Sequence[Any], text: Any, logit: Any, image_present: Any, text_present: Any
) -> dict[str, Any]:
    """Adds the layers to the model.

    Args:
        image: Features of the photo, (batch, channels) each, scaled separately: the pooled ones,
            and their encoder's texture if there is one.
        text: Pooled features of the text.
        logit: Logit of eczema, (batch, 1).
        image_present: (batch,) 0 or 1.
        text_present: (batch,) 0 or 1.

    Returns:
        By name, those of `schema.OUTPUTS` that are not heads; (batch,) each.
    """
    outputs = {SIDE: SureSide(dtype="float32", name=SIDE)([logit, image_present, text_present])}
    for modality, parts in (("image", image), ("text", [text])):
        scaled = _scale(parts, f"{modality}_scaled")
        name = DISTANCES[modality]
        outputs[name] = DistanceFromTraining(dtype="float32", name=name)(scaled)
    return outputs


def _scale(parts: Sequence[Any], name: str) -> Any:
    if len(parts) == 1:
        return ScaledFeatures(dtype="float32", name=name)(parts[0])
    each = [
        ScaledFeatures(dtype="float32", name=f"{name}_{number}")(part)
        for number, part in enumerate(parts)
    ]
    return keras.layers.Concatenate(dtype="float32", name=name)(each)


def compute_decision(outputs: Any, inputs: Any, text_read: Any) -> dict[str, Any]:
    """Decides, with ops that work on NumPy, in graphs and in the served model.

    Args:
        outputs: Outputs of the model.
        inputs: Inputs of the model, which say what is present.
        text_read: bool (batch,), from `data.text.reading.is_read`.

    Returns:
        `known_image` and `known_text` bool (batch,), false where there is none; `decision` int32
        (batch,), which of `schema.DECISIONS`: neither label if anything that was used is not known,
        or if there is only a text that supports neither.
    """
    image, text = inputs[IMAGE_PRESENT] > 0.5, inputs[TEXT_PRESENT] > 0.5  # (batch,)
    known_image = ops.logical_and(image, outputs[DISTANCES["image"]] <= 1)
    known_text = ops.logical_and(text, outputs[DISTANCES["text"]] <= 1)
    known_text = ops.logical_and(known_text, text_read)
    unknown = ops.logical_or(image != known_image, text != known_text)
    unclear = ops.argmax(outputs["consistency"], axis=-1) == CONSISTENCY.index("unclear")
    nothing_said = ops.logical_and(~image, ops.logical_or(~text, unclear))
    side = ops.where(ops.logical_or(unknown, nothing_said), 0.0, outputs[SIDE])
    return {
        "known_image": known_image,
        "known_text": known_text,
        "decision": ops.cast(side, "int32") + 1,
    }
