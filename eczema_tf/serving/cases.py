"""Rows of a signature to cases: several photos of one case are answered as `evaluate` scores them.

A signature takes one photo a row. Of a case with several, each is asked about with the same text,
and the answers are pooled here: for the server, for `predict` (also of TensorFlow Serving), for
`explain`, the page and `score`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import logit

from eczema_tf.evaluation.predictions import (
    BOUNDS,
    CONSISTENCY_LOGITS,
    FLAGS,
    PROBABILITY_COLUMNS,
    SEVERITY_LOGITS,
    average_rows_by_case,
)
from eczema_tf.evaluation.thresholds import choose_kind
from eczema_tf.model.pooling import find_speaking_rows
from eczema_tf.reporting.answer import Answer, read_answer
from eczema_tf.schema import CONSISTENCY, ECZEMA_HEADS, MODALITIES, NOTICE, SEVERITY, STATUS_OK

Outputs = Mapping[str, np.ndarray]  # of a signature, by name; the first axis is the row
# Probabilities between which a case is undecided, by kind of case as in `Thresholds`.
Undecided = Mapping[str, tuple[float, float]]


class Said(NamedTuple):
    """What is said of a model beside its graph; not by TensorFlow Serving, which has that alone.

    Attributes:
        thresholds: As in `serving.exported.ExportMetadata`, and so are the others.
        undecided: Likewise.
        notice: Likewise.
        clinical: Likewise, but empty for a model that is told no fields, and None where it is not
            known whether it is.
        uses: Likewise, but both where it is not known.
    """

    thresholds: dict[str, float] | None = None
    undecided: Undecided | None = None
    notice: str = NOTICE
    clinical: Mapping[str, Sequence[str]] | None = None
    uses: Sequence[str] = MODALITIES


LEFT_OUT = "left out, since it is unlike all that the model was trained on, and another is not"
OF_ALL_ROWS = re.compile("; (?=text: |clinical: )")  # what is said of a case's rows alike
SMALLEST = 2.0**-24  # float32 knows nothing between 1 less this and 1, log-odds of 17
# What a row's decision tells of log-odds between which it would be undecided. Averaged, all lie
# beyond them where all rows are decided alike, and else none: so the photos must agree.
IMPLIED = {
    b"not eczema": (100.0, np.inf),
    b"cannot tell": (-np.inf, np.inf),
    b"eczema": (-np.inf, -100.0),
}
OF_PHOTOS = {"heatmap", "heatmap_scale"}  # of an explanation, each photo's own
SHARED = {"contribution", "token_score"}  # of an explanation, averaged like what they explain


def read_case(outputs: Outputs, said: Said, photos: int) -> Answer:
    """Reads the rows of one case.

    Args:
        outputs: Of a signature.
        said: Of the model.
        photos: How many were given.
    """
    first = pool_rows(outputs, [""] * len(outputs["status"]), said.undecided)
    return read_answer(plain_row(first), said.thresholds, said.notice, photos=photos)


def plain_row(outputs: Outputs, row: int = 0) -> dict[str, Any]:
    """Returns one row of a signature's outputs as plain Python values, as JSON would hold it."""
    values = ((name, column[row]) for name, column in outputs.items())
    return {
        name: value.decode() if isinstance(value, bytes) else value.tolist()
        for name, value in values
    }


def pool_rows(
    outputs: Outputs, cases: Sequence[object], undecided: Undecided | None
) -> dict[str, np.ndarray]:
    """Averages the evidence of the rows of each case; the answer to a single row stays as it is.

    Args:
        outputs: Of a signature, whether it explains or not.
        cases: As many as rows, equal for those of one case.
        undecided: From the export's metadata; None if they are not known. Then a case is decided
            only if all its rows that speak for it are, and agree.

    Returns:
        The same outputs, a row for each case, in order of first appearance; all but `OF_PHOTOS`. In
        `status`, what is said of a photo has its number.
    """
    case, _ = pd.factorize(np.asarray(cases))  # (rows,)
    _, first, counts = np.unique(case, return_index=True, return_counts=True)
    answers = {name: values[first] for name, values in outputs.items() if name not in OF_PHOTOS}
    if not (several := counts > 1).any():
        return answers
    rows = several[case]
    pooled = _pool_several(
        {name: values[rows] for name, values in outputs.items()}, case[rows], undecided
    )
    for name, values in pooled.items():  # NaN where no row has what a figure is of
        answers[name][several] = np.where(pd.isna(values), answers[name][several], values)
    return answers


def _pool_several(
    outputs: Outputs, cases: np.ndarray, undecided: Undecided | None
) -> dict[str, np.ndarray]:
    """What of the answers differs from that of a case's first row, for cases in ascending order."""
    pooled = average_rows_by_case(tabulate_evidence(outputs, cases, undecided))
    found = {
        head: pooled[PROBABILITY_COLUMNS[name]].to_numpy() for name, head in ECZEMA_HEADS.items()
    }
    for name, labels in (("consistency", CONSISTENCY), ("severity", SEVERITY)):
        found[name] = pooled[[f"{name}_{label}" for label in labels]].to_numpy()
    found |= {flag: pooled[flag].to_numpy() for flag in FLAGS}
    found["decision"] = np.array([one.encode() for one in pooled["decision"]], object)
    used, known = (
        {modality: outputs[flag.format(modality)] for modality in MODALITIES}
        for flag in ("{}_used", "known_{}")
    )
    speaks = find_speaking_rows(cases, used, known)
    silenced = used["image"] & ~speaks["image"]
    order, counts = np.argsort(cases, kind="stable"), pooled["rows"]
    by_case = np.split(order, np.cumsum(counts)[:-1])  # which rows
    told = [join_row_statuses([*outputs["status"][own]], [*silenced[own]]) for own in by_case]
    found["status"] = np.array(told, object)
    for name in SHARED & outputs.keys():
        speakers = [own[speaks["fusion"][own]] for own in by_case]
        found[name] = np.stack([outputs[name][own].mean(axis=0) for own in speakers])
    return found


def tabulate_evidence(
    outputs: Outputs, cases: np.ndarray, undecided: Undecided | None
) -> pd.DataFrame:
    """Takes probabilities back to the log-odds that `average_rows_by_case` averages."""
    rows = {"case_id": cases, "group_id": cases, **{flag: outputs[flag] for flag in FLAGS}}
    severity = np.asarray(outputs["severity"], "float64")  # (rows, grades)
    worse = severity[:, ::-1].cumsum(axis=1)[:, -2::-1]  # (rows, grades - 1)
    rows |= {f"{head}_logit": _to_log_odds(outputs[head]) for head in ECZEMA_HEADS.values()}
    shares = np.log(np.clip(outputs["consistency"], SMALLEST, 1))
    rows |= dict(zip(CONSISTENCY_LOGITS, shares.T, strict=True))
    for head, columns in SEVERITY_LOGITS.items():  # a signature gives the joint one alone
        grades = _to_log_odds(worse) if head == "severity" else np.full_like(worse, np.nan)
        rows |= dict(zip(columns, grades.T, strict=True))
    if undecided is None:
        bounds = np.array([IMPLIED[said] for said in outputs["decision"]])
    else:
        used = zip(outputs["image_used"], outputs["text_used"], strict=True)
        bounds = logit(np.array([undecided[choose_kind(*one)] for one in used], "float64"))
    return pd.DataFrame(rows | dict(zip(BOUNDS, bounds.T, strict=True)))


def join_row_statuses(statuses: Sequence[bytes], silenced: Sequence[bool]) -> bytes:
    """Joins what is said of a case's rows: of photos and rows by their number, the rest once."""
    photos, others = [], []
    for number, (status, left_out) in enumerate(zip(statuses, silenced, strict=True), 1):
        photo, *of_all = OF_ALL_ROWS.split(f"; {status.decode()}", maxsplit=1)
        others += of_all
        if photo.startswith("; photo: "):
            photos.append(f"photo {number}: {photo.removeprefix('; photo: ')}")
        elif photo.startswith("; row: "):
            photos.append(f"row {number}: {photo.removeprefix('; row: ')}")
        elif left_out:
            photos.append(f"photo {number}: {LEFT_OUT}")
    if photos or others:
        return "; ".join([*photos, *dict.fromkeys(others)]).encode()
    return STATUS_OK.encode() if STATUS_OK.encode() in statuses else statuses[0]


def _to_log_odds(probabilities: np.ndarray) -> np.ndarray:
    return logit(np.clip(np.asarray(probabilities, "float64"), SMALLEST, 1 - SMALLEST))
