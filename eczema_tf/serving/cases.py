"""From a signature's rows to cases: a case's photos are answered as `evaluate` scores them.

A signature takes one photo per row. If a case has several, the model is asked about each with the
same text, and the answers are pooled here. The server, `predict` (also from TensorFlow Serving),
`explain`, the page and `score` all use this.
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
    """What is known about a model besides its graph; TensorFlow Serving has only the graph.

    Attributes:
        thresholds: As in `serving.exported.ExportMetadata`, like all others.
        undecided: As there.
        notice: As there.
        clinical: As there, but empty for a model that takes no fields, and None if it is not known
            whether the model takes any.
        uses: As there, but both modalities if it is not known.
    """

    thresholds: dict[str, float] | None = None
    undecided: Undecided | None = None
    notice: str = NOTICE
    clinical: Mapping[str, Sequence[str]] | None = None
    uses: Sequence[str] = MODALITIES


LEFT_OUT = (
    "left out, since it is unlike anything the model was trained on, and another photo is not"
)
OF_ALL_ROWS = re.compile("; (?=text: |clinical: )")  # before remarks that are on all rows of a case
SMALLEST = 2.0**-24  # float32 has no value between 1 minus this and 1; log-odds of 17
# Bounds of the undecided log-odds that a row's decision implies. Averaged over a case, they leave
# the log-odds outside if all rows are decided alike, and inside otherwise: the photos must agree.
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
    """Returns one row of a signature's outputs as plain Python values, as JSON would have it."""
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
        cases: One for each row, equal for the rows of one case.
        undecided: From the export's metadata; None if they are not known. Then a case is decided
            only if all its rows that count are decided, and agree.

    Returns:
        The same outputs except `OF_PHOTOS`, one row for each case, in order of first appearance. In
        `status`, remarks on a photo have its number.
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
    for name, values in pooled.items():  # NaN where no row has the input that a value is about
        answers[name][several] = np.where(pd.isna(values), answers[name][several], values)
    return answers


def _pool_several(
    outputs: Outputs, cases: np.ndarray, undecided: Undecided | None
) -> dict[str, np.ndarray]:
    """Computes the outputs that differ from those of a case's first row, by ascending case."""
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
    """Converts probabilities back to the log-odds that `average_rows_by_case` averages."""
    rows = {"case_id": cases, "group_id": cases, **{flag: outputs[flag] for flag in FLAGS}}
    severity = np.asarray(outputs["severity"], "float64")  # (rows, grades)
    worse = severity[:, ::-1].cumsum(axis=1)[:, -2::-1]  # (rows, grades - 1)
    rows |= {f"{head}_logit": _to_log_odds(outputs[head]) for head in ECZEMA_HEADS.values()}
    shares = np.log(np.clip(outputs["consistency"], SMALLEST, 1))
    rows |= dict(zip(CONSISTENCY_LOGITS, shares.T, strict=True))
    for head, columns in SEVERITY_LOGITS.items():  # a signature returns only the joint one
        grades = _to_log_odds(worse) if head == "severity" else np.full_like(worse, np.nan)
        rows |= dict(zip(columns, grades.T, strict=True))
    if undecided is None:
        bounds = np.array([IMPLIED[said] for said in outputs["decision"]])
    else:
        used = zip(outputs["image_used"], outputs["text_used"], strict=True)
        bounds = logit(np.array([undecided[choose_kind(*one)] for one in used], "float64"))
    return pd.DataFrame(rows | dict(zip(BOUNDS, bounds.T, strict=True)))


def join_row_statuses(statuses: Sequence[bytes], silenced: Sequence[bool]) -> bytes:
    """Joins remarks on a case's rows: those on photos and rows with their number, others once."""
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
