"""Whether the fused answer is equally good in all subgroups.

Subgroups by one factor are compared with each other. Among many gaps some are large by chance, so
their intervals and p-values account for all pairs of subgroups, factors and metrics (Bonferroni).
"""

from collections.abc import Mapping
from itertools import permutations

import numpy as np
import pandas as pd
from scipy.stats import norm

from eczema_tf.evaluation.intervals import (
    LEVEL,
    MIN_GROUPS,
    Difference,
    Estimate,
    estimate_mean,
    estimate_share,
)
from eczema_tf.evaluation.metrics import Statistic, measure_mean
from eczema_tf.evaluation.sample import Sample
from eczema_tf.files import Record

FACTORS = {
    "skin_tone": "skin tone (Fitzpatrick)",
    "monk_skin_tone": "skin tone (Monk)",
    "age_group": "age group",
    "sex": "sex",
    "source": "source",
    "photos": "number of photos",
    "text_words": "words of text",
}
# Fitzpatrick types in pairs, as in Daneshjou et al. 2022; Monk's ten shades (2019) in three parts
_TYPES = {"I": "I-II", "II": "I-II", "III": "III-IV", "IV": "III-IV", "V": "V-VI", "VI": "V-VI"}
_SHADES = {
    str(shade): "1-3" if shade < 4 else "4-6" if shade < 7 else "7-10" for shade in range(1, 11)
}
# upper bounds, included, and names; none for 0
_COUNTS = {
    "photos": ((0, 1, 2, np.inf), ("1", "2", "3 or more")),
    "text_words": ((0, 10, 25, 50, np.inf), ("1-10", "11-25", "26-50", "51 or more")),
}
# share of the chance of a false alarm that each metric may use: half is for AUROC (weighted
# Bonferroni; Wiens 2003)
SUBGROUP_METRICS = {
    "auroc": 1 / 2,
    "sensitivity": 1 / 6,
    "specificity": 1 / 6,
    "in_the_large": 1 / 6,
}


class Subgroup(Record):
    """The metrics of one subgroup; `in_the_large` is mean probability minus share of eczema."""

    cases: int
    positives: int
    auroc: Estimate
    sensitivity: Estimate
    specificity: Estimate
    in_the_large: Estimate


class Gap(Record):
    """The clearest gap between two subgroups: the largest relative to its standard error.

    `difference` is `high` minus `low`; its interval and p-value are corrected for multiple
    comparisons.
    """

    high: str
    low: str
    difference: Difference

    @property
    def found(self) -> bool:
        """Whether the gap is statistically significant."""
        return self.difference.p is not None and self.difference.p < 1 - LEVEL


class Factor(Record):
    """The subgroups by one factor, and the gap between them by metric."""

    subgroups: dict[str, Subgroup]
    gaps: dict[str, Gap]


class Subgroups(Record):
    """All factors.

    Attributes:
        minimum: How many groups with a case of each class a subgroup must have.
        comparisons: How many gaps were looked at.
        factors: By name.
    """

    minimum: int
    comparisons: int
    factors: dict[str, Factor]


def judge_subgroups(sample: Sample) -> Subgroups | None:
    """Judges the subgroups of the labelled cases.

    Returns:
        None if no factor tells the cases apart.
    """
    sample = sample.of_head("fusion")
    by_factor = {
        name: {
            value: _describe_subgroup(sample.where((values == value).to_numpy(bool)))
            for value in sorted({*values} - {""}, key=_sort_key)
        }
        for name, values in find_factors(sample.cases).items()
    }
    by_factor = {name: subgroups for name, subgroups in by_factor.items() if len(subgroups) > 1}
    enough = {name: _keep_known(subgroups, "auroc") for name, subgroups in by_factor.items()}
    compared = sum(len(subgroups) > 1 for subgroups in enough.values())
    factors = {
        name: Factor(
            subgroups=subgroups,
            gaps={
                metric: _find_gap(known, metric, share / compared)
                for metric, share in SUBGROUP_METRICS.items()
                if len(known := _keep_known(enough[name], metric)) > 1
            },
        )
        for name, subgroups in by_factor.items()
    }
    comparisons = len(SUBGROUP_METRICS) * compared
    found = Subgroups(minimum=MIN_GROUPS, comparisons=comparisons, factors=factors)
    return found if factors else None


def _keep_known(subgroups: Mapping[str, Subgroup], metric: str) -> dict[str, Subgroup]:
    """Keeps subgroups whose metric has an interval, which one large group can prevent."""
    return {value: one for value, one in subgroups.items() if getattr(one, metric).low is not None}


def find_factors(cases: pd.DataFrame) -> dict[str, pd.Series]:
    """Finds the subgroup of each case by each factor, "" where it is not known."""
    found = {name: cases[name] for name in FACTORS if name in cases}
    for name, merged in (("skin_tone", _TYPES), ("monk_skin_tone", _SHADES)):
        if name in found:
            found[name] = found[name].replace(merged)
    for name, (bounds, names) in _COUNTS.items():
        if name in found:
            found[name] = pd.cut(cases[name], bounds, labels=names).astype(object).fillna("")
    return found


def _sort_key(value: str) -> tuple[float, str]:
    """Sorts by the number that a value begins with, if any."""
    number = value.split("-")[0].split(" ")[0].rstrip("+")
    return (float(number) if number.isdecimal() else np.inf), value


def _describe_subgroup(part: Sample) -> Subgroup:
    """Measures the cases of a subgroup, unless they are too few."""
    positive, sampling = part.positive(), part.sampling
    reason = f"too few: under {MIN_GROUPS} groups with a case of each class"
    auroc = sensitivity = specificity = error = Statistic(np.nan, np.zeros(len(positive)))
    if part.count_rarer_class() >= MIN_GROUPS:
        called = part.called("fusion")
        auroc = part.measure_auroc("fusion")
        sensitivity = measure_mean(called, positive)
        specificity = measure_mean(~called, ~positive)
        error = measure_mean(part.probability("fusion") - part.labels())
    return Subgroup(
        cases=part.count(),
        positives=part.where(positive).count(),
        auroc=part.estimate_auroc(auroc, reason),
        sensitivity=estimate_share(sensitivity, positive, sampling, reason),
        specificity=estimate_share(specificity, ~positive, sampling, reason),
        in_the_large=estimate_mean(error, sampling, reason),
    )


def _find_gap(subgroups: Mapping[str, Subgroup], metric: str, share: float) -> Gap:
    """Finds the clearest gap of a metric, by the subgroups' own intervals (Zou and Donner 2008).

    A standard error from the sample would show no chance in 12 of 12. Groups that are in several
    subgroups make the intervals wider than necessary.

    Args:
        subgroups: Subgroups with intervals.
        metric: Name of one of their metrics.
        share: Share of the chance of a false alarm that this may use.
    """
    ends = {
        value: np.array([own.value, own.low, own.high], float)
        for value, own in ((value, getattr(one, metric)) for value, one in subgroups.items())
    }

    def compare(pair: tuple[str, str]) -> np.ndarray:
        """Returns the difference, and how far its interval reaches below and above it."""
        (high, high_from, high_to), (low, low_from, low_to) = (ends[value] for value in pair)
        return np.array(
            [
                high - low,
                np.hypot(high - high_from, low_to - low),
                np.hypot(high_to - high, low - low_from),
            ]
        )

    pairs = {pair: compare(pair) for pair in permutations(subgroups, 2)}
    high, low = max(pairs, key=lambda pair: pairs[pair][0] / max(pairs[pair][1], 1e-12))
    value, below, above = map(float, pairs[high, low])
    looks = len(pairs) / 2 / share  # each pair is there both ways
    standard = float(norm.ppf((1 + LEVEL) / 2))  # errors from a value to an end of its interval
    stretch = float(norm.isf((1 - LEVEL) / 2 / looks)) / standard
    p = 2 * float(norm.sf(standard * value / max(below, 1e-12))) * looks
    difference = Difference(
        value=value, low=value - stretch * below, high=value + stretch * above, p=min(p, 1.0)
    )
    return Gap(high=high, low=low, difference=difference)
