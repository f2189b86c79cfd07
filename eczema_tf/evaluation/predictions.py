"""From rows with logits to cases: logits averaged by case, then probabilities.

`predictions.csv` holds the cases.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax

from eczema_tf.errors import DataError, raise_if_any
from eczema_tf.files import unescape_formula
from eczema_tf.schema import CONSISTENCY, ECZEMA_HEADS, POSTERIOR_COLUMNS, SEVERITY, WORDINGS

PROBABILITY_COLUMNS = {"image": "p_image", "text": "p_text", "fusion": "p_fusion"}
CONSISTENCY_LOGITS = [f"consistency_logit_{index}" for index in range(len(CONSISTENCY))]
SEVERITY_LOGITS = [f"severity_logit_{index}" for index in range(len(SEVERITY) - 1)]

LABEL_COLUMNS = (
    "group_id",
    "consistency",
    "severity",
    "skin_tone",
    "age_group",
    "sex",
    "source",
    WORDINGS,
)
_FIRST_COLUMNS = (*LABEL_COLUMNS, "text_notice")  # of a case, the first that is given
_USED_COLUMNS = ("image_used", "text_used")
_MEAN_COLUMNS = (
    "eczema",
    *POSTERIOR_COLUMNS.values(),
    *(f"{head}_logit" for head in ECZEMA_HEADS.values()),
    *CONSISTENCY_LOGITS,
    *SEVERITY_LOGITS,
)
_WRITTEN_TEXT_COLUMNS = ("case_id", *_FIRST_COLUMNS, "consistency_predicted", "severity_predicted")


def average_rows_by_case(rows: pd.DataFrame) -> pd.DataFrame:
    """Averages the rows of each case and turns logits into probabilities.

    Logits are averaged over the rows that have them, so that a photo missing from one row takes
    nothing from the others. Labels should agree within a case; where they do not, `eczema` is the
    mean and the other labels are the first that is given.

    Args:
        rows: One row a manifest row: `case_id`, `group_id`, labels, `image_used` and `text_used`
            (bool), `text_notice` ("" for none), and logits `eczema_image_logit`,
            `eczema_text_logit`, `eczema_logit`, `consistency_logit_0..2`, `severity_logit_0..1`
            (float, NaN where the modality is absent).

    Returns:
        One row a case, in order of first appearance: the same columns without `example_id`; `rows`
        (int, how many were averaged); `p_image`, `p_text`, `p_fusion` (P(eczema), NaN where
        missing); `consistency_<label>` and `severity_<label>` (probabilities);
        `consistency_predicted` and `severity_predicted` ("" where missing).

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
    parts = [
        given.groupby(by_case, sort=False).first().fillna("").astype(str),
        rows[list(_USED_COLUMNS)].astype(bool).groupby(by_case, sort=False).any(),
        rows[numbers].astype("float64").groupby(by_case, sort=False).mean(),
    ]
    if "fold" in rows:
        parts.append(rows[["fold"]].groupby(by_case, sort=False).first())
    parts.append(rows.groupby(by_case, sort=False).size().rename("rows"))
    return add_probabilities(pd.concat(parts, axis=1).rename_axis("case_id").reset_index())


def add_probabilities(cases: pd.DataFrame) -> pd.DataFrame:
    """Adds the probabilities and predicted labels that follow from the logits of each case.

    Their columns are those of `average_rows_by_case`.
    """
    consistency = softmax(cases[CONSISTENCY_LOGITS].to_numpy("float64"), axis=1)
    worse = cases[SEVERITY_LOGITS].to_numpy("float64")
    severity = compute_grade_probabilities(worse)
    predicted = {
        "consistency": (CONSISTENCY, consistency, np.nan_to_num(consistency).argmax(axis=1)),
        "severity": (SEVERITY, severity, (worse > 0).sum(axis=1)),
    }
    added = {
        PROBABILITY_COLUMNS[modality]: _sigmoid(cases[f"{head}_logit"].to_numpy("float64"))
        for modality, head in ECZEMA_HEADS.items()
    }
    for name, (labels, probabilities, _) in predicted.items():
        added |= {f"{name}_{label}": probabilities[:, i] for i, label in enumerate(labels)}
    for name, (labels, probabilities, best) in predicted.items():
        missing = np.isnan(probabilities).any(axis=1)
        added[f"{name}_predicted"] = np.where(missing, "", np.array(labels, dtype=object)[best])
    return cases.assign(**added)


def compute_grade_probabilities(logits: np.ndarray) -> np.ndarray:
    """Turns cumulative logits into a probability for each grade.

    The grade that `severity_predicted` names is the median of this distribution (the number of
    thresholds passed with a probability above one half; Cao, Mirjalili and Raschka 2020): it
    minimises the expected error in grades, which the most probable grade does not.

    Args:
        logits: float (cases, grades - 1); sigmoid(logits[:, k]) = P(grade > k), so they should not
            increase along a row.

    Returns:
        float64 (cases, grades), each at least 0, rows sum to 1; NaN where a logit is.
    """
    edge = np.ones((len(logits), 1))
    worse = np.concatenate([edge, _sigmoid(logits), 0 * edge], axis=1)
    steps = np.clip(-np.diff(worse, axis=1), 0, None)
    return steps / steps.sum(axis=1, keepdims=True)


def is_scored(cases: pd.DataFrame, modality: str) -> np.ndarray:
    """Returns which cases count for "image", "text" or "fusion": bool (cases,).

    They are those with an eczema label and that head's probability.
    """
    return (cases["eczema"].notna() & cases[PROBABILITY_COLUMNS[modality]].notna()).to_numpy(bool)


def identify_models(cases: pd.DataFrame) -> np.ndarray | None:
    """Numbers the models of a cross-validation that answered the cases.

    Returns:
        int64 (cases,), for `metrics.compute_auroc`; None if it was one model.
    """
    columns = [column for column in ("repeat", "fold") if column in cases]
    return cases.groupby(columns).ngroup().to_numpy() if columns else None


def load_predictions(path: Path | str) -> pd.DataFrame:
    """Reads the cases that `files.write_csv` wrote, value for value.

    Args:
        path: Of the CSV file.

    Returns:
        Cases as from `average_rows_by_case`.

    Raises:
        DataError: If the file is missing or is not such a table.
    """
    try:
        cells = pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8", lineterminator="\n"
        )
        return pd.DataFrame({column: _parse_cells(cells[column]) for column in cells})
    except (OSError, ValueError) as error:  # pandas' and Unicode errors are ValueErrors
        raise DataError(
            f"{path}: not a readable table of predictions ({error}); run `python -m"
            " eczema_tf.evaluate` to write it"
        ) from error


def _parse_cells(cells: pd.Series) -> pd.Series:
    if cells.name in _WRITTEN_TEXT_COLUMNS:
        return cells.map(unescape_formula)
    if cells.name in _USED_COLUMNS:
        return cells.map({"True": True, "False": False}).astype(bool)
    if cells.name in ("fold", "repeat", "rows"):
        return cells.astype("int64")
    # Python's own parser is exact to the last bit
    return cells.replace("", "nan").map(float).astype("float64")


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    """Not SciPy's `expit`, whose last bit differs from what earlier runs have written."""
    small = np.exp(-np.abs(logits))  # no overflow, however large the logit
    return np.where(logits >= 0, 1, small) / (1 + small)
