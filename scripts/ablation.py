"""Trains the same configuration with one key varied, on the same splits and features, and writes one table with intervals.

    python scripts/ablation.py --config configs/ablation.yaml --out runs/ablation python
    scripts/ablation.py --config configs/quickstart.yaml --vary model.modality_dropout=0.0,0.2,0.4
    --out runs/dropout

Each run has its own folder in --out; a finished one is not run again. Differences are to the first
value, paired over the same cases.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # runs from a checkout, installed or not

from eczema_tf.cli import run_command
from eczema_tf.config import Config, load_config
from eczema_tf.errors import ConfigError
from eczema_tf.evaluation.intervals import draw_weights, summarise
from eczema_tf.evaluation.metrics import compute_auroc
from eczema_tf.evaluation.predictions import (
    PROBABILITY_COLUMNS,
    identify_models,
    is_scored,
    load_predictions,
)
from eczema_tf.files import write_text
from eczema_tf.reporting.tables import format_estimate
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.train import train

FUSIONS = "model.fusion=concat,gated,cross_attention,late"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, help="what all runs share (default: the quickstart)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="a.b=c",
        help="set one key; may be given several times",
    )
    parser.add_argument(
        "--vary",
        default=FUSIONS,
        metavar="a.b=c,d,e",
        help=f"the key and its values (default: {FUSIONS})",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the runs and of ablation.md"
    )
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    return run_command(parser, _ablate, argv)


def _ablate(arguments: argparse.Namespace) -> None:
    key, values = _parse_vary(arguments.vary)
    configs = {
        value: load_config(arguments.config, [*arguments.set, f"{key}={value}"]) for value in values
    }  # all mistakes before any work
    for value, config in configs.items():
        _run_once(config, arguments.out / value)
    table = compare_runs(
        {value: arguments.out / value for value in values}, next(iter(configs.values()))
    )
    text = format_markdown(key, table)
    write_text(arguments.out / "ablation.md", text)
    print(text)


def _parse_vary(vary: str) -> tuple[str, list[str]]:
    key, separator, values = vary.partition("=")
    listed = [value.strip() for value in values.split(",") if value.strip()]
    if not separator or len(set(listed)) < 2 or len(set(listed)) != len(listed):
        raise ConfigError(
            f"--vary {vary}: must look like section.key=value,value, with at least two different"
            " values"
        )
    return key, listed


def _run_once(config: Config, run_dir: Path) -> None:
    if not (run_dir / run_folder.METRICS).is_file():
        train(config, run_dir, resume=(run_dir / run_folder.CONFIG).is_file())


def compare_runs(run_dirs: dict[str, Path], config: Config) -> pd.DataFrame:
    """Computes the AUROC of each run and head, and fusion minus the first run's fusion.

    Args:
        run_dirs: Finished runs on the same splits, by name; the first is what the others are
            compared with.
        config: For `label_threshold`, the seed and the number of resamples.

    Returns:
        One row a run: `run`, and estimates `image`, `text`, `fusion` and `difference`.

    Raises:
        ConfigError: If the runs did not score the same cases.
    """
    scored = {
        name: load_predictions(run_dir / run_folder.PREDICTIONS)
        for name, run_dir in run_dirs.items()
    }
    first = next(iter(scored.values()))
    if any(list(cases["case_id"]) != list(first["case_id"]) for cases in scored.values()):
        raise ConfigError(
            "the runs scored different cases, so they cannot be compared; --vary must not change"
            " the data or the splits"
        )
    weights = draw_weights(first["group_id"], config.evaluate.bootstrap_replicates, config.seed)
    base = _aurocs(first, "fusion", weights, config)
    return pd.DataFrame(
        [_compare(name, cases, weights, base, config) for name, cases in scored.items()]
    )


def _compare(
    name: str, cases: pd.DataFrame, weights: np.ndarray, base: np.ndarray, config: Config
) -> dict[str, Any]:
    aurocs = {head: _aurocs(cases, head, weights, config) for head in PROBABILITY_COLUMNS}
    estimates = {head: summarise(values) for head, values in aurocs.items()}
    return {"run": name, **estimates, "difference": summarise(aurocs["fusion"] - base)}


def _aurocs(cases: pd.DataFrame, head: str, weights: np.ndarray, config: Config) -> np.ndarray:
    seen = is_scored(cases, head)
    cases, weights = cases[seen], weights[:, seen]
    positive = (cases["eczema"] > config.data.label_threshold).to_numpy(bool)
    return compute_auroc(
        cases[PROBABILITY_COLUMNS[head]].to_numpy("float64"),
        positive,
        weights,
        identify_models(cases),
    )


def format_markdown(key: str, table: pd.DataFrame) -> str:
    """Formats what `compare_runs` returns."""
    lines = [
        (
            f"| {key} | photo AUROC | text AUROC | fusion AUROC | fusion minus"
            f" {table['run'].iloc[0]} |"
        ),
        "|---|---|---|---|---|",
    ]
    for row in table.to_dict("records"):
        difference = (
            "-" if row["run"] == table["run"].iloc[0] else format_estimate(row["difference"])
        )
        lines.append(
            f"| {row['run']} |"
            f" {' | '.join(format_estimate(row[head]) for head in PROBABILITY_COLUMNS)} |"
            f" {difference} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
