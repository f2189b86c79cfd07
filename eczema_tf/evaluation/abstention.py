"""How often a model says that it cannot tell, and how good its other answers are."""

import numpy as np
import pandas as pd
from scipy.special import logit

from eczema_tf.evaluation.intervals import Estimate
from eczema_tf.evaluation.predictions import BOUNDS
from eczema_tf.evaluation.sample import Sample
from eczema_tf.files import Record
from eczema_tf.schema import DECISIONS, ECZEMA_HEADS, MODALITIES

ANSWERED_SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
_NO_CASES = "no such case"


class Decided(Record):
    """The decisions on some cases, and how good they are.

    `unknown` cases are unlike training or not read, `undecided` ones are the others that get no
    answer. `coverage` is the share whose label is in its prediction set (`choose_bounds`), whether
    or not a case is known.
    """

    cases: int
    unknown: int
    undecided: int
    answered: Estimate
    accuracy: Estimate  # of the answers
    coverage: Estimate


class RiskPoint(Record):
    """How many of the surest answers are right (El-Yaniv and Wiener 2010)."""

    answered: float
    accuracy: Estimate


class Abstention(Record):
    """Decisions by kind of case and skin tone, and accuracy by share that is answered."""

    groups: dict[str, Decided]
    risk_coverage: list[RiskPoint]


def judge_abstention(sample: Sample) -> Abstention | None:
    """Judges the decisions on labelled cases; None for cases of a model that does not decide."""
    if "decision" not in sample.cases:
        return None
    sample = sample.of_head("fusion")
    kinds = sample.kinds()
    groups = {"all": np.ones(len(kinds), bool)}
    groups |= {kind: kinds == kind for kind in ECZEMA_HEADS}
    if "skin_tone" in sample.cases:
        tones = sample.cases["skin_tone"].to_numpy(object)
        groups |= {f"skin tone {tone}": tones == tone for tone in sorted({*tones} - {""})}
    return Abstention(
        groups={name: _judge_group(sample.where(own)) for name, own in groups.items() if own.any()},
        risk_coverage=_trace_risk(sample),
    )


def find_known(sample: Sample) -> np.ndarray:
    """Finds the cases in which everything that was used is known: bool (cases,)."""
    cases = sample.cases
    return np.all([cases[f"{name}_used"] == cases[f"known_{name}"] for name in MODALITIES], axis=0)


def find_surest(sample: Sample, count: int) -> dict[str, pd.DataFrame]:
    """Finds the answers furthest from their threshold, in log-odds, the surest first.

    Args:
        sample: Labelled and unlabelled cases; those on which the model cannot tell have no answer.
        count: How many at most.

    Returns:
        Cases by "right" and "wrong", with whether they are `positive` (bool).
    """
    sample = sample.of_head("fusion")
    if "decision" in sample.cases:  # by each model's bounds, also in a cross-validation
        sample = sample.where((sample.cases["decision"] != DECISIONS[1]).to_numpy(bool))
        called = (sample.cases["decision"] == DECISIONS[2]).to_numpy(bool)
    else:
        called = sample.called("fusion")
    positive = sample.positive()
    right = called == positive
    order = np.argsort(-_measure_distance(sample), kind="stable")
    cases = sample.cases.assign(positive=positive)
    return {
        # from repeats of a cross-validation, the surest
        name: cases.iloc[order[chosen[order]]].drop_duplicates("case_id").head(count)
        for name, chosen in (("right", right), ("wrong", ~right))
    }


def _measure_distance(sample: Sample) -> np.ndarray:
    """Measures how far answers are from the threshold of their kind, in log-odds."""
    logits = sample.cases["eczema_logit"].to_numpy("float64")
    return np.abs(logits - logit(sample.deciding_thresholds()))


def _judge_group(sample: Sample) -> Decided:
    cases, positive = sample.cases, sample.positive()
    low, high = (cases[bound].to_numpy("float64") for bound in BOUNDS)
    logits = cases["eczema_logit"].to_numpy("float64")
    covered = np.where(positive, logits >= low, logits <= high)
    not_eczema, cannot_tell, eczema = ((cases["decision"] == one).to_numpy() for one in DECISIONS)
    right, known = np.where(positive, eczema, not_eczema), find_known(sample)
    return Decided(
        cases=sample.count(),
        unknown=sample.tally(~known),
        undecided=sample.tally(cannot_tell & known),
        answered=sample.estimate_share(~cannot_tell, _NO_CASES),
        accuracy=sample.estimate_share(right, _NO_CASES, where=~cannot_tell),
        coverage=sample.estimate_share(covered, _NO_CASES),
    )


def _trace_risk(sample: Sample) -> list[RiskPoint]:
    """Answers the surest cases first: known ones before others, then those far from the threshold.

    Ties are in random order, whatever the order of the manifest.
    """
    chance = np.random.default_rng(0).permutation(len(sample.cases))
    drawn = chance[sample.cases["case_id"].argsort().argsort()]
    surest = np.lexsort((drawn, -_measure_distance(sample), ~find_known(sample)))
    rank = surest.argsort()
    right = sample.called("fusion") == sample.positive()
    return [
        RiskPoint(
            answered=share,
            accuracy=sample.estimate_share(right, _NO_CASES, where=rank < round(share * len(rank))),
        )
        for share in ANSWERED_SHARES
    ]
