"""Integrated gradients (Sundararajan et al. 2017), for both words and photos."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

GROUP = 8  # nodes in one batch: a text of 512 tokens takes some 100 MB


def integrate_gradients(
    answer: Callable[[tf.Tensor], tf.Tensor],
    start: tf.Tensor,
    end: tf.Tensor,
    nodes: int,
    group: int = GROUP,
) -> tf.Tensor:
    """Averages gradients on the straight path from one point to another.

    It uses Gauss-Legendre quadrature. Multiplied by `end - start`, the gradients add up to the
    change in the answer.

    Args:
        answer: Computes logits (group * batch,) from points, `group` times the batch, in the layout
            of `repeat_rows`.
        start: (batch, ...).
        end: The same shape.
        nodes: Of the quadrature, a multiple of `group`.
        group: How many nodes are computed at once.

    Returns:
        The shape of `end`.
    """
    difference = end - start

    def add_group(total: tf.Tensor, part: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        shares, weights = part  # (group,)
        shares = tf.reshape(shares, [-1, *[1] * len(end.shape)])
        points = start + shares * difference  # (group, batch, ...)
        rows = tf.reshape(points, tf.concat([[-1], tf.shape(end)[1:]], axis=0))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(rows)
            logits = answer(rows)
        gradients = tape.gradient(logits, rows, unconnected_gradients="zero")
        return total + tf.tensordot(weights, tf.reshape(gradients, tf.shape(points)), axes=1)

    roots, weights = np.polynomial.legendre.leggauss(nodes)  # of [-1, 1]
    parts = [
        tf.constant(values.reshape(-1, group), end.dtype)
        for values in ((roots + 1) / 2, weights / 2)
    ]
    return tf.foldl(add_group, tuple(parts), tf.zeros_like(end), parallel_iterations=1)


def repeat_rows(rows: tf.Tensor, times: int) -> tf.Tensor:
    """Turns (batch, ...) into (times * batch, ...) by repeating the whole batch."""
    return tf.tile(rows, [times, *[1] * (len(rows.shape) - 1)])
