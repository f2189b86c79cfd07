"""Corrupted photos and texts, in five strengths each, to test how robust a model is.

A corruption is data: a function of a photo or text, a strength and a random generator. The same
generator corrupts the same places at every strength, so a stronger corruption includes the weaker
ones (except for small talk, which each strength draws for itself).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

Thing = TypeVar("Thing")  # a photo or a text


@dataclass(frozen=True)
class Corruption(Generic[Thing]):
    """One way to corrupt a photo or a text.

    Attributes:
        apply: Takes the thing, a strength and a random generator.
        strengths: From weak to strong.
    """

    apply: Callable[[Thing, float, np.random.Generator], Thing]
    strengths: tuple[float, ...]
