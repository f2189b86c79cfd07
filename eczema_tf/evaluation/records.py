"""The results of an evaluation as records: the contents of `metrics.json`."""

import pandas as pd
from pydantic import Field

from eczema_tf.data.distributions import Distribution
from eczema_tf.evaluation.abstention import Abstention
from eczema_tf.evaluation.calibration import Calibration
from eczema_tf.evaluation.decisions import NetBenefit, OperatingPoint
from eczema_tf.evaluation.intervals import Difference, Estimate
from eczema_tf.evaluation.metadata import MetadataBaseline
from eczema_tf.evaluation.sample import Sample
from eczema_tf.evaluation.stress import StressTest
from eczema_tf.evaluation.subgroups import Subgroups
from eczema_tf.files import Record
from eczema_tf.schema import ECZEMA


class HeadMetrics(Record):
    """How well one head tells eczema from the rest."""

    cases: int
    positives: int
    threshold: float
    auroc: Estimate
    f1: Estimate
    sensitivity: Estimate
    specificity: Estimate
    # for all cases, not for subsets
    net_benefit: list[NetBenefit] | None = None
    calibration: Calibration | None = None


class _Compared(Record):
    over: str | None
    cases: int


class FusionGain(Difference, _Compared):
    """AUROC of fusion minus that of the better single head (`over`), paired, on cases with both."""


class Confusion(Record):
    """Cases by true label (rows) and predicted label (columns)."""

    labels: list[str]
    rows: str = "true"
    counts: list[list[int]]


class ConsistencyMetrics(Record):
    """How well the consistency head does."""

    cases: int
    macro_f1: Estimate
    accuracy: Estimate
    confusion: Confusion


class GradeMetrics(Record):
    """How well a severity head does: quadratic kappa and the mean absolute error in grades."""

    cases: int  # of eczema, whose grade is known and was predicted
    kappa: Estimate
    mae: Estimate
    confusion: Confusion
    # built-in data only: the best kappa of the exact posterior, which no model can pass except by
    # chance
    best_kappa: float | None = Field(default=None, alias="limit")


class SeverityMetrics(GradeMetrics):
    """The same for all that a case has, and for the photo or the text `alone`."""

    alone: dict[str, GradeMetrics] = Field(default_factory=dict)


class Bootstrap(Record):
    """How the intervals were made.

    In a cross-validation they were widened by the factor `widened` for the variance of training.
    """

    replicates: int
    groups: int
    seed: int
    level: float
    widened: float | None = None


class Leaks(Record):
    """What a model has already seen of the cases that it is judged on, if that was allowed."""

    leaks: int
    examples: list[str]


class TextCounts(Record):
    """How many cases have a text that is not read to its end, or is mostly unknown words."""

    texts: int
    cut: int
    unknown: int


class Subset(Record):
    """The eczema heads on some of the cases."""

    defined_by: str
    cases: int
    labelled: int
    heads: dict[str, HeadMetrics]
    fusion_gain: FusionGain
    # built-in data only: the AUROC of the exact posterior, which no model can pass except by
    # chance, and how far the model is from it, paired
    bayes_auroc: dict[str, float | None] | None = Field(default=None, alias="limit")
    bayes_gap: dict[str, Difference] | None = Field(default=None, alias="gap_to_limit")


class Shift(Record):
    """How an input is distributed in training and here; see `external.compare_inputs`."""

    training: Distribution
    here: Distribution
    difference: float | None


class Beside(Record):
    """A metric of the run's own test cases and of others; the difference is of others minus own."""

    internal: Estimate
    here: Estimate
    difference: Difference


class External(Record):
    """Results on other data, with those on the run's own.

    Attributes:
        shift: By input; empty for a run that has kept no distributions.
        heads: By head and metric.
        recalibration: By kind of case, what must be added to the log-odds to make the mean
            probability the share of eczema (recalibration in the large; Janssen et al. 2008).
    """

    shift: dict[str, Shift]
    heads: dict[str, dict[str, Beside]]
    recalibration: dict[str, Estimate]


class Metrics(Record):
    """The contents of `metrics.json`.

    Attributes:
        heads: By "image", "text" and "fusion": `auroc`, `f1`, `sensitivity` and `specificity`, each
            with `value`, `low` and `high`, `threshold`, `cases`, `positives`, `calibration`.
        fusion_gain: AUROC of both minus that of the better single head, on cases with both.
        bayes_auroc: What is possible on built-in data, by head; in the file `limit`.
        bayes_gap: How far the model is from it; in the file `gap_to_limit`.
        severity: Agreement on grades.
        abstention: How many are answered, and how many of these correctly.
        label_threshold: A case is positive if its label is above it; in the file `positive_above`.
    """

    split: str
    positive_class: str = ECZEMA  # what positive cases are called
    clinical: list[str] | None = None  # fields that fusion uses besides photo and text
    cases: int
    labelled: int
    heads: dict[str, HeadMetrics]
    fusion_gain: FusionGain
    bayes_auroc: dict[str, float | None] | None = Field(default=None, alias="limit")
    bayes_gap: dict[str, Difference] | None = Field(default=None, alias="gap_to_limit")
    # by kind of case; those chosen by Youden's index first
    operating_points: list[OperatingPoint] | None = None
    subsets: dict[str, Subset]
    # built-in data only: by "known" and "new", texts in words of the training texts and in others
    wordings: dict[str, Subset] | None = None
    subgroups: Subgroups | None = None
    consistency: ConsistencyMetrics
    severity: SeverityMetrics
    label_threshold: float = Field(alias="positive_above")
    soft_labels: bool = True  # whether probabilities were compared with the labels themselves
    bootstrap: Bootstrap
    texts: TextCounts | None = None
    abstention: Abstention | None = None
    external: External | None = None  # of other data than the run's own
    metadata: MetadataBaseline | None = None
    # by what was done to photos or texts; those of `evaluate --robustness` only if asked for
    stress_tests: dict[str, StressTest] | None = None
    leaks: Leaks | None = None

    def take(self, cases: pd.DataFrame) -> Sample:
        """Takes the cases that were judged, by the same rules and without resamples."""
        thresholds = {head: found.threshold for head, found in self.heads.items()}
        rules = thresholds, self.label_threshold, self.soft_labels
        return Sample.draw(cases, *rules, replicates=0, seed=0)
