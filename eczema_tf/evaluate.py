"""`python -m eczema_tf.evaluate`: figures of a trained run, on its own test split or on another manifest."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eczema_tf.cli import build_parser, run_command, whole_number
from eczema_tf.schema import SPLITS

EXPLAINED_CASES = 200
EXAMPLES = """examples:
  python -m eczema_tf.evaluate --run-dir runs/quickstart
  python -m eczema_tf.evaluate --run-dir runs/quickstart --manifest other/manifest.csv --split all --out figures
  python -m eczema_tf.evaluate --run-dir runs/quickstart --explanations      # and whether heatmaps and words' scores can be trusted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see `--help`."""
    parser = build_parser("evaluate", examples=EXAMPLES)
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of a finished `train`")
    parser.add_argument(
        "--manifest",
        type=Path,
        help="score this manifest (default: the one the run was trained on)",
    )
    parser.add_argument(
        "--split",
        choices=[*SPLITS, "all"],
        default="test",
        help="which cases (default: test); all: a manifest without splits",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of the figures (default: the run's, for its own test split)",
    )
    parser.add_argument(
        "--explanations",
        type=whole_number(1),
        nargs="?",
        const=EXPLAINED_CASES,
        metavar="N",
        help=(
            f"measure the explanations of N cases, too ({EXPLAINED_CASES} without N, some ten"
            " minutes); writes explanations.json"
        ),
    )
    return run_command(parser, _evaluate, argv)


def _evaluate(arguments: argparse.Namespace) -> None:
    from eczema_tf.workflows.evaluate import evaluate  # --help does not wait for TensorFlow

    print(
        evaluate(
            arguments.run_dir,
            manifest=arguments.manifest,
            split=arguments.split,
            out=arguments.out,
            explanations=arguments.explanations,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
