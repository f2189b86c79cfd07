"""All metrics of a set of cases, as they stand in `metrics.json`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from pydantic import Field

from eczema_tf.data.text.reading import MOSTLY_UNKNOWN, READ_TO
from eczema_tf.evaluation import metrics
from eczema_tf.evaluation.intervals import LEVEL, Estimate, draw_weights, summarise
from eczema_tf.evaluation.predictions import PROBABILITY_COLUMNS, identify_models, is_scored
from eczema_tf.evaluation.thresholds import choose_kind
from eczema_tf.files import Record
from eczema_tf.schema import (
    CONSISTENCY,
    ECZEMA_HEADS,
    GRADE_COLUMNS,
    MODALITIES,
    NEW_WORDINGS,
    POSTERIOR_COLUMNS,
    SEVERITY,
    SEVERITY_HEADS,
    WORDINGS,
)

# of the exact posterior: the label is at least one in five to be the other way
KNOWN_AMBIGUOUS = (0.2, 0.8)
GUESSED_AMBIGUOUS = (0.25, 0.75)  # of the model's own probability, where the posterior is not known
_NEEDS = {"image": "a photo", "text": "a text", "fusion": "a prediction"}


class HeadMetrics(Record):
    """How well one head tells eczema from the rest."""

    cases: int
    positives: int
    threshold: float
    auroc: Estimate
    f1: Estimate
    sensitivity: Estimate
    specificity: Estimate


class _Compared(Record):
    over: str | None
    cases: int


class FusionGain(Estimate, _Compared):
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

    cases: int  # of eczema, whose grade is known and was told
    kappa: Estimate
    mae: Estimate
    confusion: Confusion
    # built-in data only: the best kappa of the exact posterior, which no model can pass but by
    # chance
    best_kappa: float | None = Field(default=None, alias="limit")


class SeverityMetrics(GradeMetrics):
    """The same from all that a case has, and from the photo or the text `alone`."""

    alone: dict[str, GradeMetrics] = Field(default_factory=dict)


class Bootstrap(Record):
    """How the intervals were made."""

    replicates: int
    groups: int
    seed: int
    level: float


class Leaks(Record):
    """What a model has seen of the cases it is judged on, and was allowed to."""

    leaks: int
    examples: list[str]


class TextCounts(Record):
    """Of how many cases a text is not read to its end, or is mostly unknown words."""

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
    # built-in data only: the AUROC of the exact posterior, which no model can pass but by chance
    bayes_auroc: dict[str, float | None] | None = Field(default=None, alias="limit")


class Metrics(Record):
    """The contents of `metrics.json`."""

    split: str
    cases: int
    labelled: int
    heads: dict[str, HeadMetrics]
    fusion_gain: FusionGain
    bayes_auroc: dict[str, float | None] | None = Field(default=None, alias="limit")
    subsets: dict[str, Subset]
    # built-in data only: by "known" and "new", texts in words of the training texts and in others
    wordings: dict[str, Subset] | None = None
    consistency: ConsistencyMetrics
    severity: SeverityMetrics
    label_threshold: float = Field(alias="positive_above")
    bootstrap: Bootstrap
    texts: TextCounts | None = None
    leaks: Leaks | None = None


def compute_metrics(
    cases: pd.DataFrame,
    thresholds: Mapping[str, float],
    *,
    label_threshold: float = 0.5,
    replicates: int = 1000,
    seed: int = 0,
    split: str = "test",
    leaks: Leaks | None = None,
) -> Metrics:
    """Computes all metrics with their 95 % intervals.

    The photo head is judged on cases with a photo, the text head on cases with a text, fusion on
    all; each on labelled cases only.

    Args:
        cases: From `average_rows_by_case`.
        thresholds: By "image", "text" and "fusion"; a probability at or above its threshold is
            called eczema.
        label_threshold: A case is positive when its `eczema` label is greater than this.
        replicates: Resamples of the bootstrap.
        seed: Of the bootstrap.
        split: What the cases are, for the record.
        leaks: For the record; None if nobody looked.
    """
    sample = _Sample(
        cases.reset_index(drop=True),
        draw_weights(cases["group_id"], replicates, seed),
        dict(thresholds),
        label_threshold,
    )
    found = {
        "split": split,
        **_judge_heads(sample),
        "subsets": {
            name: {"defined_by": defined_by, **_judge_heads(sample.where(mask))}
            for name, (defined_by, mask) in find_subsets(sample.cases).items()
        },
        "consistency": _judge_consistency(sample),
        "severity": _judge_severity(sample),
        "label_threshold": label_threshold,
        "bootstrap": Bootstrap(
            replicates=replicates, groups=int(cases["group_id"].nunique()), seed=seed, level=LEVEL
        ),
    }
    if split_by_wordings := find_wordings(sample.cases):
        found["wordings"] = {
            name: {"defined_by": f"{name} wordings", **_judge_heads(sample.where(mask))}
            for name, mask in split_by_wordings.items()
        }
    if "text_notice" in cases:
        found["texts"] = _count_texts(cases.drop_duplicates("case_id"))
    return Metrics.model_validate(found if leaks is None else {**found, "leaks": leaks})


def _count_texts(cases: pd.DataFrame) -> TextCounts:
    said = {"cut": READ_TO, "unknown": MOSTLY_UNKNOWN}
    counts = {
        name: int(cases["text_notice"].str.contains(notice, regex=False).sum())
        for name, notice in said.items()
    }
    return TextCounts(texts=int(cases["text_used"].sum()), **counts)


def find_subsets(cases: pd.DataFrame) -> dict[str, tuple[str, np.ndarray]]:
    """Finds the cases where fusion has most, or nothing, to do.

    Args:
        cases: From `average_rows_by_case`.

    Returns:
        By name: what defines the subset, and which cases are in it, bool (cases,).
    """
    subsets = {}
    for modality in MODALITIES:
        column = POSTERIOR_COLUMNS[modality]
        if column in cases and cases[column].notna().any():
            defined_by, (low, high) = "known posterior", KNOWN_AMBIGUOUS
        else:
            defined_by, (low, high) = "model probability", GUESSED_AMBIGUOUS
            column = PROBABILITY_COLUMNS[modality]
        ambiguous = cases[column].between(low, high) & cases[f"{modality}_used"]
        subsets[f"{modality}_ambiguous"] = (defined_by, ambiguous.to_numpy(bool))
    image, text = (cases[f"{modality}_used"].to_numpy(bool) for modality in MODALITIES)
    return subsets | {
        "image_missing": ("no photo", ~image),
        "text_missing": ("no text", ~text),
        "both_present": ("photo and text", image & text),
    }


def find_wordings(cases: pd.DataFrame) -> dict[str, np.ndarray]:
    """Finds the texts in known and in new wordings: bool (cases,) by name.

    None unless there are both. In a cross-validation none is new: the folds have learned from all.
    """
    wordings = cases[WORDINGS] if WORDINGS in cases else pd.Series("", cases.index)
    masks = {name: (wordings == name).to_numpy(bool) for name in ("known", NEW_WORDINGS)}
    both = all(mask.any() for mask in masks.values())
    return masks if both and "fold" not in cases else {}


@dataclass(frozen=True)
class _Sample:
    """Cases and their weights: row 0 the sample, the other rows the resamples."""

    cases: pd.DataFrame
    weights: np.ndarray  # (1 + replicates, cases)
    thresholds: dict[str, float]
    label_threshold: float

    def where(self, mask: np.ndarray) -> "_Sample":
        cases = self.cases[mask].reset_index(drop=True)
        return replace(self, cases=cases, weights=self.weights[:, mask])

    def of_head(self, modality: str) -> "_Sample":
        return self.where(is_scored(self.cases, modality))

    def count(self) -> int:
        """How many cases; one that several repeats of a cross-validation scored counts once."""
        return self.cases["case_id"].nunique()

    def positive(self) -> np.ndarray:
        return (self.cases["eczema"] > self.label_threshold).to_numpy(bool)

    def aurocs(self, column: str) -> np.ndarray:
        scores = self.cases[column].to_numpy("float64")
        models = identify_models(self.cases)
        return metrics.compute_auroc(scores, self.positive(), self.weights, models)

    def explain_undefined(self, needed: str) -> str:
        positive = self.positive()
        if not len(positive):
            return f"no labelled case has {needed}"
        return f"one class only: {positive.sum()} of the {len(positive)} labelled cases are eczema"


def _judge_heads(sample: _Sample) -> dict[str, object]:
    """The fields that `Metrics` and `Subset` share."""
    known = {
        modality: _compute_bayes_auroc(sample, modality)
        for modality, column in POSTERIOR_COLUMNS.items()
        if column in sample.cases
    }
    return {
        "cases": sample.count(),
        "labelled": sample.where(sample.cases["eczema"].notna().to_numpy(bool)).count(),
        "heads": {modality: _judge_head(sample, modality) for modality in ECZEMA_HEADS},
        "fusion_gain": _compute_fusion_gain(sample),
        **({"bayes_auroc": known} if known else {}),
    }


def _judge_head(sample: _Sample, modality: str) -> HeadMetrics:
    sample = sample.of_head(modality)
    positive = sample.positive()
    kinds = [modality] * len(positive)
    if modality == "fusion":
        used = sample.cases[["image_used", "text_used"]].to_numpy(bool)
        kinds = [choose_kind(image, text) for image, text in used]
    threshold = np.array([sample.thresholds[kind] for kind in kinds], "float64")  # (cases,)
    probability = sample.cases[PROBABILITY_COLUMNS[modality]].to_numpy("float64")
    confusion = metrics.compute_confusion(positive, probability >= threshold, sample.weights, 2)
    reason = sample.explain_undefined(_NEEDS[modality])
    return HeadMetrics(
        cases=sample.count(),
        positives=sample.where(positive).count(),
        threshold=float(sample.thresholds[modality]),
        auroc=summarise(sample.aurocs(PROBABILITY_COLUMNS[modality]), reason),
        f1=summarise(metrics.compute_f1(confusion), reason),
        sensitivity=summarise(metrics.compute_sensitivity(confusion), reason),
        specificity=summarise(metrics.compute_specificity(confusion), reason),
    )


def _compute_fusion_gain(sample: _Sample) -> FusionGain:
    """On the cases with photo and text, with the same resamples for both heads."""
    both = sample.of_head("image").of_head("text")
    aurocs = {modality: both.aurocs(column) for modality, column in PROBABILITY_COLUMNS.items()}
    better = None
    if np.isfinite(aurocs["fusion"][0]):
        better = max(MODALITIES, key=lambda modality: aurocs[modality][0])
    reason = both.explain_undefined("both a photo and a text")
    gain = summarise(aurocs["fusion"] - aurocs[better or "image"], reason)
    known = gain.model_dump(exclude_unset=True)
    return FusionGain.model_validate({"over": better, "cases": both.count(), **known})


def _compute_bayes_auroc(sample: _Sample, modality: str) -> float | None:
    """AUROC of the exact posterior on the head's cases; None where it is undefined."""
    column, sample = POSTERIOR_COLUMNS[modality], sample.of_head(modality)
    known = sample.where(sample.cases[column].notna().to_numpy(bool))
    auroc = float(replace(known, weights=known.weights[:1]).aurocs(column)[0])
    return auroc if np.isfinite(auroc) else None


def _judge_consistency(sample: _Sample) -> ConsistencyMetrics:
    confusion, reason = _confuse(sample, "consistency", CONSISTENCY)
    return ConsistencyMetrics(
        cases=int(confusion[0].sum()),
        macro_f1=summarise(metrics.compute_macro_f1(confusion), reason),
        accuracy=summarise(metrics.compute_accuracy(confusion), reason),
        confusion=_count_confusion(confusion, CONSISTENCY),
    )


def _judge_severity(sample: _Sample) -> SeverityMetrics:
    """On cases of eczema: its severity is what is learned and shown."""
    sample = sample.where(sample.positive() | sample.cases["eczema"].isna().to_numpy(bool))
    return SeverityMetrics.model_validate(
        {
            **_judge_grades(sample, "fusion"),
            "alone": {modality: _judge_grades(sample, modality) for modality in MODALITIES},
        }
    )


def _judge_grades(sample: _Sample, modality: str) -> dict[str, object]:
    """The fields of `GradeMetrics`."""
    predicted = f"{SEVERITY_HEADS[modality]}_predicted"
    confusion, reason = _confuse(sample, "severity", SEVERITY, predicted)
    found: dict[str, object] = {
        "cases": int(confusion[0].sum()),
        "kappa": summarise(metrics.compute_quadratic_kappa(confusion), reason),
        "mae": summarise(metrics.compute_grade_error(confusion), reason),
        "confusion": _count_confusion(confusion, SEVERITY),
    }
    expected = GRADE_COLUMNS[modality]
    if expected in sample.cases:
        graded = sample.cases[["severity", predicted]].isin(SEVERITY).all(axis=1)
        known = sample.cases[graded & sample.cases[expected].notna()]
        grades = known["severity"].map(SEVERITY.index).to_numpy(int)
        limit = metrics.compute_best_kappa(known[expected].to_numpy(), grades)
        found["best_kappa"] = limit if np.isfinite(limit) else None
    return found


def _confuse(
    sample: _Sample, name: str, labels: tuple[str, ...], predicted_column: str = ""
) -> tuple[np.ndarray, str]:
    """Confusion matrices (1 + replicates, labels, labels), and why metrics may be undefined."""
    columns = (name, predicted_column or f"{name}_predicted")
    known = np.all([sample.cases[column].isin(labels) for column in columns], axis=0)
    sample = sample.where(known)
    label, predicted = (sample.cases[column].map(labels.index).to_numpy(int) for column in columns)
    reason = f"no case has a {name} label and a prediction"
    if len(label):
        reason = f"all {len(label)} cases are labelled {labels[label[0]]!r}"
    return metrics.compute_confusion(label, predicted, sample.weights, len(labels)), reason


def _count_confusion(confusion: np.ndarray, labels: tuple[str, ...]) -> Confusion:
    counts = confusion[0].astype(int).tolist()
    return Confusion(labels=list(labels), rows="true", counts=counts)
