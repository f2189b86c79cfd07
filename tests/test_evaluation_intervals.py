"""Intervals: whole groups are drawn, coverage is what it says, clusters widen, pairing narrows.

The undefined stays undefined.
"""

import math

import numpy as np
import pytest

from eczema_tf.evaluation.intervals import Estimate, draw_weights, summarise
from eczema_tf.evaluation.metrics import compute_auroc


def normal_cases(rng, cases, shift=1.0):
    """Scores whose true AUROC is Phi(shift / sqrt 2)."""
    positive = np.arange(cases) % 2 == 0
    return rng.normal(shift * positive, 1), positive


def width(estimate):
    return estimate.high - estimate.low


def test_groups_are_drawn_whole_and_as_many_as_there_are():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    weights = draw_weights(groups, replicates=50, seed=1)
    assert weights.shape == (51, 6)
    assert (weights[0] == 1).all()
    for members in ([1, 4], [0, 2, 5]):
        assert (weights[:, members] == weights[:, members[:1]]).all()
    np.testing.assert_array_equal(weights[:, [1, 0, 3]].sum(axis=1), 3)  # one member of each group
    assert len(np.unique(weights, axis=0)) > 5


def test_the_same_seed_draws_the_same_groups_whatever_the_order_of_cases():
    groups, order = np.array(list("abbcdde")), np.array([3, 1, 0, 6, 5, 2, 4])
    weights = draw_weights(groups, replicates=20, seed=7)
    np.testing.assert_array_equal(
        draw_weights(groups[order], replicates=20, seed=7), weights[:, order]
    )
    assert (draw_weights(groups, replicates=20, seed=8) != weights).any()


def test_95_percent_intervals_hold_the_truth_about_95_times_in_100():
    truth = 0.5 * (1 + math.erf(1 / 2))  # Phi(1 / sqrt 2)
    rng, held = np.random.default_rng(0), []
    for data_set in range(200):
        scores, positive = normal_cases(rng, 100)
        weights = draw_weights(np.arange(100), replicates=200, seed=data_set)
        estimate = summarise(compute_auroc(scores, positive, weights))
        held.append(estimate.low <= truth <= estimate.high)
    assert 0.90 <= np.mean(held) <= 0.99


def test_copies_of_a_case_add_nothing_when_they_share_a_group():
    scores, positive = normal_cases(np.random.default_rng(3), 80)
    copies, groups = 4, np.arange(80)
    alone = summarise(compute_auroc(scores, positive, draw_weights(groups)))
    copied = scores.repeat(copies), positive.repeat(copies)
    grouped = summarise(compute_auroc(*copied, draw_weights(groups.repeat(copies))))
    pretended = summarise(compute_auroc(*copied, draw_weights(np.arange(80 * copies))))
    assert grouped.model_dump(exclude_unset=True) == pytest.approx(
        alone.model_dump(exclude_unset=True)
    )
    assert width(grouped) > 1.6 * width(pretended)  # the wrong interval is sqrt(4) times too narrow


def test_a_paired_difference_has_a_narrower_interval_than_an_unpaired_one():
    rng = np.random.default_rng(4)
    scores, positive = normal_cases(rng, 150)
    better = scores + 0.3 * positive + rng.normal(0, 0.2, 150)
    weights, other = draw_weights(np.arange(150), seed=1), draw_weights(np.arange(150), seed=2)
    paired = summarise(
        compute_auroc(better, positive, weights) - compute_auroc(scores, positive, weights)
    )
    unpaired = summarise(
        compute_auroc(better, positive, weights) - compute_auroc(scores, positive, other)
    )
    assert paired.value == unpaired.value
    assert width(paired) < 0.6 * width(unpaired)


def test_percentiles_by_hand():
    values = np.r_[0.5, np.linspace(0, 1, 1001)]
    expected = {"value": 0.5, "low": 0.025, "high": 0.975}
    assert summarise(values).model_dump(exclude_unset=True) == pytest.approx(expected)


def test_a_few_undefined_resamples_are_left_out_but_many_leave_no_interval():
    values = np.r_[0.5, np.linspace(0, 1, 100)]
    values[1:6] = np.nan  # 5 of 100
    assert summarise(values).low is not None
    values[6] = np.nan
    estimate = summarise(values)
    assert estimate == Estimate(
        value=0.5, low=None, high=None, reason="no interval: undefined in 6% of the resamples"
    )


def test_an_undefined_metric_keeps_its_reason():
    expected = {"value": None, "low": None, "high": None, "reason": "one class only"}
    assert (
        summarise(np.full(11, np.nan), "one class only").model_dump(exclude_unset=True) == expected
    )


def test_one_group_gives_a_value_but_no_interval():
    scores, positive = np.array([0.1, 0.7, 0.3, 0.9]), np.array([False, True, True, True])
    estimate = summarise(
        compute_auroc(scores, positive, draw_weights(np.array(["a"] * 4), replicates=20))
    )
    assert (estimate.value, estimate.low, estimate.high) == (1.0, None, None)


def test_no_cases_no_weights():
    assert draw_weights(np.array([], dtype=str), replicates=5).shape == (6, 0)
