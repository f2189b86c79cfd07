"""Layer-CAM and gradient x input from one forward and one backward pass, as graph operations: what the served `explain` runs.

Offline, `image.compute_heatmaps` and `text.multiply_gradient_by_input` give the same figures, which
`export` checks.
"""

from dataclasses import dataclass

import tensorflow as tf

from eczema_tf.explanation.submodels import Submodels, Tensors, embed_baseline, select_logit
from eczema_tf.schema import IMAGE, IMAGE_PRESENT, PADDING_MASK, TEXT_PRESENT, TOKEN_IDS

HEATMAP_METHOD, TOKEN_METHOD = "layercam", "gradient_x_input"  # by their names offline


@dataclass(frozen=True)
class Explained:
    """Logits and their explanation.

    Attributes:
        logits: By head, as the model gives them.
        heatmap: float32 (batch, height, width) in [0, 1]; zeros where nothing speaks for the
            target, or there is no photo.
        token_scores: float32 (batch, tokens), signed, in logits; zeros for padding, or where there
            is no text.
    """

    logits: dict[str, tf.Tensor]
    heatmap: tf.Tensor
    token_scores: tf.Tensor


def explain_in_one_pass(cut: Submodels, inputs: Tensors, target: str = "eczema") -> Explained:
    """Explains a batch of rows.

    The heatmap is Layer-CAM (Jiang et al. 2021) of the encoder's fine map. A token's score is its
    gradient times its difference from padding (gradient x input, Shrikumar et al. 2016, with the
    baseline that `text.integrate_gradients` starts from, of which this is the one-step estimate).

    Args:
        cut: The model.
        inputs: Tensors, as the model takes them.
        target: As in `select_logit`.
    """
    fine_map = cut.encode_finely(inputs[IMAGE])
    embeddings = cut.embed_tokens(inputs[TOKEN_IDS])
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([fine_map, embeddings])
        logits = cut.compute_logits(cut.finish_encoding(fine_map), embeddings, inputs)
        explained = select_logit(logits, target)
    to_map, to_embeddings = tape.gradient(
        explained, [fine_map, embeddings], unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    return Explained(
        logits,
        _mask_heatmap(
            compute_layercam(fine_map, to_map) if cut.has_feature_map else None,
            inputs[IMAGE_PRESENT],
        ),
        score_tokens(to_embeddings, embeddings - embed_baseline(cut, inputs[TOKEN_IDS]), inputs),
    )


def compute_layercam(features: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """Weighs each channel at each place by its own gradient where that is positive (Jiang et al. 2021, equations 4 to 6).

    Grad-CAM gives a channel one weight everywhere, which says little before the last layers, where
    a channel is an edge or a colour that speaks for the target in one place and for nothing in
    another.

    Args:
        features: (batch, height, width, channels).
        gradients: Of the target with respect to `features`.

    Returns:
        float32 (batch, height, width), at least 0.
    """
    return tf.nn.relu(tf.reduce_sum(tf.cast(tf.nn.relu(gradients) * features, tf.float32), axis=-1))


def scale_to_one(heatmap: tf.Tensor) -> tf.Tensor:
    """Divides each map by its maximum; a map of zeros stays zero. (batch, height, width) at least 0, to [0, 1]."""
    highest = tf.reduce_max(heatmap, axis=(1, 2), keepdims=True)
    return tf.math.divide_no_nan(heatmap, highest)


def score_tokens(gradients: tf.Tensor, difference: tf.Tensor, inputs: Tensors) -> tf.Tensor:
    """Multiplies gradients by a difference of embeddings: float32 (batch, tokens), 0 where there is no token or no text."""
    scores = tf.reduce_sum(tf.cast(gradients * difference, tf.float32), axis=-1)
    return scores * tf.cast(inputs[PADDING_MASK], tf.float32) * inputs[TEXT_PRESENT][:, None]


def _mask_heatmap(heatmap: tf.Tensor | None, image_present: tf.Tensor) -> tf.Tensor:
    if heatmap is None:  # a model of embeddings knows no places
        return tf.zeros([tf.size(image_present), 1, 1])
    return scale_to_one(heatmap) * image_present[:, None, None]
