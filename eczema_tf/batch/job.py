"""The folder of a batch scoring job: Parquet parts that are there whole or not at all, and `_job.json`, which says what they are of.

A part holds the same rows, in the same order, as its chunk of the manifest. What is there is done;
so a killed job goes on with what is missing, and two that run into one folder at once only do the
work twice.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from eczema_tf import __version__
from eczema_tf.data.manifest.stream import Survey
from eczema_tf.errors import EczemaError, RunError, join_faults
from eczema_tf.files import replacing_file, write_json
from eczema_tf.schema import NOTICE

_DETAILS = re.compile(r" \(.*\)")  # what the decoder stumbled over differs from photo to photo
# readers of Parquet folders (Arrow, Spark) pass over names that begin with an underscore
JOB = "_job.json"


class Job(NamedTuple):
    """A job and its folder."""

    folder: Path
    facts: dict[
        str, Any
    ]  # what `_job.json` says at the start: of which model and manifest, and how

    @property
    def rows(self) -> int:
        """How many rows the manifest has."""
        return self.facts["manifest"]["rows"]

    @property
    def chunk_rows(self) -> int:
        """How many rows a part has; the last may have fewer."""
        return self.facts["chunk_rows"]

    def find_missing(self) -> list[int]:
        """Returns the numbers of the parts that are not there."""
        return [number for number in range(self._count_parts()) if not self._part(number).is_file()]

    def find_summary(self) -> dict[str, Any] | None:
        """Returns what `finish` wrote, if the job is finished."""
        facts = _read_facts(self.folder)
        return facts if "statuses" in facts and not self.find_missing() else None

    def commit(self, number: int, table: pa.Table) -> None:
        """Writes a part, whole or not at all."""
        with replacing_file(self._part(number)) as aside:
            parquet.write_table(table, aside)

    def finish(self, example_ids: Iterable[str], rows_retried: int) -> dict[str, Any]:
        """Checks every part against the manifest, and writes down the counts.

        Args:
            example_ids: Of the manifest, which holds each once, in its order.
            rows_retried: How many Spark had to score again, since the job was started or taken up
                again.

        Returns:
            What `_job.json` now holds: the facts, and `statuses`, how many rows have which status
                (without details in parentheses).

        Raises:
            RunError: If the parts do not hold each row of the manifest exactly once.
        """
        ids = iter(example_ids)
        reasons: Counter[str] = Counter()
        faults = []
        for number in range(self._count_parts()):
            written, statuses = _read_columns(self._part(number))
            reasons.update(_DETAILS.sub("", status) for status in statuses)
            if written != list(islice(ids, self.chunk_rows)):
                faults.append(
                    f"{self._part(number).name}: its rows are not those of the manifest; delete it"
                    " and run the command again"
                )
        expected = {self._part(number) for number in range(self._count_parts())}
        faults += [
            f"{part.name}: is no part of this job; move it away"
            for part in set(self.folder.glob("[!._]*.parquet")) - expected
        ]
        if faults or reasons.total() != self.rows:
            raise RunError(
                join_faults(
                    f"{self.folder}: {reasons.total()} rows for {self.rows} of the manifest", faults
                )
            )
        summary = {
            **self.facts,
            "rows": self.rows,
            "statuses": dict(reasons.most_common()),
            "rows_retried": rows_retried,
        }
        write_json(self.folder / JOB, summary)
        return summary

    def _count_parts(self) -> int:
        return -(-self.rows // self.chunk_rows)

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:06}.parquet"


def open_job(
    folder: Path, model: Path, manifest: Path, survey: Survey, *, chunk_rows: int, keep_text: bool
) -> Job:
    """Begins a job, or takes up the one that the folder holds.

    Args:
        folder: Of the job; made if need be.
        model: The version's folder.
        manifest: The file.
        survey: Of the manifest.
        chunk_rows: Rows of a part.
        keep_text: Whether the parts hold the texts.

    Raises:
        EczemaError: If the folder holds something else, or the job of another model or manifest, or
            one with other settings.
    """
    facts = {
        "model": {"version": model.name, "sha256": _digest_folder(model)},
        "manifest": {"name": manifest.name, "sha256": survey.sha256, "rows": survey.rows},
        "chunk_rows": chunk_rows,
        "keep_text": keep_text,
        "eczema_tf": __version__,
        "notice": NOTICE,
    }
    if (folder / JOB).is_file():
        _check_same(folder, facts)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EczemaError(f"{folder}: exists, and holds no scoring job; choose another folder")
    else:
        write_json(folder / JOB, facts)
    return Job(folder, facts)


def _check_same(folder: Path, facts: dict[str, Any]) -> None:
    begun = _read_facts(folder)
    other = [name for name in facts if begun.get(name) != facts[name]]
    faults = [
        f"{name}: was {json.dumps(begun.get(name))}, and is now {json.dumps(facts[name])}"
        for name in other
    ]
    if faults:
        raise EczemaError(
            join_faults(
                f"{folder}: holds a job with other inputs; give another --out, or what it was begun"
                " with",
                faults,
            )
        )


def _read_facts(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / JOB).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise EczemaError(f"{folder / JOB}: damaged ({error}); choose another folder") from error


def _read_columns(part: Path) -> tuple[list[str], list[str]]:
    try:
        table = parquet.ParquetFile(part).read(["example_id", "status"])
    except (OSError, ValueError) as error:  # pyarrow's own errors are among these
        raise RunError(
            f"{part}: cannot be read ({' '.join(str(error).split())}); delete it and run the"
            " command again"
        ) from error
    return table["example_id"].to_pylist(), table["status"].to_pylist()


def _digest_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}\n{_digest_file(file)}\n".encode())
    return digest.hexdigest()


def _digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
