"""Fits a plain logistic regression on frozen text features: the baseline to beat.

It uses exactly the folds of a cross-validated run.

    python scripts/baseline_logistic.py --run-dir runs/scin

The features are the mean over the tokens of the run's frozen text encoder and, with
`pooling: mean_max`, also their maximum. The strength of the penalty is chosen within the training
folds. The script prints the out-of-fold AUROC with its 95 % interval, next to the run's own.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

# runs from a checkout, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eczema_tf.data.cache import ArrayCache
from eczema_tf.data.dataset import load_dataset
from eczema_tf.evaluation.intervals import (
    Sampling,
    estimate_auroc,
    inflate_for_training,
    number_groups,
)
from eczema_tf.evaluation.metrics import measure_auroc
from eczema_tf.evaluation.records import Metrics
from eczema_tf.model.branches import POOLED_TEXT
from eczema_tf.model.features import compute_features
from eczema_tf.reporting.facts import RunData
from eczema_tf.reporting.formats import format_estimate
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.inference import load_model_inputs

PENALTIES = np.logspace(-4, 0, 9)  # scikit-learn's C, for standardised features


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run-dir",
        type=Path,
        required=True,
        help="folder of a run with split.folds and pooling: mean or mean_max",
    )
    run_dir = parser.parse_args().run_dir
    if not (run_dir / "folds").is_dir():
        parser.error(f"{run_dir}: is not a cross-validation")
    trained = run_folder.load_model(run_dir / "folds" / "0-0")
    if trained.config.model.text.pooling == "max":
        parser.error(f"{run_dir}: pools by the maximum; allowed: mean or mean_max")
    data = RunData.read(run_dir / run_folder.DATA)
    dataset = load_dataset(trained.config.data, data.manifest)
    inputs = compute_features(
        trained.model,
        load_model_inputs(trained, dataset),
        {"text"},
        ArrayCache(trained.config.train.cache_folder),
    )
    table = dataset.table
    rows = (
        table[(table["text"] != "") & table["eczema"].notna()]
        .drop_duplicates("case_id")
        .index.to_numpy()
    )
    features, table = inputs.gather(rows)[POOLED_TEXT], table.loc[rows]
    positive = (table["eczema"] > trained.config.data.label_threshold).to_numpy()
    repeats = (data.folds or {}).values()
    # pooled over the repeats, as in the run
    groups = np.tile(table["group_id"].to_numpy(), len(repeats))
    inflation = inflate_for_training(trained.config.split.folds)
    sampling = Sampling(number_groups(groups), inflation)
    fitted = np.concatenate(
        [
            table["example_id"].map(folds).to_numpy() + 1000 * repeat
            for repeat, folds in enumerate(repeats)
        ]
    )
    poolings = trained.config.model.text.pooling.split("_")
    for count in range(1, len(poolings) + 1):
        part = features[:, : features.shape[1] // len(poolings) * count]
        scores = [
            predict_out_of_fold(part, positive, table["example_id"].map(folds).to_numpy())
            for folds in repeats
        ]
        labels = np.tile(positive, len(repeats))
        auroc = measure_auroc(np.concatenate(scores), labels, fitted)
        estimate = estimate_auroc(auroc, labels, sampling, "one class only")
        name = f"logistic regression, {' and '.join(poolings[:count])} of the tokens"
        print(f"{name:<50} {len(rows)} cases: AUROC {format_estimate(estimate)}")
    own = Metrics.read(run_dir / run_folder.METRICS).heads["text"].auroc
    print(f"{'text head of the run':<50} {len(rows)} cases: AUROC {format_estimate(own)}")


def predict_out_of_fold(
    features: np.ndarray, positive: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """Predicts each case with a model that was fitted without its fold."""
    scores = np.zeros(len(positive))
    for fold in np.unique(folds):
        train = folds != fold
        classifier = LogisticRegressionCV(
            Cs=PENALTIES,
            scoring="roc_auc",
            cv=3,
            max_iter=2000,
            l1_ratios=(0.0,),
            use_legacy_attributes=False,
        )
        fitted = make_pipeline(StandardScaler(), classifier).fit(features[train], positive[train])
        scores[~train] = fitted.decision_function(features[~train])
    return scores


if __name__ == "__main__":
    main()
