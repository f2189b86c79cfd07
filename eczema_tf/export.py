"""`python -m eczema_tf.export`: exports a trained run as a SavedModel for TensorFlow Serving."""

import argparse
import sys
from pathlib import Path

from eczema_tf.cli import RUN_DIR, argument, command, start_tensorflow

EXAMPLES = """examples:
  python -m eczema_tf.export --run-dir runs/mine
  python -m eczema_tf.export --run-dir runs/mine --out saved_models/eczema
  python -m eczema_tf.export --run-dir runs/mine --hub-folder share/eczema"""


def _export(arguments: argparse.Namespace) -> None:
    start_tensorflow()
    from eczema_tf.workflows.export import export  # --help does not wait for TensorFlow

    export(arguments.run_dir, arguments.out, arguments.hub_folder)


main = command(
    "export",
    _export,
    RUN_DIR,
    argument(
        "--out",
        type=Path,
        default=Path("saved_models/eczema"),
        metavar="DIR",
        help="folder for the model's versions (default: %(default)s)",
    ),
    argument(
        "--hub-folder",
        type=Path,
        metavar="DIR",
        help="also fill this new folder with all it takes to share the model: model card,"
        " configuration, weights as safetensors, SavedModel, thresholds and checksums",
    ),
    examples=EXAMPLES,
)

if __name__ == "__main__":
    sys.exit(main())
