"""Measures how often the 95 % intervals contain the truth, on simulated test sets.

    python scripts/measure_coverage.py [--sets 500] [--seed 0]

Each case has a score of skin and words, which is normally distributed and one and a half units
higher with eczema. The photos of a patient are one group, whose scores are more or less alike. The
model's probability is the exact posterior, made too bold (its logit times 1.5) and too high (plus
0.3). The true sensitivity and AUROC follow from the normal distribution, the true calibration error
from a million cases. The threshold is drawn for each set (true sensitivity 0.5 to 0.93), since the
coverage of a share of few cases jumps with the truth (Brown, Cai and DasGupta 2001).

For cross-validation, logistic regressions are fitted on five such scores and 20 of noise, in five
folds. The truth is the mean AUROC of 400 models that learned from other such cases.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from tqdm import tqdm

# runs from a checkout, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eczema_tf.evaluation.calibration import assign_bins, count_bins, estimate_calibration_error
from eczema_tf.evaluation.intervals import (
    Estimate,
    Sampling,
    estimate_auroc,
    estimate_share,
    inflate_for_training,
)
from eczema_tf.evaluation.metrics import measure_auroc, measure_mean

SHIFT, BOLDNESS, OFFSET = 1.5, 1.5, 0.3
# how many cases a group has (each size equally often), and how their scores correlate
GROUPS = {
    "1": ([1], 0.0),
    "2, not alike": ([2], 0.0),
    "2, alike by 0.5": ([2], 0.5),
    "2, alike by 0.9": ([2], 0.9),
    "1 to 6, alike by 0.5": ([1, 1, 1, 2, 2, 3, 6], 0.5),
}
SIZES = {"600": (600, 0.4), "60": (60, 0.4), "50 with 5 positives": (50, 0.1)}
TRUE_AUROC = norm.cdf(SHIFT / np.sqrt(2))


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=int, default=500, help="number of test sets of each kind")
    parser.add_argument("--seed", type=int, default=0)
    sets, seed = vars(parser.parse_args()).values()
    print("| cases | groups of | AUROC | sensitivity | ECE |\n|---|---|---|---|---|")
    for name, (cases, prevalence) in SIZES.items():
        for kind, (sizes, alike) in GROUPS.items():
            cells = measure(cases, prevalence, sizes, alike, sets, seed)
            print(f"| {name} | {kind} | {' | '.join(cells)} |", flush=True)
    for cases in (60, 600):
        plain, widened = cross_validate(cases, sets, seed)
        print(f"five folds of {cases} cases, AUROC: {widened} (not widened: {plain})", flush=True)


def draw_cases(
    rng: np.random.Generator, cases: int, prevalence: float, sizes: list[int], alike: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws scores, labels and groups; the share of positive groups is exactly the prevalence."""
    groups = np.repeat(np.arange(cases), rng.choice(sizes, cases))[:cases]
    count = groups[-1] + 1
    positive = rng.permutation(np.arange(count) < round(prevalence * count))[groups]
    shared, own = rng.normal(size=count)[groups], rng.normal(size=cases)
    scores = np.sqrt(alike) * shared + np.sqrt(1 - alike) * own
    return scores + SHIFT * positive, positive, groups


def answer(scores: np.ndarray, prevalence: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the exact posterior and the model's probability."""
    exact = logit(prevalence) + SHIFT * (scores - SHIFT / 2)
    return expit(exact), expit(BOLDNESS * exact + OFFSET)


def measure(
    cases: int, prevalence: float, sizes: list[int], alike: float, sets: int, seed: int
) -> list[str]:
    """Measures the coverage of the three metrics."""
    rng = np.random.default_rng(seed)
    scores, _, _ = draw_cases(rng, 1_000_000, prevalence, [1], 0)
    exact, said = answer(scores, prevalence)
    bins = assign_bins(said, count_bins(cases))
    true_error = np.abs(np.bincount(bins, said - exact)).sum() / len(said)
    held: list[list[bool | None]] = []
    for _ in tqdm(range(sets), leave=False):
        scores, positive, groups = draw_cases(rng, cases, prevalence, sizes, alike)
        sampling, said = Sampling(groups), answer(scores, prevalence)[1]
        threshold = rng.uniform(0, SHIFT)
        found = measure_mean(scores >= threshold, positive)
        error = estimate_calibration_error(said, positive.astype(float), positive, sampling).error
        estimates = [
            (estimate_auroc(measure_auroc(scores, positive), positive, sampling, ""), TRUE_AUROC),
            (estimate_share(found, positive, sampling, ""), norm.cdf(SHIFT - threshold)),
            (error, true_error),
        ]
        held.append([holds(estimate, truth) for estimate, truth in estimates])
    return [format_coverage(list(column)) for column in zip(*held, strict=True)]


def cross_validate(cases: int, sets: int, seed: int) -> tuple[str, str]:
    """Measures the coverage of the AUROC of a cross-validation, as it is and widened."""
    rng = np.random.default_rng(seed + 1)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        positive = rng.permutation(np.arange(count) < 0.4 * count)
        return rng.normal(size=(count, 25)) + 0.5 * np.outer(positive, np.arange(25) < 5), positive

    def fit(features: np.ndarray, positive: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return LogisticRegression().fit(features, positive).decision_function

    judged = draw(10_000)
    truth = np.mean(
        [measure_auroc(fit(*draw(cases * 4 // 5))(judged[0]), judged[1]).value for _ in range(400)]
    )
    held: list[list[bool | None]] = []
    for _ in tqdm(range(sets), leave=False):
        features, positive = draw(cases)
        scores, models = np.zeros(cases), np.zeros(cases, int)
        folds = StratifiedGroupKFold(5).split(features, positive, np.arange(cases))
        for model, (learned, left) in enumerate(folds):
            scores[left] = fit(features[learned], positive[learned])(features[left])
            models[left] = model
        auroc = measure_auroc(scores, positive, models)
        held.append(
            [
                holds(estimate_auroc(auroc, positive, Sampling(np.arange(cases), by), ""), truth)
                for by in (1.0, inflate_for_training(5))
            ]
        )
    plain, widened = (format_coverage(list(column)) for column in zip(*held, strict=True))
    return plain, widened


def holds(estimate: Estimate, truth: float) -> bool | None:
    """Says whether an interval contains the truth; None if there is no interval."""
    if estimate.low is None or estimate.high is None:
        return None
    return bool(estimate.low <= truth <= estimate.high)


def format_coverage(held: list[bool | None]) -> str:
    """Formats the share of intervals that contain the truth."""
    given = [one for one in held if one is not None]
    return f"{np.mean(given):.1%}" if given else "no interval is given"


if __name__ == "__main__":
    main()
