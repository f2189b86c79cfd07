"""What answers are worth: predictive values at stated prevalences, and net benefit."""

from collections.abc import Sequence

import numpy as np

from eczema_tf.evaluation.intervals import (
    Difference,
    Estimate,
    Sampling,
    estimate_difference,
    estimate_mean,
)
from eczema_tf.evaluation.metrics import measure_mean
from eczema_tf.files import Record

# from "treat unless it is very unlikely" to "treat only if it is more likely than not"
DECISION_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)


class PredictiveValues(Record):
    """The share of eczema among cases called so (`ppv`), and of the rest among the rest (`npv`)."""

    prevalence: float
    ppv: Estimate
    npv: Estimate


class NetBenefit(Record):
    """Eczema treated, less what treating others costs, a case (Vickers and Elkin 2006).

    Who treats from a probability of `threshold` on takes one treated for nothing as threshold /
    (1 - threshold) missed. `gain` is over the better of treating all and none, paired.
    """

    threshold: float
    model: Estimate
    treat_all: float
    gain: Difference


def compute_predictive_values(
    sensitivity: Estimate, specificity: Estimate, prevalence: float
) -> PredictiveValues:
    """Computes predictive values at a prevalence, by Bayes' theorem.

    Both rise with sensitivity and with specificity, so their intervals reach from where both are
    low to where both are high: they hold the truth more often than they say.

    Args:
        sensitivity: At a threshold.
        specificity: At the same.
        prevalence: In (0, 1), taken as known.
    """
    values: dict[str, dict[str, float | None]] = {"ppv": {}, "npv": {}}
    for end in ("value", "low", "high"):
        found, left_alone = getattr(sensitivity, end), getattr(specificity, end)
        values["ppv"][end] = values["npv"][end] = None
        if found is not None and left_alone is not None:
            ill, well = prevalence, 1 - prevalence
            values["ppv"][end] = _share(found * ill, (1 - left_alone) * well)
            values["npv"][end] = _share(left_alone * well, (1 - found) * ill)
    reasons = {
        name: {"reason": sensitivity.reason or specificity.reason or "no case is called so"}
        if None in ends.values()
        else {}
        for name, ends in values.items()
    }
    ppv, npv = (Estimate.model_validate({**values[name], **reasons[name]}) for name in values)
    return PredictiveValues(prevalence=prevalence, ppv=ppv, npv=npv)


def _share(part: float, rest: float) -> float | None:
    return part / (part + rest) if part + rest > 0 else None


def judge_net_benefit(
    probabilities: np.ndarray, positive: np.ndarray, sampling: Sampling, reason: str
) -> list[NetBenefit]:
    """Judges the decisions at `DECISION_THRESHOLDS`.

    Args:
        probabilities: float64 (cases,).
        positive: bool (cases,).
        sampling: Of the cases.
        reason: Why it is undefined, if it is.
    """
    judged = []
    for threshold in DECISION_THRESHOLDS:
        treated = np.where(positive, 1.0, -threshold / (1 - threshold))  # (cases,)
        benefit = np.where(probabilities >= threshold, treated, 0)
        all_treated = float(treated.mean()) if len(treated) else 0.0
        other = treated if all_treated > 0 else np.zeros(len(treated))
        judged.append(
            NetBenefit(
                threshold=threshold,
                model=estimate_mean(measure_mean(benefit), sampling, reason),
                treat_all=all_treated,
                gain=estimate_difference(measure_mean(benefit - other), sampling, reason),
            )
        )
    return judged


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
