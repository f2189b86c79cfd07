"""All metrics of a set of cases, as they are in `metrics.json`."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from eczema_tf.evaluation import metrics
from eczema_tf.evaluation.abstention import judge_abstention
from eczema_tf.evaluation.calibration import judge_calibration
from eczema_tf.evaluation.decisions import judge_net_benefit, judge_points
from eczema_tf.evaluation.intervals import LEVEL, Difference, estimate_f1
from eczema_tf.evaluation.metadata import judge_metadata
from eczema_tf.evaluation.predictions import PROBABILITY_COLUMNS
from eczema_tf.evaluation.records import (
    Bootstrap,
    Confusion,
    ConsistencyMetrics,
    FusionGain,
    HeadMetrics,
    Leaks,
    Metrics,
    SeverityMetrics,
    TextCounts,
)
from eczema_tf.evaluation.sample import Sample
from eczema_tf.evaluation.stress import StressedCases, judge_stress
from eczema_tf.evaluation.subgroups import judge_subgroups
from eczema_tf.schema import (
    CONSISTENCY,
    ECZEMA,
    ECZEMA_HEADS,
    GRADE_COLUMNS,
    MODALITIES,
    MOSTLY_UNKNOWN,
    NEW_WORDINGS,
    POSTERIOR_COLUMNS,
    READ_TO,
    SEVERITY,
    SEVERITY_HEADS,
    WORDINGS,
)

# of the exact posterior: the label is the other way with a chance of at least one in five
KNOWN_AMBIGUOUS = (0.2, 0.8)
GUESSED_AMBIGUOUS = (0.25, 0.75)  # of the model's own probability, if the posterior is not known
YOUDEN = "Youden"  # what `thresholds` were chosen for: the highest sensitivity + specificity
_NEEDS = {"image": "a photo", "text": "a text", "fusion": "a prediction"}


def compute_metrics(
    cases: pd.DataFrame,
    thresholds: Mapping[str, float],
    *,
    label_threshold: float,
    replicates: int,
    seed: int,
    points: Mapping[str, Mapping[str, float]] | None = None,
    prevalences: Sequence[float] = (),
    split: str = "test",
    leaks: Leaks | None = None,
    positive_class: str = ECZEMA,
    clinical: Collection[str] = (),
    soft_labels: bool = True,
    stressed: Mapping[str, StressedCases] | None = None,
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
        seed: Seed of the bootstrap.
        points: Further operating points: by aim, thresholds for each kind of case.
        prevalences: Prevalences, besides that of the cases, at which to give predictive values, in
            (0, 1).
        split: What the cases are, for the record.
        leaks: For the record; None if they were not looked for.
        positive_class: What positive cases are called.
        clinical: Fields that fusion uses besides photo and text.
        soft_labels: Whether probabilities are to match the labels themselves, which may be shares
            of votes, and not whether a case is positive.
        stressed: By name, cases that were changed; None for none.
    """
    sample = Sample.draw(
        cases, thresholds, label_threshold, soft_labels, replicates=replicates, seed=seed
    )
    found = {
        "split": split,
        "positive_class": positive_class,
        **_judge_heads(sample),
        "heads": {modality: _judge_probabilities(sample, modality) for modality in ECZEMA_HEADS},
        "operating_points": judge_points(
            sample, {YOUDEN: thresholds, **(points or {})}, prevalences
        ),
        "subsets": {
            name: {"defined_by": defined_by, **_judge_heads(sample.where(mask))}
            for name, (defined_by, mask) in find_subsets(sample.cases).items()
        },
        "consistency": _judge_consistency(sample),
        "severity": _judge_severity(sample),
        "label_threshold": label_threshold,
        "soft_labels": soft_labels,
        "bootstrap": _describe_sampling(sample, replicates, seed),
        **_judge_what_is_there(sample, stressed or {}),
    }
    told = {"leaks": leaks, "clinical": list(clinical)}
    return Metrics.model_validate(found | {name: one for name, one in told.items() if one})


def _judge_what_is_there(
    sample: Sample, stressed: Mapping[str, StressedCases]
) -> dict[str, object]:
    """Computes the fields of `Metrics` that not all cases allow for."""
    found: dict[str, object] = {
        "wordings": {
            name: {"defined_by": f"{name} wordings", **_judge_heads(sample.where(mask))}
            for name, mask in find_wordings(sample.cases).items()
        },
        "abstention": judge_abstention(sample),
        "subgroups": judge_subgroups(sample),
        "metadata": judge_metadata(sample),
        "stress_tests": {name: judge_stress(cases, sample) for name, cases in stressed.items()},
    }
    if "text_notice" in sample.cases:
        found["texts"] = _count_texts(sample.cases.drop_duplicates("case_id"))
    return {name: value for name, value in found.items() if value}


def _describe_sampling(sample: Sample, replicates: int, seed: int) -> Bootstrap:
    groups, inflation = sample.sampling.count(), sample.sampling.inflation
    widened = {"widened": inflation**0.5} if inflation > 1 else {}
    return Bootstrap(replicates=replicates, groups=groups, seed=seed, level=LEVEL, **widened)


def _count_texts(cases: pd.DataFrame) -> TextCounts:
    cut, unknown = (
        int(cases["text_notice"].str.contains(notice, regex=False).sum())
        for notice in (READ_TO, MOSTLY_UNKNOWN)
    )
    return TextCounts(texts=int(cases["text_used"].sum()), cut=cut, unknown=unknown)


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

    Empty unless there are both. In a cross-validation none is new: the folds have learned from all.
    """
    wordings = cases[WORDINGS] if WORDINGS in cases else pd.Series("", cases.index)
    masks = {name: (wordings == name).to_numpy(bool) for name in ("known", NEW_WORDINGS)}
    both = all(mask.any() for mask in masks.values())
    return masks if both and "fold" not in cases else {}


def _judge_heads(sample: Sample) -> dict[str, object]:
    """Computes the fields that `Metrics` and `Subset` share."""
    known = {
        modality: _compare_with_posterior(sample, modality)
        for modality, column in POSTERIOR_COLUMNS.items()
        if column in sample.cases
    }
    limits = {
        "bayes_auroc": {modality: limit for modality, (limit, _) in known.items()},
        "bayes_gap": {modality: gap for modality, (_, gap) in known.items()},
    }
    return {
        "cases": sample.count(),
        "labelled": sample.where(sample.cases["eczema"].notna().to_numpy(bool)).count(),
        "heads": {modality: _judge_head(sample, modality) for modality in ECZEMA_HEADS},
        "fusion_gain": _compute_fusion_gain(sample),
        **(limits if known else {}),
    }


def _judge_head(sample: Sample, modality: str) -> HeadMetrics:
    sample = sample.of_head(modality)
    positive, called = sample.positive(), sample.called(modality)
    reason = sample.explain_undefined(_NEEDS[modality])
    return HeadMetrics(
        cases=sample.count(),
        positives=sample.where(positive).count(),
        threshold=float(sample.thresholds[modality]),
        auroc=sample.estimate_auroc(sample.measure_auroc(modality), reason),
        f1=estimate_f1(positive, called, sample.sampling, reason),
        sensitivity=sample.estimate_share(called, reason, where=positive),
        specificity=sample.estimate_share(~called, reason, where=~positive),
    )


def _judge_probabilities(sample: Sample, modality: str) -> HeadMetrics:
    """Judges all of a head: also whether its probabilities are right, and how useful they are."""
    head, sample = _judge_head(sample, modality), sample.of_head(modality)
    reason = sample.explain_undefined(_NEEDS[modality])
    probability, sampling = sample.probability(modality), sample.sampling
    labels, positive = sample.labels(), sample.positive()
    benefit = judge_net_benefit(probability, positive, sampling, reason)
    calibration = judge_calibration(probability, labels, positive, sampling, reason)
    return head.model_copy(update={"net_benefit": benefit, "calibration": calibration})


def _compute_fusion_gain(sample: Sample) -> FusionGain:
    """Computes the gain on the cases with photo and text, paired."""
    both = sample.of_head("image").of_head("text")
    aurocs = {modality: both.measure_auroc(modality) for modality in ECZEMA_HEADS}
    better = max(MODALITIES, key=lambda modality: aurocs[modality].value)
    gain = both.estimate_auroc_difference(
        aurocs["fusion"], aurocs[better], both.explain_undefined("both a photo and a text")
    )
    return FusionGain(
        over=None if gain.value is None else better,
        cases=both.count(),
        **gain.model_dump(exclude_unset=True),
    )


def _compare_with_posterior(sample: Sample, modality: str) -> tuple[float | None, Difference]:
    """Returns the exact posterior's AUROC on the head's cases, and how far the head is below it."""
    column, sample = POSTERIOR_COLUMNS[modality], sample.of_head(modality)
    known = sample.where(sample.cases[column].notna().to_numpy(bool))
    limit, auroc = known.measure_auroc(column), known.measure_auroc(modality)
    gap = known.estimate_auroc_difference(limit, auroc, known.explain_undefined(_NEEDS[modality]))
    return None if np.isnan(limit.value) else limit.value, gap


def _judge_consistency(sample: Sample) -> ConsistencyMetrics:
    confusion, counted, reason = _confuse(sample, "consistency", CONSISTENCY)
    label, predicted = sample.cases["consistency"], sample.cases["consistency_predicted"]
    known = (label.isin(CONSISTENCY) & predicted.isin(CONSISTENCY)).to_numpy(bool)
    right = (label == predicted).to_numpy(bool)
    return ConsistencyMetrics(
        cases=counted.count(),
        macro_f1=counted.summarise(metrics.compute_macro_f1(confusion), reason, bounds=(0, 1)),
        accuracy=sample.estimate_share(right, reason, where=known),
        confusion=_count_confusion(confusion, counted, CONSISTENCY),
    )


def _judge_severity(sample: Sample) -> SeverityMetrics:
    """Judges severity on cases of eczema: only theirs is learned and shown."""
    sample = sample.where(sample.positive() | sample.cases["eczema"].isna().to_numpy(bool))
    alone = {modality: _judge_grades(sample, modality) for modality in MODALITIES}
    return SeverityMetrics.model_validate({**_judge_grades(sample, "fusion"), "alone": alone})


def _judge_grades(sample: Sample, modality: str) -> dict[str, object]:
    """Computes the fields of `GradeMetrics`."""
    predicted = f"{SEVERITY_HEADS[modality]}_predicted"
    confusion, counted, reason = _confuse(sample, "severity", SEVERITY, predicted)
    kappa, mae = metrics.compute_quadratic_kappa(confusion), metrics.compute_grade_error(confusion)
    found: dict[str, object] = {
        "cases": counted.count(),
        "kappa": counted.summarise(kappa, reason, bounds=(-1, 1)),
        "mae": counted.summarise(mae, reason, bounds=(0, 2)),
        "confusion": _count_confusion(confusion, counted, SEVERITY),
    }
    if (expected := GRADE_COLUMNS[modality]) in sample.cases:
        graded = sample.cases[["severity", predicted]].isin(SEVERITY).all(axis=1)
        known = sample.cases[graded & sample.cases[expected].notna()]
        grades = known["severity"].map(SEVERITY.index).to_numpy(int)
        limit = metrics.compute_best_kappa(known[expected].to_numpy(), grades)
        found["best_kappa"] = limit if np.isfinite(limit) else None
    return found


def _confuse(
    sample: Sample, name: str, labels: tuple[str, ...], predicted_column: str = ""
) -> tuple[np.ndarray, Sample, str]:
    """Returns confusion matrices (1 + replicates, labels, labels) and their cases.

    The last value says why a metric of these may be undefined.
    """
    columns = (name, predicted_column or f"{name}_predicted")
    known = np.all([sample.cases[column].isin(labels) for column in columns], axis=0)
    sample = sample.where(known)
    label, predicted = (sample.cases[column].map(labels.index).to_numpy(int) for column in columns)
    reason = f"no case to judge has a {name} label and a prediction"
    if len(label):
        reason = f"all {len(label)} cases are labelled {labels[label[0]]!r}"
    confusion = metrics.compute_confusion(label, predicted, sample.weights, len(labels))
    return confusion, sample, reason


def _count_confusion(confusion: np.ndarray, sample: Sample, labels: tuple[str, ...]) -> Confusion:
    """Counts cases; over repeats of a cross-validation, takes the mean."""
    counts = np.rint(confusion[0] * sample.count() / max(len(sample.cases), 1))
    return Confusion(labels=[*labels], rows="true", counts=counts.astype(int).tolist())
