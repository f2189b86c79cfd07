"""`python -m eczema_tf.train`: the main job: data, training, evaluation, export, results."""

import argparse
import shlex
import sys
from datetime import datetime
from pathlib import Path

from eczema_tf.cli import CONFIG, SETTINGS, argument, command, start_tensorflow, whole_number
from eczema_tf.config import load_config
from eczema_tf.errors import ConfigError

EXAMPLES = """examples:
  python -m eczema_tf.train                                     # on built-in data: ten minutes
  python -m eczema_tf.train --set model.image.preset=null       # small networks from scratch
  python -m eczema_tf.train --set data.manifest=my/manifest.csv --set train.epochs=20
  python -m eczema_tf.train --seeds 5                           # how much do results vary?
  tensorboard --logdir runs                                     # follow the training"""


def _train(arguments: argparse.Namespace) -> None:
    config_file, run_dir = arguments.config, arguments.run_dir
    if arguments.resume and not config_file and not arguments.set:  # the run has one
        if run_dir is None:
            raise ConfigError("--resume: give the interrupted run's folder as --run-dir")
        config_file = run_dir / ("seeds.yaml" if arguments.seeds else "config.yaml")
    leaks = ["data.allow_leaks=true"] if arguments.allow_leaks else []
    config = load_config(config_file, [*arguments.set, *leaks])
    if run_dir is None:
        name = config_file.stem if config_file else "quickstart"
        run_dir = Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    start_tensorflow()
    # imported now, so that mistakes above show before TensorFlow loads
    from eczema_tf.workflows.train import train, train_seeds

    again = f" --seeds {arguments.seeds}" if arguments.seeds else ""
    try:
        if arguments.seeds:
            train_seeds(config, arguments.seeds, run_dir, resume=arguments.resume)
        else:
            train(config, run_dir, resume=arguments.resume)
    except KeyboardInterrupt as stopped:
        place = shlex.quote(str(run_dir))
        resuming = f"python -m eczema_tf.train --resume --run-dir {place}{again}"
        raise KeyboardInterrupt(f"; continue with: {resuming}") from stopped


main = command(
    "train",
    _train,
    CONFIG,
    SETTINGS,
    argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="folder of the run (default: runs/<config>-<time>)",
    ),
    argument(
        "--allow-leaks",
        action="store_true",
        help="train even if the manifest's own splits share groups, photos or texts; all"
        " reports then say so",
    ),
    argument("--resume", action="store_true", help="continue the interrupted run in --run-dir"),
    argument(
        "--seeds",
        type=whole_number(2),
        metavar="N",
        help="train N runs, with `seed` and the seeds after it, and print the spread of their"
        " results; nothing is exported",
    ),
    examples=EXAMPLES,
)

if __name__ == "__main__":
    sys.exit(main())
