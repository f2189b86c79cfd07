"""The cases of an evaluation, with what every metric of them needs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from eczema_tf.evaluation.bootstrap import draw_weights, summarise
from eczema_tf.evaluation.intervals import (
    MIN_GROUPS,
    Difference,
    Estimate,
    Sampling,
    count_rarer_class,
    estimate_auroc,
    estimate_difference,
    estimate_share,
    inflate_for_training,
    number_groups,
)
from eczema_tf.evaluation.metrics import Statistic, measure_auroc, measure_mean
from eczema_tf.evaluation.predictions import PROBABILITY_COLUMNS, identify_models, is_scored
from eczema_tf.evaluation.thresholds import choose_kind


@dataclass(frozen=True)
class Sample:
    """Cases, how they were drawn, and what counts as eczema.

    Attributes:
        cases: From `average_rows_by_case`.
        sampling: How the cases were drawn.
        weights: From `draw_weights`, float64 (1 + replicates, cases).
        thresholds: By "image", "text" and "fusion".
        label_threshold: A label greater than this is positive.
        soft_labels: Whether probabilities are to match the label itself, a share of votes, and not
            whether a case is positive.
    """

    cases: pd.DataFrame
    sampling: Sampling
    weights: np.ndarray
    thresholds: Mapping[str, float]
    label_threshold: float
    soft_labels: bool = True

    @classmethod
    def draw(
        cls,
        cases: pd.DataFrame,
        thresholds: Mapping[str, float],
        label_threshold: float,
        soft_labels: bool = True,
        *,
        replicates: int,
        seed: int,
    ) -> "Sample":
        """Draws resamples; other arguments as in `compute_metrics`."""
        folds = cases["fold"].nunique() if "fold" in cases else 0
        inflation = inflate_for_training(folds) if folds > 1 else 1.0
        return cls(
            cases.reset_index(drop=True),
            Sampling(number_groups(cases["group_id"]), inflation),
            draw_weights(cases["group_id"], replicates, seed),
            thresholds,
            label_threshold,
            soft_labels,
        )

    def like(self, cases: pd.DataFrame) -> "Sample":
        """Takes other cases by the same rules, without resamples."""
        rules = self.thresholds, self.label_threshold, self.soft_labels
        return self.draw(cases, *rules, replicates=0, seed=0)

    def where(self, mask: np.ndarray) -> "Sample":
        """Keeps some cases: `mask` is bool (cases,)."""
        return replace(
            self,
            cases=self.cases[mask].reset_index(drop=True),
            sampling=self.sampling.where(mask),
            weights=self.weights[:, mask],
        )

    def of_head(self, modality: str) -> "Sample":
        """Keeps the cases that a head is judged on."""
        return self.where(is_scored(self.cases, modality))

    def of_kind(self, kind: str) -> "Sample":
        """Keeps the cases that one kind of answer is for: as `of_head`, but "fusion" needs both."""
        heads = ("image", "text", "fusion") if kind == "fusion" else (kind,)
        return self.where(np.all([is_scored(self.cases, head) for head in heads], axis=0))

    def count(self) -> int:
        """Counts cases; one that several repeats of a cross-validation scored counts once."""
        return self.cases["case_id"].nunique()

    def tally(self, found: np.ndarray) -> int:
        """Counts the cases with a property, bool (cases,): over repeats their mean, rounded."""
        return round(found.sum() * self.count() / max(len(found), 1))

    def positive(self) -> np.ndarray:
        """Returns which cases are eczema: bool (cases,)."""
        return (self.cases["eczema"] > self.label_threshold).to_numpy(bool)

    def kinds(self) -> np.ndarray:
        """Returns whose threshold decides on each case: object (cases,); see `choose_kind`."""
        used = self.cases[["image_used", "text_used"]].to_numpy(bool)
        return np.array([choose_kind(image, text) for image, text in used], object)

    def deciding_thresholds(self) -> np.ndarray:
        """Returns the threshold that decides on each case: float64 (cases,)."""
        return np.array([self.thresholds[kind] for kind in self.kinds()], "float64")

    def called(self, modality: str) -> np.ndarray:
        """Returns which cases a head calls eczema: bool (cases,).

        If there is only a photo or only a text, its threshold decides on fusion's answer.
        """
        if modality == "fusion":
            return self.probability(modality) >= self.deciding_thresholds()
        return self.probability(modality) >= self.thresholds[modality]

    def labels(self) -> np.ndarray:
        """Returns what probabilities of labelled cases are to match: float64 (cases,) in [0, 1]."""
        if not self.soft_labels:
            return self.positive().astype("float64")
        return self.cases["eczema"].to_numpy("float64")

    def probability(self, modality: str) -> np.ndarray:
        """Returns what a head answers: float64 (cases,)."""
        return self.cases[PROBABILITY_COLUMNS[modality]].to_numpy("float64")

    def measure_auroc(self, scorer: str) -> Statistic:
        """Measures the AUROC of a head ("image", "text", "fusion"), or of a column of the cases."""
        scores = self.cases[PROBABILITY_COLUMNS.get(scorer, scorer)].to_numpy("float64")
        return measure_auroc(scores, self.positive(), identify_models(self.cases))

    def estimate_share(
        self, found: np.ndarray, reason: str, where: np.ndarray | None = None
    ) -> Estimate:
        """Estimates the share of cases with a property: bool (cases,) both; None: of all."""
        counted = np.ones(len(found), bool) if where is None else where
        return estimate_share(measure_mean(found, counted), counted, self.sampling, reason)

    def estimate_auroc(self, auroc: Statistic, reason: str) -> Estimate:
        """Estimates an AUROC of these cases."""
        return estimate_auroc(auroc, self.positive(), self.sampling, reason)

    def count_rarer_class(self) -> int:
        """Counts the groups with a case of the class that fewer groups have."""
        return count_rarer_class(self.positive(), self.sampling)

    def estimate_auroc_difference(
        self, one: Statistic, other: Statistic, reason: str
    ) -> Difference:
        """Estimates one AUROC minus another, paired (DeLong's test, for groups)."""
        classes = self.positive(), ~self.positive()
        return estimate_difference(one - other, self.sampling, reason, classes)

    def summarise(
        self, values: np.ndarray, reason: str, *, bounds: tuple[float, float]
    ) -> Estimate:
        """Summarises what was computed with the weights; see `bootstrap.summarise`."""
        if self.sampling.count() < MIN_GROUPS:
            values = values[:1]  # with so few, resamples tell nothing
        return summarise(values, reason, inflation=self.sampling.inflation, bounds=bounds)

    def explain_undefined(self, needed: str) -> str:
        """Says why a metric of these cases is undefined, if it is."""
        positive = self.positive()
        if not len(positive):
            return f"no labelled case has {needed}"
        return f"one class only: {positive.sum()} of the {len(positive)} labelled cases are eczema"
