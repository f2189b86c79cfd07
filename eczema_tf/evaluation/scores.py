"""All figures of a set of scored cases, as they stand in `metrics.json`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from eczema_tf.evaluation import metrics
from eczema_tf.evaluation.intervals import LEVEL, Estimate, draw_weights, summarise
from eczema_tf.evaluation.predictions import PROBABILITY_COLUMNS, identify_models, is_scored
from eczema_tf.schema import CONSISTENCY, ECZEMA_HEADS, MODALITIES, POSTERIOR_COLUMNS, SEVERITY

KNOWN_AMBIGUOUS = (
    0.2,
    0.8,
)  # of the exact posterior: the truth is at least one in five to be the other way
GUESSED_AMBIGUOUS = (0.25, 0.75)  # of the model's own probability, where the posterior is not known
_CONSISTENCY_FIGURES = {"macro_f1": metrics.compute_macro_f1, "accuracy": metrics.compute_accuracy}
_SEVERITY_FIGURES = {"kappa": metrics.compute_quadratic_kappa, "mae": metrics.compute_grade_error}
_THINGS = {"image": "a photo", "text": "a text", "fusion": "a prediction"}


def compute_metrics(
    cases: pd.DataFrame,
    thresholds: Mapping[str, float],
    *,
    label_threshold: float = 0.5,
    replicates: int = 1000,
    seed: int = 0,
    split: str = "test",
) -> dict[str, Any]:
    """Computes all figures with their 95 % intervals.

    The photo head is scored on cases with a photo, the text head on cases with a text, fusion on
    all; each on labelled cases only.

    Args:
        cases: From `average_rows_by_case`.
        thresholds: By "image", "text" and "fusion"; a probability at or above its threshold is
            called eczema.
        label_threshold: A case is positive when its `eczema` label is greater than this.
        replicates: Resamples of the bootstrap.
        seed: Of the bootstrap.
        split: What the cases are, for the record.

    Returns:
        The contents of `metrics.json`. Every figure with an interval is `{"value", "low", "high"}`;
        what is undefined is None, with a `reason` beside it.
    """
    scored = _Scored(
        cases.reset_index(drop=True),
        draw_weights(cases["group_id"], replicates, seed),
        dict(thresholds),
        label_threshold,
    )
    return {
        "split": split,
        **_score(scored),
        "subsets": {
            name: {"defined_by": defined_by, **_score(scored.where(mask))}
            for name, (defined_by, mask) in find_subsets(scored.cases).items()
        },
        "consistency": _score_labels(scored, "consistency", CONSISTENCY, _CONSISTENCY_FIGURES),
        "severity": _score_labels(scored, "severity", SEVERITY, _SEVERITY_FIGURES),
        "positive_above": label_threshold,
        "bootstrap": {
            "replicates": replicates,
            "groups": int(cases["group_id"].nunique()),
            "seed": seed,
            "level": LEVEL,
        },
    }


def find_subsets(cases: pd.DataFrame) -> dict[str, tuple[str, np.ndarray]]:
    """Finds the cases where fusion has most, or nothing, to do.

    Args:
        cases: From `average_rows_by_case`.

    Returns:
        By name: what defines the subset, and which cases are in it, bool (cases,).
    """
    image, text = (cases[f"{modality}_used"].to_numpy(bool) for modality in MODALITIES)
    return {
        "image_ambiguous": _find_ambiguous(cases, "image"),
        "text_ambiguous": _find_ambiguous(cases, "text"),
        "image_missing": ("no photo", ~image),
        "text_missing": ("no text", ~text),
        "both_present": ("photo and text", image & text),
    }


def _find_ambiguous(cases: pd.DataFrame, modality: str) -> tuple[str, np.ndarray]:
    column = POSTERIOR_COLUMNS[modality]
    known = column in cases and bool(cases[column].notna().any())
    defined_by, (low, high) = (
        ("known posterior", KNOWN_AMBIGUOUS) if known else ("model probability", GUESSED_AMBIGUOUS)
    )
    probability = cases[column if known else PROBABILITY_COLUMNS[modality]]
    return defined_by, (probability.between(low, high) & cases[f"{modality}_used"]).to_numpy(bool)


@dataclass(frozen=True)
class _Scored:
    """Cases and their weights: row 0 the sample, the other rows the resamples."""

    cases: pd.DataFrame
    weights: np.ndarray  # (1 + replicates, cases)
    thresholds: dict[str, float]
    label_threshold: float

    def where(self, mask: np.ndarray) -> "_Scored":
        return replace(
            self, cases=self.cases[mask].reset_index(drop=True), weights=self.weights[:, mask]
        )

    def of_head(self, modality: str) -> "_Scored":
        return self.where(is_scored(self.cases, modality))

    def count(self) -> int:
        """How many cases; one that was scored in several repeats of a cross-validation counts once."""
        return self.cases["case_id"].nunique()

    def positive(self) -> np.ndarray:
        return (self.cases["eczema"] > self.label_threshold).to_numpy(bool)

    def aurocs(self, column: str) -> np.ndarray:
        return metrics.compute_auroc(
            self.cases[column].to_numpy("float64"),
            self.positive(),
            self.weights,
            identify_models(self.cases),
        )


def _score(scored: _Scored) -> dict[str, Any]:
    figures = {
        "cases": scored.count(),
        "labelled": scored.where(scored.cases["eczema"].notna().to_numpy(bool)).count(),
        "heads": {modality: _score_head(scored, modality) for modality in ECZEMA_HEADS},
        "fusion_gain": _score_fusion_gain(scored),
    }
    limits = {
        modality: _score_limit(scored, modality)
        for modality, column in POSTERIOR_COLUMNS.items()
        if column in scored.cases
    }
    return {**figures, "limit": limits} if limits else figures


def _score_head(scored: _Scored, modality: str) -> dict[str, Any]:
    scored = scored.of_head(modality)
    positive, threshold = scored.positive(), float(scored.thresholds[modality])
    probability = scored.cases[PROBABILITY_COLUMNS[modality]].to_numpy("float64")
    confusion = metrics.compute_confusion(positive, probability >= threshold, scored.weights, 2)
    reason = _explain_undefined(positive, _THINGS[modality])
    return {
        "cases": scored.count(),
        "positives": scored.where(positive).count(),
        "threshold": threshold,
        "auroc": summarise(scored.aurocs(PROBABILITY_COLUMNS[modality]), reason),
        "f1": summarise(metrics.compute_f1(confusion), reason),
        "sensitivity": summarise(metrics.compute_sensitivity(confusion), reason),
        "specificity": summarise(metrics.compute_specificity(confusion), reason),
    }


def _score_fusion_gain(scored: _Scored) -> dict[str, Any]:
    """AUROC of fusion minus that of the better single head, on the cases with photo and text, with the same resamples for both."""
    both = scored.of_head("image").of_head("text")
    aurocs = {modality: both.aurocs(column) for modality, column in PROBABILITY_COLUMNS.items()}
    reason = _explain_undefined(both.positive(), "both a photo and a text")
    better = (
        max(MODALITIES, key=lambda modality: aurocs[modality][0])
        if np.isfinite(aurocs["fusion"][0])
        else None
    )
    gain: Estimate = summarise(aurocs["fusion"] - aurocs[better or "image"], reason)
    return {"over": better, "cases": both.count(), **gain}


def _score_limit(scored: _Scored, modality: str) -> float | None:
    """AUROC of the exact posterior on the head's cases: what no model can pass, but for chance; None where it is undefined."""
    column = POSTERIOR_COLUMNS[modality]
    scored = scored.of_head(modality)
    known = scored.where(scored.cases[column].notna().to_numpy(bool))
    auroc = float(replace(known, weights=known.weights[:1]).aurocs(column)[0])
    return auroc if np.isfinite(auroc) else None


def _score_labels(
    scored: _Scored, name: str, labels: tuple[str, ...], figures: Mapping[str, Callable]
) -> dict[str, Any]:
    confusion, reason = _confuse(scored, name, labels)
    return {
        "cases": int(confusion[0].sum()),
        **{figure: summarise(compute(confusion), reason) for figure, compute in figures.items()},
        "confusion": {
            "labels": list(labels),
            "rows": "true",
            "counts": confusion[0].astype(int).tolist(),
        },
    }


def _confuse(scored: _Scored, name: str, labels: tuple[str, ...]) -> tuple[np.ndarray, str]:
    """Confusion matrices (1 + replicates, labels, labels) of the cases with a label and a prediction; why figures may be undefined."""
    places = {label: place for place, label in enumerate(labels)}
    scored = scored.where(
        (scored.cases[name].isin(labels) & scored.cases[f"{name}_predicted"].isin(labels)).to_numpy(
            bool
        )
    )
    truth, predicted = (
        scored.cases[column].map(places).to_numpy(int) for column in (name, f"{name}_predicted")
    )
    reason = (
        f"all {len(truth)} cases are labelled {labels[truth[0]]!r}"
        if len(truth)
        else f"no case has a {name} label and a prediction"
    )
    return metrics.compute_confusion(truth, predicted, scored.weights, len(labels)), reason


def _explain_undefined(positive: np.ndarray, thing: str) -> str:
    if not len(positive):
        return f"no labelled case has {thing}"
    return f"one class only: {positive.sum()} of the {len(positive)} labelled cases are eczema"
