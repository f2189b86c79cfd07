"""Results of measuring a model's explanations: the contents of `explanations.json`, typed.

Each figure of an explanation comes with those of its baselines, on the same cases, with intervals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eczema_tf.evaluation.intervals import (
    LEVEL,
    Estimate,
    Sampling,
    estimate_difference,
    estimate_mean,
    estimate_share,
)
from eczema_tf.evaluation.metrics import measure_mean

Estimates = dict[str, Estimate]


@dataclass(frozen=True)
class Comparison:
    """A figure averaged over cases.

    Attributes:
        cases: How many count.
        better: "higher" or "lower".
        estimates: By name; the first is the explanation, the others are its baselines.
        gain_over: By baseline, the mean difference of the pairs, with its sign set so that above 0
            the explanation is better.
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
class Cascade:
    """What is left of explanations as weights are randomised from the top down.

    Attributes:
        cases: How many were explained.
        draws: How often weights were drawn.
        depths: By name, from the top: rank correlations with the original explanations.
    """

    cases: int
    draws: int
    depths: dict[str, Estimates]

    def to_json(self) -> dict[str, Any]:
        """Returns "randomised" of `explanations.json`."""
        depths = [{"depth": name, **estimates} for name, estimates in self.depths.items()]
        return {"cases": self.cases, "draws": self.draws, "depths": depths}


@dataclass(frozen=True)
class ModalityResults:
    """Results for photos, or for texts.

    Attributes:
        method: Method of explaining.
        counts: How many there are, and how many of these have some property.
        comparisons: By figure, with its baselines.
        changes: By change of photo, text or method: what it does to explanations.
        randomised: What randomised weights do to them.
        sums: In logits: how far texts `moved` the answer, and how much of it the scores of their
            words `missed`, both without sign; and the sums of texts labelled `unclear`. Empty for
            photos.
    """

    method: str
    counts: dict[str, int]
    comparisons: dict[str, Comparison]
    changes: dict[str, Estimates]
    randomised: Cascade
    sums: Estimates = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns "photo" or "text" of `explanations.json`."""
        return {
            "method": self.method,
            **self.counts,
            **{figure: summary.to_json() for figure, summary in self.comparisons.items()},
            **self.changes,
            **({"sums": self.sums} if self.sums else {}),
            "randomised": self.randomised.to_json(),
        }


@dataclass(frozen=True)
class ExplanationResults:
    """Results of measuring a model's explanations.

    Attributes:
        split: What the cases are.
        cases: How many.
        target: Whose logit was explained.
        photo: Results of heatmaps, or the reason why there are none.
        text: Results of words' scores, or the reason why there are none.
        with_both: How many cases have both a photo and a text.
        contributions: How far photo and text move the answer of these.
        groups: How many groups the cases are of.
    """

    split: str
    cases: int
    target: str
    photo: ModalityResults | str
    text: ModalityResults | str
    with_both: int
    contributions: Estimates
    groups: int

    def to_json(self) -> dict[str, Any]:
        """Returns the contents of `explanations.json`."""

        def describe(results: ModalityResults | str) -> dict[str, Any]:
            if isinstance(results, str):
                return {"method": None, "reason": results}
            return results.to_json()

        return {
            "split": self.split,
            "cases": self.cases,
            "explained": f"logit of {self.target!r}",
            "photo": describe(self.photo),
            "text": describe(self.text),
            "contributions": {"cases": self.with_both, **self.contributions},
            "intervals": {"groups": self.groups, "level": LEVEL},
        }


def compare(
    values: Mapping[str, np.ndarray], better: str, sampling: Sampling, reason: str
) -> Comparison:
    """Averages a figure over cases.

    Args:
        values: By name, the figure of each case, float64 (cases,), NaN where it is undefined. The
            first is the explanation, the others are its baselines.
        better: "higher" or "lower".
        sampling: How the cases were drawn.
        reason: Why the figure is undefined, if it is for all cases.
    """
    explained, *baselines = values
    sign = {"higher": 1, "lower": -1}[better]
    gains = {name: sign * (values[explained] - values[name]) for name in baselines}
    return Comparison(
        cases=int(np.isfinite(values[explained]).sum()),
        better=better,
        estimates=estimate_figures(values, sampling, reason),
        gain_over={name: _estimate_gain(gain, sampling, reason) for name, gain in gains.items()},
    )


def compare_cases(
    figures: Mapping[str, tuple[str, str]],
    measured: Mapping[int, Mapping[str, Mapping[str, float]]],
    names: Sequence[str],
    sampling: Sampling,
) -> dict[str, Comparison]:
    """Averages what was measured case by case.

    Args:
        figures: By name, which is better ("higher" or "lower"), and why the figure may be
            undefined.
        measured: By case, figure and name; what is left out is undefined.
        names: Names of the explanation and its baselines.
        sampling: How the cases were drawn.

    Returns:
        By figure.
    """

    def collect(figure: str, name: str) -> np.ndarray:
        found = (measured.get(case, {}).get(figure, {}) for case in range(len(sampling.groups)))
        return np.array([by_name.get(name, np.nan) for by_name in found], "float64")

    return {
        figure: compare({name: collect(figure, name) for name in names}, better, sampling, reason)
        for figure, (better, reason) in figures.items()
    }


def estimate_figures(
    values: Mapping[str, np.ndarray], sampling: Sampling, reason: str = "nothing to compare"
) -> Estimates:
    """Estimates the mean of each figure; see `estimate_figure`."""
    return {name: estimate_figure(figure, sampling, reason) for name, figure in values.items()}


def estimate_figure(values: np.ndarray, sampling: Sampling, reason: str) -> Estimate:
    """Estimates the mean over cases where a figure is defined; for hits and misses, a share.

    Args:
        values: float64 (cases,), NaN where undefined.
        sampling: How the cases were drawn.
        reason: Why there is no mean, if there is none.
    """
    known = np.isfinite(values)
    mean, drawn = measure_mean(values[known]), sampling.where(known)
    if known.any() and np.isin(values[known], (0, 1)).all():
        return estimate_share(mean, known[known], drawn, reason)
    return estimate_mean(mean, drawn, reason)


def _estimate_gain(gains: np.ndarray, sampling: Sampling, reason: str) -> Estimate:
    known = np.isfinite(gains)
    return estimate_difference(measure_mean(gains[known]), sampling.where(known), reason)
