"""Scores of a text's tokens: how much each word moved a logit, for or against, and where it stands.

Tokens' scores come from integrated gradients or, cheaper, from gradient x input. Word pieces are
added up to words, and neighbouring words of one sign to phrases.
"""

from collections.abc import Sequence
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
PHRASE_SHARE = 0.1  # a word belongs to a phrase if its score is at least this share of the highest
SENTENCE_ENDS = frozenset(".!?;\n")


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


@dataclass(frozen=True)
class Span:
    """A word or phrase: character offsets into the text, and its signed score in logits."""

    start: int
    end: int
    score: float


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


def join_words(
    scores: Sequence[float], starts: Sequence[int], ends: Sequence[int], continues: Sequence[bool]
) -> list[Span]:
    """Adds the scores of word pieces up to words.

    Args:
        scores: Of one text's tokens.
        starts: Character offset of each token; a token with `start == end` (special, padding) is
            passed over.
        ends: Likewise.
        continues: Whether a token goes on with the word of the token before it ("##" pieces).

    Returns:
        The words in order.
    """
    words: list[Span] = []
    for score, start, end, goes_on in zip(scores, starts, ends, continues, strict=True):
        if start == end:
            continue
        if goes_on and words:
            words[-1] = Span(
                words[-1].start, max(end, words[-1].end), words[-1].score + float(score)
            )
        else:
            words.append(Span(int(start), int(end), float(score)))
    return words


def join_phrases(text: str, words: Sequence[Span]) -> list[Span]:
    """Joins neighbouring words of one sign that matter; a sentence's end parts them.

    Args:
        text: That the words stand in.
        words: From `join_words`.

    Returns:
        Phrases, the strongest first.
    """
    least = PHRASE_SHARE * max((abs(word.score) for word in words), default=0.0)
    phrases: list[Span] = []
    before = None  # the word before, if it is the end of the last phrase
    for word in words:
        matters = (
            abs(word.score) >= least
            and word.score != 0
            and not SENTENCE_ENDS & set(text[word.start : word.end])
        )
        if matters and before is not None and before.score * word.score > 0:
            phrases[-1] = Span(phrases[-1].start, word.end, phrases[-1].score + word.score)
        elif matters:
            phrases.append(word)
        before = word if matters else None
    return sorted(phrases, key=lambda phrase: -abs(phrase.score))
