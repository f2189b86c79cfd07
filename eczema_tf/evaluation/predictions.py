"""From rows with logits to cases: averages logits by case, then computes probabilities.

`predictions.csv` contains the cases.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax

from eczema_tf.errors import DataError, raise_if_any
from eczema_tf.evaluation.grades import (
    compute_grade_probabilities,
    compute_sigmoid,
    has_learned,
    name_grades,
)
from eczema_tf.files import unescape_formula
from eczema_tf.model.pooling import find_speaking_rows
from eczema_tf.schema import (
    CONSISTENCY,
    DECISIONS,
    DISTANCES,
    ECZEMA_HEADS,
    GRADE_COLUMNS,
    MODALITIES,
    POSTERIOR_COLUMNS,
    SEVERITY,
    SEVERITY_HEADS,
    WORDINGS,
)

PROBABILITY_COLUMNS = {"image": "p_image", "text": "p_text", "fusion": "p_fusion"}
CONSISTENCY_LOGITS = [f"consistency_logit_{index}" for index in range(len(CONSISTENCY))]
SEVERITY_LOGITS = {
    head: [f"{head}_logit_{index}" for index in range(len(SEVERITY) - 1)]
    for head in SEVERITY_HEADS.values()
}

LABEL_COLUMNS = (
    "group_id",
    "consistency",
    "severity",
    "skin_tone",
    "monk_skin_tone",
    "age_group",
    "sex",
    "source",
    WORDINGS,
)
_FIRST_COLUMNS = (*LABEL_COLUMNS, "text_notice")  # the first of a case that is given
FLAGS = ("image_used", "text_used", "known_image", "known_text")
BOUNDS = ("undecided_from", "undecided_to")  # log-odds
_NEEDED_COLUMNS = (
    "case_id",
    "group_id",
    "eczema",
    "image_used",
    "text_used",
    *PROBABILITY_COLUMNS.values(),
)
AVERAGED = {  # what is averaged over the rows that speak for a modality, or for both
    "image": ("eczema_image_logit", *SEVERITY_LOGITS["severity_image"], DISTANCES["image"]),
    "text": (
        "eczema_text_logit",
        *CONSISTENCY_LOGITS,
        *SEVERITY_LOGITS["severity_text"],
        DISTANCES["text"],
    ),
    "fusion": ("eczema_logit", *SEVERITY_LOGITS["severity"], *BOUNDS),
}
_MEAN_COLUMNS = (
    "eczema",
    *POSTERIOR_COLUMNS.values(),
    *GRADE_COLUMNS.values(),
    *(column for columns in AVERAGED.values() for column in columns),
)
_WRITTEN_TEXT_COLUMNS = (
    "case_id",
    *_FIRST_COLUMNS,
    "consistency_predicted",
    *(f"{head}_predicted" for head in SEVERITY_HEADS.values()),
    "decision",
)


def average_rows_by_case(rows: pd.DataFrame) -> pd.DataFrame:
    """Averages the rows of each case and turns logits into probabilities.

    Logits are averaged over the rows that speak for them (`pooling.find_speaking_rows`), so a photo
    that is missing from one row, or unlike all training, takes nothing from the others. Labels
    should agree within a case; where they do not, `eczema` is the mean and the other labels are the
    first that is given.

    Args:
        rows: One row per manifest row: `case_id`, `group_id`, labels, `image_used` and `text_used`
            (bool), `text_notice` ("" for none), and logits `eczema_image_logit`,
            `eczema_text_logit`, `eczema_logit`, `consistency_logit_0..2`, `severity_logit_0..1` and
            those of the photo's and the text's own grade, `severity_image_logit_0..1`,
            `severity_text_logit_0..1` (float, NaN where the modality is absent). For a model that
            decides: `known_image` and `known_text` (bool), `image_distance` and `text_distance` (as
            the logits) and `BOUNDS`.

    Returns:
        One row per case, in order of first appearance: the same columns without `example_id`;
        `rows` (int, how many were averaged); `photos` (int, how many there are); `p_image`,
        `p_text`, `p_fusion` (P(eczema), NaN where missing); `consistency_<label>` and
        `severity_<label>` (probabilities); `consistency_predicted`, `severity_predicted`,
        `severity_image_predicted` and `severity_text_predicted` ("" where not known). For a model
        that decides: `decision` (one of `DECISIONS`); what is known in any row is known in its
        case.

    Raises:
        DataError: If the rows of a case are in different groups.
    """
    groups = rows.groupby("case_id", sort=False)["group_id"].agg(lambda ids: sorted(set(ids)))
    faults = [
        f"case_id {case!r}: group_id is {', '.join(map(repr, ids))}"
        for case, ids in groups.items()
        if len(ids) > 1
    ]
    title = "a case must lie within one group: give all rows of these cases the same group_id"
    raise_if_any(title, faults)
    texts = [column for column in _FIRST_COLUMNS if column in rows]
    numbers = [column for column in _MEAN_COLUMNS if column in rows]
    # groupby.first skips what is missing
    given = rows[texts].astype(object).mask(rows[texts].isna() | (rows[texts] == ""))
    by_case = rows["case_id"].to_numpy()
    used = {modality: rows[f"{modality}_used"].to_numpy(bool) for modality in MODALITIES}
    flags = [column for column in FLAGS if column in rows]
    known = used
    if len(flags) > 2:
        known = {name: rows[f"known_{name}"].to_numpy(bool) for name in used}
    for speaker, speaks in find_speaking_rows(by_case, used, known).items():
        evidence = [column for column in AVERAGED[speaker] if column in rows]
        rows = rows.assign(**{column: rows[column].where(speaks) for column in evidence})
    grouped = rows.assign(image_used=used["image"]).groupby(by_case, sort=False)
    parts = [
        given.groupby(by_case, sort=False).first().fillna("").astype(str),
        rows[flags].astype(bool).groupby(by_case, sort=False).any(),
        rows[numbers].astype("float64").groupby(by_case, sort=False).mean(),
        *([grouped["fold"].first()] if "fold" in rows else []),
        grouped["image_used"].sum().rename("photos").astype("int64"),
        *([grouped["text_words"].max()] if "text_words" in rows else []),
        grouped.size().rename("rows"),
    ]
    return add_probabilities(pd.concat(parts, axis=1).rename_axis("case_id").reset_index())


def add_probabilities(cases: pd.DataFrame) -> pd.DataFrame:
    """Adds the probabilities and predicted labels that follow from the logits of each case.

    Their columns are those of `average_rows_by_case`.
    """
    added = {
        PROBABILITY_COLUMNS[modality]: compute_sigmoid(cases[f"{head}_logit"].to_numpy("float64"))
        for modality, head in ECZEMA_HEADS.items()
    }
    consistency = softmax(cases[CONSISTENCY_LOGITS].to_numpy("float64"), axis=1)
    grades = {
        head: compute_grade_probabilities(cases[columns].to_numpy("float64"))
        for head, columns in SEVERITY_LOGITS.items()
    }
    labels = [f"consistency_{label}" for label in CONSISTENCY]
    labels += [f"severity_{label}" for label in SEVERITY]
    by_label = np.hstack([consistency, grades["severity"]]).T  # (labels, cases)
    added |= dict(zip(labels, by_label, strict=True))
    suggested = np.array(CONSISTENCY, dtype=object)[np.nan_to_num(consistency).argmax(axis=1)]
    suggested[~has_learned(consistency)] = ""  # NaN compares as false
    added["consistency_predicted"] = suggested
    unclear, photo = suggested == "unclear", cases["image_used"].to_numpy(bool)
    silent = {
        "severity_image": np.zeros_like(photo),
        "severity_text": unclear,
        "severity": unclear & ~photo,
    }
    added |= {f"{head}_predicted": name_grades(grades[head], silent[head]) for head in silent}
    if set(BOUNDS) <= set(cases):
        added["decision"] = decide(cases.assign(**added))
    return cases.assign(**added)


def decide(cases: pd.DataFrame) -> np.ndarray:
    """Decides on cases, as the model does on rows (`model.decision.compute_decision`).

    Args:
        cases: With `FLAGS`, `consistency_predicted`, `eczema_logit` and `BOUNDS`.

    Returns:
        Object (cases,), each one of `DECISIONS`.
    """
    image, text, known_image, known_text = (cases[flag].to_numpy(bool) for flag in FLAGS)
    low, high = (cases[bound].to_numpy("float64") for bound in BOUNDS)
    logits = cases["eczema_logit"].to_numpy("float64")
    side = (logits > high).astype(int) - (logits < low)
    unclear = (cases["consistency_predicted"] == "unclear").to_numpy(bool)
    nothing_said = ~image & (~text | unclear)
    side[(image != known_image) | (text != known_text) | nothing_said] = 0
    return np.array(DECISIONS, object)[side + 1]


def is_scored(cases: pd.DataFrame, modality: str) -> np.ndarray:
    """Returns which cases count for "image", "text" or "fusion": bool (cases,).

    They are those with an eczema label and that head's probability.
    """
    return (cases["eczema"].notna() & cases[PROBABILITY_COLUMNS[modality]].notna()).to_numpy(bool)


def take_scored(
    cases: pd.DataFrame, modality: str, label_threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what a head answers on the cases that count for it, and which of them are positive.

    Args:
        cases: From `average_rows_by_case`.
        modality: As in `is_scored`.
        label_threshold: A label greater than this is positive.

    Returns:
        Probabilities, float64, and bool, (scored cases,) both.
    """
    scored = cases[is_scored(cases, modality)]
    positive = (scored["eczema"] > label_threshold).to_numpy(bool)
    return scored[PROBABILITY_COLUMNS[modality]].to_numpy("float64"), positive


def identify_models(cases: pd.DataFrame) -> np.ndarray | None:
    """Numbers the models of a cross-validation that answered the cases.

    Returns:
        int64 (cases,), for `metrics.measure_auroc`; None if it was one model.
    """
    columns = [column for column in ("repeat", "fold") if column in cases]
    return cases.groupby(columns).ngroup().to_numpy() if columns else None


def load_predictions(path: Path | str) -> pd.DataFrame:
    """Reads the cases that `files.write_csv` wrote, value for value.

    Args:
        path: Path of the CSV file.

    Returns:
        Cases as from `average_rows_by_case`.

    Raises:
        DataError: If the file is missing, is not such a table, or lacks a column that figures need.
    """
    try:
        cells = pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8", lineterminator="\n"
        )
        cases = pd.DataFrame({column: _parse_cells(cells[column]) for column in cells})
    except (OSError, ValueError) as error:  # pandas' and Unicode errors are ValueErrors
        raise DataError(
            f"{path}: not a readable table of predictions ({error}); run `python -m"
            " eczema_tf.evaluate` to write it"
        ) from error
    if missing := [name for name in _NEEDED_COLUMNS if name not in cases]:
        raise DataError(
            f"{path}: has no column {', '.join(missing)}; start from the predictions.csv of a run"
        )
    return cases


def _parse_cells(cells: pd.Series) -> pd.Series:
    if cells.name in _WRITTEN_TEXT_COLUMNS:
        return cells.map(unescape_formula)
    if cells.name in FLAGS:
        return cells.map({"True": True, "False": False}).astype(bool)
    if cells.name in ("fold", "repeat", "rows", "photos", "text_words"):
        return cells.astype("int64")
    # Python's own parser is exact to the last bit
    return cells.replace("", "nan").map(float).astype("float64")
