"""From rows to cases: logits averaged by case, then probabilities; and `predictions.csv`."""

from pathlib import Path

import numpy as np
import pandas as pd

from eczema_tf.errors import DataError, join_faults
from eczema_tf.files import unescape_formula, write_csv
from eczema_tf.schema import CONSISTENCY, ECZEMA_HEADS, POSTERIOR_COLUMNS, SEVERITY

PROBABILITY_COLUMNS = {"image": "p_image", "text": "p_text", "fusion": "p_fusion"}
CONSISTENCY_LOGITS = [f"consistency_logit_{place}" for place in range(len(CONSISTENCY))]
SEVERITY_LOGITS = [f"severity_logit_{place}" for place in range(len(SEVERITY) - 1)]

_LABEL_COLUMNS = ("group_id", "consistency", "severity", "skin_tone", "age_group", "sex", "source")
_USED_COLUMNS = ("image_used", "text_used")
_MEAN_COLUMNS = (
    "eczema",
    *POSTERIOR_COLUMNS.values(),
    *(f"{head}_logit" for head in ECZEMA_HEADS.values()),
    *CONSISTENCY_LOGITS,
    *SEVERITY_LOGITS,
)
_WRITTEN_TEXT_COLUMNS = ("case_id", *_LABEL_COLUMNS, "consistency_predicted", "severity_predicted")


def average_rows_by_case(rows: pd.DataFrame) -> pd.DataFrame:
    """Averages the rows of each case and turns logits into probabilities.

    Logits are averaged over the rows that have them, so that a photo missing from one row takes
    nothing from the others. Labels should agree within a case; where they do not, `eczema` is the
    mean and the other labels are the first that is given.

    Args:
        rows: One row a scored manifest row: `case_id`, `group_id`, labels, `image_used` and
            `text_used` (bool), and logits `eczema_image_logit`, `eczema_text_logit`,
            `eczema_logit`, `consistency_logit_0..2`, `severity_logit_0..1` (float, NaN where the
            modality is absent).

    Returns:
        One row a case, in order of first appearance: the same columns without `example_id`; `rows`
        (int, how many were averaged); `p_image`, `p_text`, `p_fusion` (P(eczema), NaN where
        missing); `consistency_<label>` and `severity_<label>` (probabilities);
        `consistency_predicted` and `severity_predicted` ("" where missing).

    Raises:
        DataError: If the rows of a case are in different groups.
    """
    _check_groups(rows)
    texts = [column for column in _LABEL_COLUMNS if column in rows]
    numbers = [column for column in _MEAN_COLUMNS if column in rows]
    firsts = (
        rows[texts].astype(object).mask(rows[texts].isna() | (rows[texts] == ""))
    )  # groupby.first skips what is missing
    by_case = rows["case_id"].to_numpy()
    parts = [
        firsts.groupby(by_case, sort=False).first().fillna("").astype(str),
        rows[list(_USED_COLUMNS)].astype(bool).groupby(by_case, sort=False).any(),
        rows[numbers].astype("float64").groupby(by_case, sort=False).mean(),
        rows[["fold"]].groupby(by_case, sort=False).first() if "fold" in rows else None,
        rows.groupby(by_case, sort=False).size().rename("rows"),
    ]
    cases = (
        pd.concat([part for part in parts if part is not None], axis=1)
        .rename_axis("case_id")
        .reset_index()
    )
    return add_probabilities(cases)


def add_probabilities(cases: pd.DataFrame) -> pd.DataFrame:
    """Adds the probabilities and predicted labels that follow from each case's logits."""
    added = {}
    for modality, head in ECZEMA_HEADS.items():
        added[PROBABILITY_COLUMNS[modality]] = _sigmoid(cases[f"{head}_logit"].to_numpy("float64"))
    consistency = _softmax(cases[CONSISTENCY_LOGITS].to_numpy("float64"))
    worse = cases[SEVERITY_LOGITS].to_numpy("float64")
    severity = compute_grade_probabilities(worse)
    added |= {
        f"consistency_{label}": consistency[:, place] for place, label in enumerate(CONSISTENCY)
    }
    added |= {f"severity_{label}": severity[:, place] for place, label in enumerate(SEVERITY)}
    added["consistency_predicted"] = _names(
        CONSISTENCY, np.nan_to_num(consistency).argmax(axis=1), consistency
    )
    added["severity_predicted"] = _names(SEVERITY, (worse > 0).sum(axis=1), severity)
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
    """Returns which cases count for a head: those with a label and its probability; bool (cases,)."""
    return (cases["eczema"].notna() & cases[PROBABILITY_COLUMNS[modality]].notna()).to_numpy(bool)


def identify_models(cases: pd.DataFrame) -> np.ndarray | None:
    """Numbers the models of a cross-validation by case: int64 (cases,); None if there was one.

    `metrics.compute_auroc` compares cases of one model only.
    """
    columns = [column for column in ("repeat", "fold") if column in cases]
    return cases.groupby(columns).ngroup().to_numpy() if columns else None


def write_predictions(path: Path | str, cases: pd.DataFrame) -> None:
    """Writes cases as CSV, with formulas in text cells escaped (`files.write_csv`).

    Args:
        path: Of the CSV file.
        cases: From `average_rows_by_case`.

    Raises:
        EczemaError: If the disk refuses.
    """
    write_csv(path, cases)


def load_predictions(path: Path | str) -> pd.DataFrame:
    """Reads what `write_predictions` wrote, value for value.

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
        return pd.DataFrame({column: _parse(cells[column]) for column in cells})
    except (OSError, ValueError) as error:  # pandas' and Unicode errors are ValueErrors
        raise DataError(
            f"{path}: not a readable table of predictions ({error}); run `python -m"
            " eczema_tf.evaluate` to write it"
        ) from error


def _parse(cells: pd.Series) -> pd.Series:
    if cells.name in _WRITTEN_TEXT_COLUMNS:
        return cells.map(unescape_formula)
    if cells.name in _USED_COLUMNS:
        return cells.map({"True": True, "False": False}).astype(bool)
    if cells.name in ("fold", "rows"):
        return cells.astype("int64")
    return (
        cells.replace("", "nan").map(float).astype("float64")
    )  # Python's own parser is exact to the last bit


def _check_groups(rows: pd.DataFrame) -> None:
    groups = rows.groupby("case_id", sort=False)["group_id"].agg(lambda ids: sorted(set(ids)))
    faults = [
        f"case_id {case!r}: group_id is {', '.join(map(repr, ids))}"
        for case, ids in groups.items()
        if len(ids) > 1
    ]
    if faults:
        raise DataError(
            join_faults(
                "a case must lie within one group: give all rows of these cases the same group_id",
                faults,
            )
        )


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(logits))  # no overflow, however large the logit
    return np.where(logits >= 0, 1, small) / (1 + small)


def _softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def _names(labels: tuple[str, ...], places: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(probabilities).any(axis=1), "", np.array(labels, dtype=object)[places])
