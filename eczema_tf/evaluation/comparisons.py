"""A measure of an explanation beside that of its baselines, on the same cases, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eczema_tf.evaluation.intervals import Estimate, summarise


@dataclass(frozen=True)
class ComparisonSummary:
    """A figure averaged over cases.

    Attributes:
        cases: How many count.
        better: "higher" or "lower".
        estimates: By name; the first is the explanation, the others are its baselines.
        gain_over: By baseline, the mean difference of the pairs, turned so that above 0 the
            explanation is better.
    """

    cases: int
    better: str
    estimates: dict[str, Estimate]
    gain_over: dict[str, Estimate]

    def to_json(self) -> dict[str, Any]:
        """Returns a figure's part of `explanations.json`."""
        return {
            "cases": self.cases,
            "better": self.better,
            **self.estimates,
            "gain_over": self.gain_over,
        }


@dataclass(frozen=True)
class Comparison:
    """One figure.

    Attributes:
        values: By name, the figure of each case, float64 (cases,), NaN where it is undefined. The
            first is the explanation, the others are its baselines.
        better: "higher" or "lower".
        reason: Why the figure is undefined, if it is for all cases.
    """

    values: Mapping[str, np.ndarray]
    better: str
    reason: str

    def summarise(self, weights: np.ndarray) -> ComparisonSummary:
        """Averages over cases, with weights from `draw_weights`."""
        explained, *baselines = self.values
        sign = {"higher": 1, "lower": -1}[self.better]
        gains = {name: sign * (self.values[explained] - self.values[name]) for name in baselines}
        return ComparisonSummary(
            cases=int(np.isfinite(self.values[explained]).sum()),
            better=self.better,
            estimates=estimate_means(self.values, weights, self.reason),
            gain_over=estimate_means(gains, weights, self.reason),
        )


def compare_cases(
    figures: Mapping[str, tuple[str, str]],
    measured: Mapping[int, Mapping[str, Mapping[str, float]]],
    names: Sequence[str],
    cases: int,
) -> dict[str, Comparison]:
    """Collects what was measured case by case.

    Args:
        figures: By name, what is better ("higher" or "lower"), and why the figure may be undefined.
        measured: By case, figure and name; what is left out is undefined.
        names: Of the explanation and its baselines.
        cases: How many.

    Returns:
        By figure.
    """
    comparisons = {
        figure: Comparison({name: np.full(cases, np.nan) for name in names}, better, reason)
        for figure, (better, reason) in figures.items()
    }
    for case, of_case in measured.items():
        for figure, by_name in of_case.items():
            for name, value in by_name.items():
                comparisons[figure].values[name][case] = value
    return comparisons


def estimate_means(
    values: Mapping[str, np.ndarray], weights: np.ndarray, reason: str = "nothing to compare"
) -> dict[str, Estimate]:
    """Estimates the mean of each figure; see `estimate_mean`."""
    return {name: estimate_mean(figure, weights, reason) for name, figure in values.items()}


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
