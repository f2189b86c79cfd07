"""`python -m eczema_tf.evaluate`: figures of a trained run, on its own test split or on another manifest."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eczema_tf.cli import build_parser, run_command
from eczema_tf.schema import SPLITS

EXAMPLES = """examples:
  python -m eczema_tf.evaluate --run-dir runs/quickstart
  python -m eczema_tf.evaluate --run-dir runs/quickstart --manifest other/manifest.csv --split all --out figures"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see `--help`."""
    parser = build_parser("evaluate", "Score a trained run by case, with 95 % intervals from a bootstrap over groups.", EXAMPLES)
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of a finished `train`")
    parser.add_argument("--manifest", type=Path, help="score this manifest (default: the one the run was trained on)")
    parser.add_argument(
        "--split", choices=[*SPLITS, "all"], default="test", help="which cases (default: test); all: a manifest without splits"
    )
    parser.add_argument("--out", type=Path, help="folder of the figures (default: the run's, for its own test split)")
    return run_command(parser, _evaluate, argv)


def _evaluate(arguments: argparse.Namespace) -> None:
    from eczema_tf.experiment import evaluate_run  # here, so that --help does not wait for TensorFlow

    print(evaluate_run(arguments.run_dir, arguments.manifest, arguments.split, arguments.out))


if __name__ == "__main__":
    sys.exit(main())
