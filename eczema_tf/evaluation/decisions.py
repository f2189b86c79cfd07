"""What answers are worth: operating points, predictive values, net benefit."""

from collections.abc import Mapping, Sequence

import numpy as np

from eczema_tf.evaluation.intervals import (
    Difference,
    Estimate,
    Sampling,
    estimate_difference,
    estimate_mean,
)
from eczema_tf.evaluation.metrics import measure_mean
from eczema_tf.evaluation.sample import Sample
from eczema_tf.files import Record
from eczema_tf.schema import ECZEMA_HEADS

# from "treat unless it is very unlikely" to "treat only if it is more likely than not"
DECISION_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)


class PredictiveValues(Record):
    """The share of eczema among cases called so (`ppv`), and of others among the rest (`npv`)."""

    prevalence: float
    ppv: Estimate
    npv: Estimate


class OperatingPoint(Record):
    """A threshold for one kind of case, chosen on validation cases and judged on others.

    Attributes:
        aim: What it was chosen for.
        kind: "image": by the photo, for every case with one, as if it had come alone (its answer
            would be the same, bit for bit); "text": the same by the text; "fusion": for cases with
            both.
        cases: Number of labelled cases of the kind.
        threshold: A probability at or above it is called eczema.
        sensitivity: Share of eczema that is called so.
        specificity: Share of the rest that is not.
        predictive_values: At the prevalence of the cases first, then at stated ones.
        confusion: Cases by true class (rows: eczema, other) and what they are called.
    """

    aim: str
    kind: str
    cases: int
    threshold: float
    sensitivity: Estimate
    specificity: Estimate
    predictive_values: list[PredictiveValues]
    confusion: list[list[int]]


class NetBenefit(Record):
    """True positives less the weighted false positives, per case (Vickers and Elkin 2006).

    Someone who treats from a probability of `threshold` on values one false positive at threshold /
    (1 - threshold) true ones. `gain` is over the better of treating all and treating none, paired.
    """

    threshold: float
    model: Estimate
    treat_all: float
    gain: Difference


def judge_points(
    sample: Sample, points: Mapping[str, Mapping[str, float]], prevalences: Sequence[float]
) -> list[OperatingPoint]:
    """Judges operating points, by kind of case.

    Args:
        sample: The cases.
        points: By aim and kind, the thresholds.
        prevalences: Prevalences, besides that of the cases, at which to give predictive values, in
            (0, 1).
    """
    return [
        _judge_operating_point(sample.of_kind(kind), aim, kind, thresholds[kind], prevalences)
        for kind in ECZEMA_HEADS
        for aim, thresholds in points.items()
        if kind in thresholds
    ]


def _judge_operating_point(
    sample: Sample, aim: str, kind: str, threshold: float, prevalences: Sequence[float]
) -> OperatingPoint:
    positive, called = sample.positive(), sample.probability(kind) >= threshold
    calls, reason = (called, ~called), sample.explain_undefined("what this answer needs")
    sensitivity = sample.estimate_share(called, reason, where=positive)
    specificity = sample.estimate_share(~called, reason, where=~positive)
    if positive.any() and not positive.all():
        prevalences = [float(positive.mean()), *prevalences]
    return OperatingPoint(
        aim=aim,
        kind=kind,
        cases=sample.count(),
        threshold=threshold,
        sensitivity=sensitivity,
        specificity=specificity,
        predictive_values=[
            compute_predictive_values(sensitivity, specificity, prevalence)
            for prevalence in prevalences
        ],
        confusion=[[sample.tally(own & said) for said in calls] for own in (positive, ~positive)],
    )


def compute_predictive_values(
    sensitivity: Estimate, specificity: Estimate, prevalence: float
) -> PredictiveValues:
    """Computes predictive values at a prevalence, by Bayes' theorem.

    Both rise with sensitivity and with specificity, so their intervals reach from where both are
    low to where both are high: they contain the truth more often than they claim.

    Args:
        sensitivity: At a threshold.
        specificity: At the same threshold.
        prevalence: In (0, 1), taken as known.
    """
    ill, well = prevalence, 1 - prevalence
    return PredictiveValues(
        prevalence=prevalence,
        ppv=_apply_bayes(sensitivity, specificity, ill, well),
        npv=_apply_bayes(specificity, sensitivity, well, ill),
    )


def _apply_bayes(found: Estimate, spared: Estimate, share: float, rest: float) -> Estimate:
    """Estimates what part of cases called a class is of it: `share` of all is, `rest` is not.

    `found` of the class are called so, and `spared` of the rest are not.
    """

    def compute_end(end: str) -> float | None:
        hit, left_alone = getattr(found, end), getattr(spared, end)
        if hit is None or left_alone is None:
            return None
        right, wrong = hit * share, (1 - left_alone) * rest
        return right / (right + wrong) if right + wrong > 0 else None

    value, low, high = map(compute_end, ("value", "low", "high"))
    if None not in (value, low, high):
        return Estimate(value=value, low=low, high=high)
    reason = found.reason or spared.reason or "no case is called so"
    low, high = (None, None) if value is None else (low, high)
    return Estimate(value=value, low=low, high=high, reason=reason)


def judge_net_benefit(
    probabilities: np.ndarray, positive: np.ndarray, sampling: Sampling, reason: str
) -> list[NetBenefit]:
    """Judges the decisions at `DECISION_THRESHOLDS`.

    Args:
        probabilities: float64 (cases,).
        positive: bool (cases,).
        sampling: How the cases were drawn.
        reason: Why it is undefined, if it is.
    """

    def judge(threshold: float) -> NetBenefit:
        treated = np.where(positive, 1.0, -threshold / (1 - threshold))  # (cases,)
        benefit = np.where(probabilities >= threshold, treated, 0)
        all_treated = float(treated.mean()) if len(treated) else 0.0
        gain = benefit - treated if all_treated > 0 else benefit
        return NetBenefit(
            threshold=threshold,
            model=estimate_mean(measure_mean(benefit), sampling, reason),
            treat_all=all_treated,
            gain=estimate_difference(measure_mean(gain), sampling, reason),
        )

    return [judge(threshold) for threshold in DECISION_THRESHOLDS]


def compute_net_benefit(
    probabilities: np.ndarray, positive: np.ndarray, thresholds: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Computes the decision curve: the net benefit at each threshold.

    Args:
        probabilities: float64 (cases,), at least one.
        positive: bool (cases,).
        thresholds: (thresholds,) in (0, 1).

    Returns:
        float64 (thresholds,), at most the prevalence.
    """
    thresholds = np.asarray(thresholds, dtype="float64")
    treated = probabilities[:, None] >= thresholds  # (cases, thresholds)
    right, wrong = (
        (treated & (positive == label)[:, None]).mean(axis=0) for label in (True, False)
    )
    return right - wrong * thresholds / (1 - thresholds)
