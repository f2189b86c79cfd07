"""Layer-CAM and words' scores, with each encoder run once: the served `explain`.

Graph operations, which the offline methods use, too; `export` checks that the served graph gives
the same figures.
"""

from typing import NamedTuple

import tensorflow as tf

from eczema_tf.explanation.submodels import Submodels, Tensors, select_logit
from eczema_tf.explanation.token_scores import score_tokens
from eczema_tf.schema import IMAGE, IMAGE_PRESENT

HEATMAP_METHOD = "layercam"  # by its name offline
FLOOR = 0.01  # a map that is nowhere higher than this share of its terms is no evidence


class Explained(NamedTuple):
    """Logits and their explanation.

    Attributes:
        logits: By head, as the model gives them.
        heatmap: float32 (batch, height, width), from `scale_to_one`; zeros for no evidence, or no
            photo.
        token_scores: As in `token_scores.TokenScores`.
        contributions: Likewise.
        strength: float32 (batch,) in [0, 1], the map's highest value before it was divided, as a
            share of the largest sum of its terms' sizes; 0 without a photo.
    """

    logits: dict[str, tf.Tensor]
    heatmap: tf.Tensor
    token_scores: tf.Tensor
    contributions: tf.Tensor
    strength: tf.Tensor


def explain_in_one_pass(
    submodels: Submodels, inputs: Tensors, target: str = "eczema", *, against: bool = False
) -> Explained:
    """Explains a batch of rows.

    The heatmap is Layer-CAM (Jiang et al. 2021) of the encoder's fine map; of the words, see
    `token_scores.score_tokens`.

    Args:
        submodels: Of the model.
        inputs: Tensors, as the model takes them.
        target: As in `select_logit`.
        against: Whether the heatmap shows the evidence against the target.
    """
    fine_map = submodels.to_fine_map(inputs[IMAGE], training=False)  # (batch, height, width, ch.)
    text_features = submodels.encode_text(inputs)  # (batch, tokens, channels)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(fine_map)
        features = submodels.from_fine_map(fine_map, training=False)
        logits = submodels.compute_logits(features, text_features, inputs)
        explained = select_logit(logits, target)
    to_map = tape.gradient(explained, fine_map, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    present = inputs[IMAGE_PRESENT]
    if submodels.has_feature_map:
        raw, terms = compute_layercam(fine_map, -to_map if against else to_map)
        heatmap = scale_to_one(raw, terms) * present[:, None, None]
        strength = tf.math.divide_no_nan(tf.reduce_max(raw, axis=(1, 2)), terms) * present
    else:  # a model of embeddings knows no places
        heatmap, strength = tf.zeros([tf.size(present), 1, 1]), tf.zeros_like(present)
    words = score_tokens(submodels, features, text_features, inputs, target)
    return Explained(logits, heatmap, words.scores, words.contributions, strength)


def compute_layercam(features: tf.Tensor, gradients: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Weighs each channel at each place by its own gradient where that is positive.

    Jiang et al. 2021, equations 4 to 6. Grad-CAM gives a channel one weight everywhere, which says
    little before the last layers, where a channel is an edge or a colour that supports the target
    in one place and nothing in another.

    Args:
        features: (batch, height, width, channels).
        gradients: Of the target with respect to `features`.

    Returns:
        Maps float32 (batch, height, width), at least 0, and the largest sum of the sizes of a
        place's terms, (batch,): what the map would be if no channel spoke against another.
    """
    terms = tf.cast(tf.nn.relu(gradients) * features, tf.float32)  # (batch, height, width, ch.)
    largest = tf.reduce_max(tf.reduce_sum(tf.abs(terms), axis=-1), axis=(1, 2))
    return tf.nn.relu(tf.reduce_sum(terms, axis=-1)), largest


def scale_to_one(heatmap: tf.Tensor, terms: tf.Tensor) -> tf.Tensor:
    """Divides each map by its maximum, unless there is next to nothing in it.

    A map that is nowhere higher than `FLOOR` of its terms is what is left when they cancel out, and
    would be blown up to full colour.

    Args:
        heatmap: (batch, height, width), at least 0.
        terms: (batch,), from `compute_layercam`; 0 where they are not known.

    Returns:
        The same shape as `heatmap`: each map has 1 for its highest place, or is zero throughout.
    """
    highest = tf.reduce_max(heatmap, axis=(1, 2))
    divisor = tf.where(highest >= FLOOR * terms, highest, 0.0)
    return tf.math.divide_no_nan(heatmap, divisor[:, None, None])
