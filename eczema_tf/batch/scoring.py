"""Batch scoring on Spark: chunks of a manifest to answers, with exactly one row for each row.

The driver sends paths and texts; the executors read the photos, ask the model and send back
probabilities (`worker.py`); the driver puts them beside the ids, which never leave it.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from eczema_tf.batch.worker import load_scorer
from eczema_tf.data.manifest.stream import Row
from eczema_tf.errors import RunError
from eczema_tf.evaluation.predictions import FLAGS
from eczema_tf.reporting.decisions import give_reason
from eczema_tf.serving.columns import PROBABILITIES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# a task takes some seconds: long beside what Spark adds (tens of ms), short if it has to be done
# again
TASK_ROWS = 128


def build_udf(version: Path, folder: Path, *, threads: int, batch_size: int) -> Any:
    """Builds the Spark function that asks the model.

    Args:
        version: Folder of the export, and that of the manifest with the photos: every executor must
            find both under the same path.
        folder: Likewise.
        threads: Of TensorFlow in each Python worker; Spark runs one for each core of its master.
        batch_size: Rows through the network at once.
    """
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.types import ByteType, FloatType, StringType, StructType

    types = {
        **dict.fromkeys(PROBABILITIES, FloatType()),
        **dict.fromkeys((*FLAGS, "attempt"), ByteType()),
        "status": StringType(),
        "decision": StringType(),
    }
    answer = StructType()
    for name, kind in types.items():
        answer.add(name, kind)
    load = partial(load_scorer, str(version), str(folder), threads)
    return predict_batch_udf(load, return_type=answer, batch_size=batch_size)


def score_chunk(spark: "SparkSession", udf: Any, rows: Sequence[Row]) -> pa.Table:
    """Scores rows in one Spark job.

    Args:
        spark: The session.
        udf: From `build_udf`.
        rows: Of a manifest.

    Returns:
        What `worker.load_scorer` describes: a row for each row, in their order.

    Raises:
        RunError: If Spark lost or repeated a row.
    """
    numbers = pa.array(range(len(rows)), pa.int64())
    asked = {
        "number": numbers,
        "image_path": [row.image_path for row in rows],
        "text": [row.text for row in rows],
    }
    tasks = max(spark.sparkContext.defaultParallelism, -(-len(rows) // TASK_ROWS))
    frame = spark.createDataFrame(pa.table(asked)).repartition(tasks)
    scored = frame.select("number", udf("image_path", "text").alias("answer"))
    answers = scored.select("number", "answer.*").toArrow().sort_by("number")
    if not answers["number"].combine_chunks().equals(numbers):
        raise RunError(
            f"Spark gave back {answers.num_rows} rows for {len(rows)}, or not each of them once;"
            " nothing of them was written"
        )
    return answers


def tabulate_chunk(
    rows: Sequence[Row], answers: pa.Table, *, has_cases: bool, keep_text: bool, notice: str
) -> pa.Table:
    """Puts ids and answers side by side, in the order of the manifest.

    Args:
        rows: Of a manifest.
        answers: From `score_chunk`.
        has_cases: Whether the manifest names cases.
        keep_text: Whether texts are written out beside the answers.
        notice: Of the export.
    """
    columns: dict[str, object] = {"example_id": [row.example_id for row in rows]}
    if has_cases:
        columns["case_id"] = [row.case_id or row.example_id for row in rows]
    if keep_text:
        columns["text"] = [row.text for row in rows]
    flags = {name: answers[name].cast(pa.bool_()) for name in FLAGS}
    said = pa.table({name: answers[name] for name in ("decision", "status")} | flags)
    columns["decision"] = said["decision"]
    columns["reason"] = [give_reason(row) for row in said.to_pylist()]
    columns |= {name: answers[name] for name in PROBABILITIES} | flags
    statuses = zip(rows, answers["status"].to_pylist(), strict=True)
    columns["status"] = [row.fault or status for row, status in statuses]
    return pa.table(columns).replace_schema_metadata({"notice": notice})
