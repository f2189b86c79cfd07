"""A model split at the tensors that explanations take gradients with respect to.

    photo --to_fine_map--> fine map --from_fine_map--> last map, features --+
                                                                            +--heads--> logits
    tokens --------------------encode_text-------------> text features -----+

The parts share the model's layers. All are graph operations, so that the served model and the
offline methods use the same ones.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from eczema_tf.errors import ConfigError
from eczema_tf.model.branches import IMAGE_FEATURES, NORMALIZATION, TEXT_FEATURES, pooling_of
from eczema_tf.model.inner_map import find_inner_maps
from eczema_tf.model.multimodal import CLINICAL_EVIDENCE, TYPICAL_PHOTO, feature_name, is_textured
from eczema_tf.schema import (
    CLINICAL,
    CONSISTENCY,
    IMAGE,
    IMAGE_PRESENT,
    OUTPUTS,
    PADDING_MASK,
    SEVERITY,
    TEXT_PRESENT,
    TOKEN_IDS,
)

Tensors = Mapping[str, Any]
RAMP = 0.03  # half the width of the ramp on which a ReLU's gradient rises, in units of its input
CONTEXT = (PADDING_MASK, IMAGE_PRESENT, TEXT_PRESENT)  # the heads' inputs besides features
TARGETS = (
    "eczema",
    "eczema_image",
    "eczema_text",
    *(f"consistency:{label}" for label in CONSISTENCY),
    *(f"severity:{label}" for label in SEVERITY[1:]),  # "mild or worse" is certain
)


class EvidenceScale(NamedTuple):
    """What is usual in validation photos of eczema that a model has not learned from, in logits.

    Attributes:
        floor: For the whole photo; less counts as no evidence.
        full: For each hundredth of the photo's area, at its strongest place; shown in full colour.
    """

    floor: float = 0.0
    full: float = 0.0


class Submodels:
    """The parts of a model.

    Attributes:
        model: The whole model.
        features_shape: Of a photo's features: (channels,), or (height, width, channels) if the
            fusion looks at regions.
        to_fine_map: From pixels to the fine map, the first of `inner_map.find_inner_maps`; to the
            encoder's last map if there is none.
        to_last_map: From pixels to the last map that the whole answer flows through, which class
            activation maps use; for a model of embeddings, to the embeddings.
        context: `CONTEXT`, and clinical fields if the model takes any.
        heads: From a list of features, encoded text and `context` to the model's outputs by name.
        text_channels: Of an encoded token.
        neutral_text: float32 (channels,), stands for every token of a text that says nothing.
        evidence_scale: Of heatmaps.
    """

    def __init__(
        self,
        model: keras.Model,
        neutral_text: np.ndarray | None = None,
        evidence_scale: EvidenceScale | None = None,
    ):
        """Splits a model.

        Args:
            model: From `build_model`, trained.
            neutral_text: From `neutral_text.find_neutral_text`; None for zeros.
            evidence_scale: None if it is not known: then all evidence is shown, and each map has
                full colour at its strongest place.
        """
        self.model = model
        self.evidence_scale = evidence_scale or EvidenceScale()
        entry, last = feature_name(model, "image"), model.get_layer(IMAGE_FEATURES).output
        image, text = (model.get_layer(name).output for name in (entry, TEXT_FEATURES))
        self.features_shape: tuple[int, ...] = tuple(image.shape[1:])
        self.has_feature_map = len(last.shape) == 4  # embeddings have no places
        self._channels: int = last.shape[-1]
        self._to_features = keras.Model(model.input[IMAGE], image, name="image_trunk")
        self._sees_regions = entry == IMAGE_FEATURES
        self._pool = pooling_of(model)
        self.to_last_map = keras.Model(model.input[IMAGE], last, name="image_to_last_map")
        self.to_fine_map, self._from_fine_map = split_image_encoder(model) or (
            self.to_last_map,
            keras.layers.Identity(),
        )
        if is_textured(model):
            self.to_last_map = self.to_fine_map
        self._to_text_features = keras.Model(
            [model.input[TOKEN_IDS], model.input[PADDING_MASK]], text, name="text_trunk"
        )
        self.text_channels: int = text.shape[-1]
        zeros = np.zeros(self.text_channels, "float32")
        self.neutral_text = zeros if neutral_text is None else neutral_text
        self.context = CONTEXT + ((CLINICAL,) if CLINICAL in model.input else ())
        self.heads = keras.Model(
            [image, text, *(model.input[name] for name in self.context)],
            {name: model.output[name] for name in OUTPUTS},
            name="explained_heads",
        )

    def find_typical(self, features: tf.Tensor) -> tf.Tensor:
        """Finds the typical training photo, its pooled features scaled to the norm of each photo's.

        Args:
            features: (batch, channels), or (batch, height, width, channels).

        Returns:
            (batch, channels), or (batch, 1, 1, channels); zeros before the model has learned it.
        """
        typical = tf.cast(self.model.get_layer(TYPICAL_PHOTO).typical, features.dtype)
        pooled, textures = tf.split(typical, [self._channels, typical.shape[0] - self._channels])
        means = tf.reduce_mean(features, range(1, features.shape.rank - 1), keepdims=True)
        own = tf.norm(means[..., : self._channels], axis=-1, keepdims=True)
        pooled = own * tf.math.divide_no_nan(pooled, tf.norm(pooled))
        return tf.concat([pooled, tf.ones_like(own) * textures], axis=-1)

    def from_fine_map(self, fine_map: Any) -> tuple[Any, Any]:
        """Computes the encoder's last map, and features, from the fine map."""
        maps = keras.tree.flatten(self._from_fine_map(fine_map, training=False))
        return maps[0], maps[0] if self._sees_regions else self._pool(maps)

    def from_last_map(self, last_map: Any) -> Any:
        """Computes features from the output of `to_last_map`."""
        if self.to_last_map is self.to_fine_map:
            return self.from_fine_map(last_map)[1]
        if self._sees_regions:
            return last_map
        pooled = keras.ops.mean(last_map, axis=range(1, len(last_map.shape) - 1))
        # these heads get no textures
        return keras.ops.pad(pooled, [(0, 0), (0, self.features_shape[0] - pooled.shape[-1])])

    def encode_image(self, image: Any) -> tf.Tensor:
        """Computes features from photos float32 (batch, size, size, 3)."""
        return self._to_features(image, training=False)

    def encode_text(self, inputs: Tensors) -> tf.Tensor:
        """Encodes tokens with their mask, (batch, tokens), as (batch, tokens, channels)."""
        tokens = [inputs[TOKEN_IDS], inputs[PADDING_MASK]]
        return self._to_text_features(tokens, training=False)

    def compute_logits(
        self, image_features: Any, text_features: Any, inputs: Tensors
    ) -> dict[str, tf.Tensor]:
        """Computes the logits from the encoders' outputs.

        Args:
            image_features: From `encode_image`.
            text_features: From `encode_text`.
            inputs: `context`, as the model takes it.

        Returns:
            Logits by head, and the model's other outputs.
        """
        context = [inputs[name] for name in self.context]
        return self.heads([image_features, text_features, *context], training=False)

    def weigh_clinical(self, inputs: Tensors, target: str) -> tf.Tensor:
        """Computes what clinical fields add to the target's logit, (batch,): 0 except `eczema`."""
        evidence = self.model.get_layer(CLINICAL_EVIDENCE)(inputs[CLINICAL])[:, 0]
        return evidence if target == "eczema" else tf.zeros_like(evidence)


def split_image_encoder(model: keras.Model) -> tuple[keras.Model, keras.Model] | None:
    """Splits the image encoder at its fine map.

    Returns:
        Models from photos to that map, and from there to the encoder's outputs; None if the encoder
        has no such map, or the model has no encoder.
    """
    layers = {layer.name: layer for layer in model.layers}
    encoder = layers.get("image_encoder")
    if not isinstance(encoder, keras.Model) or NORMALIZATION not in layers:  # of embeddings
        return None
    pixels = layers[NORMALIZATION].output
    maps = find_inner_maps(encoder, pixels)
    if not maps:
        return None
    inner = maps[0]
    rest = keras.Model(inner, encoder.outputs, name="image_encoder_from_fine_map")
    trunk = keras.Model(encoder.input, inner, name="image_encoder_to_fine_map")
    to_map = keras.Model(model.input[IMAGE], trunk(pixels), name="image_fine_trunk")
    return to_map, keras.models.clone_model(rest, clone_function=smooth_gradient)


def smooth_gradient(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Gives a ReLU layer a gradient without a jump; other layers are returned unchanged.

    A ReLU's gradient is a step. If a unit is close to the step, float32 rounding decides on which
    side it is: maps of one photo differed by a hundredth of their height between processors, while
    probabilities agreed to 1e-6. Dombrowski et al. (2019) also smooth ReLUs for explanations.
    """
    highest = {keras.activations.relu: None, keras.activations.relu6: 6.0}
    activation = getattr(layer, "activation", None)
    if isinstance(layer, keras.layers.Activation) and activation in highest:
        return RampedReLU(highest[activation], name=layer.name)
    return layer


class RampedReLU(keras.layers.Layer):
    """A ReLU whose gradient rises from 0 to 1, and falls at its upper end, over `2 * RAMP`."""

    def __init__(self, highest: float | None, **options: Any):
        super().__init__(**options)
        self._highest = highest

    def call(self, inputs: Any) -> Any:
        """Returns the values of a ReLU."""

        @tf.custom_gradient
        def ramped(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            edge = x if self._highest is None else tf.minimum(x, self._highest - x)
            share = tf.clip_by_value((edge + RAMP) / (2 * RAMP), 0.0, 1.0)
            return keras.ops.relu(x) if self._highest is None else keras.ops.relu6(x), (
                lambda gradient: gradient * share
            )

        return ramped(inputs)


def select_logit(logits: Tensors, target: str) -> tf.Tensor:
    """Selects the logit to explain; a saturated probability would have no gradient.

    Args:
        logits: By head.
        target: A head with one logit ("eczema", "eczema_image", "eczema_text"), or a head and a
            label: "consistency:unclear" is the label's log-odds against the others,
            "severity:moderate" the log-odds of that grade or a worse one.

    Returns:
        float32 (batch,).

    Raises:
        ConfigError: If there is no such head or label.
    """
    if target not in TARGETS:
        raise ConfigError(f"target {target!r}: allowed: {', '.join(TARGETS)}")
    head, _, label = target.partition(":")
    if not label:
        return logits[head][:, 0]
    if head == "severity":
        return logits[head][:, SEVERITY.index(label) - 1]
    index = CONSISTENCY.index(label)
    others = tf.concat([logits[head][:, :index], logits[head][:, index + 1 :]], axis=1)
    return logits[head][:, index] - tf.reduce_logsumexp(others, axis=1)
