"""DermaVQA, the iiyi part, as a manifest: real clinical questions, in the askers' own words.

Yim et al., MICCAI 2024. Takes the authors' `train.json`, or `encounters.csv` (one question per row,
with the number of replies that name eczema), and the photos, if there are any. Writes a folder with
`manifest.csv`, `dataset.json` (counts and how each column was made) and the photos.

The label is what most of those who replied thought, not a diagnosis, and only clear votes are kept.
Questions that name a diagnosis themselves are left out: the text would give the label away.
"""

import codecs
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, TypeAdapter, ValidationError

from eczema_tf.data.manifest.reading import clean_cell
from eczema_tf.data.sources.source import (
    PHOTOS,
    Summary,
    build_rows,
    count_photos,
    find_photos,
    read_table,
    write_source,
)
from eczema_tf.errors import DataError, raise_if_any, shorten

COUNT_COLUMNS = ("n_resp", "resp_eczema", "resp_dermatitis_family", "query_names_diagnosis")
QUESTION_COLUMNS = ("encounter_id", "author_id", "query_en", "image_ids", *COUNT_COLUMNS)
_COUNT = re.compile("[0-9]{1,9}")
# Searched for in the texts of the authors' JSON files; the counts then equal those of
# `encounters.csv` for all of its 842 questions.
NAMES_ECZEMA = re.compile("eczema|atopic", re.IGNORECASE)
NAMES_DERMATITIS = re.compile(
    "eczema|atopic|dermatitis|dyshidro|pompholyx|prurigo|lichen simplex", re.IGNORECASE
)
NAMES_DIAGNOSIS = re.compile(
    "eczema|dermatitis|psoriasis|tinea|urticaria|acne|scabies|lichen|herpes|zoster|vitiligo"
    "|syphilis|diagnosed",
    re.IGNORECASE,
)
POSITIVE_FROM = 0.5  # share of the replies that name eczema
LEFT_OUT = {
    "without_reply": "nobody replied",
    "names_diagnosis": "the question names a diagnosis, which would give the label away",
    "unclear": "some replies name a dermatitis, but too few name eczema",
}
PROVENANCE = {
    "attribution": "DermaVQA, Yim et al., MICCAI 2024 (iiyi part)",
    "licence": "CC BY 4.0",
    "columns": {
        "text": "query_en: the asker's own words, translated into English",
        "eczema": (
            f"1 where at least {POSITIVE_FROM:.0%} of the replies name eczema or atopic dermatitis,"
            " 0 where no reply names any dermatitis; a noisy label, given by those who replied to"
            " the question; a reply that denies eczema names it too"
        ),
        "group_id": "author_id: all questions of one asker stay together",
        "image_path": (
            "the photos of the question that are available, one row each; one row with only text"
            " if there are none"
        ),
    },
}
DESCRIPTION = """\
{questions} questions: {kept} kept, of {authors} authors; left out: {without_reply} without a \
reply, {names_diagnosis} that name a diagnosis, {unclear} with unclear replies
{eczema} of the kept questions ({share:.1%}) are labelled eczema, from the replies: a noisy label
{photo_rows} rows with a photo, {text_rows} with only text; {missing_photos} photos are missing"""


def prepare_dermavqa(
    out: Path | str,
    *,
    encounters: Path | str,
    images: Path | str | None = None,
    overwrite: bool = False,
) -> Summary:
    """Writes a manifest folder from DermaVQA's questions.

    Args:
        out: The folder.
        encounters: `encounters.csv`, or one of the authors' JSON files.
        images: A folder with photos, named as in the column `image_ids`; those found are linked (or
            copied) into `out`.
        overwrite: Whether a folder already there may be replaced.

    Raises:
        DataError: Listing every missing column, or every row that is not valid; if no question can
            be labelled, or no photo is found; or if `out` contains one of the inputs.
        EczemaError: If `out` cannot be written.
    """
    table = _read_questions(Path(encounters))
    fates = table[[*COUNT_COLUMNS]].apply(judge_question, axis="columns")
    kept = table.assign(eczema=(fates == "eczema").astype(float))[fates.isin(("eczema", "other"))]
    if kept.empty:
        raise DataError(
            f"{encounters}: no question can be labelled: {fates.value_counts().to_dict()}"
        )
    photos = find_photos(images, " ".join(kept["image_ids"]).split())
    rows = _map_questions(kept, photos)
    named_photos = sum(len(set(names.split())) for names in kept["image_ids"])
    counts = {
        "questions": len(table),
        **{fate: int((fates == fate).sum()) for fate in LEFT_OUT},
        "kept": len(kept),
        "eczema": int(kept["eczema"].sum()),
        "authors": kept["author_id"].nunique(),
        **count_photos(rows),
        "missing_photos": named_photos - count_photos(rows)["photo_rows"] if images else 0,
    }
    return write_source(
        out,
        name="dermavqa",
        rows=rows,
        counts=counts,
        description=DESCRIPTION.format(**counts, share=kept["eczema"].mean()),
        facts=PROVENANCE,
        left_out=LEFT_OUT,
        inputs=(encounters, images),
        files={f"{PHOTOS}/{name}": file for name, file in photos.items()},
        overwrite=overwrite,
    )


def judge_question(counts: Mapping[str, int]) -> str:
    """Returns a question's label, `eczema` or `other`, or why it is left out (of `LEFT_OUT`)."""
    if counts["n_resp"] == 0:
        return "without_reply"
    if counts["query_names_diagnosis"]:
        return "names_diagnosis"
    if counts["resp_eczema"] / counts["n_resp"] >= POSITIVE_FROM:
        return "eczema"
    return "other" if counts["resp_dermatitis_family"] == 0 else "unclear"


def _judge_row(row: Mapping[str, str]) -> Iterator[str]:
    """Yields the faults of a row."""
    for column in ("encounter_id", "author_id", "query_en"):
        if not clean_cell("text", row[column]).strip():
            yield f"{column}: is empty"
    if wrong := [column for column in COUNT_COLUMNS if not _COUNT.fullmatch(row[column])]:
        for column in wrong:
            yield f"{column}: allowed: a whole number, 0 or more; received {shorten(row[column])!r}"
        return
    replies, eczema, family, names = (int(row[column]) for column in COUNT_COLUMNS)
    if not eczema <= family <= replies:
        yield (
            "allowed: resp_eczema <= resp_dermatitis_family <= n_resp; received"
            f" {eczema}, {family}, {replies}"
        )
    if names > 1:
        yield f"query_names_diagnosis: allowed: 0 or 1; received {names}"


def _map_questions(kept: pd.DataFrame, photos: Collection[str]) -> pd.DataFrame:
    """Makes the rows of the manifest."""
    rows = []
    for question in kept.to_dict("records"):
        names = dict.fromkeys(question["image_ids"].split())  # each once
        case = {
            "case_id": question["encounter_id"],
            "group_id": question["author_id"],
            "text": question["query_en"],
            "eczema": question["eczema"],
            "source": "dermavqa",
        }
        rows += build_rows(case, [f"{PHOTOS}/{name}" for name in names if name in photos])
    return pd.DataFrame(rows)


def _read_questions(path: Path) -> pd.DataFrame:
    """Reads and checks the table; its counts are int64."""
    official = path.suffix.lower() == ".json"
    table = read_encounters(path) if official else read_table(path, QUESTION_COLUMNS)
    faults = [
        f"{path.name}:{line}: {fault}"
        for line, row in table.iterrows()
        for fault in _judge_row(row)
    ]
    ids = table["encounter_id"]
    faults += [
        f"{path.name}:{line}: encounter_id: {shorten(ids[line])!r} appears twice"
        for line in ids.index[ids.duplicated() & (ids != "")]
    ]
    raise_if_any(f"{path} is not valid", faults)
    return table.astype(dict.fromkeys(COUNT_COLUMNS, "int64"))


class Reply(BaseModel):
    """One reply to a question."""

    content_en: str = ""


class Encounter(BaseModel):
    """One question with its replies."""

    encounter_id: str
    author_id: str
    image_ids: list[str] = []
    query_title_en: str = ""
    query_content_en: str = ""
    responses: list[Reply] = []

    def to_row(self) -> dict[str, object]:
        """Returns the question as a row of the table."""
        parts = self.query_title_en, self.query_content_en
        text = ". ".join(part for part in parts if clean_cell("text", part).strip())
        replies = [reply.content_en for reply in self.responses]
        return {
            "encounter_id": self.encounter_id,
            "author_id": self.author_id,
            "query_en": text,
            "image_ids": " ".join(self.image_ids),
            "n_resp": len(replies),
            "resp_eczema": sum(bool(NAMES_ECZEMA.search(reply)) for reply in replies),
            "resp_dermatitis_family": sum(
                bool(NAMES_DERMATITIS.search(reply)) for reply in replies
            ),
            "query_names_diagnosis": int(bool(NAMES_DIAGNOSIS.search(text))),
        }


def read_encounters(path: Path) -> pd.DataFrame:
    """Reads a file of questions.

    Args:
        path: JSON, a list of questions.

    Returns:
        Strings, the columns of `QUESTION_COLUMNS`. The index is the number of the question, from 1.

    Raises:
        DataError: If the file cannot be read, is not such a list or is empty; every fault is
            listed.
    """
    try:
        encounters = TypeAdapter(list[Encounter]).validate_json(
            path.read_bytes().removeprefix(codecs.BOM_UTF8)
        )
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        faults = [
            f"{'.'.join(['questions', *map(str, fault['loc'])])}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise_if_any(f"{path} is not a list of DermaVQA's questions", faults)
    if not encounters:
        raise DataError(f"{path}: contains no questions")
    table = pd.DataFrame([encounter.to_row() for encounter in encounters], dtype=str)
    return table.set_axis(range(1, len(table) + 1))
