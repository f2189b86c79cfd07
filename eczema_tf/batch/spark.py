"""Batch scoring on Spark: a session, and answers to chunks of a manifest, one per row.

The driver sends paths, texts and clinical fields. The executors read the photos, run the model and
send back probabilities (`worker.py`). The driver adds the ids, which never leave it.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

import eczema_tf
from eczema_tf.batch.worker import load_scorer
from eczema_tf.data.manifest.stream import Row
from eczema_tf.errors import EczemaError, RunError
from eczema_tf.evaluation.predictions import FLAGS
from eczema_tf.reporting.decisions import give_reason
from eczema_tf.schema import CONSISTENCY
from eczema_tf.serving.columns import PROBABILITIES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MIN_JAVA = 17  # Spark 4.0 dropped 8 and 11 (its migration guide)
# how many failures of one task end the job: Spark's default on a cluster; a local master's is 1
TASK_FAILURES = 4
# a task takes some seconds: long compared with Spark's overhead (tens of ms), but quickly repeated
TASK_ROWS = 128
_LOCAL_MASTER = re.compile(r"local(?:\[(\d+|\*)(?:,(\d+))?\])?")
_EXCEPTION = re.compile(r"[\w.$]+(?:Error|Exception): ")


def check_spark() -> None:
    """Checks that Spark can run on this machine.

    Raises:
        EczemaError: If pyspark or Java is missing or too old; the message says how to install it.
    """
    if importlib.util.find_spec("pyspark") is None:
        raise EczemaError(
            "batch scoring needs pyspark, which is not installed; install it: pip install -r"
            " requirements-spark.txt"
        )
    home = os.environ.get("JAVA_HOME")  # precedes the PATH, as in Spark's own scripts
    java = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    version = 0  # if there is no Java, or it does not say
    if java:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
        if number := re.search(r'version "(?:1\.)?(\d+)', done.stderr):  # Java 8 calls itself 1.8
            version = int(number[1])
    if version < MIN_JAVA:
        nowhere = f"none in {f'JAVA_HOME ({home})' if home else 'the PATH'}"
        raise EczemaError(
            f"batch scoring needs Java {MIN_JAVA} or newer; found:"
            f" {f'Java {version} at {java}' if java else nowhere}; install it (for instance on"
            " Debian: apt-get install openjdk-17-jre-headless), or set JAVA_HOME to where it is"
        )


@contextlib.contextmanager
def open_session(master: str, *, debug: bool) -> Iterator["SparkSession"]:
    """Starts Spark and stops it again.

    Args:
        master: Spark's master, as Spark names it: `local[2]`, `spark://host:7077`, `yarn`,
            `k8s://...`. A local master allows a task as many failures as a cluster does by default,
            so a Python worker that dies costs no more than its task.
        debug: Whether a local Spark may log; what ends a job is raised in any case.

    Raises:
        RunError: If Spark cannot be started, or a job fails in the `with` block.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    # otherwise workers run whatever python3 is first in the PATH
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {
        # for a package that runs from a clone, without being installed
        "spark.executorEnv.PYTHONPATH": str(Path(eczema_tf.__file__).parents[1]),
        # a cluster's warnings say that no worker is free, or that no master answers
        "spark.log.level": "WARN" if debug or not _LOCAL_MASTER.fullmatch(master) else "OFF",
        "spark.ui.enabled": "false",  # opens no port, draws no progress bar over ours
        "spark.ui.showConsoleProgress": "false",
        "spark.io.encryption.enabled": "true",  # texts pass through files between tasks
    }
    builder = SparkSession.builder.appName("eczema_tf.score").master(forgive_failures(master))
    # for Spark's files, since Java may die without tidying up; a cluster has its own places
    own = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with own as folder, warnings.catch_warnings():
        if _LOCAL_MASTER.fullmatch(master):  # nobody else should connect
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            loopback = dict.fromkeys(("spark.driver.host", "spark.driver.bindAddress"), "127.0.0.1")
            settings |= {**loopback, "spark.local.dir": folder}
        # Only strings and float32 cross over; tests/test_score.py covers them with the pandas that
        # is installed.
        warnings.filterwarnings(
            "ignore", message="PySpark does not yet fully support pandas", category=FutureWarning
        )
        # after Ctrl-C, which Java gets as well
        warnings.filterwarnings("ignore", message="Unable to cleanly shutdown Spark JVM process")
        try:
            with builder.config(map=settings).getOrCreate() as spark:
                yield spark
        except (PySparkException, Py4JError) as error:
            told = _describe_failure(error)
            raise RunError(f"Spark ({master}): {told}; --debug shows more") from error
        except ConnectionError as error:
            raise RunError(
                "Spark's Java process has ended (too little memory?); the same command continues"
                " where it stopped"
            ) from error


def forgive_failures(master: str) -> str:
    """Returns `local[2]` as `local[2,4]`, and any other master as it is.

    That is two threads, and four failures of a task until the job ends. `local[2,8]` already says
    how many.
    """
    local = _LOCAL_MASTER.fullmatch(master)
    return f"local[{local[1] or 1},{local[2] or TASK_FAILURES}]" if local else master


def _describe_failure(error: Exception) -> str:
    """Returns the last line of a Python worker's traceback, or Java's name for its exception."""
    lines = [line.lstrip(": ") for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if _EXCEPTION.match(line)] or lines[:1]
    return telling[-1].removeprefix("eczema_tf.errors.") if telling else type(error).__name__


def build_udf(version: Path, folder: Path, *, threads: int, batch_size: int) -> Any:
    """Builds the Spark function that runs the model.

    Args:
        version: Folder of the export; every executor must find it under the same path.
        folder: The manifest's folder with the photos; every executor must find it, too.
        threads: TensorFlow's threads in each Python worker; Spark runs one worker per core of its
            master.
        batch_size: Rows that go through the network at once.
    """
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.types import ByteType, FloatType, StringType, StructField, StructType

    types = {
        **dict.fromkeys(PROBABILITIES, FloatType()),
        **dict.fromkeys((*FLAGS, "attempt"), ByteType()),
        "status": StringType(),
        "decision": StringType(),
    }
    answer = StructType([StructField(name, kind) for name, kind in types.items()])
    load = partial(load_scorer, str(version), str(folder), threads)
    return predict_batch_udf(load, return_type=answer, batch_size=batch_size)


def score_chunk(spark: "SparkSession", udf: Any, rows: Sequence[Row]) -> pa.Table:
    """Scores rows in one Spark job.

    Args:
        spark: The session.
        udf: From `build_udf`.
        rows: Rows of a manifest.

    Returns:
        What `worker.load_scorer` describes: one answer per row, in the same order.

    Raises:
        RunError: If Spark lost or repeated a row.
    """
    numbers = pa.array(range(len(rows)), pa.int64())
    asked = {
        "number": numbers,
        "image_path": [row.image_path for row in rows],
        "text": [row.text for row in rows],
        "clinical": [row.clinical for row in rows],
    }
    tasks = max(spark.sparkContext.defaultParallelism, -(-len(rows) // TASK_ROWS))
    frame = spark.createDataFrame(pa.table(asked)).repartition(tasks)
    scored = frame.select("number", udf("image_path", "text", "clinical").alias("answer"))
    answers = scored.select("number", "answer.*").toArrow().sort_by("number")
    if not answers["number"].combine_chunks().equals(numbers):
        raise RunError(
            f"Spark returned {answers.num_rows} rows for {len(rows)}, or not each of them exactly"
            " once; none of them was written"
        )
    return answers


def tabulate_chunk(
    rows: Sequence[Row], answers: pa.Table, *, has_cases: bool, keep_text: bool, notice: str
) -> pa.Table:
    """Puts ids and answers side by side, in the order of the manifest.

    Args:
        rows: Rows of a manifest.
        answers: From `score_chunk`.
        has_cases: Whether the manifest names cases.
        keep_text: Whether texts are written along with the answers.
        notice: Notice of the export.
    """
    flags = {name: answers[name].cast(pa.bool_()) for name in FLAGS}
    said = pa.table({name: answers[name] for name in ("decision", "status")} | flags)
    shares = [answers[f"consistency_{label}"].to_pylist() for label in CONSISTENCY]
    statuses = zip(rows, said["status"].to_pylist(), strict=True)
    columns = {
        "example_id": [row.example_id for row in rows],
        **({"case_id": [row.case_id or row.example_id for row in rows]} if has_cases else {}),
        **({"text": [row.text for row in rows]} if keep_text else {}),
        "decision": said["decision"],
        "reason": [
            give_reason(row | {"consistency": of_row})
            for row, of_row in zip(said.to_pylist(), zip(*shares, strict=True), strict=True)
        ],
        **{name: answers[name] for name in PROBABILITIES},
        **flags,
        "status": [row.fault or status for row, status in statuses],
    }
    return pa.table(columns).replace_schema_metadata({"notice": notice})
