"""Whether explanations depend on what the model has learned, and whether they are stable.

Both are measured by rank correlations of maps and scores. Explanations are float (cases, ...): one
map, or one list of scores, per case.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from scipy.stats import rankdata

AnyExplanations = TypeVar("AnyExplanations")


@dataclass(frozen=True)
class Depth:
    """Some layers of a model, counted from its output to its input.

    Attributes:
        name: For the report.
        weights: Variables with `numpy()` and `assign(value)`.
    """

    name: str
    weights: Sequence[Any]


def correlate_ranks(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Computes Spearman's rank correlation of each case, ties sharing their mean rank.

    Args:
        first: float (cases, ...).
        second: The same shape.

    Returns:
        float64 (cases,) in [-1, 1]; NaN where one of the two is constant and so has no order.
    """
    ranks = [rankdata(values.reshape(len(values), -1), axis=1) for values in (first, second)]
    first_ranks, second_ranks = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    spread = np.sqrt((first_ranks**2).sum(axis=1) * (second_ranks**2).sum(axis=1))
    return np.divide(
        (first_ranks * second_ranks).sum(axis=1),
        spread,
        out=np.full(len(first), np.nan),
        where=spread > 0,
    )


def compute_relative_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Computes the length of each case's change as a share of its length before.

    Returns:
        float64 (cases,), NaN where the length before is 0.
    """
    before, after = (
        values.reshape(len(values), -1).astype("float64") for values in (before, after)
    )
    length = np.linalg.norm(before, axis=1)
    return np.divide(
        np.linalg.norm(after - before, axis=1),
        length,
        out=np.full(len(before), np.nan),
        where=length > 0,
    )


def randomise_in_cascade(
    depths: Sequence[Depth], explain: Callable[[], AnyExplanations], rng: np.random.Generator
) -> list[AnyExplanations]:
    """Destroys what a model has learned from the top down, and explains at each depth.

    Source: Adebayo et al. 2018, section 3.1. The values of each weight are shuffled. The weight
    keeps only its distribution: signals keep their size through any depth, and frozen statistics
    stay possible. Whatever happens, the weights are restored afterwards.

    Args:
        depths: From the output down; layers stay shuffled when the next depth follows.
        explain: Explains the same cases with the model in its current state.
        rng: Source of randomness.

    Returns:
        What `explain` returned after each depth.
    """
    explanations = []
    with restoring([weight for depth in depths for weight in depth.weights]):
        for depth in depths:
            for weight in depth.weights:
                value = np.asarray(weight.numpy())
                weight.assign(rng.permutation(value.ravel()).reshape(value.shape))
            explanations.append(explain())
    return explanations


@contextlib.contextmanager
def restoring(weights: Sequence[Any]) -> Iterator[None]:
    """Restores the values of weights when the block ends, even with an exception."""
    saved = [np.array(weight.numpy()) for weight in weights]
    try:
        yield
    finally:
        for weight, value in zip(weights, saved, strict=True):
            weight.assign(value)
