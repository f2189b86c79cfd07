"""Tests for calibration (error, slope, Brier score), predictive values and net benefit."""

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm, t
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, precision_score

from eczema_tf.evaluation import calibration
from eczema_tf.evaluation.calibration import (
    assign_bins,
    decompose_brier,
    estimate_calibration_error,
    fit_logistic,
    judge_calibration,
)
from eczema_tf.evaluation.decisions import (
    compute_net_benefit,
    compute_predictive_values,
    judge_net_benefit,
)
from eczema_tf.evaluation.intervals import Estimate, Sampling


def draw(count, slope=1.0, intercept=0.0, seed=0):
    """Draws probabilities, and labels that are 1 with P = expit(intercept + slope * logit)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-0.5, 1.5, count)
    labels = (rng.random(count) < expit(intercept + slope * logits)).astype(float)
    return expit(logits), labels


def judge_error(probabilities, labels, groups=None):
    groups = np.arange(len(labels)) if groups is None else groups
    return estimate_calibration_error(probabilities, labels, labels > 0.5, Sampling(groups))


def test_calibration_error_matches_hand_computation():
    """Two bins of two: 0.15 predicted and 0.5 observed, 0.75 predicted and 1 observed."""
    found = judge_error(np.array([0.1, 0.9, 0.2, 0.6]), np.array([0.0, 1, 1, 1]))
    assert found.error.value == pytest.approx((0.35 + 0.25) / 2)
    assert [one.cases for one in found.bins] == [2, 2]
    assert [one.predicted for one in found.bins] == pytest.approx([0.15, 0.75])
    assert [one.observed.value for one in found.bins] == [0.5, 1.0]


def test_bins_follow_rising_probability_with_near_equal_counts():
    bins = assign_bins(np.array([0.9, 0.1, 0.5, 0.3, 0.7]), 2)
    assert list(bins) == [1, 0, 0, 0, 1]


def test_perfect_model_errs_only_by_chance_and_its_interval_reaches_0():
    errors = [judge_error(*draw(300, seed=seed)) for seed in range(60)]
    below = [one.error.value < one.perfect_limit for one in errors]
    assert np.mean(below) >= 0.85  # 19 of 20 are expected
    assert np.mean([one.error.value for one in errors]) == pytest.approx(
        np.mean([one.perfect_mean for one in errors]), rel=0.1
    )
    assert np.mean([one.error.low == 0 for one in errors]) >= 0.9


def test_interval_contains_an_error_that_is_smaller_than_chance():
    """Alternating labels fit better than chance would allow."""
    found = judge_error(np.linspace(0.45, 0.56, 400), np.tile([0.0, 1], 200))
    assert 0 < found.error.value < found.perfect_mean / 2
    assert found.error.low <= found.error.value <= found.error.high


def test_zero_error_still_has_an_interval_as_wide_as_chance():
    """All cases get 0.3 and three in ten are positive, so by luck their bin is not off."""
    found = judge_error(np.full(100, 0.3), np.tile([1.0] * 3 + [0] * 7, 10))
    assert found.error.value < 1e-12
    assert 0 <= found.error.low < 1e-12
    assert found.error.high > found.perfect_mean


def test_overconfident_model_has_an_error_beyond_chance():
    probabilities, labels = draw(2000, slope=0.5)
    found = judge_error(probabilities, labels)
    off = probabilities - expit(0.5 * logit(probabilities))
    truth = np.abs(np.bincount(assign_bins(probabilities, 10), off)).sum() / len(labels)
    assert found.error.low <= truth <= found.error.high
    assert found.error.low > found.perfect_mean
    assert found.error.value > found.perfect_limit


def test_copies_of_a_case_in_one_group_add_no_certainty():
    probabilities, labels = draw(300, slope=0.5)
    alone = judge_error(probabilities, labels)
    copied = judge_error(probabilities.repeat(3), labels.repeat(3), np.arange(900) // 3)
    assert copied.perfect_mean > 0.8 * alone.perfect_mean
    assert copied.error.high - copied.error.low > 0.8 * (alone.error.high - alone.error.low)


def test_groups_across_bins_spread_the_chance_error_but_keep_its_mean():
    """Bins with the same groups err alike: |z| has a mean of 0.80, and 5 % are above 1.96.

    Bins with groups of their own have the same mean error, but 5 % are above about 1.53.
    """
    probabilities, labels = np.repeat([0.3, 0.7], 24), np.tile(np.arange(24) % 2.0, 2)
    alone = judge_error(probabilities, labels)
    tied = judge_error(probabilities, labels, np.tile(np.arange(24), 2))
    assert tied.perfect_mean == pytest.approx(alone.perfect_mean, rel=0.05)
    assert tied.perfect_limit / tied.perfect_mean == pytest.approx(1.96 / 0.80, rel=0.1)
    assert alone.perfect_limit / alone.perfect_mean == pytest.approx(1.53 / 0.80, rel=0.05)


def test_pairs_within_a_bin_count_as_half_as_many_cases():
    probabilities, labels = np.repeat([0.3, 0.7], 24), np.tile(np.arange(24) // 2 % 2.0, 2)
    alone, paired = (judge_error(probabilities, labels, np.arange(48) // by) for by in (1, 2))
    assert paired.perfect_mean == pytest.approx(np.sqrt(2) * alone.perfect_mean)


def test_bin_of_identical_cases_still_has_a_chance_error():
    found = judge_error(np.repeat([0.1, 0.6], 20), np.repeat([0.0, 1.0], 20))
    assert found.perfect_mean == pytest.approx(
        0.8 * np.mean(np.sqrt([0.09 / 20, 0.24 / 20])), rel=0.05
    )


def test_small_error_stands_out_when_labels_are_shares_of_many_votes():
    """With 20 votes per case, the noise is about a fifth of that with one."""
    rng = np.random.default_rng(0)
    right = rng.beta(2, 2, 400)
    votes = rng.binomial(20, right) / 20
    assert judge_error(right, votes).error.value < judge_error(right, votes).perfect_limit < 0.02
    bold = np.clip(right + 0.05 * np.sign(right - 0.5), 0, 1)
    found = judge_error(bold, votes)
    assert found.perfect_limit < found.error.value
    assert 0.01 < found.error.low < found.error.high < 0.1


def test_rarer_class_is_counted_from_the_given_positive_labels():
    """Half of the cases have two votes in five, and any vote counts as positive."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0.0, 0.4], 100)
    probabilities = np.clip(labels + rng.normal(0, 0.1, 200), 0.01, 0.99)
    judged = judge_calibration(probabilities, labels, labels > 0, Sampling(np.arange(200)), "")
    assert None not in (judged.slope.low, judged.ece.error.low)


def test_slope_and_intercept_match_an_unpenalised_logistic_regression():
    probabilities, labels = draw(800, slope=0.6, intercept=0.4)
    theirs = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(probabilities)[:, None], labels)
    slope, intercept = fit_logistic(probabilities, labels)
    assert slope.value == pytest.approx(theirs.coef_[0, 0], abs=1e-4)
    assert intercept.value == pytest.approx(theirs.intercept_[0], abs=1e-4)
    judged = judge_calibration(probabilities, labels, labels > 0.5, Sampling(np.arange(800)), "")
    assert judged.slope.low < 0.6 < judged.slope.high < 1
    assert judged.intercept.low < 0.4 < judged.intercept.high


def test_slope_is_found_for_very_overconfident_or_biased_models():
    """Plain Newton's method diverges on all of these if it starts from a slope of 1."""
    logits = np.random.default_rng(0).normal(0, 2.5, 300)
    for slope, intercept in ((0.2, 0), (-0.5, 0), (1, -4)):
        labels = np.random.default_rng(1).random(300) < expit(slope * logits + intercept)
        theirs = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], labels)
        found = fit_logistic(expit(logits), labels.astype(float))
        assert found[0].value == pytest.approx(theirs.coef_[0, 0], abs=1e-4)
        assert found[1].value == pytest.approx(theirs.intercept_[0], abs=1e-4)


def test_standard_error_of_the_slope_agrees_with_resampling():
    probabilities, labels = draw(400, slope=0.8)
    slope, rng = fit_logistic(probabilities, labels)[0], np.random.default_rng(0)
    drawn = [rng.integers(0, 400, 400) for _ in range(300)]
    resampled = np.std([fit_logistic(probabilities[own], labels[own])[0].value for own in drawn])
    assert np.sqrt((slope.influence**2).sum()) == pytest.approx(resampled, rel=0.15)


@pytest.mark.parametrize("labels", [[0.0] * 30, [1.0] * 30, [0.0] * 15 + [1.0] * 15])
def test_slope_is_undefined_with_one_class_or_separated_classes(labels):
    slope, intercept = fit_logistic(np.linspace(0.1, 0.9, 30), np.array(labels))
    assert np.isnan([slope.value, intercept.value]).all()


def test_brier_decomposition_is_exact_and_matches_hand_computation():
    probabilities, labels = draw(500, slope=0.5)
    miscalibration, discrimination, uncertainty = decompose_brier(probabilities, labels)
    score = brier_score_loss(labels, probabilities)
    assert miscalibration - discrimination + uncertainty == pytest.approx(score)
    assert uncertainty == pytest.approx(labels.mean() * (1 - labels.mean()))
    # ranked correctly, but only half as confident as it should be
    by_hand = decompose_brier(np.array([0.25, 0.25, 0.75, 0.75]), np.array([0.0, 0, 1, 1]))
    assert by_hand == pytest.approx((1 / 16, 1 / 4, 1 / 4))


def test_intervals_stay_within_the_range_of_the_metric():
    """Student's interval would go beyond it: of ten cases, nine are wholly wrong, or one is."""
    probabilities = np.array([0.0] * 9 + [1.0])
    for label, large, score in ((1, (-1, -0.68), (0.68, 1)), (0, (-0.12, 0.32), (0, 0.32))):
        labels = np.full(10, float(label))
        found = judge_calibration(probabilities, labels, labels > 0, Sampling(np.arange(10)), "")
        for estimate, ends in ((found.in_the_large, large), (found.brier.score, score)):
            assert (estimate.low, estimate.high) == pytest.approx(ends, abs=0.02)


def test_calibration_is_undefined_without_cases():
    nothing = np.zeros(0)
    found = judge_calibration(nothing, nothing, nothing > 0, Sampling(np.zeros(0, int)), "no case")
    assert (found.ece.error.value, found.brier.score.value, found.slope.value) == (None,) * 3
    assert found.ece.error.reason == "no case"


def test_predictive_values_at_the_sample_prevalence_match_precision():
    rng = np.random.default_rng(0)
    positive, called = rng.random(200) < 0.3, rng.random(200) < 0.4
    ends = {"low": 0.1, "high": 0.9}
    found = compute_predictive_values(
        Estimate(value=called[positive].mean(), **ends),
        Estimate(value=(~called)[~positive].mean(), **ends),
        positive.mean(),
    )
    assert found.ppv.value == pytest.approx(precision_score(positive, called))
    assert found.npv.value == pytest.approx(precision_score(~positive, ~called))


def test_predictive_values_match_a_published_example():
    """Altman and Bland 1994, BMJ 309:102: sensitivity 231/258, specificity 54/86.

    At the prevalence of 0.25 the positive value is 0.45 and the negative 0.95.
    """
    sensitivity, specificity = (
        Estimate(value=value, low=value - 0.05, high=value + 0.05) for value in (231 / 258, 54 / 86)
    )
    found = compute_predictive_values(sensitivity, specificity, 0.25)
    assert (round(found.ppv.value, 2), round(found.npv.value, 2)) == (0.45, 0.95)
    assert found.ppv.low < found.ppv.value < found.ppv.high
    assert found.npv.low < found.npv.value < found.npv.high


def test_ppv_is_undefined_with_a_reason_when_nobody_is_called():
    nobody = Estimate(value=0.0, low=0.0, high=0.1)
    found = compute_predictive_values(nobody, Estimate(value=1.0, low=0.9, high=1.0), 0.2)
    assert (found.ppv.value, found.ppv.reason) == (None, "no case is called so")
    assert (found.ppv.low, found.ppv.high) == (None, None)
    assert found.npv.value == pytest.approx(0.8)


def test_net_benefit_matches_hand_computation():
    """At 0.2 a false alarm costs a quarter; there are two true alarms and a false one."""
    probabilities = np.array([0.9, 0.2, 0.5, 0.1, 0.05])
    positive = np.array([True, True, False, False, False])
    assert compute_net_benefit(probabilities, positive, [0.2]) == pytest.approx([(2 - 0.25) / 5])
    everybody = compute_net_benefit(np.ones(5), positive, [0.2])
    assert everybody == pytest.approx([(2 - 3 * 0.25) / 5])
    found = judge_net_benefit(probabilities, positive, Sampling(np.arange(5)), "")
    at = next(one for one in found if one.threshold == 0.2)
    assert at.model.value == pytest.approx(0.35)
    assert (at.treat_all, at.gain.value) == (pytest.approx(0.25), pytest.approx(0.1))


def test_useful_model_has_a_net_benefit_gain_and_a_constant_one_has_none():
    probabilities, labels = draw(1000)
    positive, sampling = labels > 0.5, Sampling(np.arange(1000))
    useful = judge_net_benefit(probabilities, positive, sampling, "")
    assert all(one.gain.low > 0 for one in useful if 0.2 <= one.threshold <= 0.3)
    constant = judge_net_benefit(np.full(1000, positive.mean()), positive, sampling, "")
    assert all(one.gain.value <= 1e-12 for one in constant)


@pytest.mark.parametrize("answers", [1, 4, 12])
def test_order_of_cases_with_equal_probabilities_does_not_matter(answers: int):
    """The model is right on average, so its error is small.

    If equal probabilities filled bins in their order, sorting would make it 0.4.
    """
    rng = np.random.default_rng(0)
    probabilities = rng.choice(np.linspace(0.1, 0.9, answers), 400)
    labels = (rng.random(400) < probabilities).astype(float)
    errors = []
    for order in (np.arange(400), np.argsort(labels), np.argsort(-labels)):
        found = judge_error(probabilities[order], labels[order])
        errors.append(found.error.value)
        assert len(found.bins) <= answers
        assert sum(one.cases for one in found.bins) == 400
    assert errors == pytest.approx([errors[0]] * 3)
    assert errors[0] < 0.08


def test_interval_of_the_slope_has_the_rarer_class_degrees_of_freedom():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, 400)
    labels = np.zeros(400)
    labels[rng.choice(400, 12, replace=False)] = 1
    positive, sampling = labels > 0.5, Sampling(np.arange(400))
    slope = judge_calibration(expit(logits), labels, positive, sampling, "").slope
    fitted = fit_logistic(expit(logits), labels)[0]
    error = sampling.measure_error(fitted.influence, (positive, ~positive))[0]
    # the quantile is that of Student's t with 11 degrees of freedom
    assert slope.high - slope.value == pytest.approx(2.2009851601 * error)
    labels[np.flatnonzero(positive)[:3]] = 0
    few = judge_calibration(expit(logits), labels, labels > 0.5, sampling, "").slope
    assert few.reason == "no interval: 9 groups have a case of the rarer class, 10 are needed"


def test_logistic_fit_halves_a_step_that_goes_too_far():
    """One case is sure and right, the others are unsure: plain Newton's method diverges."""
    below = [-1, -1, -0.9, -0.8, -0.6, -0.6, -0.2]
    logits = np.array([-8, *below, *[0.1] * 3, *[0.2] * 3, 0.3, 0.4, 0.5, 0.5, 0.6, 0.9])
    labels = np.ones(20)
    labels[[0, 13]] = 0
    theirs = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], labels)
    found = fit_logistic(expit(logits), labels)
    assert found[0].value == pytest.approx(theirs.coef_[0, 0], abs=1e-4)


def test_slope_does_not_depend_on_how_sure_the_surest_case_is():
    """Beyond log-odds of 8, all answers count the same, including 0 and 1."""
    logits = np.random.default_rng(0).normal(0, 1, 200)
    labels = (np.random.default_rng(1).random(200) < expit(logits)).astype(float)
    labels[0], found = 1, []
    for surest in (-8, -20, -np.inf):
        logits[0] = surest
        found.append(fit_logistic(expit(logits), labels)[0].value)
    assert found[0] > 0.5
    assert found[1:] == pytest.approx([found[0]] * 2)


def test_error_of_a_perfect_model_grows_with_the_inflation():
    probabilities, labels = draw(300)
    one, four = (
        estimate_calibration_error(
            probabilities, labels, labels > 0.5, Sampling(np.arange(300), inflation)
        )
        for inflation in (1.0, 4.0)
    )
    assert four.perfect_mean == pytest.approx(2 * one.perfect_mean)
    assert four.perfect_limit == pytest.approx(2 * one.perfect_limit)


def test_interval_of_the_error_uses_the_size_of_the_rarer_class(monkeypatch: pytest.MonkeyPatch):
    """Twelve positive cases in groups of their own leave 11 degrees of freedom."""
    tried = []
    monkeypatch.setattr(
        calibration, "_invert", lambda simulate, *_, **__: tried.append(simulate.args) or (0, 1)
    )
    labels = np.zeros(400)
    labels[::34] = 1
    assert labels.sum() == 12
    judge_error(np.linspace(0.01, 0.05, 400), labels)
    ((*_, scatter),) = tried
    assert scatter == pytest.approx(np.eye(10) * t.ppf(0.975, 11) / norm.ppf(0.975))


def test_assumed_truth_averages_the_bins_gap_and_the_mean_gap(monkeypatch: pytest.MonkeyPatch):
    """The bins are off by 0.35 and 0.25, and by 0.3 on average."""
    simulate, tried = calibration._simulate_errors, []

    def note(probabilities, direction, *given, **others):
        tried.append(direction)
        return simulate(probabilities, direction, *given, **others)

    monkeypatch.setattr(calibration, "_simulate_errors", note)
    judge_error(np.array([0.1, 0.9, 0.2, 0.6]), np.array([0.0, 1, 1, 1]))
    assert tried[0] == pytest.approx(np.array([0.65, 0.55, 0.65, 0.55]) / 0.6)


def test_unequal_probabilities_in_a_bin_scatter_less_than_equal_ones():
    probabilities = np.repeat([0.01, 0.49, 0.51, 0.99], 10)
    labels = (np.random.default_rng(0).random(40) < probabilities).astype(float)
    variance = (10 * 0.01 * 0.99 + 10 * 0.49 * 0.51) / 20**2  # of a bin's share
    expected = np.sqrt(2 / np.pi) * np.sqrt(variance)  # of a normal error, without its sign
    assert judge_error(probabilities, labels).perfect_mean == pytest.approx(expected, rel=0.05)
