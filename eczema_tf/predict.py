"""`python -m eczema_tf.predict`: a readable answer to photos of a case, a text, or both."""

import argparse
import gc
import sys
from pathlib import Path

from eczema_tf.cli import (
    CLINICAL,
    IMAGE,
    MODEL_HELP,
    TEXT,
    argument,
    check_photo_arguments,
    command,
    read_clinical_arguments,
    start_tensorflow,
)
from eczema_tf.errors import DataError

EXAMPLES = """examples:
  python -m eczema_tf.predict --model saved_models/eczema --image arm.jpg --text "dry itchy patches"
  python -m eczema_tf.predict --model saved_models/eczema --text "it burns but does not itch" --json
  python -m eczema_tf.predict --model saved_models/eczema --image arm.jpg --image knee.jpg
  python -m eczema_tf.predict --model saved_models/eczema --image arm.jpg --clinical age=34
  python -m eczema_tf.predict --url http://127.0.0.1:8501/v1/models/eczema --image arm.jpg

Several photos count as one case: their evidence is averaged."""


def _take_model_or_url(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--model", type=Path, metavar="DIR", help=MODEL_HELP)
    where.add_argument(
        "--url", help="address of a served model, such as http://127.0.0.1:8501/v1/models/eczema"
    )


def _predict(arguments: argparse.Namespace) -> None:
    if not arguments.image and not arguments.text.strip():
        raise DataError("give --image, --text or both")
    check_photo_arguments(arguments.image)
    gc.disable()  # garbage collection would take a tenth of the wait
    try:
        if arguments.model:
            start_tensorflow(with_keras=False)
        from eczema_tf.workflows.predict import run_predict

        run_predict(
            arguments.image,
            arguments.text,
            read_clinical_arguments(arguments.clinical),
            model=arguments.model,
            url=arguments.url,
            as_json=arguments.json,
        )
    finally:
        gc.enable()


main = command(
    "predict",
    _predict,
    IMAGE,
    TEXT,
    CLINICAL,
    argument("--json", action="store_true", help="print the answer as JSON"),
    _take_model_or_url,
    examples=EXAMPLES,
)

if __name__ == "__main__":
    sys.exit(main())
