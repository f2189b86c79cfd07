"""Tests for intervals: coverage, groups, cross-validation, pairing and undefined metrics."""

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binomtest, brunnermunzel, norm, t, ttest_1samp

from eczema_tf.evaluation.bootstrap import draw_weights, summarise
from eczema_tf.evaluation.intervals import (
    Estimate,
    Sampling,
    clip_ends,
    compute_wilson,
    estimate_auroc,
    estimate_difference,
    estimate_f1,
    estimate_mean,
    estimate_share,
    inflate_for_training,
)
from eczema_tf.evaluation.metrics import Statistic, measure_auroc, measure_f1, measure_mean


def normal_cases(rng, cases, shift=1.0):
    """Draws scores whose true AUROC is Phi(shift / sqrt 2)."""
    positive = np.arange(cases) % 2 == 0
    return rng.normal(shift * positive, 1), positive


def judge_auroc(scores, positive, groups=None, inflation=1.0):
    sampling = Sampling(np.arange(len(scores)) if groups is None else groups, inflation)
    return estimate_auroc(measure_auroc(scores, positive), positive, sampling, "one class")


def judge_share(found, groups=None, inflation=1.0):
    sampling = Sampling(np.arange(len(found)) if groups is None else groups, inflation)
    return estimate_share(measure_mean(found), np.ones(len(found), bool), sampling, "no case")


def width(estimate):
    return estimate.high - estimate.low


def test_bootstrap_draws_whole_groups_as_many_as_there_are():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    weights = draw_weights(groups, replicates=50, seed=1)
    assert weights.shape == (51, 6)
    assert (weights[0] == 1).all()
    for members in ([1, 4], [0, 2, 5]):
        assert (weights[:, members] == weights[:, members[:1]]).all()
    np.testing.assert_array_equal(weights[:, [1, 0, 3]].sum(axis=1), 3)  # one member of each group
    assert len(np.unique(weights, axis=0)) > 5


def test_same_seed_draws_the_same_groups_in_any_order_of_cases():
    groups, order = np.array(list("abbcdde")), np.array([3, 1, 0, 6, 5, 2, 4])
    weights = draw_weights(groups, replicates=20, seed=7)
    np.testing.assert_array_equal(
        draw_weights(groups[order], replicates=20, seed=7), weights[:, order]
    )
    assert (draw_weights(groups, replicates=20, seed=8) != weights).any()


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.5])
def test_auroc_intervals_contain_the_truth_about_95_times_in_100(shift):
    truth, rng = norm.cdf(shift / np.sqrt(2)), np.random.default_rng(0)
    estimates = [judge_auroc(*normal_cases(rng, 60, shift)) for _ in range(400)]
    assert 0.93 <= np.mean([one.low <= truth <= one.high for one in estimates]) <= 0.98


@pytest.mark.parametrize(("found", "cases"), [(0, 8), (5, 5), (3, 11), (40, 60), (59, 60)])
def test_share_of_ungrouped_cases_has_wilsons_interval(found, cases):
    expected = binomtest(found, cases).proportion_ci(method="wilson")
    estimate = judge_share(np.arange(cases) < found)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("judge", [judge_share, judge_auroc])
def test_copies_of_a_case_in_one_group_do_not_narrow_the_interval(judge):
    scores, positive = normal_cases(np.random.default_rng(3), 80)
    cases = [scores > 0.2] if judge is judge_share else [scores, positive]
    copied = [values.repeat(4) for values in cases]
    alone, grouped = judge(*cases), judge(*copied, np.arange(80).repeat(4))
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high), rel=1e-9)
    assert width(grouped) > 1.9 * width(judge(*copied))


def test_interval_of_a_perfect_share_counts_groups_not_cases():
    """The interval of 5 of 5 is that of Wilson (1927)."""
    alone = judge_share(np.ones(5, bool))
    assert (alone.low, alone.high) == (pytest.approx(1 / (1 + 1.959964**2 / 5)), 1)
    copied = judge_share(np.ones(20, bool), np.arange(20) // 4)
    assert copied == alone


def test_perfect_auroc_has_the_interval_of_a_perfect_rarer_class_share():
    positive = np.arange(60) < 12
    estimate = judge_auroc(positive * 1.0, positive)
    assert (estimate.value, estimate.high) == (1, 1)
    assert estimate.low == judge_share(np.ones(12, bool)).low


def test_auroc_has_no_interval_with_under_ten_groups_of_a_class():
    scores = np.arange(60.0)
    nine = judge_auroc(scores, np.arange(60) % 6 == 5, np.arange(60) // 6 % 9)
    assert (nine.low, nine.high) == (None, None)
    assert nine.reason == "no interval: 9 groups have a case of the rarer class, 10 are needed"
    assert judge_auroc(scores, np.arange(60) % 6 == 5).low is not None


def test_paired_difference_has_a_narrower_interval_than_an_unpaired_one():
    rng = np.random.default_rng(4)
    scores, positive = normal_cases(rng, 150)
    better = scores + 0.3 * positive + rng.normal(0, 0.2, 150)
    one, other = (measure_auroc(values, positive) for values in (better, scores))
    sampling = Sampling(np.arange(150))
    paired = estimate_difference(one - other, sampling, "")
    both = Sampling(np.arange(300))
    apart = Statistic(paired.value, np.r_[one.influence, -other.influence])
    assert width(paired) < 0.6 * width(estimate_difference(apart, both, ""))
    assert (paired.p < 0.05) == (paired.low > 0)
    same = estimate_difference(one - one, sampling, "")
    assert (same.value, same.low, same.p) == (0, None, None)
    for weight in (0.05, 0.1, 0.3):  # rounding leaves a spread in some of these
        alike = estimate_difference(measure_mean(np.full(12, -weight)), Sampling(np.arange(12)), "")
        assert alike.reason == "no interval: no case differs from the others"


def test_mean_has_students_interval_and_p_value_over_groups():
    values = np.random.default_rng(2).normal(0.4, 1, 12)
    theirs = ttest_1samp(values, 0)
    ours = estimate_difference(measure_mean(values), Sampling(np.arange(12)), "")
    assert ours.p == pytest.approx(theirs.pvalue)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval()))
    copied = estimate_difference(measure_mean(values.repeat(3)), Sampling(np.arange(36) // 3), "")
    assert copied.p == pytest.approx(ours.p)


def test_one_dominant_group_gets_a_valid_interval_or_none():
    """One of 21 groups has half of the cases, and all of them share its luck."""
    groups = np.repeat(np.arange(21), [40] + [2] * 20)
    rng, held = np.random.default_rng(0), []
    for _ in range(400):
        values = rng.normal(size=21)[groups] * 0.5 + rng.normal(size=80)
        found = estimate_difference(measure_mean(values), Sampling(groups), "")
        held.append(found.low <= 0 <= found.high)
        assert (found.p >= 0.05) == held[-1]
    assert np.mean(held) > 0.93
    most = np.repeat(np.arange(21), [360] + [2] * 20)
    found = estimate_mean(
        measure_mean(np.random.default_rng(0).normal(size=400)), Sampling(most), ""
    )
    assert (found.low, found.reason) == (None, "no interval: one group has most of the cases")


def test_cross_validation_widens_intervals_as_nadeau_and_bengio_do():
    assert inflate_for_training(5) == 1 + 5 / 4
    found = np.arange(200) < 120
    factor = np.sqrt(inflate_for_training(10))
    assert width(judge_share(found, inflation=factor**2)) == pytest.approx(
        factor * width(judge_share(found)), rel=0.02
    )
    values = np.r_[0.5, np.linspace(0.4, 0.9, 1001)]
    once, wide = summarise(values), summarise(values, inflation=4.0, bounds=(0.35, 1))
    assert (wide.low, wide.high) == (0.35, 1)
    assert summarise(values, inflation=4.0).high - 0.5 == pytest.approx(2 * (once.high - 0.5))


def test_bootstrap_interval_matches_known_percentiles():
    values = np.r_[0.5, np.linspace(0, 1, 1001)]
    expected = {"value": 0.5, "low": 0.025, "high": 0.975}
    assert summarise(values).model_dump(exclude_unset=True) == pytest.approx(expected)


def test_few_undefined_resamples_are_left_out_but_many_leave_no_interval():
    values = np.r_[0.5, np.linspace(0, 1, 100)]
    values[1:6] = np.nan  # 5 of 100
    assert summarise(values).low is not None
    values[6] = np.nan
    estimate = summarise(values)
    assert estimate == Estimate(
        value=0.5, low=None, high=None, reason="no interval: undefined in 6% of the resamples"
    )


def test_constant_or_missing_resamples_give_no_interval_but_a_reason():
    for resampled, said in (
        (np.full(100, 1.0), "the same in all resamples"),
        ([], "too few groups"),
    ):
        estimate = summarise(np.r_[1.0, resampled])
        assert (estimate.value, estimate.low, estimate.high) == (1.0, None, None)
        assert said in estimate.reason


def test_clip_ends_clips_both_ends_and_keeps_an_undefined_estimate():
    wide = Estimate(value=0.5, low=-0.2, high=1.3)
    assert clip_ends(wide, 0, 1) == Estimate(value=0.5, low=0.0, high=1.0)
    nothing = Estimate(value=None, low=None, high=None, reason="no case")
    assert clip_ends(nothing, 0, 1) == nothing


def test_undefined_metric_keeps_its_reason():
    expected = {"value": None, "low": None, "high": None, "reason": "one class only"}
    assert (
        summarise(np.full(11, np.nan), "one class only").model_dump(exclude_unset=True) == expected
    )


def test_one_group_gives_a_value_but_no_interval():
    scores, positive = np.array([0.1, 0.7, 0.3, 0.9]), np.array([False, True, True, True])
    estimate = judge_auroc(scores, positive, np.zeros(4, int))
    assert (estimate.value, estimate.low, estimate.high) == (1.0, None, None)


def test_bootstrap_without_cases_draws_empty_weights():
    assert draw_weights(np.array([], dtype=str), replicates=5, seed=0).shape == (6, 0)


@pytest.mark.parametrize(
    ("found", "size", "worth", "freedom"),
    [
        # pairs find 1, 1, 0, 0, -1, -1 more than the expected 1: 4 / 12^2, times
        # (1 - 1/12) / (1 - 1/6), a tenth more; independent cases have half the variance of copies
        ([2, 2, 1, 1, 0, 0], 2, 0.25 / (4 / 144 * 1.1), 1 / (1 / 4 / 11 + 1 / 4 / 5)),
        # groups are off by 4, 0, 0, 0, -4: 32 / 40^2, times (1 - 1/40) / (1 - 1/5); independent
        # cases have an eighth of the variance of copies
        ([8, 4, 4, 4, 0], 8, 0.25 / (0.02 * 0.975 / 0.8), 1 / (1 / 64 / 39 + 49 / 64 / 4)),
        ([4, 4, 4, 4, 4], 8, 40, 39),  # groups do not differ: worth no more than all cases
        ([8, 8, 0, 0, 0], 8, 5, 39),  # copies: worth no less than the groups
    ],
)
def test_effective_number_of_cases_lies_between_groups_and_all_cases(found, size, worth, freedom):
    cases = np.concatenate([np.arange(size) < count for count in found])
    known, told = t.ppf(0.975, [len(cases) - 1, freedom])
    estimate = judge_share(cases, np.arange(len(cases)) // size)
    expected = compute_wilson(cases.mean(), worth * (known / told) ** 2)
    assert (estimate.low, estimate.high) == pytest.approx(expected, abs=1e-9)


def test_auroc_interval_has_brunner_and_munzels_degrees_of_freedom():
    scores, positive = normal_cases(np.random.default_rng(6), 30)
    positive[:9] = False
    placements = [np.mean(scores[positive, None] > scores[~positive], axis=axis) for axis in (1, 0)]
    parts = np.array([place.var(ddof=1) / len(place) for place in placements])
    freedom = parts.sum() ** 2 / sum(parts**2 / [len(place) - 1 for place in placements])
    value, error = placements[0].mean(), np.sqrt(parts.sum())
    theirs = brunnermunzel(scores[positive], scores[~positive]).pvalue
    assert 2 * t.sf((value - 0.5) / error, freedom) == pytest.approx(theirs)
    reach = t.ppf(0.975, freedom) * error / (value * (1 - value))
    estimate = judge_auroc(scores, positive)
    expected = expit([logit(value) - reach, logit(value) + reach])
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expected))


def test_auroc_intervals_hold_if_half_of_each_class_is_one_group():
    groups, rng = np.repeat(np.arange(32), np.tile([15] + [1] * 15, 2)), np.random.default_rng(0)
    positive, held = groups < 16, []
    for _ in range(400):
        scores = np.sqrt(0.5) * (rng.normal(size=32)[groups] + rng.normal(size=60)) + 1.5 * positive
        estimate = judge_auroc(scores, positive, groups)
        held.append(estimate.low <= norm.cdf(1.5 / np.sqrt(2)) <= estimate.high)
    assert np.mean(held) >= 0.93


def test_auroc_of_equal_scores_has_an_interval_of_zero_width():
    estimate = judge_auroc(np.ones(40), np.arange(40) < 20)
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.5, 0.5)


def test_f1_interval_follows_from_that_of_the_overlap():
    """Of 10 cases that are eczema or called eczema, 6 are both: F1 = 2 * 0.6 / 1.6."""
    positive, called = np.arange(30) < 8, (np.arange(30) >= 2) & (np.arange(30) < 10)
    estimate = estimate_f1(positive, called, Sampling(np.arange(30)), "one class")
    low, high = compute_wilson(0.6, 10)
    expected = (0.75, 2 * low / (1 + low), 2 * high / (1 + high))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(expected)
    assert measure_f1(positive, called).value == pytest.approx(0.75)
    alone = estimate_f1(positive[:8], called[:8], Sampling(np.arange(8)), "one class")
    assert (alone.value, alone.reason) == (None, "one class")


def test_perfect_auroc_of_a_cross_validation_has_a_wider_interval():
    positive = np.arange(60) < 12
    once, widened = (judge_auroc(positive * 1.0, positive, None, by) for by in (1.0, 2.25))
    assert widened.low == compute_wilson(1.0, 12 / 2.25)[0] < once.low


def test_small_spread_gives_an_interval_but_rounding_error_does_not():
    near = measure_mean(np.linspace(0.5, 0.501, 20))
    small = estimate_difference(near, Sampling(np.arange(20)), "")
    assert 0.5 < small.low < small.high < 0.501
    dust = np.where(np.arange(12) % 2, 0.1 + 0.2 - 0.3, 0)
    large = np.full(12, 1e7 / 3) + dust * 1e9
    for alike in (dust, large):
        found = estimate_difference(measure_mean(alike), Sampling(np.arange(12)), "")
        assert found.reason == "no interval: no case differs from the others"


def test_rarer_class_sets_the_degrees_of_freedom_and_is_named():
    positive, values = np.arange(60) < 12, np.random.default_rng(0).normal(0.3, 1, 60)
    classes, mean, sampling = (positive, ~positive), measure_mean(values), Sampling(np.arange(60))
    found = estimate_difference(mean, sampling, "", classes)
    error = sampling.measure_error(mean.influence, classes)[0]
    assert found.high - found.value == pytest.approx(t.ppf(0.975, 11) * error)
    assert found.p == pytest.approx(2 * t.sf(found.value / error, 11))
    nine = np.arange(60) < 9
    few = estimate_difference(mean, sampling, "", (nine, ~nine))
    assert few.reason == "no interval: 9 groups have a case of the rarer class, 10 are needed"


def test_intervals_of_grouped_shares_are_widened_once():
    """The effective number of cases, two per group, is divided by the inflation only once."""
    cases = np.concatenate([np.arange(2) < count for count in (2, 2, 1, 1, 0, 0)])
    groups = np.arange(12) // 2
    known, told = t.ppf(0.975, [11, 1 / (1 / 4 / 11 + 1 / 4 / 5)])
    worth = 0.25 / (4 / 144 * 1.1) * (known / told) ** 2
    estimate = judge_share(cases, groups, inflation=2.25)
    assert (estimate.low, estimate.high) == pytest.approx(compute_wilson(0.5, worth / 2.25))
