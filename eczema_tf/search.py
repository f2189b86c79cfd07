"""`python -m eczema_tf.search`: hyperparameter search; the test split is never read."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eczema_tf.cli import (
    CONFIG,
    SETTINGS,
    argument,
    build_parser,
    number,
    run_command,
    start_tensorflow,
)
from eczema_tf.config import load_config

EXAMPLES = """examples:
  python -m eczema_tf.search --space configs/search/heads.yaml --trials 20 --out runs/search
  python -m eczema_tf.search ... --trials 40 --out runs/search    # continues the study
  tensorboard --logdir runs/search                                # HPARAMS compares the trials"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see `--help`."""
    parser = build_parser(
        "search",
        CONFIG,
        SETTINGS,
        argument(
            "--space",
            type=Path,
            required=True,
            metavar="FILE",
            help="YAML file that says which settings to vary, and how",
        ),
        number("--trials", 20, "total number of trials, those of earlier calls included"),
        argument(
            "--out",
            type=Path,
            required=True,
            metavar="DIR",
            help="folder of the study: trials, study.log, best.yaml, trials.csv",
        ),
        examples=EXAMPLES,
    )
    return run_command(parser, _search, argv)


def _search(arguments: argparse.Namespace) -> None:
    config = load_config(arguments.config, arguments.set)
    start_tensorflow()
    from eczema_tf.workflows.search import search

    search(config, arguments.space, arguments.trials, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
