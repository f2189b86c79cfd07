"""A Spark session for batch scoring, and clear words where there is no Spark."""

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import eczema_tf
from eczema_tf.errors import EczemaError, RunError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MIN_JAVA = 17  # Spark 4.0 dropped 8 and 11 (its migration guide)
# how many failures of one task end the job: Spark's own default on a cluster; a local master's is 1
TASK_FAILURES = 4
_LOCAL_MASTER = re.compile(r"local(?:\[(\d+|\*)\])?")
_EXCEPTION = re.compile(r"[\w.$]+(?:Error|Exception): ")


def check_spark() -> None:
    """Checks that Spark can run on this machine.

    Raises:
        EczemaError: If pyspark or Java is missing or too old, with the way to install it.
    """
    if importlib.util.find_spec("pyspark") is None:
        raise EczemaError(
            "batch scoring needs pyspark, which is not installed; install it: pip install -r"
            " requirements-spark.txt"
        )
    home = os.environ.get("JAVA_HOME")  # goes before the PATH, as in Spark's own scripts
    java = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    version = 0  # if there is none, or it does not say
    if java:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
        if number := re.search(r'version "(?:1\.)?(\d+)', done.stderr):  # Java 8 calls itself 1.8
            version = int(number[1])
    if version < MIN_JAVA:
        nowhere = f"none in {f'JAVA_HOME ({home})' if home else 'the PATH'}"
        raise EczemaError(
            f"batch scoring needs Java {MIN_JAVA} or newer; found:"
            f" {f'Java {version} at {java}' if java else nowhere}; install it, for instance on"
            " Debian: apt-get install openjdk-17-jre-headless; or set JAVA_HOME to where it is"
        )


@contextlib.contextmanager
def open_session(master: str, *, debug: bool) -> Iterator["SparkSession"]:
    """Starts Spark and stops it again.

    Args:
        master: As Spark names it: `local[2]`, `spark://host:7077`, `yarn`, `k8s://...`. A local
            master gets Spark's number of failures that a task is forgiven on a cluster, so that a
            Python worker that dies costs no more than its task.
        debug: Whether Spark may log; what ends a job is raised in any case.

    Raises:
        RunError: If Spark cannot be started, or a job fails in the `with` block.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    # or workers run whatever python3 is first in the PATH
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {
        # where the package runs from a clone, not installed
        "spark.executorEnv.PYTHONPATH": str(Path(eczema_tf.__file__).parents[1]),
        "spark.log.level": "WARN" if debug else "OFF",
        "spark.ui.enabled": "false",  # no port is opened, no progress bar drawn over ours
        "spark.ui.showConsoleProgress": "false",
    }
    if _LOCAL_MASTER.fullmatch(master):  # nobody else is to connect
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        settings |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    builder = SparkSession.builder.appName("eczema_tf.score").master(forgive_failures(master))
    with warnings.catch_warnings():
        # Strings and float32 cross over, and nothing else: tests/test_score.py covers them with the
        # pandas that is installed.
        warnings.filterwarnings(
            "ignore", message="PySpark does not yet fully support pandas", category=FutureWarning
        )
        try:
            with builder.config(map=settings).getOrCreate() as spark:
                yield spark
        except (PySparkException, Py4JError) as error:
            raise RunError(f"Spark: {_describe_failure(error)}; --debug shows more") from error


def forgive_failures(master: str) -> str:
    """Returns `local[2]` as `local[2,4]`, and any other master as it is.

    Two threads, and four failures until a task ends the job.
    """
    local = _LOCAL_MASTER.fullmatch(master)
    return f"local[{local[1] or 1},{TASK_FAILURES}]" if local else master


def _describe_failure(error: Exception) -> str:
    """The last line of a Python worker's traceback, or what Java calls its exception."""
    lines = [line.lstrip(": ") for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if _EXCEPTION.match(line)] or lines[:1]
    return telling[-1].removeprefix("eczema_tf.errors.") if telling else type(error).__name__
