"""Heatmaps: where in the photo the evidence lies.

They are either computed as in the served model (`one_pass`), or are class activation maps from
tf-keras-vis, at the resolution of the last map that the whole answer flows through.
`maps.upsample_heatmap` stretches a map over the photo.
"""

from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from eczema_tf.data.inputs import to_model_inputs
from eczema_tf.errors import ConfigError
from eczema_tf.explanation.maps import HEATMAP_METHOD
from eczema_tf.explanation.one_pass import map_evidence
from eczema_tf.explanation.submodels import Submodels, Tensors, select_logit
from eczema_tf.model.branches import IMAGE_FEATURES
from eczema_tf.schema import HEATMAP_METHODS, IMAGE, IMAGE_PRESENT

# those with the highest variance ("Faster Score-CAM" in tf-keras-vis); each costs one run of the
# encoder
SCORECAM_CHANNELS = 64
SMALLEST_GAIN = 1e-6  # of a probability: less is what float32 leaves of none
SETTINGS = {  # of tf-keras-vis
    "penultimate_layer": IMAGE_FEATURES,
    "seek_penultimate_conv_layer": False,
    "expand_cam": False,
    "normalize_cam": False,
}


def compute_heatmaps(
    submodels: Submodels,
    inputs: Tensors,
    *,
    target: str = "eczema",
    method: str = HEATMAP_METHOD,
    against: bool = False,
) -> np.ndarray:
    """Computes a heatmap for each row.

    Args:
        submodels: Of the model, with an image encoder that has a feature map.
        inputs: Arrays of a batch, as the model takes them.
        target: As in `submodels.select_logit`.
        method: One of `schema.HEATMAP_METHODS`.
        against: Whether to show the evidence against the target.

    Returns:
        float32 (batch, height, width) in [0, 1], zeros without a photo. Class activation maps have
        no scale but their own: the strongest place of each has 1.

    Raises:
        ConfigError: If the method is unknown, or the encoder has no feature map.
    """
    if method not in HEATMAP_METHODS:
        raise ConfigError(f"method {method!r}: allowed: {', '.join(HEATMAP_METHODS)}")
    if not submodels.has_feature_map:
        raise ConfigError(
            "heatmap: this model's image encoder gives one vector per photo"
            f" {submodels.to_last_map.output.shape[1:]}, which has no places to show"
        )
    inputs = to_model_inputs(inputs)
    if method == HEATMAP_METHOD:
        text_features = submodels.encode_text(inputs)
        mapped = map_evidence(submodels, text_features, inputs, target, against=against)
        return mapped.heatmap.numpy()
    sign = -1.0 if against else 1.0
    if method == "scorecam":
        found = _compute_scorecam(submodels, inputs, target, sign)
    else:
        found = _compute_gradient_cam(submodels, inputs, target, sign, method)
    found = np.maximum(np.nan_to_num(found), 0).astype("float32")
    found *= inputs[IMAGE_PRESENT].numpy()[:, None, None]
    return found / np.maximum(found.max(axis=(1, 2), keepdims=True), np.finfo("float32").tiny)


def _compute_gradient_cam(
    submodels: Submodels, inputs: Tensors, target: str, sign: float, method: str
) -> np.ndarray:
    # tf-keras-vis is heavy, and nothing that is served needs it
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
    from tf_keras_vis.layercam import Layercam

    methods = {"gradcam": Gradcam, "gradcam++": GradcamPlusPlus, "layercam": Layercam}
    model = build_visual_model(submodels, target)
    # the mask is float, too: tf-keras-vis takes gradients with respect to every input
    context = [tf.cast(inputs[name], tf.float32) for name in submodels.context]
    return methods[method](model, clone=False)(
        lambda output: sign * output[:, 0],
        [inputs[IMAGE], submodels.encode_text(inputs), *context],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,  # a head that never sees the photo
        **SETTINGS,
    )


def _compute_scorecam(
    submodels: Submodels, inputs: Tensors, target: str, sign: float
) -> np.ndarray:
    """Weighs each channel by what the photo seen through it says more than a black photo.

    That is the "increase of confidence" of Wang et al. 2020; tf-keras-vis does not subtract the
    black photo. Score-CAM masks every input, so each row gets a model whose only input is the
    photo.
    """
    from tf_keras_vis.scorecam import Scorecam

    text = submodels.encode_text(inputs)
    maps = []
    for row in range(len(text)):
        held = [text[row], *(inputs[name][row] for name in submodels.context)]
        one = build_visual_model(submodels, target, held)
        model = QuietModel([one.input], BothSides(sign)(one.output))
        photo = inputs[IMAGE][row : row + 1]
        black = tf.nn.softmax(model([tf.zeros_like(photo)], training=False))[0, 0]
        found = Scorecam(model, clone=False)(
            partial(_measure_gain, black=black),
            photo,
            max_N=min(SCORECAM_CHANNELS, submodels.to_last_map.output.shape[-1]),
            **SETTINGS,
        )
        maps.append(found[0])
    return np.stack(maps)


def _measure_gain(probabilities: tf.Tensor, black: tf.Tensor) -> tf.Tensor:
    gain = probabilities[:, 0] - black
    return tf.where(tf.abs(gain) < SMALLEST_GAIN, 0.0, gain)


def build_visual_model(
    submodels: Submodels, target: str, held: list[tf.Tensor] | None = None
) -> keras.Model:
    """Builds a model in the form that tf-keras-vis needs.

    The map is its own layer, and the only output is the target's logit.

    Args:
        submodels: Of the model.
        target: The target to explain.
        held: Fixed values, from one row, for the inputs of `submodels.heads` other than the
            photo's; None to make them inputs.
    """
    photo = keras.Input(submodels.to_last_map.input.shape[1:], name=IMAGE)
    last_map = keras.layers.Activation("linear", name=IMAGE_FEATURES)(submodels.to_last_map(photo))
    features = submodels.from_last_map(last_map)
    others = [keras.Input(tensor.shape[1:]) for tensor in submodels.heads.inputs[1:]]
    rest = others if held is None else HeldInputs(held)(features)
    logit = TargetLogit(target)(submodels.heads([features, *rest]))
    return keras.Model([photo, *others] if held is None else photo, logit)


class HeldInputs(keras.layers.Layer):
    """Gives the same values to every row of a batch."""

    def __init__(self, values: list[tf.Tensor]):
        super().__init__()
        self._held = values

    def call(self, features: Any) -> list[tf.Tensor]:
        return [tf.repeat(value[None], tf.shape(features)[0], axis=0) for value in self._held]


class QuietModel(keras.Model):
    """Shows no progress bar, which tf-keras-vis does not turn off."""

    def predict(self, *arguments: Any, **options: Any) -> Any:
        return super().predict(*arguments, **options, verbose=0)


class BothSides(keras.layers.Layer):
    """Logits for and against a target, (batch, 2): tf-keras-vis takes the softmax of Score-CAM's.

    Of one logit, that would be 1 whatever the model says.
    """

    def __init__(self, sign: float):
        super().__init__(dtype="float32")
        self._sign = sign

    def call(self, logit: Any) -> tf.Tensor:
        return tf.concat([self._sign * logit, tf.zeros_like(logit)], axis=-1)


class TargetLogit(keras.layers.Layer):
    """The logit to explain, (batch, 1)."""

    def __init__(self, target: str):
        super().__init__(dtype="float32")
        self._target = target

    def call(self, logits: Any) -> tf.Tensor:
        return select_logit(logits, self._target)[:, None]
