"""How much each token of a text moved a logit: by integrated gradients, or by gradient x input."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from eczema_tf.explanation.one_pass import explain_in_one_pass, score_tokens
from eczema_tf.explanation.submodels import (
    Submodels,
    Tensors,
    embed_baseline,
    select_logit,
    to_tensors,
)
from eczema_tf.schema import IMAGE, IMAGE_PRESENT, PADDING_MASK, TEXT_PRESENT, TOKEN_IDS

STEPS = 64  # of the path integral; the completeness error says whether they are enough
STEPS_AT_ONCE = 32  # points of the path in one batch


@dataclass(frozen=True)
class TokenScores:
    """Scores of the tokens of a batch.

    Attributes:
        scores: float32 (batch, tokens), signed, in logits; 0 for padding and where there is no
            text.
        difference: float32 (batch,), the logit minus that of the baseline, a text of padding.
        completeness_error: float32 (batch,), |sum of scores - difference|, which integrated gradients bring to 0 with enough steps.
    """

    scores: np.ndarray
    difference: np.ndarray
    completeness_error: np.ndarray


def integrate_gradients(
    cut: Submodels, inputs: Tensors, *, target: str = "eczema", steps: int = STEPS
) -> TokenScores:
    """Integrated gradients over the token embeddings (Sundararajan et al. 2017), from padding to the text, by the midpoint rule.

    Args:
        cut: The model.
        inputs: Arrays of a batch, as the model takes them.
        target: As in `cut.select_logit`.
        steps: Gradients on the way.
    """
    inputs = to_tensors(inputs)
    features = cut.encode_image(inputs[IMAGE])
    embeddings, baseline = (
        cut.embed_tokens(inputs[TOKEN_IDS]),
        embed_baseline(cut, inputs[TOKEN_IDS]),
    )
    gradients = _average_gradients(cut, features, baseline, embeddings, inputs, target, steps)
    scores = score_tokens(gradients, embeddings - baseline, inputs)
    return _complete(cut, features, baseline, embeddings, inputs, target, scores)


def multiply_gradient_by_input(
    cut: Submodels, inputs: Tensors, *, target: str = "eczema"
) -> TokenScores:
    """The cheap scores that the served model gives: see `one_pass.explain_in_one_pass`."""
    inputs = to_tensors(inputs)
    scores = explain_in_one_pass(cut, inputs, target).token_scores
    embeddings, baseline = (
        cut.embed_tokens(inputs[TOKEN_IDS]),
        embed_baseline(cut, inputs[TOKEN_IDS]),
    )
    return _complete(
        cut, cut.encode_image(inputs[IMAGE]), baseline, embeddings, inputs, target, scores
    )


def _average_gradients(
    cut: Submodels,
    features: tf.Tensor,
    baseline: tf.Tensor,
    embeddings: tf.Tensor,
    inputs: Tensors,
    target: str,
    steps: int,
) -> tf.Tensor:
    """The mean gradient along the straight path, (batch, tokens, units), many points of it at once."""
    total = tf.zeros_like(embeddings)
    for first in range(0, steps, STEPS_AT_ONCE):
        shares = (
            tf.range(first, min(first + STEPS_AT_ONCE, steps), dtype=tf.float32) + 0.5
        ) / steps
        points = baseline + shares[:, None, None, None] * (
            embeddings - baseline
        )  # (points, batch, tokens, units)
        flat = tf.reshape(points, [-1, *embeddings.shape[1:]])
        rows = {
            name: _repeat(inputs[name], len(shares))
            for name in (PADDING_MASK, IMAGE_PRESENT, TEXT_PRESENT)
        }
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(flat)
            logits = select_logit(
                cut.compute_logits(_repeat(features, len(shares)), flat, rows), target
            )
        gradients = tape.gradient(logits, flat, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        total += tf.reduce_sum(tf.reshape(gradients, points.shape), axis=0)
    return total / steps


def _repeat(rows: tf.Tensor, times: int) -> tf.Tensor:
    """(batch, ...) to (times * batch, ...), the whole batch again and again."""
    return tf.tile(rows, [times, *[1] * (len(rows.shape) - 1)])


def _complete(
    cut: Submodels,
    features: tf.Tensor,
    baseline: tf.Tensor,
    embeddings: tf.Tensor,
    inputs: Tensors,
    target: str,
    scores: tf.Tensor,
) -> TokenScores:
    """Puts the scores beside what they should add up to."""
    at_text, at_baseline = (
        select_logit(cut.compute_logits(features, point, inputs), target)
        for point in (embeddings, baseline)
    )
    difference = (at_text - at_baseline) * inputs[TEXT_PRESENT]
    error = tf.abs(tf.reduce_sum(scores, axis=1) - difference)
    return TokenScores(scores.numpy(), difference.numpy(), error.numpy())


METHODS = {
    "integrated_gradients": integrate_gradients,
    "gradient_x_input": multiply_gradient_by_input,
}
