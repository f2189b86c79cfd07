"""Batch scoring: a manifest of any size through a SavedModel on Spark, to Parquet with exactly one row for each of its rows.

The driver reads the manifest in chunks and sends paths and texts; the executors read the photos,
ask the model and send back probabilities; the driver puts them beside the ids and commits the chunk
as one Parquet file. Ids never leave the driver.
"""

import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from eczema_tf.batch.job import Job, open_job
from eczema_tf.batch.spark import check_spark, open_session
from eczema_tf.data.manifest.checks import find_photo
from eczema_tf.data.manifest.stream import Row, stream_rows, survey_manifest
from eczema_tf.data.photo.inspection import MAX_BYTES, upright_jpeg
from eczema_tf.errors import DataError, EczemaError, RunError
from eczema_tf.schema import CONSISTENCY, NOTICE, SEVERITY
from eczema_tf.serving.exported import ExportedModel, ExportMetadata, find_version
from eczema_tf.serving.graph.signature import SERVE

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# a task takes some seconds: long beside what Spark adds (tens of ms), short if it has to be done
# again
TASK_ROWS = 128
PROBABILITIES = (
    "eczema",
    "eczema_image",
    "eczema_text",
    *(f"consistency_{label}" for label in CONSISTENCY),
    *(f"severity_{label}" for label in SEVERITY),
)
USED = ("image_used", "text_used")  # int8 on the way, since `predict_batch_udf` takes no booleans


class Settings(NamedTuple):
    """How to score. None of it changes a probability."""

    master: str  # as Spark names it
    batch_size: int  # rows through the network at once
    chunk_rows: int  # rows of one Parquet file, which is committed when all of them are scored
    threads: (
        int  # of TensorFlow in each Python worker; Spark runs a worker for each core of its master
    )
    keep_text: bool  # whether texts are written out beside the answers
    debug: bool  # whether Spark logs


class Outcome(NamedTuple):
    """What became of a job."""

    summary: dict[
        str, Any
    ]  # what `_job.json` holds: model, manifest, settings, rows, counts by status
    was_finished: bool  # before, so that there was nothing to do


def score_manifest(model: Path, manifest: Path, out: Path, settings: Settings) -> Outcome:
    """Scores every row of a manifest, or goes on with the rows that a stopped job left.

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
    ExportMetadata.read(
        version
    )  # a folder that is no export of ours is an error before Spark starts
    survey = survey_manifest(manifest)
    job = open_job(
        out, version, manifest, survey, chunk_rows=settings.chunk_rows, keep_text=settings.keep_text
    )
    summary = job.find_summary()
    if summary is not None:
        return Outcome(summary, was_finished=True)
    retried = _score_missing(job, version, manifest, settings, with_cases=survey.has_cases)
    return Outcome(
        job.finish((row.example_id for row in stream_rows(manifest)), retried), was_finished=False
    )


def _score_missing(
    job: Job, version: Path, manifest: Path, settings: Settings, *, with_cases: bool
) -> int:
    """Scores and commits the chunks that are missing. Returns how many rows took more than one attempt."""
    missing = frozenset(job.find_missing())
    if not missing:
        return 0
    check_spark()
    retried = 0
    with (
        open_session(settings.master, debug=settings.debug) as spark,
        tqdm(total=job.rows, unit="row", disable=None) as bar,
    ):
        score = _build_udf(version, manifest.parent.resolve(), settings)
        for number, rows in enumerate(_split_into_chunks(stream_rows(manifest), job.chunk_rows)):
            if number in missing:
                answers = _score_chunk(spark, score, rows)
                job.commit(
                    number,
                    _tabulate(rows, answers, with_cases=with_cases, keep_text=settings.keep_text),
                )
                retried += int(np.count_nonzero(answers["attempt"].to_numpy()))
            bar.update(len(rows))
    return retried


def _split_into_chunks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while chunk := list(islice(rows, size)):
        yield chunk


def _build_udf(version: Path, folder: Path, settings: Settings) -> Callable[..., Any]:
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


def _score_chunk(spark: "SparkSession", score: Callable[..., Any], rows: Sequence[Row]) -> pa.Table:
    """One Spark job. Returns a row for each row, in their order."""
    places = pa.array(range(len(rows)), pa.int64())
    asked = {
        "place": places,
        "image_path": [row.image_path for row in rows],
        "text": [row.text for row in rows],
    }
    tasks = max(spark.sparkContext.defaultParallelism, -(-len(rows) // TASK_ROWS))
    frame = spark.createDataFrame(pa.table(asked)).repartition(tasks)
    answers = (
        frame.select("place", score("image_path", "text").alias("answer"))
        .select("place", "answer.*")
        .toArrow()
        .sort_by("place")
    )
    if not answers["place"].combine_chunks().equals(places):
        raise RunError(
            f"Spark gave back {answers.num_rows} rows for {len(rows)}, or not each of them once;"
            " nothing of them was written"
        )
    return answers


def _tabulate(
    rows: Sequence[Row], answers: pa.Table, *, with_cases: bool, keep_text: bool
) -> pa.Table:
    """Puts ids and answers side by side, in the order of the manifest."""
    columns: dict[str, Any] = {"example_id": [row.example_id for row in rows]}
    if with_cases:
        columns["case_id"] = [row.case_id or row.example_id for row in rows]
    if keep_text:
        columns["text"] = [row.text for row in rows]
    columns |= {name: answers[name] for name in PROBABILITIES}
    columns |= {name: answers[name].cast(pa.bool_()) for name in USED}
    columns["status"] = [
        row.fault or status for row, status in zip(rows, answers["status"].to_pylist(), strict=True)
    ]
    return pa.table(columns).replace_schema_metadata({"notice": NOTICE})


def load_scorer(
    model: str, folder: str, threads: int
) -> Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    """Loads the model; runs once in each Python worker of an executor, as `predict_batch_udf` has it.

    Args:
        model: The version's folder.
        folder: The manifest's, which photo paths are relative to.
        threads: Of TensorFlow.

    Returns:
        A function from paths and texts, both object (batch,), "" for none, to `PROBABILITIES`
        float32 (batch,), NaN where their modality was not used, `USED` int8 (batch,), `attempt`
        int8 (batch,), 0 unless Spark had to try again, and `status` object (batch,).

    Raises:
        EczemaError: If the model or the folder is not to be found on this machine.
    """
    import tensorflow as tf
    from pyspark import TaskContext

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    root = Path(folder).resolve()
    if not root.is_dir():
        raise EczemaError(
            f"{folder}: no such folder on {socket.gethostname()}; photos must be in a folder that"
            " all executors share"
        )
    loaded = ExportedModel(Path(model), [SERVE])

    def score(image_paths: np.ndarray, texts: np.ndarray) -> dict[str, np.ndarray]:
        photos, faults = zip(
            *(read_photo(image_path, root) for image_path in image_paths), strict=True
        )
        attempt = np.full(len(texts), TaskContext.get().attemptNumber(), "int8")
        return {**arrange_answers(loaded.run(photos, list(texts)), faults), "attempt": attempt}

    return score


def read_photo(image_path: str, root: Path) -> tuple[bytes, str]:
    """Reads a photo as `predict` does: upright, and without metadata.

    Args:
        image_path: As in the manifest; "" for none.
        root: The manifest's folder, resolved, which the path must not leave.

    Returns:
        JPEG bytes and "", or b"" and what was wrong.
    """
    if not image_path:
        return b"", ""
    try:
        file = find_photo(image_path, root)
        size = file.stat().st_size
        if size > MAX_BYTES:  # before it is read
            raise DataError(f"has {size} bytes; allowed: at most {MAX_BYTES}")
        return upright_jpeg(file.read_bytes()), ""
    except DataError as error:
        return b"", f"photo: {str(error).removeprefix('photo ')}"
    except OSError as error:
        return b"", f"photo: cannot be read: {error.strerror}"


def arrange_answers(outputs: dict[str, np.ndarray], faults: Sequence[str]) -> dict[str, np.ndarray]:
    """Turns the signature's outputs into plain columns; see `load_scorer`.

    Args:
        outputs: Of the signature `serving_default`.
        faults: Of the photos that the model was not shown, "" for none.
    """
    image, text = outputs["image_used"], outputs["text_used"]
    used = {"eczema": image | text, "eczema_image": image, "eczema_text": text}
    columns = {head: np.where(where, outputs[head], np.nan) for head, where in used.items()}
    for name, labels, where in (
        ("consistency", CONSISTENCY, text),
        ("severity", SEVERITY, image | text),
    ):
        columns |= {
            f"{name}_{label}": np.where(where, outputs[name][:, place], np.nan)
            for place, label in enumerate(labels)
        }
    columns = {name: values.astype("float32") for name, values in columns.items()}
    columns |= {name: outputs[name].astype("int8") for name in USED}
    statuses = [
        _join_statuses(fault, status.decode())
        for fault, status in zip(faults, outputs["status"], strict=True)
    ]
    return {**columns, "status": np.array(statuses, object)}


def _join_statuses(fault: str, status: str) -> str:
    """A photo that was not shown counts as none for the model, so that only what it says of the text adds anything."""
    if not fault:
        return status
    return f"{fault}; {status}" if status.startswith("text: ") else fault
