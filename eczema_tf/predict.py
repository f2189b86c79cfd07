"""`python -m eczema_tf.predict`: a photo, a description of symptoms, or both, to a readable answer."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eczema_tf.cli import build_parser, read_photo_argument, run_command
from eczema_tf.errors import DataError

if TYPE_CHECKING:
    from eczema_tf.reporting.answer import Answer

EXAMPLES = """examples:
  python -m eczema_tf.predict --model saved_models/eczema --image arm.jpg --text "dry itchy patches in both elbow creases"
  python -m eczema_tf.predict --model saved_models/eczema --text "it burns but does not itch" --json
  python -m eczema_tf.predict --url http://127.0.0.1:8501/v1/models/eczema --image arm.jpg"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see `--help`."""
    parser = build_parser("predict", examples=EXAMPLES)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--model",
        type=Path,
        help="an exported model: saved_models/eczema (newest version) or one version's folder",
    )
    where.add_argument(
        "--url", help="a server's model address, such as http://127.0.0.1:8501/v1/models/eczema"
    )
    parser.add_argument(
        "--image",
        type=Path,
        help="a photo; it is turned upright and stripped of metadata before anything sees it",
    )
    parser.add_argument("--text", default="", help="a description of the symptoms")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    return run_command(parser, _predict, argv)


def _predict(arguments: argparse.Namespace) -> None:
    if arguments.image is None and not arguments.text.strip():
        raise DataError("give --image, --text or both")
    from eczema_tf.reporting.answer import format_answer

    answer = predict(arguments.model, arguments.url, arguments.image, arguments.text)
    print(json.dumps(answer.to_json(), indent=2) if arguments.json else format_answer(answer))


def predict(model: Path | None, url: str | None, image: Path | None, text: str) -> "Answer":
    """Asks an exported model or a server.

    Args:
        model: Folder of an export; or None and `url`.
        url: Of a server's model.
        image: A photo file, if there is one.
        text: A description, "" for none.

    Returns:
        Probabilities by head (null where the modality was not used), labels, thresholds (unless
        TensorFlow Serving is asked), status and notice.

    Raises:
        EczemaError: If the photo cannot be read or the model not be asked.
    """
    from eczema_tf.data.photo.inspection import upright_jpeg
    from eczema_tf.reporting.answer import read_answer
    from eczema_tf.serving.client import (
        predict_locally,
        predict_remotely,
        read_remote_side,
        read_side_file,
    )

    photo = upright_jpeg(read_photo_argument(image)) if image is not None else b""
    if model is not None:
        return read_answer(predict_locally(model, photo, text), read_side_file(model)["thresholds"])
    outputs, side = predict_remotely(url or "", photo, text), read_remote_side(url or "")
    return read_answer(outputs, side["thresholds"] if side is not None else None)


if __name__ == "__main__":
    sys.exit(main())
