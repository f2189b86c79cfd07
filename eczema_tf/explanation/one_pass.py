"""Layer-CAM and gradient x input from one forward and one backward pass: the served `explain`.

Graph operations. Offline, `heatmaps.compute_heatmaps` and `token_scores.multiply_gradient_by_input`
give the same figures, which `export` checks.
"""

from typing import NamedTuple

import tensorflow as tf

from eczema_tf.explanation.submodels import Submodels, Tensors, select_logit
from eczema_tf.schema import IMAGE, IMAGE_PRESENT, PADDING_MASK, TEXT_PRESENT, TOKEN_IDS

HEATMAP_METHOD, TOKEN_METHOD = "layercam", "gradient_x_input"  # by their names offline


class Explained(NamedTuple):
    """Logits and their explanation.

    Attributes:
        logits: By head, as the model gives them.
        heatmap: float32 (batch, height, width) in [0, 1]; zeros where nothing supports the target,
            or there is no photo.
        token_scores: float32 (batch, tokens), signed, in logits; zeros for padding, or where there
            is no text.
    """

    logits: dict[str, tf.Tensor]
    heatmap: tf.Tensor
    token_scores: tf.Tensor


def explain_in_one_pass(submodels: Submodels, inputs: Tensors, target: str = "eczema") -> Explained:
    """Explains a batch of rows.

    The heatmap is Layer-CAM (Jiang et al. 2021) of the encoder's fine map. A token's score is its
    gradient times its difference from padding (gradient x input, Shrikumar et al. 2016, with the
    baseline that `token_scores.integrate_gradients` starts from, of which this is the one-step
    estimate).

    Args:
        submodels: Of the model.
        inputs: Tensors, as the model takes them.
        target: As in `select_logit`.
    """
    fine_map = submodels.to_fine_map(inputs[IMAGE], training=False)  # (batch, height, width, ch.)
    embeddings = submodels.embed_tokens(inputs[TOKEN_IDS])  # (batch, tokens, units)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([fine_map, embeddings])
        features = submodels.from_fine_map(fine_map, training=False)
        logits = submodels.compute_logits(features, embeddings, inputs)
        explained = select_logit(logits, target)
    to_map, to_embeddings = tape.gradient(
        explained, [fine_map, embeddings], unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    present = inputs[IMAGE_PRESENT]
    if submodels.has_feature_map:
        heatmap = scale_to_one(compute_layercam(fine_map, to_map)) * present[:, None, None]
    else:  # a model of embeddings knows no places
        heatmap = tf.zeros([tf.size(present), 1, 1])
    difference = embeddings - submodels.embed_padding(inputs[TOKEN_IDS])
    return Explained(logits, heatmap, score_tokens(to_embeddings, difference, inputs))


def compute_layercam(features: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """Weighs each channel at each place by its own gradient where that is positive.

    Jiang et al. 2021, equations 4 to 6. Grad-CAM gives a channel one weight everywhere, which says
    little before the last layers, where a channel is an edge or a colour that supports the target
    in one place and nothing in another.

    Args:
        features: (batch, height, width, channels).
        gradients: Of the target with respect to `features`.

    Returns:
        float32 (batch, height, width), at least 0.
    """
    return tf.nn.relu(tf.reduce_sum(tf.cast(tf.nn.relu(gradients) * features, tf.float32), axis=-1))


def scale_to_one(heatmap: tf.Tensor) -> tf.Tensor:
    """Divides each map by its maximum; a map of zeros stays zero.

    Args:
        heatmap: (batch, height, width), at least 0.

    Returns:
        The same shape, in [0, 1].
    """
    highest = tf.reduce_max(heatmap, axis=(1, 2), keepdims=True)
    return tf.math.divide_no_nan(heatmap, highest)


def score_tokens(gradients: tf.Tensor, difference: tf.Tensor, inputs: Tensors) -> tf.Tensor:
    """Multiplies gradients by a difference of embeddings, both (batch, tokens, units).

    Returns:
        float32 (batch, tokens), 0 where there is no token or no text.
    """
    scores = tf.reduce_sum(tf.cast(gradients * difference, tf.float32), axis=-1)
    return scores * tf.cast(inputs[PADDING_MASK], tf.float32) * inputs[TEXT_PRESENT][:, None]
