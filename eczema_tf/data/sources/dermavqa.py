"""DermaVQA, the iiyi part (Yim et al., MICCAI 2024), as a manifest: real clinical questions, in the askers' own words.

In goes `encounters.csv`, one question a row, with how many of the replies name eczema; and the
photos, where there are any. Out comes a folder with `manifest.csv`, `dataset.json` (counts and how
each column was made) and the photos.

The label is what most of those who replied thought, not a diagnosis, and only clear votes are kept.
Questions that name a diagnosis themselves are left out: the text would give the label away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from eczema_tf.data.sources.source_files import (
    PHOTOS,
    Summary,
    check_folder,
    find_photo,
    read_table,
    refuse_overlap,
    write_dataset,
)
from eczema_tf.errors import DataError, join_faults

COUNT_COLUMNS = ("n_resp", "resp_eczema", "resp_dermatitis_family", "query_names_diagnosis")
COLUMNS = ("encounter_id", "author_id", "query_en", "image_ids", *COUNT_COLUMNS)
POSITIVE_FROM = 0.5  # share of the replies that name eczema
PROVENANCE = {
    "attribution": "DermaVQA, Yim et al., MICCAI 2024 (iiyi part)",
    "licence": "CC BY 4.0",
    "columns": {
        "text": "query_en: the asker's own words, translated into English",
        "eczema": (
            f"1 where at least {POSITIVE_FROM:.0%} of the replies name eczema or atopic dermatitis,"
            " 0 where no reply names any dermatitis; a noisy label, given by those who replied to"
            " the question"
        ),
        "group_id": "author_id: all questions of one asker stay together",
        "image_path": (
            "the photos of the question that are there, one row each; one row of text where there"
            " is none"
        ),
    },
    "left_out": {
        "without_reply": "n_resp is 0",
        "names_diagnosis": "query_names_diagnosis is 1: the text would give the label away",
        "unclear": "some replies name a dermatitis, but too few name eczema",
    },
}


@dataclass(frozen=True)
class DermavqaSummary(Summary):
    """What became of the questions.

    Attributes:
        questions: In the file.
        without_reply: Left out: nobody replied.
        names_diagnosis: Left out: the question names a diagnosis.
        unclear: Left out: neither clearly eczema nor clearly something else.
        kept: Labelled questions.
        eczema: Kept questions with the label 1.
        authors: Of the kept questions.
        photo_rows: Rows with a photo.
        text_rows: Kept questions without a photo, which are one row of text.
        missing_photos: Photos that kept questions name but that are not in the folder given; 0
            without a folder.
    """

    questions: int
    without_reply: int
    names_diagnosis: int
    unclear: int
    kept: int
    eczema: int
    authors: int
    photo_rows: int
    text_rows: int
    missing_photos: int

    def describe(self) -> str:
        """Returns the counts as a few lines for people."""
        return (
            f"{self.questions} questions: {self.kept} kept, of {self.authors} authors; left out:"
            f" {self.without_reply} without a reply, {self.names_diagnosis} that name a diagnosis,"
            f" {self.unclear} with unclear replies\n{self.eczema} of the kept questions"
            f" ({self.eczema / self.kept:.1%}) are labelled eczema, by the replies: a noisy"
            f" label\n{self.photo_rows} rows with a photo, {self.text_rows} with text alone;"
            f" {self.missing_photos} photos are not there"
        )


def prepare_dermavqa(
    out: Path | str,
    *,
    encounters: Path | str,
    images: Path | str | None = None,
    overwrite: bool = False,
) -> DermavqaSummary:
    """Writes a manifest folder from DermaVQA's questions.

    Args:
        out: The folder.
        encounters: `encounters.csv`.
        images: A folder with photos, named as in the column `image_ids`; those that are there are
            linked (or copied) into `out`.
        overwrite: Whether a folder already there may be replaced.

    Raises:
        DataError: With every column that is missing, or every row that cannot be right; when no
            question can be labelled, or no photo is there; or when `out` holds one of the inputs.
        EczemaError: If `out` cannot be written.
    """
    out, encounters = Path(out), Path(encounters)
    refuse_overlap(out, (encounters, images))
    table = _read_questions(encounters)
    fates = pd.Series(
        [judge_question(question) for question in table[[*COUNT_COLUMNS]].to_dict("records")],
        index=table.index,
    )
    kept = table[fates.isin(("eczema", "other"))]
    if kept.empty:
        raise DataError(
            f"{encounters}: no question can be labelled: {fates.value_counts().to_dict()}"
        )
    kept = kept.assign(eczema=(fates[kept.index] == "eczema").astype(float))
    photos = _find_photos(kept, images)
    rows = [row for question in kept.to_dict("records") for row in _build_rows(question, photos)]
    photo_rows = sum(bool(row["image_path"]) for row in rows)
    if images is not None and not photo_rows:
        raise DataError(
            f"{images}: none of the questions' photos is there; they look like"
            f" {' '.join(kept['image_ids']).split()[:1]}"
        )
    summary = DermavqaSummary(
        manifest=out / "manifest.csv",
        questions=len(table),
        **{fate: int((fates == fate).sum()) for fate in PROVENANCE["left_out"]},
        kept=len(kept),
        eczema=int(kept["eczema"].sum()),
        authors=kept["author_id"].nunique(),
        photo_rows=photo_rows,
        text_rows=len(rows) - photo_rows,
        missing_photos=(
            0
            if images is None
            else sum(len(set(names.split())) for names in kept["image_ids"]) - photo_rows
        ),
    )
    files = {f"{PHOTOS}/{name}": file for name, file in photos.items()}
    write_dataset(
        out,
        rows,
        {"source": "dermavqa", "counts": summary.count(), **PROVENANCE},
        files,
        overwrite=overwrite,
    )
    return summary


def judge_question(counts: Mapping[str, int]) -> str:
    """Says what becomes of a question: `eczema` or `other`, or why it is left out (a key of `PROVENANCE["left_out"]`)."""
    if counts["n_resp"] == 0:
        return "without_reply"
    if counts["query_names_diagnosis"]:
        return "names_diagnosis"
    if counts["resp_eczema"] / counts["n_resp"] >= POSITIVE_FROM:
        return "eczema"
    return "other" if counts["resp_dermatitis_family"] == 0 else "unclear"


def _read_questions(path: Path) -> pd.DataFrame:
    table = read_table(path, COLUMNS)
    faults = [
        f"{path.name}:{line}: {fault}"
        for line, row in table.iterrows()
        for fault in _find_faults(row)
    ]
    ids = table["encounter_id"]
    faults += [
        f"{path.name}:{line}: encounter_id: {ids[line]!r} is there twice"
        for line in ids.index[ids.duplicated() & (ids != "")]
    ]
    if faults:
        raise DataError(join_faults(f"{path} is not valid", faults))
    return table.astype(dict.fromkeys(COUNT_COLUMNS, "int64"))


def _find_faults(row: pd.Series) -> list[str]:
    empty = [
        f"{column}: is empty"
        for column in ("encounter_id", "author_id", "query_en")
        if not row[column].strip()
    ]
    wrong = [
        f"{column}: allowed: a whole number, 0 or more; received {row[column]!r}"
        for column in COUNT_COLUMNS
        if not _is_count(row[column])
    ]
    if wrong:
        return [*empty, *wrong]
    n_resp, eczema, family, names = (int(row[column]) for column in COUNT_COLUMNS)
    if not eczema <= family <= n_resp:
        wrong.append(
            f"allowed: resp_eczema <= resp_dermatitis_family <= n_resp; received {eczema},"
            f" {family}, {n_resp}"
        )
    if names > 1:
        wrong.append(f"query_names_diagnosis: allowed: 0 or 1; received {names}")
    return [*empty, *wrong]


def _is_count(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) < 10


def _find_photos(kept: pd.DataFrame, images: Path | str | None) -> dict[str, Path]:
    """The photos that are to be had, by name."""
    if images is None:
        return {}
    folder = check_folder(images)
    found = {
        name: find_photo(folder, name) for names in kept["image_ids"] for name in names.split()
    }
    return {name: file for name, file in found.items() if file is not None}


def _build_rows(question: dict[str, object], photos: Mapping[str, Path]) -> list[dict[str, object]]:
    """One row a photo that is to be had, or one row of text."""
    names = [
        f"{PHOTOS}/{name}"
        for name in dict.fromkeys(question["image_ids"].split())
        if name in photos
    ]
    shared = {
        "case_id": question["encounter_id"],
        "group_id": question["author_id"],
        "text": question["query_en"],
        "eczema": question["eczema"],
        **dict.fromkeys(("consistency", "severity", "split", "skin_tone", "age_group", "sex"), ""),
        "source": "dermavqa",
    }
    case_id = question["encounter_id"]
    return [
        {"example_id": f"{case_id}-{place}", "image_path": name, **shared}
        for place, name in enumerate(names or [""], 1)
    ]
