"""One case through an exported model or a server: what `predict` prints."""

import json
from collections.abc import Sequence
from pathlib import Path

from eczema_tf.data.photo.upright import read_case_photos
from eczema_tf.reporting.answer import Answer, format_answer
from eczema_tf.serving.cases import read_case
from eczema_tf.serving.client import fetch_metadata, predict_remotely
from eczema_tf.serving.exported import ExportedModel
from eczema_tf.serving.graph.signature import SERVE


def run_predict(
    photos: Sequence[bytes], text: str, *, model: Path | None, url: str | None, as_json: bool
) -> None:
    """Prints the answer of `predict`, as JSON or as lines for people."""
    answer = predict(photos, text, model=model, url=url)
    print(json.dumps(answer.to_json(), indent=2) if as_json else format_answer(answer))


def predict(
    photos: Sequence[bytes], text: str, *, model: Path | None = None, url: str | None = None
) -> Answer:
    """Asks an exported model or a server.

    Args:
        photos: Photo files of one case, as they are.
        text: A description; "" for none.
        model: Folder of an export; or None and `url`.
        url: Of a server's model.

    Returns:
        The answer. If TensorFlow Serving was asked, which knows neither, without thresholds; and
        several photos are decided on only where they agree.

    Raises:
        EczemaError: If a photo cannot be read, or the model cannot be asked.
    """
    upright = read_case_photos(photos) or [b""]
    if model is None:
        outputs, said = predict_remotely(url or "", upright, text), fetch_metadata(url or "")
    else:
        exported = ExportedModel(model, [SERVE])
        outputs, said = exported.run(upright, [text] * len(upright)), exported.metadata.said
    return read_case(outputs, said, len(photos))
