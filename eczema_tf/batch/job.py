"""The folder of a batch scoring job: Parquet parts, whole or absent, and `_job.json`.

A part has the same rows, in the same order, as its chunk of the manifest; `_job.json` says which
manifest and model they are from. A part that exists is done. So a killed job continues with the
missing parts, and two jobs that write to one folder at once only do the work twice.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pyarrow import parquet

from eczema_tf import __version__
from eczema_tf.data.checksums import digest_folder
from eczema_tf.data.manifest.stream import Survey
from eczema_tf.errors import EczemaError, RunError, join_faults, raise_if_any
from eczema_tf.files import ASIDE, Record, replacing_file
from eczema_tf.schema import NOTICE

# what differs from row to row: the decoder's errors, names, sizes, how far a text was read
_DETAILS = {
    re.compile(r" \([^;()]*\)|; did you mean (['\"]).*?\1\?"): "",
    re.compile(r"(?<= has )\d+(?= bytes)"): "N",
    re.compile(r"(?<= word )\d+ of \d+"): "N of M",
}
# readers of Parquet folders (Arrow, Spark) skip names that begin with an underscore
JOB = "_job.json"


class ModelFacts(Record):
    """Identifies the export: its version, and the digest of its folder."""

    version: str
    sha256: str


class ManifestFacts(Record):
    """Identifies the manifest: name and digest of its file, and how many rows it has."""

    name: str
    sha256: str
    rows: int


class JobFacts(Record):
    """The contents of `_job.json` while a job runs: its inputs and settings.

    Attributes:
        model: The export that scores.
        manifest: The manifest that is scored.
        chunk_rows: Rows per part; the last may have fewer.
        keep_text: Whether the parts contain the texts.
        eczema_tf: Version of this package.
        notice: What everyone must read before an answer.
    """

    model: ModelFacts
    manifest: ManifestFacts
    chunk_rows: int
    keep_text: bool
    eczema_tf: str
    notice: str


class JobSummary(JobFacts):
    """The contents of `_job.json` once a job is finished.

    Attributes:
        rows: How many rows were scored.
        statuses: How many rows have each status (without details).
        rows_retried: How many rows Spark had to score again since the job was last started.
    """

    rows: int
    statuses: dict[str, int]
    rows_retried: int


class Job(NamedTuple):
    """A job and its folder."""

    folder: Path
    facts: JobFacts

    @property
    def parts(self) -> list[Path]:
        """The files of all parts, whether they exist or not."""
        count = -(-self.facts.manifest.rows // self.facts.chunk_rows)
        return [self.folder / f"part-{number:06}.parquet" for number in range(count)]

    def find_missing(self) -> list[int]:
        """Returns the numbers of the parts that do not exist."""
        return [number for number, part in enumerate(self.parts) if not part.is_file()]

    def find_summary(self) -> JobSummary | None:
        """Returns what `finish` wrote, if the job is finished."""
        facts = read_facts(self.folder)
        return facts if isinstance(facts, JobSummary) and not self.find_missing() else None

    def commit(self, number: int, table: pa.Table) -> None:
        """Writes a part, whole or not at all."""
        with replacing_file(self.folder / f"part-{number:06}.parquet") as aside:
            parquet.write_table(table, aside)

    def finish(self, example_ids: Iterable[str], rows_retried: int) -> JobSummary:
        """Checks every part against the manifest, and writes the counts.

        Args:
            example_ids: Ids of the manifest, each once, in its order.
            rows_retried: As in `JobSummary`.

        Raises:
            RunError: If the parts do not contain each row of the manifest exactly once.
        """
        ids = iter(example_ids)
        reasons: Counter[str] = Counter()
        faults = []
        for part in self.parts:
            table = _read_part(part)
            reasons.update(map(_leave_out_details, table["status"].to_pylist()))
            if table["example_id"].to_pylist() != list(islice(ids, self.facts.chunk_rows)):
                faults.append(
                    f"{part.name}: its rows are not those of the manifest; delete it and run the"
                    " command again"
                )
        faults += [
            f"{part.name}: is not part of this job; move it away"
            for part in set(self.folder.glob("[!._]*.parquet")) - set(self.parts)
        ]
        rows, expected = reasons.total(), self.facts.manifest.rows
        if faults or rows != expected:
            title = f"{self.folder}: {rows} rows for the {expected} of the manifest"
            raise RunError(join_faults(title, faults))
        summary = JobSummary(
            **dict(self.facts),
            rows=rows,
            statuses=dict(reasons.most_common()),
            rows_retried=rows_retried,
        )
        summary.write(self.folder / JOB)
        return summary


def _read_part(part: Path) -> pa.Table:
    try:
        return parquet.ParquetFile(part).read(["example_id", "status"])
    except (OSError, ValueError) as error:  # pyarrow's own errors are among these
        raise RunError(
            f"{part}: cannot be read ({' '.join(str(error).split())}); delete it and run the"
            " command again"
        ) from error


def open_job(
    folder: Path,
    model: Path,
    manifest: Path,
    survey: Survey,
    *,
    chunk_rows: int,
    keep_text: bool,
    notice: str = NOTICE,
) -> Job:
    """Starts a job, or resumes the one in the folder.

    Args:
        folder: Folder of the job; created if necessary.
        model: Folder of the model's version.
        manifest: The manifest's file.
        survey: Survey of the manifest.
        chunk_rows: Rows per part.
        keep_text: Whether the parts contain the texts.
        notice: Notice of the export.

    Raises:
        EczemaError: If the folder contains something else, or a job with another model, manifest or
            settings.
    """
    facts = JobFacts(
        model=ModelFacts(version=model.name, sha256=digest_folder(model)),
        manifest=ManifestFacts(name=manifest.name, sha256=survey.sha256, rows=survey.rows),
        chunk_rows=chunk_rows,
        keep_text=keep_text,
        eczema_tf=__version__,
        notice=notice,
    )
    if (folder / JOB).is_file():
        begun = read_facts(folder).model_dump()
        faults = [
            f"{name}: was {json.dumps(begun[name])}, and is now {json.dumps(value)}"
            for name, value in facts.model_dump().items()
            if begun[name] != value
        ]
        title = f"{folder}: contains a job with other inputs; give another --out or the same inputs"
        raise_if_any(title, faults, EczemaError)
    elif folder.exists() and (
        # what a killed process was writing does not count
        not folder.is_dir() or not all(path.name.startswith(ASIDE) for path in folder.iterdir())
    ):
        raise EczemaError(f"{folder}: exists and contains no scoring job; choose another folder")
    else:
        facts.write(folder / JOB)
    return Job(folder, facts)


def read_facts(folder: Path) -> JobFacts:
    """Reads `_job.json`: a `JobSummary` if the job was finished.

    Raises:
        EczemaError: If it is damaged.
    """
    try:
        written = (folder / JOB).read_bytes()
        kind = JobSummary if "statuses" in json.loads(written) else JobFacts
        return kind.model_validate_json(written)
    except (OSError, ValueError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise EczemaError(f"{folder / JOB}: damaged ({first}); choose another folder") from error


def _leave_out_details(status: str) -> str:
    for detail, sign in _DETAILS.items():
        status = detail.sub(sign, status)
    return status
