"""One photo, one text, or both, through an exported model or a server: what `predict` prints."""

import json
from pathlib import Path

from eczema_tf.data.photo.upright import upright_jpeg
from eczema_tf.reporting.answer import Answer, format_answer, read_answer
from eczema_tf.serving.client import fetch_metadata, predict_remotely
from eczema_tf.serving.exported import ExportedModel, plain_row
from eczema_tf.serving.graph.signature import SERVE


def run_predict(
    photo: bytes, text: str, *, model: Path | None, url: str | None, as_json: bool
) -> None:
    """Prints the answer of `predict`, as JSON or as lines for people."""
    answer = predict(photo, text, model=model, url=url)
    print(json.dumps(answer.to_json(), indent=2) if as_json else format_answer(answer))


def predict(
    photo: bytes, text: str, *, model: Path | None = None, url: str | None = None
) -> Answer:
    """Asks an exported model or a server.

    Args:
        photo: A photo file, as it is; b"" for none.
        text: A description; "" for none.
        model: Folder of an export; or None and `url`.
        url: Of a server's model.

    Returns:
        The answer; without thresholds if TensorFlow Serving was asked, which does not know them.

    Raises:
        EczemaError: If the photo cannot be read, or the model cannot be asked.
    """
    upright = upright_jpeg(photo) if photo else b""
    if model is None:
        return read_answer(predict_remotely(url or "", upright, text), *fetch_metadata(url or ""))
    exported = ExportedModel(model, [SERVE])
    said = exported.metadata
    return read_answer(plain_row(exported.run([upright], [text])), said.thresholds, said.notice)
