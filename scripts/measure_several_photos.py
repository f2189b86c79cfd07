"""Measures whether several photos of a case say more than one, on a cross-validated run.

It forms all pairs of a positive and another case of the same fold in which at least one case has
several photos. It then measures the share of pairs that are ranked correctly out of fold (an AUROC
of these pairs), both by the mean log-odds of each case's photos and by one photo of each, averaged
over all choices. The 95 % interval of the difference is bootstrapped over groups.

    python scripts/measure_several_photos.py runs/pad_ufes_20_fine_tuned
"""

import argparse
import json
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

# runs from a checkout, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eczema_tf.config import load_config
from eczema_tf.data.dataset import Dataset, load_dataset
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.inference import compute_row_logits, load_model_inputs

REPLICATES = 2000


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run with split.folds")
    run = parser.parse_args().run
    data = load_config(run / run_folder.CONFIG).data
    dataset = load_dataset(data, Path(data.manifest))
    folds = sorted((run / "folds").iterdir())
    rows = pd.concat([score_fold(folder, dataset) for folder in folds], ignore_index=True)
    for head in ("eczema_image_logit", "eczema_logit"):
        compare(rows, head)


def score_fold(folder: Path, dataset: Dataset) -> pd.DataFrame:
    """Scores the rows that a fold's model has not seen."""
    trained = run_folder.load_model(folder)
    inputs = load_model_inputs(trained, dataset)
    tested = json.loads((folder / run_folder.DATA).read_text())["splits"]["test"]
    chosen = np.flatnonzero(dataset.table["example_id"].isin(tested))
    logits = compute_row_logits(trained, dataset, inputs, chosen)
    return logits.assign(fold=folder.name, group=dataset.table["group_id"].to_numpy()[chosen])


def compare(rows: pd.DataFrame, head: str) -> None:
    """Prints both shares, and their difference."""
    # a case that is in several repeats counts as one case in each of them
    cases = (
        rows[rows[head].notna()]
        .groupby(["case_id", "fold"], as_index=False)
        .agg(positive=("eczema", "first"), group=("group", "first"), scores=(head, list))
    )
    pairs, groups = rank_pairs(cases), pd.Index(cases["group"].unique())
    if pairs.empty:
        print(f"{head}: no pair of cases in which one has several photos")
        return
    first, second = groups.get_indexer(pairs["first"]), groups.get_indexer(pairs["second"])
    gain, rng = (pairs["pooled"] - pairs["single"]).to_numpy(), np.random.default_rng(0)
    draws = []
    for _ in range(REPLICATES):
        times = np.bincount(rng.integers(0, len(groups), len(groups)), minlength=len(groups))
        draws.append(np.average(gain, weights=times[first] * times[second]))
    low, high = np.quantile(draws, [0.025, 0.975])
    several = int((cases["scores"].map(len) > 1).sum())
    print(
        f"{head}: {several} cases with several photos, {len(pairs)} pairs: pooled"
        f" {pairs['pooled'].mean():.3f}, one photo {pairs['single'].mean():.3f}, difference"
        f" {gain.mean():+.3f} [{low:.3f}, {high:.3f}]"
    )


def rank_pairs(cases: pd.DataFrame) -> pd.DataFrame:
    """Ranks the pairs of a fold in which at least one case has several photos."""
    positive, other = cases[cases["positive"] > 0.5], cases[cases["positive"] <= 0.5]
    return pd.DataFrame(
        {
            "first": one.group,
            "second": two.group,
            "pooled": ranked([np.mean(one.scores)], [np.mean(two.scores)]),
            "single": ranked(one.scores, two.scores),
        }
        for one, two in product(positive.itertuples(), other.itertuples())
        if one.fold == two.fold and max(len(one.scores), len(two.scores)) > 1
    )


def ranked(positive: list[float], other: list[float]) -> float:
    """Returns the share of pairs of scores in the right order; ties count half."""
    return float(np.mean([(a > b) + (a == b) / 2 for a, b in product(positive, other)]))


if __name__ == "__main__":
    main()
