"""Compares two runs on the same cases, paired, so that hard cases count for both."""

from collections.abc import Mapping, Sequence

import numpy as np

from eczema_tf.evaluation.intervals import Difference, estimate_difference
from eczema_tf.evaluation.metrics import Statistic, measure_f1, measure_mean
from eczema_tf.evaluation.predictions import PROBABILITY_COLUMNS, is_scored
from eczema_tf.evaluation.records import Metrics
from eczema_tf.evaluation.sample import Sample
from eczema_tf.files import Record


class PairedMetric(Record):
    """A metric of both runs, and that of the second minus that of the first."""

    first: float | None
    second: float | None
    difference: Difference


class PairedHead(Record):
    """One head of both runs, on the cases that both have answered."""

    cases: int
    positives: int
    metrics: dict[str, PairedMetric]


def pair_runs(first: Sample, second: Sample) -> dict[str, PairedHead]:
    """Compares two runs, each at its own thresholds.

    AUROC uses DeLong's test for groups, the others Student's interval of the mean difference
    between groups. The p-values do not correct for looking at several metrics.

    Args:
        first: The cases of one run.
        second: The same cases, in the same order, of the other; their groups are those of `first`.

    Returns:
        By head, those that both runs have.
    """
    scored = {
        modality: is_scored(first.cases, modality) & is_scored(second.cases, modality)
        for modality in PROBABILITY_COLUMNS
    }
    return {
        modality: _pair_head(first.where(both), second.where(both), modality)
        for modality, both in scored.items()
        if both.any()
    }


def _pair_head(first: Sample, second: Sample, modality: str) -> PairedHead:
    positive, sampling = first.positive(), first.sampling
    of_second, metrics = _measure_head(second, modality), {}
    reason = first.explain_undefined("an answer of both runs")
    # for the other metrics, all cases together
    kinds = {
        "auroc": (positive, ~positive),
        "sensitivity": (positive,),
        "specificity": (~positive,),
    }
    for name, one in _measure_head(first, modality).items():
        other = of_second[name]
        difference = estimate_difference(other - one, sampling, reason, kinds.get(name, ()))
        values = (None, None) if difference.value is None else (one.value, other.value)
        metrics[name] = PairedMetric(first=values[0], second=values[1], difference=difference)
    positives = first.where(positive).count()
    return PairedHead(cases=first.count(), positives=positives, metrics=metrics)


def _measure_head(sample: Sample, modality: str) -> dict[str, Statistic]:
    positive, called = sample.positive(), sample.called(modality)
    return {
        "auroc": sample.measure_auroc(modality),
        "sensitivity": measure_mean(called, positive),
        "specificity": measure_mean(~called, ~positive),
        "f1": measure_f1(positive, called),
        "brier": measure_mean((sample.probability(modality) - sample.labels()) ** 2),
    }


class Spread(Record):
    """A figure of several runs.

    `sd` is the sample's standard deviation (divided by n - 1). A run in which the figure is
    undefined has null in `values` and is left out of the rest; with fewer than two runs, there is
    no rest.
    """

    values: list[float | None]
    mean: float | None = None
    sd: float | None = None
    lowest: float | None = None
    highest: float | None = None


def measure_spread(runs: Sequence[Metrics]) -> dict[str, Spread]:
    """Measures the spread of the main figures, by name, over runs that differ in their seed."""
    figures = [_take_figures(metrics) for metrics in runs]
    return {name: _spread([one.get(name) for one in figures]) for name in figures[0]}


def _take_figures(metrics: Metrics) -> Mapping[str, float | None]:
    fusion = metrics.heads["fusion"]
    estimates = {f"auroc_{modality}": head.auroc for modality, head in metrics.heads.items()}
    estimates |= {
        "fusion_gain": metrics.fusion_gain,
        "sensitivity": fusion.sensitivity,
        "specificity": fusion.specificity,
        "f1": fusion.f1,
        "consistency_macro_f1": metrics.consistency.macro_f1,
        "severity_kappa": metrics.severity.kappa,
    }
    if fusion.calibration:
        estimates["ece"] = fusion.calibration.ece.error
    if metrics.abstention:
        estimates["answered"] = metrics.abstention.groups["all"].answered
    return {name: estimate.value for name, estimate in estimates.items()}


def _spread(values: list[float | None]) -> Spread:
    if len(known := [value for value in values if value is not None]) < 2:
        return Spread(values=values)
    return Spread(
        values=values,
        mean=float(np.mean(known)),
        sd=float(np.std(known, ddof=1)),
        lowest=min(known),
        highest=max(known),
    )
