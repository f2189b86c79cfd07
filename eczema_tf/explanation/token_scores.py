"""How much each token of a text moved a logit: by integrated gradients, or by gradient x input."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from eczema_tf.data.inputs import to_model_inputs
from eczema_tf.explanation.one_pass import explain_in_one_pass, score_tokens
from eczema_tf.explanation.submodels import CONTEXT, Submodels, Tensors, select_logit
from eczema_tf.schema import IMAGE, TEXT_PRESENT, TOKEN_IDS

STEPS = 64  # of the path integral; the completeness error says whether they are enough
STEPS_AT_ONCE = 32  # points of the path in one batch


@dataclass(frozen=True)
class TokenScores:
    """Scores of the tokens of a batch.

    Attributes:
        scores: float32 (batch, tokens), signed, in logits; 0 for padding and where there is no
            text.
        difference: float32 (batch,), the logit minus that of the baseline, a text of padding.
        completeness_error: float32 (batch,), |sum of scores - difference|, which integrated
            gradients bring to 0 with enough steps.
    """

    scores: np.ndarray
    difference: np.ndarray
    completeness_error: np.ndarray


def integrate_gradients(
    submodels: Submodels, inputs: Tensors, *, target: str = "eczema", steps: int = STEPS
) -> TokenScores:
    """Integrates gradients over the token embeddings, from padding to the text.

    Integrated gradients (Sundararajan et al. 2017), by the midpoint rule.

    Args:
        submodels: Of the model.
        inputs: Arrays of a batch, as the model takes them.
        target: As in `submodels.select_logit`.
        steps: Gradients on the way.
    """
    inputs = to_model_inputs(inputs)
    features = submodels.encode_image(inputs[IMAGE])
    embeddings = submodels.embed_tokens(inputs[TOKEN_IDS])  # (batch, tokens, units)
    baseline = submodels.embed_padding(inputs[TOKEN_IDS])
    total = tf.zeros_like(embeddings)
    for first in range(0, steps, STEPS_AT_ONCE):
        last = min(first + STEPS_AT_ONCE, steps)
        shares = (tf.range(first, last, dtype=tf.float32) + 0.5) / steps
        # (points, batch, tokens, units), then the points as rows of one batch
        points = baseline + shares[:, None, None, None] * (embeddings - baseline)
        rows = tf.reshape(points, [-1, *embeddings.shape[1:]])
        photos = repeat_batch(features, len(shares))
        context = {name: repeat_batch(inputs[name], len(shares)) for name in CONTEXT}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(rows)
            logits = select_logit(submodels.compute_logits(photos, rows, context), target)
        gradients = tape.gradient(logits, rows, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        total += tf.reduce_sum(tf.reshape(gradients, points.shape), axis=0)
    scores = score_tokens(total / steps, embeddings - baseline, inputs)
    return check_completeness(submodels, inputs, features, scores, target)


def multiply_gradient_by_input(
    submodels: Submodels, inputs: Tensors, *, target: str = "eczema"
) -> TokenScores:
    """Computes the cheap scores that the served model gives: see `one_pass.explain_in_one_pass`."""
    inputs = to_model_inputs(inputs)
    scores = explain_in_one_pass(submodels, inputs, target).token_scores
    features = submodels.encode_image(inputs[IMAGE])
    return check_completeness(submodels, inputs, features, scores, target)


TOKEN_METHODS = {
    "integrated_gradients": integrate_gradients,
    "gradient_x_input": multiply_gradient_by_input,
}


def check_completeness(
    submodels: Submodels, inputs: Tensors, features: tf.Tensor, scores: tf.Tensor, target: str
) -> TokenScores:
    """Puts scores beside what they should add up to: the logit minus that of padding."""
    at_text, at_baseline = (
        select_logit(submodels.compute_logits(features, embed(inputs[TOKEN_IDS]), inputs), target)
        for embed in (submodels.embed_tokens, submodels.embed_padding)
    )
    difference = (at_text - at_baseline) * inputs[TEXT_PRESENT]
    error = tf.abs(tf.reduce_sum(scores, axis=1) - difference)
    return TokenScores(scores.numpy(), difference.numpy(), error.numpy())


def repeat_batch(rows: tf.Tensor, times: int) -> tf.Tensor:
    """(batch, ...) to (times * batch, ...), the whole batch again and again."""
    return tf.tile(rows, [times, *[1] * (len(rows.shape) - 1)])
