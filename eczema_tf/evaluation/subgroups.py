"""Whether the fused answer is equally good in all subgroups.

Subgroups by one factor are compared with each other. Among many gaps some are large by chance, so
their intervals and p-values allow for all pairs of subgroups, factors and metrics (Bonferroni).
"""

from collections.abc import Mapping
from itertools import permutations

import numpy as np
import pandas as pd
from scipy.stats import t

from eczema_tf.evaluation.intervals import (
    LEVEL,
    MIN_GROUPS,
    Difference,
    Estimate,
    count_rarer_class,
    estimate_mean,
    estimate_share,
)
from eczema_tf.evaluation.metrics import Statistic, measure_mean
from eczema_tf.evaluation.predictions import PROBABILITY_COLUMNS
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
# Fitzpatrick types by twos, as in Daneshjou et al. 2022; Monk's ten shades (2019) in three parts
_TYPES = {"I": "I-II", "II": "I-II", "III": "III-IV", "IV": "III-IV", "V": "V-VI", "VI": "V-VI"}
_SHADES = {
    str(shade): "1-3" if shade < 4 else "4-6" if shade < 7 else "7-10" for shade in range(1, 11)
}
# upper bounds, included, and names; none for 0
_COUNTS = {
    "photos": ((0, 1, 2, np.inf), ("1", "2", "3 or more")),
    "text_words": ((0, 10, 25, 50, np.inf), ("1-10", "11-25", "26-50", "51 or more")),
}
# what each metric may use up of the chance of a false alarm: half is for AUROC (weighted
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
    """The clearest gap between two subgroups: the largest beside its standard error.

    `difference` is `high` minus `low`; its interval and p-value allow for looking often.
    """

    high: str
    low: str
    difference: Difference

    @property
    def found(self) -> bool:
        """Whether chance does not explain it."""
        return self.difference.p is not None and self.difference.p < 1 - LEVEL


class Factor(Record):
    """The subgroups by one factor, and the gap between them by metric."""

    subgroups: dict[str, Subgroup]
    gaps: dict[str, Gap]


class Subgroups(Record):
    """All factors.

    Attributes:
        minimum: Groups with a case of each class that a subgroup must have, or it has too few.
        comparisons: How many gaps were looked at.
        factors: By name.
    """

    minimum: int
    comparisons: int
    factors: dict[str, Factor]


def judge_subgroups(sample: Sample) -> Subgroups | None:
    """Judges the subgroups of the labelled cases.

    Returns:
        None where no factor tells the cases apart.
    """
    sample = sample.of_head("fusion")
    by_factor = {
        name: {
            value: (values == value).to_numpy(bool)
            for value in sorted({*values} - {""}, key=_sort_key)
        }
        for name, values in find_factors(sample.cases).items()
    }
    by_factor = {name: masks for name, masks in by_factor.items() if len(masks) > 1}
    measured = {
        name: {value: _measure_subgroup(sample, mask) for value, mask in masks.items()}
        for name, masks in by_factor.items()
    }
    enough = {
        name: {value: found for value, found in statistics.items() if found}
        for name, statistics in measured.items()
    }
    compared = sum(len(statistics) > 1 for statistics in enough.values())
    factors = {
        name: Factor(
            subgroups={
                value: _describe_subgroup(sample.where(mask), mask, measured[name][value])
                for value, mask in masks.items()
            },
            gaps={
                metric: _find_gap(sample, metric, enough[name], share / compared)
                for metric, share in SUBGROUP_METRICS.items()
                if len(enough[name]) > 1
            },
        )
        for name, masks in by_factor.items()
    }
    comparisons = len(SUBGROUP_METRICS) * compared
    found = Subgroups(minimum=MIN_GROUPS, comparisons=comparisons, factors=factors)
    return found if factors else None


def find_factors(cases: pd.DataFrame) -> dict[str, pd.Series]:
    """Finds the subgroup of each case by each factor, "" where it is not known.

    Args:
        cases: From `average_rows_by_case`.
    """
    found = {name: cases[name] for name in FACTORS if name in cases}
    for name, merged in (("skin_tone", _TYPES), ("monk_skin_tone", _SHADES)):
        if name in found:
            found[name] = found[name].replace(merged)
    for name, (bounds, names) in _COUNTS.items():
        if name in found:
            found[name] = pd.cut(cases[name], bounds, labels=names).astype(object).fillna("")
    return found


def _sort_key(value: str) -> tuple[float, str]:
    """By the number that a value begins with, if any."""
    number = value.split("-")[0].split(" ")[0].rstrip("+")
    return (float(number) if number.isdecimal() else np.inf), value


def _measure_subgroup(sample: Sample, mask: np.ndarray) -> dict[str, Statistic]:
    """Measures a subgroup, in places of the whole sample; nothing if it has too few."""
    part = sample.where(mask)
    positive, called = part.positive(), part.called("fusion")
    if count_rarer_class(positive, part.sampling) < MIN_GROUPS:
        return {}
    errors = part.probability("fusion") - part.labels()
    found = (
        part.measure_auroc(PROBABILITY_COLUMNS["fusion"]),
        measure_mean(called, positive),
        measure_mean(~called, ~positive),
        measure_mean(errors),
    )
    return {name: one.spread(mask) for name, one in zip(SUBGROUP_METRICS, found, strict=True)}


def _describe_subgroup(
    part: Sample, mask: np.ndarray, measured: Mapping[str, Statistic]
) -> Subgroup:
    positive, sampling = part.positive(), part.sampling
    reason = f"too few: under {MIN_GROUPS} groups with a case of each class"
    nothing = Statistic(np.nan, np.zeros(len(mask)))
    auroc, sensitivity, specificity, in_the_large = (
        Statistic(found.value, found.influence[mask])
        for found in (measured.get(name, nothing) for name in SUBGROUP_METRICS)
    )
    return Subgroup(
        cases=part.count(),
        positives=part.where(positive).count(),
        auroc=part.estimate_auroc(auroc, reason),
        sensitivity=estimate_share(sensitivity, positive, sampling, reason),
        specificity=estimate_share(specificity, ~positive, sampling, reason),
        in_the_large=estimate_mean(in_the_large, sampling, reason),
    )


def _find_gap(
    sample: Sample, metric: str, measured: Mapping[str, Mapping[str, Statistic]], share: float
) -> Gap:
    """Finds the clearest gap of a metric; it may use up a share of the chance of a false alarm."""

    def compute_error(pair: tuple[str, str]) -> tuple[Statistic, float]:
        high, low = (measured[value][metric] for value in pair)
        difference = high - low
        return difference, np.sqrt(sample.sampling.compute_variance(difference.influence))

    pairs = {pair: compute_error(pair) for pair in permutations(measured, 2)}
    high, low = max(pairs, key=lambda pair: pairs[pair][0].value / max(pairs[pair][1], 1e-12))
    difference, error = pairs[high, low]
    looks = len(pairs) / 2 / share  # each pair stands there both ways
    # groups may be in several subgroups
    freedom = max(count_rarer_class(sample.positive(), sample.sampling) - len(measured), 1)
    reach = float(t.ppf(1 - (1 - LEVEL) / (2 * looks), freedom) * error)
    p = 2 * t.sf(difference.value / max(error, 1e-12), freedom) * looks
    value = difference.value
    return Gap(
        high=high,
        low=low,
        difference=Difference(
            value=value, low=value - reach, high=value + reach, p=min(float(p), 1.0)
        ),
    )
