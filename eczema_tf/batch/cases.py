"""Turns scored rows into cases: a case's photos become one row, pooled as in `evaluate`."""

import contextlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from eczema_tf.batch.job import Job
from eczema_tf.data.manifest.stream import Survey
from eczema_tf.errors import DataError, EczemaError
from eczema_tf.evaluation.predictions import FLAGS
from eczema_tf.files import replacing_file
from eczema_tf.reporting.decisions import give_reason
from eczema_tf.schema import CONSISTENCY, ECZEMA_HEADS, SEVERITY
from eczema_tf.serving.cases import Undecided, plain_row, pool_rows
from eczema_tf.serving.columns import PROBABILITIES, arrange_answers

PART_COLUMNS = ("case_id", "decision", "status", *PROBABILITIES, *FLAGS)


def check_cases_file(file: Path, manifest: Path, survey: Survey, job: Path) -> None:
    """Checks that a manifest names cases, and that a file is new or from an earlier `write_cases`.

    Raises:
        DataError: If the manifest names no cases.
        EczemaError: If another file would be lost, or the file would be among the rows in the job's
            folder.
    """
    if not survey.has_cases:
        raise DataError(f"--cases: {manifest} names no cases; give its rows a case_id")
    if file.resolve().is_relative_to(job.resolve()):
        raise EczemaError(
            f"--cases {file}: all Parquet files of {job} are read as rows; name a file elsewhere"
        )
    if not file.exists():
        return
    with contextlib.suppress(pa.ArrowException, OSError):
        if {"case_id", "rows", "decision", "reason"} <= {*parquet.read_schema(file).names}:
            return
    raise EczemaError(
        f"--cases {file}: exists and contains no answers on cases; name a new file to write"
    )


def write_cases(job: Job, file: Path, undecided: Undecided | None) -> int:
    """Pools the parts of a finished job by case; all of them are in memory at once.

    Args:
        job: A job on a manifest that names cases.
        file: Parquet file, written whole or not at all: one row per case, in order of first
            appearance.
        undecided: Bounds of the export.

    Returns:
        How many cases there are.
    """
    parts = pa.concat_tables(parquet.ParquetFile(part).read(PART_COLUMNS) for part in job.parts)
    rows = {name: parts[name].to_numpy() for name in (*PROBABILITIES, *FLAGS)}
    labels = {"consistency": CONSISTENCY, "severity": SEVERITY}
    outputs = {
        **{head: rows[head] for head in ECZEMA_HEADS.values()},
        **{
            name: np.stack([rows[f"{name}_{label}"] for label in labels[name]], axis=1)
            for name in labels
        },
        **{flag: rows[flag].astype(bool) for flag in FLAGS},
        **{name: parts[name].cast(pa.binary()).to_numpy() for name in ("decision", "status")},
    }
    cases = parts["case_id"].to_numpy()
    pooled = pool_rows(outputs, cases, undecided)
    photos = pd.Series(rows["image_used"], dtype=int).groupby(cases, sort=False)
    counts = photos.size()
    told = arrange_answers(pooled, [""] * len(counts))
    said = {name: pooled[name] for name in ("consistency", "decision", "status", *FLAGS)}
    table = {
        "case_id": counts.index.to_numpy(),
        "rows": counts.to_numpy(),
        "decision": told["decision"],
        "reason": [
            give_reason(plain_row(said, number), shown) for number, shown in enumerate(photos.sum())
        ],
        **{name: pa.array(told[name], from_pandas=True) for name in PROBABILITIES},
        **{flag: pooled[flag] for flag in FLAGS},
        "status": told["status"],
    }
    with replacing_file(file) as aside:
        parquet.write_table(pa.table(table).replace_schema_metadata(parts.schema.metadata), aside)
    return len(counts)
