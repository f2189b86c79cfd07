"""Batch scoring: a manifest of any size through an exported model on Spark, to Parquet.

Exactly one row comes out for each that goes in. The driver reads the manifest in chunks and sends
paths and texts; the executors read the photos, ask the model and send back probabilities
(`worker.py`); the driver puts them beside the ids and commits the chunk as one Parquet file. Ids
never leave the driver.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from eczema_tf.batch.job import JobSummary, open_job
from eczema_tf.batch.spark import check_spark, open_session
from eczema_tf.batch.worker import PROBABILITIES, USED, load_scorer
from eczema_tf.data.manifest.stream import Row, stream_rows, survey_manifest
from eczema_tf.errors import RunError
from eczema_tf.schema import NOTICE
from eczema_tf.serving.exported import ExportMetadata, find_version

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# a task takes some seconds: long beside what Spark adds (tens of ms), short if it has to be done
# again
TASK_ROWS = 128


class Settings(NamedTuple):
    """How to score. None of it changes a probability.

    Attributes:
        master: As Spark names it.
        batch_size: Rows through the network at once.
        chunk_rows: Rows of one Parquet file, which is committed when all of them are scored.
        threads: Of TensorFlow in each Python worker; Spark runs one for each core of its master.
        keep_text: Whether texts are written out beside the answers.
        debug: Whether Spark logs.
    """

    master: str
    batch_size: int
    chunk_rows: int
    threads: int
    keep_text: bool
    debug: bool


class Outcome(NamedTuple):
    """What became of a job.

    Attributes:
        summary: What `_job.json` holds.
        was_finished: Before, so that there was nothing to do.
    """

    summary: JobSummary
    was_finished: bool


def score_manifest(model: Path, manifest: Path, out: Path, settings: Settings) -> Outcome:
    """Scores every row of a manifest, or the rows that a stopped job left.

    Args:
        model: Folder of an export: a version, or of all versions (the newest is taken). Like the
            manifest's folder with the photos, it must be found under the same path by all
            executors.
        manifest: CSV or Parquet.
        out: Folder for the Parquet files and `_job.json`.
        settings: How.

    Raises:
        DataError: If the manifest as a whole cannot be used, or an id is empty or repeated. A bad
            row is no error: its status says so.
        EczemaError: If there is no model, Spark or Java, or `out` holds something else.
        RunError: If Spark fails, or the rows that came out are not those that went in.
    """
    version = find_version(model).resolve()
    ExportMetadata.read(version)  # a folder that is no export of ours fails before Spark starts
    survey = survey_manifest(manifest)
    job = open_job(
        out, version, manifest, survey, chunk_rows=settings.chunk_rows, keep_text=settings.keep_text
    )
    if (summary := job.find_summary()) is not None:
        return Outcome(summary, was_finished=True)
    rows_retried = 0
    if missing := frozenset(job.find_missing()):
        check_spark()
        with (
            open_session(settings.master, debug=settings.debug) as spark,
            tqdm(total=survey.rows, unit="row", disable=None) as bar,
        ):
            score = _build_udf(version, manifest.parent.resolve(), settings)
            for number, rows in enumerate(_chunk(stream_rows(manifest), settings.chunk_rows)):
                if number in missing:
                    answers = _score_chunk(spark, score, rows)
                    rows_retried += int(np.count_nonzero(answers["attempt"].to_numpy()))
                    table = _tabulate(rows, answers, survey.has_cases, settings.keep_text)
                    job.commit(number, table)
                bar.update(len(rows))
    ids = (row.example_id for row in stream_rows(manifest))
    return Outcome(job.finish(ids, rows_retried), was_finished=False)


def _chunk(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while chunk := list(islice(rows, size)):
        yield chunk


def _build_udf(version: Path, folder: Path, settings: Settings) -> Any:
    """The Spark function that asks the model."""
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.types import ByteType, FloatType, StringType, StructType

    types = {
        **dict.fromkeys(PROBABILITIES, FloatType()),
        **dict.fromkeys((*USED, "attempt"), ByteType()),
        "status": StringType(),
    }
    answer = StructType()
    for name, kind in types.items():
        answer.add(name, kind)
    load = partial(load_scorer, str(version), str(folder), settings.threads)
    return predict_batch_udf(load, return_type=answer, batch_size=settings.batch_size)


def _score_chunk(spark: "SparkSession", score: Any, rows: Sequence[Row]) -> pa.Table:
    """One Spark job: a row for each row, in their order."""
    numbers = pa.array(range(len(rows)), pa.int64())
    asked = {
        "number": numbers,
        "image_path": [row.image_path for row in rows],
        "text": [row.text for row in rows],
    }
    tasks = max(spark.sparkContext.defaultParallelism, -(-len(rows) // TASK_ROWS))
    frame = spark.createDataFrame(pa.table(asked)).repartition(tasks)
    scored = frame.select("number", score("image_path", "text").alias("answer"))
    answers = scored.select("number", "answer.*").toArrow().sort_by("number")
    if not answers["number"].combine_chunks().equals(numbers):
        raise RunError(
            f"Spark gave back {answers.num_rows} rows for {len(rows)}, or not each of them once;"
            " nothing of them was written"
        )
    return answers


def _tabulate(rows: Sequence[Row], answers: pa.Table, has_cases: bool, keep_text: bool) -> pa.Table:
    """Puts ids and answers side by side, in the order of the manifest."""
    columns: dict[str, object] = {"example_id": [row.example_id for row in rows]}
    if has_cases:
        columns["case_id"] = [row.case_id or row.example_id for row in rows]
    if keep_text:
        columns["text"] = [row.text for row in rows]
    columns |= {name: answers[name] for name in PROBABILITIES}
    columns |= {name: answers[name].cast(pa.bool_()) for name in USED}
    statuses = zip(rows, answers["status"].to_pylist(), strict=True)
    columns["status"] = [row.fault or status for row, status in statuses]
    return pa.table(columns).replace_schema_metadata({"notice": NOTICE})
