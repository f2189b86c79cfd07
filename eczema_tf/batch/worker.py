"""What each Python worker of Spark runs: photos are read, the model is asked, answers go back."""

import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from eczema_tf.data.photo.files import find_photo, read_photo
from eczema_tf.data.photo.upright import upright_jpeg
from eczema_tf.errors import DataError, EczemaError
from eczema_tf.schema import CONSISTENCY, SEVERITY
from eczema_tf.serving.exported import ExportedModel, Outputs
from eczema_tf.serving.graph.signature import SERVE
from eczema_tf.serving.reading import describe_fault, join_statuses

PROBABILITIES = (
    "eczema",
    "eczema_image",
    "eczema_text",
    *(f"consistency_{label}" for label in CONSISTENCY),
    *(f"severity_{label}" for label in SEVERITY),
)
# int8 on the way, since `predict_batch_udf` takes no booleans
FLAGS = ("image_used", "text_used", "known_image", "known_text")

Columns = dict[str, np.ndarray]


def load_scorer(
    model: str, folder: str, threads: int
) -> Callable[[np.ndarray, np.ndarray], Columns]:
    """Loads the model; called once in each worker, as `predict_batch_udf` has it.

    Args:
        model: The version's folder.
        folder: The manifest's, which photo paths are relative to.
        threads: Of TensorFlow.

    Returns:
        A function from paths and texts, both object (batch,), "" for none, to `PROBABILITIES`
        float32 (batch,), NaN where their modality was not used, `FLAGS` int8 (batch,), `attempt`
        int8 (batch,), 0 unless Spark had to try again, and `status` and `decision` object (batch,).

    Raises:
        EczemaError: If the model or the folder cannot be found on this machine.
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
    exported = ExportedModel(Path(model), [SERVE])

    def score(image_paths: np.ndarray, texts: np.ndarray) -> Columns:
        read = [prepare_photo(image_path, root) for image_path in image_paths]
        photos, faults = zip(*read, strict=True)
        attempt = np.full(len(texts), TaskContext.get().attemptNumber(), "int8")
        return {**arrange_answers(exported.run(photos, list(texts)), faults), "attempt": attempt}

    return score


def prepare_photo(image_path: str, root: Path) -> tuple[bytes, str]:
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
        return upright_jpeg(read_photo(find_photo(image_path, root))), ""
    except DataError as error:
        return b"", describe_fault(error)


def arrange_answers(outputs: Outputs, faults: Sequence[str]) -> Columns:
    """Turns the signature's outputs into plain columns; see `load_scorer`.

    Args:
        outputs: Of the signature `serving_default`.
        faults: Of the photos that the model was not shown, "" for none.
    """
    image, text = outputs["image_used"], outputs["text_used"]
    figures = [  # in the order of `PROBABILITIES`; (batch,) or (batch, labels), and where it counts
        (outputs["eczema"], image | text),
        (outputs["eczema_image"], image),
        (outputs["eczema_text"], text),
        (outputs["consistency"], text),
        (outputs["severity"], image | text),
    ]
    table = np.column_stack(
        [np.where(used, values.T, np.nan).T.astype("float32") for values, used in figures]
    )  # (batch, probabilities)
    statuses = join_statuses(outputs["status"], faults)
    return {
        **dict(zip(PROBABILITIES, table.T, strict=True)),
        **{name: outputs[name].astype("int8") for name in FLAGS},
        "status": np.array([status.decode() for status in statuses], object),
        "decision": np.array([decision.decode() for decision in outputs["decision"]], object),
    }
