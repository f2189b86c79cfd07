"""A text that says nothing, as a model encodes it: the starting point for word scores."""

from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from eczema_tf.explanation.submodels import Submodels, Tensors, select_logit
from eczema_tf.schema import CLINICAL, IMAGE_PRESENT, PADDING_MASK, TEXT_PRESENT, TOKEN_IDS

STEPS = 20  # of Newton's method; for a piecewise linear head, a few are enough
TOKENS = 32  # in the trial text, about as many as people write


def find_neutral_text(submodels: Submodels, batches: Iterable[Tensors]) -> np.ndarray:
    """Finds the encoded token that stands for every token of a text that says nothing.

    This is the mean token of texts that say nothing, moved as little as possible until the model's
    answer to it is its mean answer to these texts, in logits of P(eczema) from the text alone.
    Starting word scores from an expected answer follows Erion et al. (2021). Because the result is
    one vector, and an average, the run folder contains no one's text.

    Args:
        submodels: Of the trained model.
        batches: Its inputs for these texts; photos are ignored.

    Returns:
        float32 (channels,); zeros if there are no texts.
    """
    encode = tf.function(submodels.encode_text, reduce_retracing=True, autograph=False)
    total, count, answers = tf.zeros(submodels.text_channels), 0.0, []
    for inputs in batches:
        features = encode({name: inputs[name] for name in (TOKEN_IDS, PADDING_MASK)})
        mask = tf.cast(inputs[PADDING_MASK], tf.float32)
        total += tf.einsum("btc,bt->c", features, mask)
        count += tf.reduce_sum(mask)
        answers.append(_answer(submodels, features, inputs[PADDING_MASK]))
    if not answers:
        return total.numpy()
    neutral, wanted = total / count, tf.reduce_mean(tf.concat(answers, axis=0))
    mask = tf.ones((1, TOKENS), tf.int32)
    for _ in range(STEPS):
        with tf.GradientTape() as tape:
            tape.watch(neutral)
            answer = _answer(submodels, tf.repeat(neutral[None, None], TOKENS, axis=1), mask)[0]
        slope = tape.gradient(answer, neutral)
        neutral += tf.math.divide_no_nan((wanted - answer) * slope, tf.reduce_sum(slope**2))
    return neutral.numpy()


def _answer(submodels: Submodels, text_features: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Computes the logit of P(eczema) from texts alone, (batch,)."""
    rows = tf.shape(mask)[0]
    inputs = {PADDING_MASK: mask, IMAGE_PRESENT: tf.zeros([rows]), TEXT_PRESENT: tf.ones([rows])}
    if CLINICAL in submodels.context:
        inputs[CLINICAL] = tf.zeros([rows, submodels.model.input[CLINICAL].shape[-1]])
    photos = tf.zeros([rows, *submodels.features_shape])
    return select_logit(submodels.compute_logits(photos, text_features, inputs), "eczema_text")
