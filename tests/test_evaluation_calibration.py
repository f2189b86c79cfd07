"""Calibration and decisions: known answers, perfect and wrong models, one class, no cases."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, precision_score

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
    """Probabilities whose labels have P = expit(intercept + slope * logit)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-0.5, 1.5, count)
    labels = (rng.random(count) < expit(intercept + slope * logits)).astype(float)
    return expit(logits), labels


def judge_error(probabilities, labels, groups=None):
    groups = np.arange(len(labels)) if groups is None else groups
    return estimate_calibration_error(probabilities, labels, labels > 0.5, Sampling(groups))


def test_the_error_by_hand():
    """Two bins of two: 0.15 foretold and 0.5 seen, 0.75 foretold and 1 seen."""
    found = judge_error(np.array([0.1, 0.9, 0.2, 0.6]), np.array([0.0, 1, 1, 1]))
    assert found.error.value == pytest.approx((0.35 + 0.25) / 2)
    assert [one.cases for one in found.bins] == [2, 2]
    assert [one.predicted for one in found.bins] == pytest.approx([0.15, 0.75])
    assert [one.observed.value for one in found.bins] == [0.5, 1.0]


def test_bins_hold_equal_counts_by_rising_probability():
    bins = assign_bins(np.array([0.9, 0.1, 0.5, 0.3, 0.7]), 2)
    assert list(bins) == [1, 0, 0, 0, 1]


def test_a_perfect_model_errs_by_chance_alone_and_its_interval_reaches_0():
    errors = [judge_error(*draw(300, seed=seed)) for seed in range(60)]
    below = [one.error.value < one.perfect_limit for one in errors]
    assert np.mean(below) >= 0.85  # 19 of 20
    assert np.mean([one.error.value for one in errors]) == pytest.approx(
        np.mean([one.perfect_mean for one in errors]), rel=0.1
    )
    assert np.mean([one.error.low == 0 for one in errors]) >= 0.9


def test_an_interval_holds_its_error_however_small():
    """Labels that alternate fit better than chance would have it."""
    found = judge_error(np.linspace(0.45, 0.56, 400), np.tile([0.0, 1], 200))
    assert 0 < found.error.value < found.perfect_mean / 2
    assert found.error.low <= found.error.value <= found.error.high


def test_an_error_of_nothing_has_the_interval_of_chance():
    """Three of ten in each bin, and 0.3 for all: no bin is off, by luck."""
    found = judge_error(np.full(100, 0.3), np.tile([1.0] * 3 + [0] * 7, 10))
    assert found.error.value < 1e-12
    assert 0 <= found.error.low < 1e-12
    assert found.error.high > found.perfect_mean


def test_a_model_that_is_too_bold_is_found_out():
    probabilities, labels = draw(2000, slope=0.5)
    found = judge_error(probabilities, labels)
    off = probabilities - expit(0.5 * logit(probabilities))
    truth = np.abs(np.bincount(assign_bins(probabilities, 10), off)).sum() / len(labels)
    assert found.error.low <= truth <= found.error.high
    assert found.error.low > found.perfect_mean
    assert found.error.value > found.perfect_limit


def test_copies_of_cases_in_one_group_make_nothing_surer():
    probabilities, labels = draw(300, slope=0.5)
    alone = judge_error(probabilities, labels)
    copied = judge_error(probabilities.repeat(3), labels.repeat(3), np.arange(900) // 3)
    assert copied.perfect_mean > 0.8 * alone.perfect_mean
    assert copied.error.high - copied.error.low > 0.8 * (alone.error.high - alone.error.low)


def test_groups_across_bins_make_a_perfect_model_err_more_unevenly_but_not_more():
    """Two bins that err alike: |z|, with a mean of 0.80 and 5 % above 1.96, as two of their own.

    The mean of two has 5 % above 1.53 or so.
    """
    probabilities, labels = np.repeat([0.3, 0.7], 24), np.tile(np.arange(24) % 2.0, 2)
    alone = judge_error(probabilities, labels)
    tied = judge_error(probabilities, labels, np.tile(np.arange(24), 2))
    assert tied.perfect_mean == pytest.approx(alone.perfect_mean, rel=0.05)
    assert tied.perfect_limit / tied.perfect_mean == pytest.approx(1.96 / 0.80, rel=0.1)
    assert alone.perfect_limit / alone.perfect_mean == pytest.approx(1.53 / 0.80, rel=0.05)


def test_pairs_within_a_bin_make_a_perfect_model_err_as_half_as_many_cases_would():
    probabilities, labels = np.repeat([0.3, 0.7], 24), np.tile(np.arange(24) // 2 % 2.0, 2)
    alone, paired = (judge_error(probabilities, labels, np.arange(48) // by) for by in (1, 2))
    assert paired.perfect_mean == pytest.approx(np.sqrt(2) * alone.perfect_mean)


def test_cases_of_a_bin_that_are_all_the_same_still_err_by_chance():
    found = judge_error(np.repeat([0.1, 0.6], 20), np.repeat([0.0, 1.0], 20))
    assert found.perfect_mean == pytest.approx(
        0.8 * np.mean(np.sqrt([0.09 / 20, 0.24 / 20])), rel=0.05
    )


def test_shares_of_many_votes_scatter_less_so_that_a_small_error_stands_out():
    """Of 20 votes a case the noise is about a fifth of that of one."""
    rng = np.random.default_rng(0)
    right = rng.beta(2, 2, 400)
    votes = rng.binomial(20, right) / 20
    assert judge_error(right, votes).error.value < judge_error(right, votes).perfect_limit < 0.02
    bold = np.clip(right + 0.05 * np.sign(right - 0.5), 0, 1)
    found = judge_error(bold, votes)
    assert found.perfect_limit < found.error.value
    assert 0.01 < found.error.low < found.error.high < 0.1


def test_the_rarer_class_is_counted_by_the_label_that_counts_as_positive():
    """Half of the cases have two votes in five, and any vote is positive."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0.0, 0.4], 100)
    probabilities = np.clip(labels + rng.normal(0, 0.1, 200), 0.01, 0.99)
    judged = judge_calibration(probabilities, labels, labels > 0, Sampling(np.arange(200)), "")
    assert None not in (judged.slope.low, judged.ece.error.low)


def test_slope_and_intercept_are_those_of_an_unpenalised_regression():
    probabilities, labels = draw(800, slope=0.6, intercept=0.4)
    theirs = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(probabilities)[:, None], labels)
    slope, intercept = fit_logistic(probabilities, labels)
    assert slope.value == pytest.approx(theirs.coef_[0, 0], abs=1e-4)
    assert intercept.value == pytest.approx(theirs.intercept_[0], abs=1e-4)
    judged = judge_calibration(probabilities, labels, labels > 0.5, Sampling(np.arange(800)), "")
    assert judged.slope.low < 0.6 < judged.slope.high < 1
    assert judged.intercept.low < 0.4 < judged.intercept.high


def test_a_slope_is_found_however_overconfident_or_off_a_model_is():
    """From a slope of 1 on, Newton's method leaves for infinity on all of these."""
    logits = np.random.default_rng(0).normal(0, 2.5, 300)
    for slope, intercept in ((0.2, 0), (-0.5, 0), (1, -4)):
        labels = np.random.default_rng(1).random(300) < expit(slope * logits + intercept)
        theirs = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], labels)
        found = fit_logistic(expit(logits), labels.astype(float))
        assert found[0].value == pytest.approx(theirs.coef_[0, 0], abs=1e-4)
        assert found[1].value == pytest.approx(theirs.intercept_[0], abs=1e-4)


def test_the_slopes_error_is_that_of_a_sandwich_by_resampling():
    probabilities, labels = draw(400, slope=0.8)
    slope, rng = fit_logistic(probabilities, labels)[0], np.random.default_rng(0)
    drawn = [rng.integers(0, 400, 400) for _ in range(300)]
    resampled = np.std([fit_logistic(probabilities[own], labels[own])[0].value for own in drawn])
    assert np.sqrt((slope.influence**2).sum()) == pytest.approx(resampled, rel=0.15)


@pytest.mark.parametrize("labels", [[0.0] * 30, [1.0] * 30, [0.0] * 15 + [1.0] * 15])
def test_one_class_or_parted_classes_have_no_slope(labels):
    slope, intercept = fit_logistic(np.linspace(0.1, 0.9, 30), np.array(labels))
    assert np.isnan([slope.value, intercept.value]).all()


def test_brier_splits_exactly_and_by_hand():
    probabilities, labels = draw(500, slope=0.5)
    miscalibration, discrimination, uncertainty = decompose_brier(probabilities, labels)
    score = brier_score_loss(labels, probabilities)
    assert miscalibration - discrimination + uncertainty == pytest.approx(score)
    assert uncertainty == pytest.approx(labels.mean() * (1 - labels.mean()))
    # right in order, and half as bold as it should be
    by_hand = decompose_brier(np.array([0.25, 0.25, 0.75, 0.75]), np.array([0.0, 0, 1, 1]))
    assert by_hand == pytest.approx((1 / 16, 1 / 4, 1 / 4))


def test_intervals_end_where_errors_do():
    """Student's interval of nine cases that are wholly wrong and one that is right would go on."""
    probabilities = np.array([0.0] * 9 + [1.0])
    for label, large, score in ((1, (-1, -0.68), (0.68, 1)), (0, (-0.12, 0.32), (0, 0.32))):
        labels = np.full(10, float(label))
        found = judge_calibration(probabilities, labels, labels > 0, Sampling(np.arange(10)), "")
        for estimate, ends in ((found.in_the_large, large), (found.brier.score, score)):
            assert (estimate.low, estimate.high) == pytest.approx(ends, abs=0.02)


def test_no_cases_are_undefined():
    nothing = np.zeros(0)
    found = judge_calibration(nothing, nothing, nothing > 0, Sampling(np.zeros(0, int)), "no case")
    assert (found.ece.error.value, found.brier.score.value, found.slope.value) == (None,) * 3
    assert found.ece.error.reason == "no case"


def test_predictive_values_at_the_own_prevalence_are_shares_of_those_called():
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


def test_predictive_values_of_a_published_example():
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


def test_a_test_that_calls_nobody_has_no_positive_value_but_a_reason():
    nobody = Estimate(value=0.0, low=0.0, high=0.1)
    found = compute_predictive_values(nobody, Estimate(value=1.0, low=0.9, high=1.0), 0.2)
    assert (found.ppv.value, found.ppv.reason) == (None, "no case is called so")
    assert (found.ppv.low, found.ppv.high) == (None, None)
    assert found.npv.value == pytest.approx(0.8)


def test_net_benefit_by_hand():
    """At 0.2 a false alarm costs a quarter: of five cases two are right, one is wrong."""
    probabilities = np.array([0.9, 0.2, 0.5, 0.1, 0.05])
    positive = np.array([True, True, False, False, False])
    assert compute_net_benefit(probabilities, positive, [0.2]) == pytest.approx([(2 - 0.25) / 5])
    everybody = compute_net_benefit(np.ones(5), positive, [0.2])
    assert everybody == pytest.approx([(2 - 3 * 0.25) / 5])
    found = judge_net_benefit(probabilities, positive, Sampling(np.arange(5)), "")
    at = next(one for one in found if one.threshold == 0.2)
    assert at.model.value == pytest.approx(0.35)
    assert (at.treat_all, at.gain.value) == (pytest.approx(0.25), pytest.approx(0.1))


def test_a_useful_model_gains_and_a_constant_one_does_not():
    probabilities, labels = draw(1000)
    positive, sampling = labels > 0.5, Sampling(np.arange(1000))
    useful = judge_net_benefit(probabilities, positive, sampling, "")
    assert all(one.gain.low > 0 for one in useful if 0.2 <= one.threshold <= 0.3)
    constant = judge_net_benefit(np.full(1000, positive.mean()), positive, sampling, "")
    assert all(one.gain.value <= 1e-12 for one in constant)


@pytest.mark.parametrize("answers", [1, 4, 12])
def test_the_order_of_cases_with_one_answer_changes_nothing(answers: int):
    """Right on average; equal ones put into bins as they come would err by 0.4 where sorted."""
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


def test_a_slope_and_its_error_are_of_the_rarer_class():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, 400)
    labels = np.zeros(400)
    labels[rng.choice(400, 12, replace=False)] = 1
    positive, sampling = labels > 0.5, Sampling(np.arange(400))
    slope = judge_calibration(expit(logits), labels, positive, sampling, "").slope
    fitted = fit_logistic(expit(logits), labels)[0]
    error = sampling.measure_error(fitted.influence, (positive, ~positive))[0]
    assert slope.high - slope.value == pytest.approx(2.2009851601 * error)  # Student's, 11 free
    labels[np.flatnonzero(positive)[:3]] = 0
    few = judge_calibration(expit(logits), labels, labels > 0.5, sampling, "").slope
    assert few.reason == "no interval: 9 groups have a case of the rarer class, 10 are needed"


def test_a_step_that_goes_too_far_is_halved():
    """One sure and right, the others unsure: Newton's method alone leaves for infinity."""
    below = [-1, -1, -0.9, -0.8, -0.6, -0.6, -0.2]
    logits = np.array([-8, *below, *[0.1] * 3, *[0.2] * 3, 0.3, 0.4, 0.5, 0.5, 0.6, 0.9])
    labels = np.ones(20)
    labels[[0, 13]] = 0
    theirs = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], labels)
    found = fit_logistic(expit(logits), labels)
    assert found[0].value == pytest.approx(theirs.coef_[0, 0], abs=1e-4)
