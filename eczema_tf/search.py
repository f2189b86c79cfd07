"""`python -m eczema_tf.search`: hyperparameter search on cached features; the test split is never read."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eczema_tf.cli import add_config_arguments, build_parser, run_command, whole_number
from eczema_tf.config import load_config

EXAMPLES = """examples:
  python -m eczema_tf.search --config configs/pretrained.yaml --space configs/search/pretrained.yaml --trials 20 --out runs/search
  python -m eczema_tf.search ... --trials 40 --out runs/search     # the same command again continues it
  tensorboard --logdir runs/search                                 # the HPARAMS tab compares the trials"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see `--help`."""
    parser = build_parser("search", examples=EXAMPLES)
    add_config_arguments(parser)
    parser.add_argument(
        "--space",
        type=Path,
        required=True,
        help="a YAML file that says which keys to vary, and how",
    )
    parser.add_argument(
        "--trials",
        type=whole_number(1),
        default=20,
        metavar="N",
        help="finished trials to reach in all, also over several calls (default: 20)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder of the study: trials, study.log, best.yaml, trials.csv",
    )
    return run_command(parser, _search, argv)


def _search(arguments: argparse.Namespace) -> None:
    config = load_config(arguments.config, arguments.set)
    from eczema_tf.workflows.search import load_space, search

    study = search(config, load_space(arguments.space), arguments.trials, arguments.out)
    print(study.describe())


if __name__ == "__main__":
    sys.exit(main())
