"""SCIN, the Skin Condition Image Network (Google Research and Stanford Medicine, 2024; arXiv 2402.18545), as a manifest.

In go the official `scin_cases.csv` and `scin_labels.csv` and, where there are any, photos or
precomputed photo embeddings. Out comes a folder with `manifest.csv`, `dataset.json` (counts and how
each column was made) and the photos or embeddings.

The label is the weight of "Eczema" in the dermatologists' vote, 0 where they voted for other
conditions alone. SCIN has no free text: `scin_text.describe_case` writes a template, and the
`source` column says so.
"""

import ast
import statistics
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from eczema_tf.data.photo.embeddings import load_embeddings
from eczema_tf.data.sources.scin_text import FLAG_COLUMNS, describe_case
from eczema_tf.data.sources.source_files import (
    Summary,
    check_folder,
    find_photo,
    is_inner,
    read_table,
    refuse_overlap,
    write_dataset,
)
from eczema_tf.errors import DataError, join_faults

CONDITION = "Eczema"  # as SCIN writes it
PHOTO_COLUMNS = ("image_1_path", "image_2_path", "image_3_path")
GRADABLE_COLUMNS = tuple(
    f"dermatologist_gradable_for_skin_condition_{reader}" for reader in (1, 2, 3)
)
TONE_COLUMNS = tuple(f"dermatologist_fitzpatrick_skin_type_label_{reader}" for reader in (1, 2, 3))
TONES = {"FST1": "I", "FST2": "II", "FST3": "III", "FST4": "IV", "FST5": "V", "FST6": "VI"}
CASE_COLUMNS = (
    "case_id",
    "age_group",
    "sex_at_birth",
    "related_category",
    "condition_duration",
    *FLAG_COLUMNS,
    *PHOTO_COLUMNS,
)
LABEL_COLUMNS = ("case_id", "weighted_skin_condition_label", *GRADABLE_COLUMNS, *TONE_COLUMNS)
PROVENANCE = {
    "attribution": "SCIN dataset, Google LLC and Stanford Medicine (arXiv 2402.18545)",
    "licence": "SCIN Data Use License: share and adapt with attribution, no re-identification",
    "columns": {
        "eczema": (
            f'weight of "{CONDITION}" in weighted_skin_condition_label; 0 where only other'
            " conditions are named"
        ),
        "text": (
            "template from the self-reported flags, not free text; a blank flag is never read as a"
            " no; empty where nothing is reported"
        ),
        "skin_tone": "median of the dermatologists' Fitzpatrick labels (the lower one of two)",
        "group_id": (
            "cases that share a photo, directly or through others, are one group; there is no"
            " patient id"
        ),
    },
}


@dataclass(frozen=True)
class ScinSummary(Summary):
    """What became of the cases.

    Attributes:
        cases: In the cases file.
        ungradable: Left out: no dermatologist could grade the photos.
        unlabelled: Left out: gradable, or not in the labels file, but no condition was named.
        empty: Left out: labelled, but the person reported nothing, and no photo is here.
        kept: Labelled cases with a text or a photo.
        eczema: Kept cases where a dermatologist named eczema (label > 0).
        photo_rows: Rows with a photo or an embedding.
        text_rows: Rows of text alone.
        sharing: Kept cases in a group with another kept case.
    """

    cases: int
    ungradable: int
    unlabelled: int
    empty: int
    kept: int
    eczema: int
    photo_rows: int
    text_rows: int
    sharing: int

    def describe(self) -> str:
        """Returns the counts as a few lines for people."""
        return (
            f"{self.cases} cases: {self.kept} kept, {self.ungradable} left out as ungradable,"
            f" {self.unlabelled} as unlabelled, {self.empty} with neither photo nor"
            f" text\n{self.eczema} of the kept cases ({self.eczema / self.kept:.1%}) have a vote"
            f" for eczema\n{self.photo_rows} rows with a photo, {self.text_rows} with text alone;"
            f" {self.sharing} cases share a photo with another\ntexts are templates, not the"
            " patients' own words"
        )


def prepare_scin(
    out: Path | str,
    *,
    cases: Path | str,
    labels: Path | str,
    images: Path | str | None = None,
    embeddings: Path | str | None = None,
    overwrite: bool = False,
) -> ScinSummary:
    """Writes a manifest folder from the official SCIN files.

    Args:
        out: The folder.
        cases: `scin_cases.csv`.
        labels: `scin_labels.csv`.
        images: A folder with photos, as `<name>` or `dataset/images/<name>`; those that are there
            are linked (or copied) into `out`.
        embeddings: An `.npz` of photo embeddings by image path, linked (or copied) into `out`.
            Without `images`, the photos that have one become rows.
        overwrite: Whether a folder already there may be replaced.

    Raises:
        DataError: If a file lacks columns, a label cannot be read, none of the photos or embeddings
            belongs to a case, or `out` holds one of the inputs.
        EczemaError: If `out` cannot be written.
    """
    out = Path(out)
    refuse_overlap(out, (cases, labels, images, embeddings))
    table = _read_cases(Path(cases), CASE_COLUMNS)
    table["group_id"] = _group_by_photo(table)
    labelled, left_out = _label_cases(table, _read_cases(Path(labels), LABEL_COLUMNS), Path(labels))
    find = _build_photo_finder(images, embeddings)
    rows = [row for case in labelled.to_dict("records") for row in _build_rows(case, find)]
    photos = [row["image_path"] for row in rows if row["image_path"]]
    if (images or embeddings) and not photos:
        raise DataError(
            f"{images or embeddings}: none of the labelled cases' photos is there; they look like"
            f" {labelled[PHOTO_COLUMNS[0]].iloc[0]!r}"
        )
    if not rows:
        raise DataError(
            f"{cases}: no labelled case reports anything, and no photo is here; give the photos"
            " with --images"
        )
    kept = pd.DataFrame(rows).drop_duplicates("case_id")
    summary = ScinSummary(
        manifest=out / "manifest.csv",
        cases=len(table),
        **left_out,
        empty=len(labelled) - len(kept),
        kept=len(kept),
        eczema=int((kept["eczema"] > 0).sum()),
        photo_rows=len(photos),
        text_rows=len(rows) - len(photos),
        sharing=int(kept["group_id"].duplicated(keep=False).sum()),
    )
    files = {"embeddings.npz": Path(embeddings)} if embeddings else {}
    if (
        images
    ):  # under their official path, so that `image_path` stays the key of their embedding, too
        files |= {image_path: _find_photo(Path(images), image_path) for image_path in photos}
    write_dataset(
        out,
        rows,
        {"source": "scin", "counts": summary.count(), **PROVENANCE},
        files,
        overwrite=overwrite,
    )
    return summary


def _read_cases(path: Path, columns: Collection[str]) -> pd.DataFrame:
    table = read_table(path, columns).reset_index(drop=True)
    twice = table["case_id"][table["case_id"].duplicated()].unique()
    if len(twice):
        raise DataError(join_faults(f"{path}: cases are there twice", twice))
    return table


def _label_cases(
    table: pd.DataFrame, labels: pd.DataFrame, labels_path: Path
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Joins the votes to the cases and leaves out what has none. Returns the labelled cases, and how many were left out and why."""
    joined = table.merge(labels[[*LABEL_COLUMNS]], on="case_id", how="left").fillna("")
    votes, faults = [], []
    for case_id, text in zip(
        joined["case_id"], joined["weighted_skin_condition_label"], strict=True
    ):
        try:
            votes.append(_parse_vote(text))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            faults.append(
                f"case {case_id}: weighted_skin_condition_label: allowed: {{'Condition': weight,"
                f" ...}}; received {text[:80]!r}"
            )
    if faults:
        raise DataError(join_faults(f"{labels_path}: votes cannot be read", faults))
    labelled = pd.Series([bool(vote) for vote in votes])
    gradable = (
        joined[[*GRADABLE_COLUMNS]].apply(lambda column: column.str.contains("YES")).any(axis=1)
    )
    refused = (
        joined[[*GRADABLE_COLUMNS]].apply(lambda column: column.str.startswith("NO_")).any(axis=1)
        & ~gradable
    )
    if not labelled.any():
        raise DataError(f"{labels_path}: no case has a label")
    left_out = {
        "ungradable": int((~labelled & refused).sum()),
        "unlabelled": int((~labelled & ~refused).sum()),
    }
    return joined.assign(eczema=[compute_label(vote) for vote in votes])[labelled], left_out


def _parse_vote(text: str) -> dict[str, float]:
    vote = ast.literal_eval(text) if text else {}
    if not isinstance(vote, dict) or not all(
        isinstance(weight, int | float) and 0 <= weight <= 1.05 for weight in vote.values()
    ):
        raise ValueError("not a vote")
    return vote


def compute_label(vote: dict[str, float]) -> float:
    """Returns the weight of eczema in a vote, in [0, 1]. Weights are given to two decimals, so that their sum may pass 1 a little."""
    return round(min(float(vote.get(CONDITION, 0.0)), 1.0), 4)


def _group_by_photo(table: pd.DataFrame) -> list[str]:
    """Names each case's group after the group's first case: cases that share a photo, directly or through others, are one group."""
    leader = {case_id: case_id for case_id in table["case_id"]}

    def find(case_id: str) -> str:
        while leader[case_id] != case_id:
            case_id = leader[case_id]
        return case_id

    first_case: dict[str, str] = {}
    for case_id, *photos in table[["case_id", *PHOTO_COLUMNS]].itertuples(index=False):
        for photo in filter(None, photos):
            first = find(first_case.setdefault(photo, case_id))
            leader[find(case_id)] = first
    return [find(case_id) for case_id in table["case_id"]]


def _build_photo_finder(
    images: Path | str | None, embeddings: Path | str | None
) -> Callable[[str], bool]:
    """Returns what says whether a photo is to be had."""
    keys: Collection[str] = load_embeddings(embeddings) if embeddings else ()
    if images is None:
        return lambda image_path: image_path in keys
    folder = check_folder(images)
    return lambda image_path: _find_photo(folder, image_path) is not None


def _find_photo(folder: Path, image_path: str) -> Path | None:
    """A download has the photos in the official folders below, others have them side by side."""
    if not is_inner(image_path):
        return None
    return find_photo(folder, PurePosixPath(image_path).name) or find_photo(folder, image_path)


def _build_rows(case: dict[str, str], find: Callable[[str], bool]) -> list[dict[str, object]]:
    """One row a photo that is to be had, or one row of text, or none."""
    photos = [case[column] for column in PHOTO_COLUMNS if case[column] and find(case[column])]
    text = describe_case(case)
    shared = {
        "case_id": case["case_id"],
        "group_id": case["group_id"],
        "text": text,
        "eczema": case["eczema"],
        "consistency": "",
        "severity": "",
        "split": "",
        "skin_tone": _median_tone(case),
        "age_group": (
            case["age_group"].removeprefix("AGE_").replace("UNKNOWN", "").replace("_TO_", "-")
        ),
        "sex": {"FEMALE": "female", "MALE": "male"}.get(case["sex_at_birth"], ""),
        "source": "template",
    }
    places = photos or ([""] if text else [])
    return [
        {"example_id": f"{case['case_id']}-{place}", "image_path": photo, **shared}
        for place, photo in enumerate(places, 1)
    ]


def _median_tone(case: dict[str, str]) -> str:
    tones = sorted(case[column] for column in TONE_COLUMNS if case[column] in TONES)
    return TONES[statistics.median_low(tones)] if tones else ""
