"""`python -m eczema_tf.export`: a trained run to a SavedModel for TensorFlow Serving."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eczema_tf.cli import build_parser, run_command

EXAMPLES = """examples:
  python -m eczema_tf.export --run-dir runs/quickstart
  python -m eczema_tf.export --run-dir runs/quickstart --out saved_models/eczema"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see `--help`."""
    parser = build_parser("export", examples=EXAMPLES)
    parser.add_argument(
        "--run-dir", type=Path, required=True, metavar="DIR", help="folder of a finished run"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("saved_models/eczema"),
        metavar="DIR",
        help="folder of the model's versions (default: %(default)s)",
    )
    return run_command(parser, _export, argv)


def _export(arguments: argparse.Namespace) -> None:
    from eczema_tf.workflows.export import export  # --help does not wait for TensorFlow

    export(arguments.run_dir, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
