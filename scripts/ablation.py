"""Trains one configuration with several values of one key, and writes one table with intervals.

    python scripts/ablation.py --config configs/ablation.yaml --out runs/ablation
    python scripts/ablation.py --vary model.modality_dropout=0.0,0.2,0.4 --out runs/dropout

All runs have the same splits and features. Each has its own folder in --out; a finished run is not
repeated. Differences are from the run with the first value, paired on the same cases.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# runs from a checkout, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eczema_tf.cli import CONFIG, SETTINGS, run_command
from eczema_tf.config import Config, load_config
from eczema_tf.errors import ConfigError
from eczema_tf.evaluation.intervals import Estimate
from eczema_tf.evaluation.predictions import PROBABILITY_COLUMNS, load_predictions
from eczema_tf.evaluation.sample import Sample
from eczema_tf.files import write_text
from eczema_tf.reporting.formats import format_estimate
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.train import check_run_dir, train

FUSIONS = "model.fusion=concat,gated,cross_attention,late"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    CONFIG(parser)
    SETTINGS(parser)
    parser.add_argument(
        "--vary",
        default=FUSIONS,
        metavar="a.b=c,d,e",
        help=f"the key to vary and its values (default: {FUSIONS})",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the runs and ablation.md"
    )
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    return run_command(parser, _ablate, argv)


def _ablate(arguments: argparse.Namespace) -> None:
    key, separator, listed = arguments.vary.partition("=")
    values = [value.strip() for value in listed.split(",") if value.strip()]
    if not separator or len(set(values)) < 2 or len(set(values)) != len(values):
        raise ConfigError(
            f"--vary {arguments.vary}: must look like section.key=value,value, with at least two"
            " different values"
        )
    # finds all mistakes before any work is done
    configs = {
        value: load_config(arguments.config, [*arguments.set, f"{key}={value}"]) for value in values
    }
    run_dirs = {value: arguments.out / name_folder(value) for value in values}
    if len(set(run_dirs.values())) < len(values):
        raise ConfigError(f"--vary {arguments.vary}: values must differ in letters or digits")
    started = {value: (run_dirs[value] / run_folder.CONFIG).is_file() for value in values}
    for value, run_dir in run_dirs.items():
        check_run_dir(run_dir, configs[value], resume=started[value])
    for value, run_dir in run_dirs.items():
        if not (run_dir / run_folder.METRICS).is_file():
            train(configs[value], run_dir, resume=started[value])
    text = format_markdown(key, compare_runs(run_dirs, configs[values[0]]))
    write_text(arguments.out / "ablation.md", text)
    print(text)


def name_folder(value: str) -> str:
    """Names the folder of a value's run, which stays below --out even if the value is a path."""
    return re.sub(r"[^\w.=-]+", "_", value).strip("._") or "_"


@dataclass(frozen=True)
class Run:
    """One run in the comparison.

    Attributes:
        name: The value of the key that varies.
        aurocs: AUROC by head.
        difference: AUROC of the fusion minus the first run's; None for the first run itself.
    """

    name: str
    aurocs: dict[str, Estimate]
    difference: Estimate | None


def compare_runs(run_dirs: dict[str, Path], config: Config) -> list[Run]:
    """Computes the AUROC of each run and head, and the difference of its fusion from the first's.

    Args:
        run_dirs: Finished runs on the same splits, by name; the first is what the others are
            compared with.
        config: Configuration, for its `label_threshold`.

    Raises:
        ConfigError: If the runs did not predict the same cases.
    """
    predicted = {
        name: load_predictions(run_dir / run_folder.PREDICTIONS)
        for name, run_dir in run_dirs.items()
    }
    first = next(iter(predicted.values()))
    if any(list(cases["case_id"]) != list(first["case_id"]) for cases in predicted.values()):
        raise ConfigError(
            "the runs predicted different cases, so they cannot be compared; --vary must not change"
            " the data or the splits"
        )
    runs, base = [], None
    for name, cases in predicted.items():
        sample = Sample.draw(cases, {}, config.data.label_threshold, replicates=0, seed=0)
        estimates = {}
        for head, column in PROBABILITY_COLUMNS.items():
            known = sample.of_head(head)
            auroc = known.measure_auroc(column)
            reason = known.explain_undefined("a prediction")
            estimates[head] = known.estimate_auroc(auroc, reason)
        # the last head is the fusion, which answers the same cases in all runs
        difference = None if base is None else known.estimate_auroc_difference(auroc, base, reason)
        base = auroc if base is None else base
        runs.append(Run(name, estimates, difference))
    return runs


def format_markdown(key: str, runs: list[Run]) -> str:
    """Formats what `compare_runs` returns."""
    lines = [
        f"| {key} | photo AUROC | text AUROC | fusion AUROC | fusion minus {runs[0].name} |",
        "|---|---|---|---|---|",
    ]
    for run in runs:
        aurocs = " | ".join(format_estimate(run.aurocs[head]) for head in PROBABILITY_COLUMNS)
        difference = "-" if run.difference is None else format_estimate(run.difference)
        lines.append(f"| {run.name} | {aurocs} | {difference} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
