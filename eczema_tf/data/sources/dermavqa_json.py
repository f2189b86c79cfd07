"""DermaVQA as its authors publish it (`train.json`, ...), as the table that `dermavqa` reads.

The files hold replies, not counts of them. The words below give the counts of that table for all of
its 842 questions.
"""

import re
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, TypeAdapter, ValidationError

from eczema_tf.errors import DataError, raise_if_any

ECZEMA = re.compile("eczema|atopic", re.IGNORECASE)
FAMILY = re.compile(
    "eczema|atopic|dermatitis|dyshidro|pompholyx|prurigo|lichen simplex", re.IGNORECASE
)
DIAGNOSIS = re.compile(
    "eczema|dermatitis|psoriasis|tinea|urticaria|acne|scabies|lichen|herpes|zoster|vitiligo"
    "|syphilis|diagnosed",
    re.IGNORECASE,
)


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
        """The question as a row of the table."""
        parts = self.query_title_en, self.query_content_en
        text = ". ".join(part for part in parts if part.strip())
        replies = [reply.content_en for reply in self.responses]
        return {
            "encounter_id": self.encounter_id,
            "author_id": self.author_id,
            "query_en": text,
            "image_ids": " ".join(self.image_ids),
            "n_resp": len(replies),
            "resp_eczema": sum(bool(ECZEMA.search(reply)) for reply in replies),
            "resp_dermatitis_family": sum(bool(FAMILY.search(reply)) for reply in replies),
            "query_names_diagnosis": int(bool(DIAGNOSIS.search(text))),
        }


def read_encounters(path: Path) -> pd.DataFrame:
    """Reads a file of questions.

    Args:
        path: JSON, a list of questions.

    Returns:
        Strings, the columns of `dermavqa.COLUMNS`. The index is the number of the question, from 1.

    Raises:
        DataError: If the file cannot be read, or is no such list, or an empty one; every
            fault is named.
    """
    try:
        encounters = TypeAdapter(list[Encounter]).validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        faults = [
            f"{'.'.join(['questions', *map(str, fault['loc'])])}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise_if_any(f"{path} is not a list of DermaVQA's questions", faults)
    if not encounters:
        raise DataError(f"{path}: holds no questions")
    table = pd.DataFrame([encounter.to_row() for encounter in encounters], dtype=str)
    return table.set_axis(range(1, len(table) + 1))
