"""Metrics: known answers, undefined cases, and agreement with scikit-learn under weights."""

import itertools

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from eczema_tf.evaluation import metrics


def auroc(scores, positive, weights=None):
    scores = np.asarray(scores, dtype="float64")
    return float(
        metrics.compute_auroc(
            scores,
            np.asarray(positive, dtype=bool),
            np.ones(len(scores)) if weights is None else weights,
        )
    )


def binary_confusion(true_negative, false_positive, false_negative, true_positive):
    return np.array(
        [[true_negative, false_positive], [false_negative, true_positive]], dtype="float64"
    )


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


def test_auroc_is_undefined_where_the_weights_leave_one_class():
    weights = np.array([[1, 1, 1], [2, 1, 0], [0, 0, 0]], dtype="float64")
    first, second, third = metrics.compute_auroc(
        np.array([1.0, 2.0, 3.0]), np.array([False, False, True]), weights
    )
    assert (first, np.isnan(second), np.isnan(third)) == (1.0, True, True)


def test_only_cases_of_one_model_are_compared():
    """Each of two models is right about its own cases; between them lie only their offsets."""
    scores, positive = np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, True, False, True])
    weights, models = np.ones((1, 4)), np.array([0, 0, 1, 1])
    assert metrics.compute_auroc(scores, positive, weights) == [0.75]
    assert metrics.compute_auroc(scores, positive, weights, models) == [1.0]
    assert np.isnan(metrics.compute_auroc(scores, positive, weights, np.arange(4)))


def test_models_count_by_their_pairs():
    scores = np.array(
        [1.0, 0.0, 0.0, 0.0, 1.0]
    )  # the first model is wrong about its one pair, the second right about two of two
    positive, models = np.array([False, True, False, False, True]), np.array([0, 0, 1, 1, 1])
    assert metrics.compute_auroc(scores, positive, np.ones((1, 5)), models) == [2 / 3]


def test_weights_mean_the_same_as_repeated_cases():
    rng = np.random.default_rng(0)
    scores, positive, weights = (
        rng.integers(0, 6, 40).astype(float),
        rng.random(40) < 0.4,
        rng.integers(0, 4, 40),
    )
    assert auroc(scores, positive, weights.astype(float)) == pytest.approx(
        auroc(scores.repeat(weights), positive.repeat(weights)), abs=1e-15
    )


@pytest.mark.parametrize("seed", range(10))
def test_figures_agree_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    positive, scores = rng.random(60) < 0.4, rng.integers(0, 12, 60) / 12
    weights = rng.integers(0, 4, (5, 60)).astype("float64")
    confusion = metrics.compute_confusion(positive, scores >= 0.4, weights, 2)
    grades, predicted = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    graded = metrics.compute_confusion(grades, predicted, weights, 3)
    for index, row in enumerate(weights):
        ours = [
            metrics.compute_auroc(scores, positive, weights)[index],
            metrics.compute_f1(confusion)[index],
            metrics.compute_sensitivity(confusion)[index],
            metrics.compute_specificity(confusion)[index],
            metrics.compute_macro_f1(graded)[index],
            metrics.compute_accuracy(graded)[index],
            metrics.compute_quadratic_kappa(graded)[index],
            metrics.compute_grade_error(graded)[index],
        ]
        theirs = [
            sklearn_metrics.roc_auc_score(positive, scores, sample_weight=row),
            sklearn_metrics.f1_score(positive, scores >= 0.4, sample_weight=row),
            sklearn_metrics.recall_score(positive, scores >= 0.4, sample_weight=row),
            sklearn_metrics.recall_score(~positive, scores < 0.4, sample_weight=row),
            sklearn_metrics.f1_score(grades, predicted, average="macro", sample_weight=row),
            sklearn_metrics.accuracy_score(grades, predicted, sample_weight=row),
            sklearn_metrics.cohen_kappa_score(
                grades, predicted, weights="quadratic", sample_weight=row
            ),
            sklearn_metrics.mean_absolute_error(grades, predicted, sample_weight=row),
        ]
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_confusion_counts_true_by_predicted():
    confusion = metrics.compute_confusion(
        np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), np.array([1.0, 1.0, 3.0, 1.0]), 3
    )
    np.testing.assert_array_equal(confusion, [[1, 1, 0], [0, 3, 0], [1, 0, 0]])


def test_binary_figures_by_hand():
    confusion = binary_confusion(
        true_negative=50, false_positive=10, false_negative=5, true_positive=20
    )
    assert metrics.compute_sensitivity(confusion) == 20 / 25
    assert metrics.compute_specificity(confusion) == 50 / 60
    assert metrics.compute_f1(confusion) == 40 / 55


def test_with_one_class_what_needs_the_other_is_undefined():
    only_positives = binary_confusion(0, 0, 1, 3)
    assert np.isnan(metrics.compute_specificity(only_positives))
    assert np.isnan(metrics.compute_f1(only_positives))
    assert metrics.compute_sensitivity(only_positives) == 0.75
    only_negatives = binary_confusion(4, 0, 0, 0)
    assert np.isnan(metrics.compute_sensitivity(only_negatives))
    assert np.isnan(metrics.compute_f1(only_negatives))


def test_finding_no_positive_case_is_an_f1_of_zero():
    assert metrics.compute_f1(binary_confusion(4, 0, 3, 0)) == 0


def test_macro_f1_leaves_out_a_class_that_never_occurs():
    assert metrics.compute_macro_f1(np.array([[3.0, 1, 0], [1, 3, 0], [0, 0, 0]])) == 0.75
    assert metrics.compute_macro_f1(np.array([[3.0, 1, 0], [1, 3, 0], [0, 1, 0]])) < 0.75


def test_quadratic_kappa_and_grade_error_by_hand():
    # one miss of distance 2 weighs 4; by chance, with margins (3, 2, 1) and (2, 2, 2), misses would
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


def test_the_best_kappa_is_that_of_the_best_of_all_rules():
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
