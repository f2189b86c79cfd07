"""Requests that TensorFlow Serving replays when it loads a version.

The first person then does not wait for what is built lazily. The requests are in the format that
the server expects: `assets.extra/tf_serving_warmup_requests`, a TFRecord file of `PredictionLog`s
(https://www.tensorflow.org/tfx/serving/saved_model_warmup). The photos are drawn by this module and
show no patient.
"""

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from eczema_tf.serving.graph.signature import MODEL_NAME, list_inputs

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
# one person, and batches as `scripts/tf_serving/batching.config` forms them; the server accepts at
# most 1000 records
BATCH_SIZES = (1, 4, 16)
# large enough to be decoded at a fraction of its size, as phones' photos are
PHOTO_PX = (1024, 768)
TEXTS = (
    "dry itchy patches in both elbow creases for three weeks",
    "it burns but does not itch",
    "red ring-shaped rash on the arm",
)


def write_warmup(folder: Path, signatures: Iterable[str]) -> None:
    """Writes requests for every signature, of all `BATCH_SIZES`, next to a SavedModel.

    Args:
        folder: Of the SavedModel.
        signatures: Names of those to warm up; each takes what `list_inputs` says.
    """
    path = folder / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, rows in itertools.product(signatures, BATCH_SIZES):
            log = prediction_log_pb2.PredictLog(request=build_request(signature, *draw_rows(rows)))
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())


def build_request(
    signature: str, photos: list[bytes], texts: list[str]
) -> predict_pb2.PredictRequest:
    """Builds a request as clients send it by gRPC.

    Args:
        signature: Name of the signature.
        photos: JPEG or PNG bytes; b"" for none.
        texts: As many; "" for none.

    Returns:
        For the newest version of the model; no clinical field is known.
    """
    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL_NAME
    request.model_spec.signature_name = signature
    columns = {"image": photos, "text": texts, "clinical": [""] * len(photos)}
    for name, dtype in list_inputs(signature).items():
        tensor = tf.make_tensor_proto(columns[name], dtype, [len(photos)])
        request.inputs[name].CopyFrom(tensor)
    return request


def draw_rows(count: int) -> tuple[list[bytes], list[str]]:
    """Draws photos and texts: rows with both, without a text and without a photo, in turn."""
    # a reddish gradient that was never in front of a camera
    across, down = np.meshgrid(np.linspace(0, 1, PHOTO_PX[0]), np.linspace(0, 1, PHOTO_PX[1]))
    pixels = np.stack([200 + 40 * across, 140 + 30 * down, 120 + 20 * across * down], axis=-1)
    photo = tf.io.encode_jpeg(tf.constant(pixels.astype("uint8")), quality=90).numpy()
    photos = [photo if row % 3 != 2 else b"" for row in range(count)]
    texts = [TEXTS[row % len(TEXTS)] if row % 3 != 1 else "" for row in range(count)]
    return photos, texts
