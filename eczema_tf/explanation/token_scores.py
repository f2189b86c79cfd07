"""How far each token of a text moved a logit, by integrated gradients; both served and offline.

The path runs through the text encoder's output for each token in its sentence, and not through the
embeddings before the encoder, where 48 points on a path are not enough (docs/log.md). The encoder
therefore runs once, and as many points as the sum needs cost next to nothing.
"""

from typing import NamedTuple

import tensorflow as tf

from eczema_tf.config import MAX_TOKENS
from eczema_tf.explanation.contributions import split_evidence
from eczema_tf.explanation.path_integral import GROUP, integrate_gradients, repeat_rows
from eczema_tf.explanation.submodels import Submodels, Tensors, select_logit
from eczema_tf.schema import CLINICAL, IMAGE_PRESENT, PADDING_MASK, TEXT_PRESENT

NODES = 64  # of the quadrature; `evaluate --explanations` says how close this comes to 256


class TokenScores(NamedTuple):
    """What moved a logit, for each row of a batch.

    Attributes:
        scores: float32 (batch, tokens), signed, in logits; zeros for special tokens and padding,
            and where there is no text.
        contributions: float32 (batch, 3), in logits: the starting point, and how far photo and text
            each move it (`contributions.split_evidence`). The scores add up to the text's part. For
            models that take clinical fields: float32 (batch, 4), the last being what these add.
    """

    scores: tf.Tensor
    contributions: tf.Tensor


def score_tokens(
    submodels: Submodels,
    image_features: tf.Tensor,
    text_features: tf.Tensor,
    inputs: Tensors,
    target: str = "eczema",
    nodes: int = NODES,
) -> TokenScores:
    """Integrates gradients from a text that says nothing to the text.

    They are gradients of the mean of two logits, with the photo and without it. This mean differs
    between the two ends of the path by the text's Shapley value.

    Args:
        submodels: Of the model.
        image_features: From `submodels.encode_image`.
        text_features: From `submodels.encode_text`.
        inputs: As the model takes them.
        target: As in `submodels.select_logit`.
        nodes: Of the quadrature, up to `GROUP` or a multiple of it.
    """
    neutral = tf.ones_like(text_features) * tf.cast(submodels.neutral_text, text_features.dtype)
    group = choose_group(text_features, nodes)
    photos = repeat_rows(image_features, group)
    context = {name: repeat_rows(inputs[name], group) for name in submodels.context}
    mean = integrate_gradients(
        # each counts a half
        lambda rows: sum(_answer_both_ways(submodels, photos, rows, context, target)) / 2,
        neutral,
        text_features,
        nodes,
        group,
    )
    scores = tf.reduce_sum(mean * (text_features - neutral), axis=-1)  # (batch, tokens)
    ends = (
        _answer_both_ways(submodels, image_features, features, inputs, target)
        for features in (text_features, neutral)
    )
    (both, text_only), (image_only, neither) = ends
    start, *moved = split_evidence(both, image_only, text_only, neither)
    if CLINICAL in submodels.context:  # they are added to whatever photo and text say
        added = submodels.weigh_clinical(inputs, target)
        start, moved = start - added, [*moved, added]
    return TokenScores(
        _share_special(scores, tf.cast(inputs[PADDING_MASK], scores.dtype))
        * inputs[TEXT_PRESENT][:, None],
        tf.stack([start, *moved], axis=1),
    )


def choose_group(text_features: tf.Tensor, nodes: int) -> int:
    """Chooses how many nodes to compute at once: all, for a short text outside of a graph.

    Outside, each batch costs the Python of its layers; in a graph, the token count is not known.
    """
    rows, tokens = text_features.shape[:2]
    is_small = None not in (rows, tokens) and nodes * rows * tokens <= GROUP * MAX_TOKENS
    return nodes if is_small else min(nodes, GROUP)


def _answer_both_ways(
    submodels: Submodels,
    image_features: tf.Tensor,
    text_features: tf.Tensor,
    inputs: Tensors,
    target: str,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the target's logit with the photo, if any, and without it, each (batch,)."""
    absent = {**inputs, IMAGE_PRESENT: tf.zeros_like(inputs[IMAGE_PRESENT])}
    with_photo, without = (
        select_logit(submodels.compute_logits(image_features, text_features, given), target)
        for given in (inputs, absent)
    )
    return with_photo, without


def _share_special(scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Divides what [CLS] and [SEP] moved equally among the tokens between them.

    Their encodings stand for the whole text. Both arguments are (batch, tokens).
    """
    between = tf.pad(mask[:, 2:], [[0, 0], [1, 1]])  # 1 for tokens after [CLS] and before [SEP]
    special = tf.reduce_sum(scores * (mask - between), axis=1, keepdims=True)
    count = tf.reduce_sum(between, axis=1, keepdims=True)
    return between * (scores + tf.math.divide_no_nan(special, count))
