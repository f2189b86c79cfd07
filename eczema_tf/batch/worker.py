"""Code of Spark's Python workers: reads photos, runs the model, returns answers."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np

from eczema_tf.cli import start_tensorflow
from eczema_tf.data.photo.files import find_photo
from eczema_tf.data.photo.upright import read_upright
from eczema_tf.errors import DataError, EczemaError
from eczema_tf.serving.columns import Columns, arrange_answers
from eczema_tf.serving.exported import ExportedModel, ExportMetadata
from eczema_tf.serving.graph.signature import SERVE, WITH_CLINICAL
from eczema_tf.serving.reading import describe_fault


def load_scorer(
    model: str, folder: str, threads: int
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], Columns]:
    """Loads the model; `predict_batch_udf` calls it once in each worker.

    Args:
        model: Folder of the model's version.
        folder: The manifest's folder, which photo paths are relative to.
        threads: How many threads TensorFlow gets.

    Returns:
        A function from paths, texts and clinical fields, each object (batch,), "" for none, to the
        columns of `serving.columns.arrange_answers`, and `attempt`, int8 (batch,), 0 unless Spark
        had to try again.

    Raises:
        EczemaError: If the model or the folder cannot be found on this machine.
    """
    from pyspark import TaskContext

    # before its first operation, which comes next
    os.environ |= dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), str(threads))
    start_tensorflow(with_keras=False)
    root = Path(folder).resolve()
    if not root.is_dir():
        raise EczemaError(
            f"{folder}: no such folder on {socket.gethostname()}; photos must be in a folder that"
            " all executors share"
        )
    signature = WITH_CLINICAL[SERVE] if ExportMetadata.read(Path(model)).clinical else SERVE
    exported = ExportedModel(Path(model), [signature])

    def score(image_paths: np.ndarray, texts: np.ndarray, clinical: np.ndarray) -> Columns:
        read = [prepare_photo(image_path, root) for image_path in image_paths]
        photos, faults = zip(*read, strict=True)
        attempt = np.full(len(texts), TaskContext.get().attemptNumber(), "int8")
        outputs = exported.run(photos, list(texts), signature, list(clinical))
        return {**arrange_answers(outputs, faults), "attempt": attempt}

    return score


def prepare_photo(image_path: str, root: Path) -> tuple[bytes, str]:
    """Reads a photo as `predict` does: upright, and without metadata.

    Args:
        image_path: As in the manifest; "" for none.
        root: The manifest's folder, resolved; the path must not leave it.

    Returns:
        JPEG bytes and "", or b"" and what was wrong.
    """
    if not image_path:
        return b"", ""
    try:
        return read_upright(find_photo(image_path, root)), ""
    except DataError as error:
        return b"", describe_fault(error)
