"""Tests for metrics: known values, undefined cases and agreement with scikit-learn."""

import itertools

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from eczema_tf.evaluation import metrics
from eczema_tf.evaluation.intervals import Sampling


def auroc(scores, positive, models=None):
    scores = np.asarray(scores, dtype="float64")
    return metrics.measure_auroc(scores, np.asarray(positive, dtype=bool), models).value


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        (
            [0.1, 0.4, 0.35, 0.8],
            [0, 0, 1, 1],
            0.75,
        ),  # of four pairs, only (0.4, 0.35) is the wrong way round
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
        ([5, 5, 5, 5], [0, 1, 0, 1], 0.5),
        ([1, 2, 2, 3], [0, 0, 1, 1], 0.875),  # one of four pairs is tied
    ],
)
def test_auroc_is_the_share_of_pairs_in_the_right_order(scores, positive, expected):
    assert auroc(scores, positive) == expected


@pytest.mark.parametrize("positive", [[], [1], [0, 0], [1, 1, 1]])
def test_auroc_is_undefined_without_both_classes(positive):
    assert np.isnan(auroc(np.arange(len(positive)), positive))


def test_auroc_compares_only_cases_of_the_same_model():
    """Each of two models ranks its own cases correctly; only their offsets differ."""
    scores, positive, models = [0.1, 0.2, 0.8, 0.9], [False, True, False, True], [0, 0, 1, 1]
    assert auroc(scores, positive) == 0.75
    assert auroc(scores, positive, np.array(models)) == 1.0
    assert np.isnan(auroc(scores, positive, np.arange(4)))


def test_auroc_weights_models_by_their_number_of_pairs():
    """The first model gets its only pair wrong; the second gets both of its pairs right."""
    scores, positive = [1.0, 0.0, 0.0, 0.0, 1.0], [False, True, False, False, True]
    assert auroc(scores, positive, np.array([0, 0, 1, 1, 1])) == 2 / 3


def test_standard_error_of_auroc_is_delongs():
    """DeLong's definition uses the variances of the shares of pairs that each case wins."""
    rng = np.random.default_rng(5)
    positive, scores = rng.random(50) < 0.3, rng.integers(0, 9, 50).astype(float)
    wins = np.sign(scores[positive][:, None] - scores[~positive]) / 2 + 0.5  # (eczema, others)
    expected = wins.mean(axis=1).var(ddof=1) / len(wins) + (
        wins.mean(axis=0).var(ddof=1) / wins.shape[1]
    )
    found = metrics.measure_auroc(scores, positive)
    classes = positive, ~positive
    error = Sampling(np.arange(50)).measure_error(found.influence, classes)[0]
    assert error**2 == pytest.approx(expected)


@pytest.mark.parametrize("measure", ["auroc", "mean", "f1"])
def test_influence_is_the_effect_of_one_more_copy_of_a_case(measure):
    """The derivative by a case's weight is a finite difference: 1000 copies and one more."""
    rng = np.random.default_rng(6)
    scores, positive = rng.normal(size=12), np.arange(12) % 3 == 0

    def compute(repeats):
        many, labels = scores.repeat(repeats), positive.repeat(repeats)
        if measure == "auroc":
            return metrics.measure_auroc(many, labels)
        if measure == "f1":
            return metrics.measure_f1(labels, many > 0)
        return metrics.measure_mean(many, labels)

    copies = np.full(12, 1000)
    for case in range(12):
        slope = (compute(copies + (np.arange(12) == case)).value - compute(copies).value) * 1000
        found = compute(np.ones(12, int)).influence[case]
        assert found == pytest.approx(slope, rel=0.01, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_match_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    positive, scores = rng.random(60) < 0.4, rng.integers(0, 12, 60) / 12
    called = scores >= 0.4
    ours = [
        metrics.measure_auroc(scores, positive).value,
        metrics.measure_f1(positive, called).value,
        metrics.measure_mean(called, positive).value,
        metrics.measure_mean(~called, ~positive).value,
    ]
    theirs = [
        sklearn_metrics.roc_auc_score(positive, scores),
        sklearn_metrics.f1_score(positive, called),
        sklearn_metrics.recall_score(positive, called),
        sklearn_metrics.recall_score(~positive, ~called),
    ]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_confusion_matrix_metrics_match_scikit_learn_with_weights(seed):
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 4, (5, 60)).astype("float64")
    grades, predicted = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    graded = metrics.compute_confusion(grades, predicted, weights, 3)
    for index, row in enumerate(weights):
        ours = [
            metrics.compute_macro_f1(graded)[index],
            metrics.compute_quadratic_kappa(graded)[index],
            metrics.compute_grade_error(graded)[index],
        ]
        theirs = [
            sklearn_metrics.f1_score(grades, predicted, average="macro", sample_weight=row),
            sklearn_metrics.cohen_kappa_score(
                grades, predicted, weights="quadratic", sample_weight=row
            ),
            sklearn_metrics.mean_absolute_error(grades, predicted, sample_weight=row),
        ]
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_confusion_matrix_has_true_rows_and_predicted_columns():
    confusion = metrics.compute_confusion(
        np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), np.array([1.0, 1.0, 3.0, 1.0]), 3
    )
    np.testing.assert_array_equal(confusion, [[1, 1, 0], [0, 3, 0], [1, 0, 0]])


def test_metrics_that_need_the_missing_class_are_undefined():
    positive, called = np.ones(4, bool), np.array([True, True, True, False])
    assert np.isnan(metrics.measure_mean(~called, ~positive).value)
    assert np.isnan(metrics.measure_f1(positive, called).value)
    assert metrics.measure_mean(called, positive).value == 0.75
    assert np.isnan(metrics.measure_f1(~positive, called).value)


def test_f1_is_zero_when_no_positive_case_is_found():
    assert metrics.measure_f1(np.array([True, False]), np.array([False, False])).value == 0


def test_macro_f1_leaves_out_a_class_that_never_occurs():
    assert metrics.compute_macro_f1(np.array([[3.0, 1, 0], [1, 3, 0], [0, 0, 0]])) == 0.75
    assert metrics.compute_macro_f1(np.array([[3.0, 1, 0], [1, 3, 0], [0, 1, 0]])) < 0.75


def test_quadratic_kappa_and_grade_error_match_hand_computation():
    # one miss of distance 2 weighs 4; with margins (3, 2, 1) and (2, 2, 2), chance misses would
    # weigh (30 + 8 + 10) / 6 = 8
    confusion = np.array([[2.0, 0, 1], [0, 2, 0], [0, 0, 1]])
    assert metrics.compute_quadratic_kappa(confusion) == 1 - 4 / 8
    assert metrics.compute_grade_error(confusion) == 2 / 6


@pytest.mark.parametrize(
    ("confusion", "kappa", "error"),
    [
        ([[2, 0, 0], [0, 1, 0], [0, 0, 3]], 1, 0),
        ([[0, 0, 2], [0, 0, 0], [2, 0, 0]], -1, 2),
        (
            [[0, 2, 0], [0, 2, 0], [0, 2, 0]],
            0,
            2 / 3,
        ),  # always the same answer agrees no better than chance
        ([[2, 1, 0], [0, 0, 0], [0, 0, 0]], np.nan, 1 / 3),  # one true grade only
        ([[0, 0, 0], [0, 0, 0], [0, 0, 0]], np.nan, np.nan),
    ],
)
def test_kappa_and_grade_error_at_the_extremes(confusion, kappa, error):
    confusion = np.array(confusion, dtype="float64")
    np.testing.assert_allclose(
        [metrics.compute_quadratic_kappa(confusion), metrics.compute_grade_error(confusion)],
        [kappa, error],
    )


def test_best_kappa_is_that_of_the_best_possible_rule():
    rng = np.random.default_rng(4)
    for _ in range(5):
        expected = rng.choice([0.1, 0.6, 0.9, 1.2, 1.7], 40)
        grades = np.clip(np.rint(expected + rng.normal(0, 0.5, 40)), 0, 2).astype(int)
        rules = itertools.product(range(3), repeat=5)  # a grade for each value
        place = np.searchsorted([0.1, 0.6, 0.9, 1.2, 1.7], expected)
        best = max(
            metrics.compute_quadratic_kappa(
                metrics.compute_confusion(grades, np.array(rule)[place], np.ones((1, 40)), 3)
            )[0]
            for rule in rules
        )
        assert metrics.compute_best_kappa(expected, grades) == pytest.approx(best)
    assert np.isnan(metrics.compute_best_kappa(np.ones(3), np.ones(3, int)))
    graded = np.repeat([1, 2], 3)  # nobody is mild
    assert metrics.compute_best_kappa(graded.astype(float), graded) == pytest.approx(1)
