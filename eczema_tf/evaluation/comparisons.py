"""A measure of an explanation beside that of what it has to beat, on the same cases."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eczema_tf.evaluation.intervals import Estimate, summarise


@dataclass(frozen=True)
class Comparison:
    """One figure.

    Attributes:
        values: By name, the figure of each case, float64 (cases,), NaN where it is undefined. The
            first is the explanation, the others are its rivals.
        better: "higher" or "lower".
        reason: Why the figure is undefined, if it is for all cases.
    """

    values: Mapping[str, np.ndarray]
    better: str
    reason: str

    def summarise(self, weights: np.ndarray) -> dict[str, Any]:
        """Averages over cases.

        Args:
            weights: From `draw_weights`.

        Returns:
            JSON-able: how many cases count, an estimate by name, and `gain_over` each rival: the
                mean difference of the pairs, turned so
            that above 0 the explanation is better.
        """
        explained, *rivals = self.values
        sign = {"higher": 1, "lower": -1}[self.better]
        gains = {rival: sign * (self.values[explained] - self.values[rival]) for rival in rivals}
        return {
            "cases": int(np.isfinite(self.values[explained]).sum()),
            "better": self.better,
            **{
                name: estimate_mean(values, weights, self.reason)
                for name, values in self.values.items()
            },
            "gain_over": {
                rival: estimate_mean(gain, weights, self.reason) for rival, gain in gains.items()
            },
        }


def estimate_mean(values: np.ndarray, weights: np.ndarray, reason: str) -> Estimate:
    """Estimates the mean over the cases where a figure is defined.

    Args:
        values: float64 (cases,), NaN where undefined.
        weights: From `draw_weights`, float64 (1 + replicates, cases).
        reason: Why there is no mean, if there is none.
    """
    known = np.isfinite(values)
    total = weights[:, known].sum(axis=1)
    means = np.divide(
        weights[:, known] @ values[known], total, out=np.full(len(weights), np.nan), where=total > 0
    )
    return summarise(means, reason)
