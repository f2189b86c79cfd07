"""Results of measuring a model's explanations: the contents of `explanations.json`, typed."""

from dataclasses import dataclass, field
from typing import Any

from eczema_tf.evaluation.comparisons import ComparisonSummary
from eczema_tf.evaluation.intervals import LEVEL, Estimate

Estimates = dict[str, Estimate]


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
        method: Of explaining.
        counts: How many there are, and how many of these have some property.
        comparisons: By figure, beside its baselines.
        changes: By change of photo, text or method: what it does to explanations.
        randomised: What randomised weights do to them.
        sums: In logits: how far texts `moved` the answer, what the scores of their words `missed`
            of it, both without sign; and the sums of texts labelled `unclear`. None of photos.
    """

    method: str
    counts: dict[str, int]
    comparisons: dict[str, ComparisonSummary]
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
        photo: Of heatmaps, or the reason why there are none.
        text: Of words' scores, or the reason likewise.
        with_both: How many cases have both a photo and a text.
        contributions: How far photo and text move the answer of these.
        replicates: How many resamples the intervals come from.
        groups: Of how many groups of cases.
    """

    split: str
    cases: int
    target: str
    photo: ModalityResults | str
    text: ModalityResults | str
    with_both: int
    contributions: Estimates
    replicates: int
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
            "bootstrap": {"replicates": self.replicates, "groups": self.groups, "level": LEVEL},
        }
