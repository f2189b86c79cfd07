"""Heatmaps: where in the photo the evidence lies, by the class activation maps of tf-keras-vis.

A map has the resolution of the encoder's feature map, or with Layer-CAM of its fine map (`cut`);
`upsample_heatmap` lays it over the photo. Photos are stretched to the encoder's square
(`data/preprocess.py`), so stretching the map back to the photo's own shape undoes it.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
from tf_keras_vis.layercam import Layercam
from tf_keras_vis.scorecam import Scorecam

from eczema_tf.errors import ConfigError
from eczema_tf.explanation.one_pass import HEATMAP_METHOD, scale_to_one
from eczema_tf.explanation.submodels import Submodels, Tensors, select_logit, to_tensors
from eczema_tf.model.multimodal import IMAGE_FEATURES
from eczema_tf.schema import HEADS, IMAGE, IMAGE_PRESENT, PADDING_MASK, TEXT_PRESENT, TOKEN_IDS

# Grad-CAM: Selvaraju et al. 2017; Grad-CAM++: Chattopadhay et al. 2018; Layer-CAM: Jiang et al.
# 2021; Score-CAM: Wang et al. 2020.
GRADIENT_METHODS = {"gradcam": Gradcam, "gradcam++": GradcamPlusPlus, "layercam": Layercam}
METHODS = (*GRADIENT_METHODS, "scorecam")
# on the fine map; the others weigh whole channels, which works on the last map alone
FINE_METHOD = "layercam"
# those of the highest variance ("Faster Score-CAM" of tf-keras-vis); each costs a run of the
# encoder
SCORECAM_CHANNELS = 64


def compute_heatmaps(
    cut: Submodels,
    inputs: Tensors,
    *,
    target: str = "eczema",
    method: str = HEATMAP_METHOD,
    against: bool = False,
) -> np.ndarray:
    """Computes a heatmap for each row.

    Args:
        cut: The model, with an image encoder that has a feature map.
        inputs: Arrays of a batch, as the model takes them.
        target: As in `cut.select_logit`.
        method: One of `METHODS`.
        against: Whether to show what speaks against the target.

    Returns:
        float32 (batch, height, width) in [0, 1], at the resolution of the method's map. All zero:
        no evidence, or no photo.

    Raises:
        ConfigError: If the method is unknown, or the encoder has no feature map.
    """
    if method not in METHODS:
        raise ConfigError(f"method {method!r}: allowed: {', '.join(METHODS)}")
    if not cut.has_feature_map:
        raise ConfigError(
            f"heatmap: this model's image encoder gives one vector a photo {cut.image_features},"
            " which has no places to show"
        )
    inputs = to_tensors(inputs)
    maps = (
        _compute_scorecam(cut, inputs, target, against)
        if method == "scorecam"
        else _compute_cam(cut, inputs, target, method, against)
    )
    maps = np.maximum(np.nan_to_num(maps), 0).astype("float32")
    return scale_to_one(maps).numpy() * inputs[IMAGE_PRESENT].numpy()[:, None, None]


def _compute_cam(
    cut: Submodels, inputs: Tensors, target: str, method: str, against: bool
) -> np.ndarray:
    visualisation = GRADIENT_METHODS[method](
        _build_visual_model(cut, target, fine=method == FINE_METHOD), clone=False
    )
    rows = [
        inputs[IMAGE],
        _encode_text(cut, inputs),
        tf.cast(inputs[PADDING_MASK], tf.float32),
        inputs[IMAGE_PRESENT],
        inputs[TEXT_PRESENT],
    ]
    return visualisation(
        _score(against),
        rows,
        penultimate_layer=IMAGE_FEATURES,
        seek_penultimate_conv_layer=False,
        expand_cam=False,
        normalize_cam=False,
        unconnected_gradients=tf.UnconnectedGradients.ZERO,  # a head that never sees the photo
    )


def _compute_scorecam(cut: Submodels, inputs: Tensors, target: str, against: bool) -> np.ndarray:
    """Score-CAM masks every input of a model, so each row gets a model of its own that takes the photo alone."""
    text = _encode_text(cut, inputs)
    maps = []
    for row in range(len(inputs[IMAGE])):
        held = [
            text[row],
            *(inputs[name][row] for name in (PADDING_MASK, IMAGE_PRESENT, TEXT_PRESENT)),
        ]
        model = _build_visual_model(cut, target, held=held)
        maps.append(
            Scorecam(model, clone=False)(
                _score(against),
                inputs[IMAGE][row : row + 1],
                penultimate_layer=IMAGE_FEATURES,
                seek_penultimate_conv_layer=False,
                max_N=min(SCORECAM_CHANNELS, cut.image_features[-1]),
                expand_cam=False,
                normalize_cam=False,
            )[0]
        )
    return np.stack(maps)


def _encode_text(cut: Submodels, inputs: Tensors) -> tf.Tensor:
    return cut.encode_text(cut.embed_tokens(inputs[TOKEN_IDS]), inputs[PADDING_MASK])


def _build_visual_model(
    cut: Submodels, target: str, *, fine: bool = False, held: list[tf.Tensor] | None = None
) -> keras.Model:
    """A model in the shape that tf-keras-vis takes: the map is a layer of its own, and the one output is the target's logit.

    Args:
        cut: The model.
        target: To be explained.
        fine: Whether the map is the fine one instead of the feature map.
        held: The other inputs of `cut.heads` after the photo, of one row; None to make them inputs.
    """
    photo = keras.Input(cut.image_trunk.input.shape[1:], name=IMAGE)
    explained = keras.layers.Activation("linear", name=IMAGE_FEATURES)(
        (cut.to_fine_map if fine else cut.image_trunk)(photo)
    )
    features = cut.from_fine_map(explained) if fine else explained
    others = [
        keras.Input(tensor.shape[1:]) for tensor in cut.heads.inputs[1:]
    ]  # the mask as float, too: tf-keras-vis watches all
    rest = others if held is None else _HeldInputs(held)(features)
    logit = _Target(target)(cut.heads([features, *rest]))
    return keras.Model([photo, *others] if held is None else photo, logit)


class _HeldInputs(keras.layers.Layer):
    """Gives the same values to every row of a batch."""

    def __init__(self, values: list[tf.Tensor]):
        super().__init__()
        self._held = values

    def call(self, features: Any) -> list[tf.Tensor]:
        return [tf.repeat(value[None], tf.shape(features)[0], axis=0) for value in self._held]

    def compute_output_spec(self, features: Any) -> list[keras.KerasTensor]:
        return [
            keras.KerasTensor(
                (features.shape[0], *value.shape), keras.backend.standardize_dtype(value.dtype)
            )
            for value in self._held
        ]


class _Target(keras.layers.Layer):
    """The logit to be explained, (batch, 1)."""

    def __init__(self, target: str):
        super().__init__(dtype="float32")
        self._target = target

    def call(self, logits: Any) -> tf.Tensor:
        return select_logit(dict(zip(HEADS, logits, strict=True)), self._target)[:, None]

    def compute_output_spec(self, logits: Any) -> keras.KerasTensor:
        return keras.KerasTensor((logits[0].shape[0], 1), "float32")


def _score(against: bool) -> Any:
    sign = -1.0 if against else 1.0
    return lambda output: sign * output[:, 0]
