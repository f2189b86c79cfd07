"""How good answers still are when photos or texts are missing, swapped or corrupted.

The same cases are answered again, changed more and more, and compared with the unchanged ones
(stress tests; Young et al. 2021, npj Digital Medicine 4:10, for photos of skin).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from eczema_tf.evaluation.calibration import estimate_calibration_error
from eczema_tf.evaluation.intervals import Difference, Estimate
from eczema_tf.evaluation.sample import Sample
from eczema_tf.files import Record
from eczema_tf.schema import DECISIONS, MODALITIES

# of the cases that lose their photo or their text
REMOVED_SHARES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class StressedCases:
    """The answers on cases whose photo or text is changed more and more.

    Attributes:
        modality: What is changed, "image" or "text".
        answers: By strength, cases as from `average_rows_by_case`, always the same in the same
            order; the first, of strength 0, are unchanged.
    """

    modality: str
    answers: Mapping[float, pd.DataFrame]


class StressPoint(Record):
    """Results at one strength.

    `auroc`, `ece` (expected calibration error) and `cannot_tell` are of fusion. `change` is
    fusion's AUROC minus that of the unchanged cases. `gain` is fusion's AUROC minus that of the
    head that sees only what was not changed, on cases with both. Both are paired. `alone` is the
    AUROC of the head that sees only what was changed.
    """

    strength: float
    auroc: Estimate
    change: Difference
    gain: Difference
    alone: Estimate
    ece: Estimate
    cannot_tell: Estimate


class StressTest(Record):
    """One way to change photos ("image") or texts, from unchanged to its strongest."""

    changed: str
    cases: int
    points: list[StressPoint]


def remove_some(
    whole: pd.DataFrame, without: pd.DataFrame, seed: int
) -> Mapping[float, pd.DataFrame]:
    """Takes a modality from more and more cases at random; each share includes the lower ones.

    Args:
        whole: Cases as from `average_rows_by_case`.
        without: The same cases, all without the modality.
        seed: Decides which cases lose it first.

    Returns:
        By share, 0 and `REMOVED_SHARES`.
    """
    place = np.random.default_rng(seed).permutation(len(whole))
    answers = {0.0: whole}
    for share in REMOVED_SHARES:
        lost = place < round(share * len(whole))
        answers[share] = pd.concat([whole[~lost], without[lost]]).sort_index()
    return answers


def judge_stress(stressed: StressedCases, judged: Sample) -> StressTest:
    """Compares changed cases with the unchanged, by the thresholds and labels of a sample."""
    samples = {
        strength: judged.like(cases).of_head("fusion")
        for strength, cases in stressed.answers.items()
    }
    unchanged = samples[0.0]
    return StressTest(
        changed=stressed.modality,
        cases=unchanged.count(),
        points=[
            _judge_one(strength, sample, unchanged, stressed.modality)
            for strength, sample in samples.items()
        ],
    )


def _judge_one(strength: float, sample: Sample, unchanged: Sample, modality: str) -> StressPoint:
    auroc, reason = sample.measure_auroc("fusion"), sample.explain_undefined("an answer")
    (other,) = set(MODALITIES) - {modality}
    both, alone = sample.of_head(other), sample.of_head(modality)
    undecided = (sample.cases["decision"] == DECISIONS[1]).to_numpy(bool)
    return StressPoint(
        strength=strength,
        auroc=sample.estimate_auroc(auroc, reason),
        change=sample.estimate_auroc_difference(auroc, unchanged.measure_auroc("fusion"), reason),
        gain=both.estimate_auroc_difference(
            both.measure_auroc("fusion"),
            both.measure_auroc(other),
            both.explain_undefined("both a photo and a text"),
        ),
        alone=alone.estimate_auroc(
            alone.measure_auroc(modality), alone.explain_undefined("what is removed")
        ),
        ece=estimate_calibration_error(
            sample.probability("fusion"),
            sample.labels(),
            sample.positive(),
            sample.sampling,
            reason,
        ).error,
        cannot_tell=sample.estimate_share(undecided, reason),
    )
