"""How well labels can be predicted from metadata alone, without photo and text."""

from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eczema_tf.evaluation.intervals import (
    MIN_GROUPS,
    Difference,
    Estimate,
    Sampling,
    inflate_for_training,
)
from eczema_tf.evaluation.metrics import measure_auroc
from eczema_tf.evaluation.sample import Sample
from eczema_tf.files import Record

FOLDS = 5
METADATA_COLUMNS = (
    "skin_tone",
    "monk_skin_tone",
    "age_group",
    "sex",
    "source",
    "image_used",
    "text_used",
    "photos",
    "text_words",
)


class MetadataBaseline(Record):
    """A logistic regression on `columns` alone, cross-validated on the cases that are judged.

    `fusion_gain` is the AUROC of fusion minus its own, paired.
    """

    columns: list[str]
    cases: int
    auroc: Estimate
    fusion_gain: Difference


def judge_metadata(sample: Sample) -> MetadataBaseline | None:
    """Judges the baseline; None if nothing differs between cases, or a class has too few."""
    sample = sample.of_head("fusion")
    sample = sample.where(~sample.cases.duplicated("case_id").to_numpy(bool))
    positive = sample.positive()
    if sample.count_rarer_class() < MIN_GROUPS:
        return None
    given = sample.cases[[name for name in METADATA_COLUMNS if name in sample.cases]]
    columns = list(given.columns[(given != given.iloc[0]).any()])
    if not columns:
        return None
    known = pd.get_dummies(given[columns]).to_numpy("float64")  # (cases, values)
    groups, fold = sample.sampling.groups, np.zeros(len(positive), int)
    parts = list(StratifiedGroupKFold(FOLDS).split(known, positive, groups))
    for number, (_, left) in enumerate(parts):
        fold[left] = number
    model = make_pipeline(StandardScaler(), LogisticRegression())
    scores = cross_val_predict(model, known, positive, cv=parts, method="decision_function")
    auroc, fusion = measure_auroc(scores, positive, fold), sample.measure_auroc("fusion")
    widened = replace(sample, sampling=Sampling(groups, inflate_for_training(FOLDS)))
    return MetadataBaseline(
        columns=columns,
        cases=sample.count(),
        auroc=widened.estimate_auroc(auroc, "one class only"),
        fusion_gain=widened.estimate_auroc_difference(fusion, auroc, "one class only"),
    )
