"""`python -m eczema_tf.search`: hyperparameter search; the test split is never read."""

import argparse
import sys
from pathlib import Path

from eczema_tf.cli import CONFIG, SETTINGS, argument, command, number, start_tensorflow
from eczema_tf.config import load_config

EXAMPLES = """examples:
  python -m eczema_tf.search --space configs/search/heads.yaml --trials 20 --out runs/search
  python -m eczema_tf.search ... --trials 40 --out runs/search    # continues the study
  tensorboard --logdir runs/search                                # compare trials under HPARAMS"""


def _search(arguments: argparse.Namespace) -> None:
    config = load_config(arguments.config, arguments.set)
    start_tensorflow()
    from eczema_tf.workflows.search import search

    search(config, arguments.space, arguments.trials, arguments.out)


main = command(
    "search",
    _search,
    CONFIG,
    SETTINGS,
    argument(
        "--space",
        type=Path,
        required=True,
        metavar="FILE",
        help="YAML file that says which settings to vary and how, for instance model.dropout: [0.1,"
        " 0.3] or train.learning_rate: {low: 0.0002, high: 0.002, log: true}",
    ),
    number("--trials", 20, "total number of trials, including those of earlier calls"),
    argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the study: a folder for each trial, trials.csv, best.yaml, study.log (from"
        " which the study continues), and a record of what it started with",
    ),
    examples=EXAMPLES,
)

if __name__ == "__main__":
    sys.exit(main())
