"""Runs one case through an exported model or a server: what `predict` prints."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from eczema_tf.data.clinical.lines import join_fields
from eczema_tf.data.photo.upright import read_case_photos
from eczema_tf.reporting.answer import Answer, format_answer
from eczema_tf.serving.cases import read_case
from eczema_tf.serving.client import fetch_metadata, predict_remotely
from eczema_tf.serving.exported import ExportedModel, ExportMetadata, find_version
from eczema_tf.serving.graph.signature import SERVE, WITH_CLINICAL


def run_predict(
    photos: Sequence[Path],
    text: str,
    clinical: Mapping[str, str],
    *,
    model: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Prints the answer of `predict`, as JSON or as lines for people."""
    answer = predict(photos, text, clinical, model=model, url=url)
    print(json.dumps(answer.to_json(), indent=2) if as_json else format_answer(answer))


def predict(
    photos: Sequence[Path],
    text: str,
    clinical: Mapping[str, str] | None = None,
    *,
    model: Path | None = None,
    url: str | None = None,
) -> Answer:
    """Asks an exported model or a server.

    Args:
        photos: Files of one case, in any format that `upright_jpeg` reads.
        text: A description; "" for none.
        clinical: Values of clinical fields, by name of the field.
        model: Folder of an export; or None and `url`.
        url: Address of a model on a server.

    Returns:
        The answer. TensorFlow Serving knows no thresholds and no bounds: its answer has no
        thresholds, and several photos are decided on only where they agree.

    Raises:
        EczemaError: If a photo cannot be read, the model cannot be reached, or it does not take
            these clinical fields.
    """
    upright = read_case_photos(photos) or [b""]
    model = model and find_version(model)  # once: another may be exported meanwhile
    said = fetch_metadata(url or "") if model is None else ExportMetadata.read(model).said
    told = join_fields(clinical or {}, said.clinical)
    if model is None:
        outputs = predict_remotely(url or "", upright, text, told)
    else:
        signature, rows = WITH_CLINICAL[SERVE] if told else SERVE, len(upright)
        exported = ExportedModel(model, [signature])
        with _leaving_the_graph_as_it_is():
            outputs = exported.run(upright, [text] * rows, signature, [told] * rows)
    return read_case(outputs, said, len(photos))


@contextmanager
def _leaving_the_graph_as_it_is() -> Iterator[None]:
    """Runs new graphs without TensorFlow's optimizer: one answer is not worth its half second.

    Probabilities differ from an optimized graph's by rounding, about 1e-7.
    """
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
