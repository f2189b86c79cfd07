"""Tests for subgroups: planted gaps, false alarms, corrections and subgroups that are too small."""

from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, ttest_ind
from sklearn.metrics import roc_auc_score
from test_evaluation_results import THRESHOLDS, simulate_cases

from eczema_tf.evaluation import subgroups
from eczema_tf.evaluation.intervals import Estimate, Sampling, compute_wilson, estimate_mean
from eczema_tf.evaluation.metrics import measure_mean
from eczema_tf.evaluation.records import Metrics
from eczema_tf.evaluation.results import compute_metrics
from eczema_tf.evaluation.sample import Sample
from eczema_tf.evaluation.subgroups import find_factors, judge_subgroups
from eczema_tf.reporting.comparison_tables import build_subgroups


def judge(cases: pd.DataFrame) -> subgroups.Subgroups:
    found = judge_subgroups(Sample.draw(cases, THRESHOLDS, 0.5, replicates=0, seed=0))
    assert found is not None
    return found


def plant_gap(count: int, gap: float, seed: int) -> pd.DataFrame:
    """Simulates cases whose AUROC is 0.85, and lower by `gap` in the two darkest skin tones."""
    rng = np.random.default_rng(seed)
    cases = simulate_cases(count, seed)
    tone = rng.choice(["I", "II", "III", "IV", "V", "VI"], count)
    dark, eczema = np.isin(tone, ["V", "VI"]), cases["eczema"] > 0.5
    shift = np.sqrt(2) * norm.ppf(np.where(dark, 0.85 - gap, 0.85))
    logits = rng.normal(shift * (eczema - 0.5), 1)
    return cases.assign(
        skin_tone=tone, sex=rng.choice(["female", "male"], count), p_fusion=norm.cdf(logits)
    )


@pytest.mark.parametrize("seed", range(3))
def test_planted_gap_of_0_10_is_found(seed):
    gap = judge(plant_gap(2400, 0.10, seed)).factors["skin_tone"].gaps["auroc"]
    assert (gap.low, gap.found) == ("V-VI", True)
    assert gap.difference.low > 0
    assert gap.difference.low < 0.10 < gap.difference.high


def test_dominant_group_removes_only_the_gap_without_an_interval():
    cases = plant_gap(700, 0, 0).assign(group_id=[*["clinic"] * 600, *map(str, range(100))])
    factor = judge(cases).factors["sex"]
    assert {found.in_the_large.low for found in factor.subgroups.values()} == {None}
    assert set(factor.gaps) == {"auroc", "sensitivity", "specificity"}
    metrics = compute_metrics(cases, THRESHOLDS, label_threshold=0.5, replicates=9, seed=0)
    assert "NaN" not in metrics.model_dump_json()
    assert "nan" not in str(build_subgroups(metrics.subgroups, "eczema"))


def test_evaluations_without_a_planted_gap_rarely_find_one():
    found = [
        any(
            gap.found
            for factor in judge(plant_gap(400, 0, seed)).factors.values()
            for gap in factor.gaps.values()
        )
        for seed in range(40)
    ]
    assert np.mean(found) <= 0.1  # at a rate of 1 in 20, one in 20 such tests would exceed it


def test_each_subgroup_is_judged_on_its_own_cases():
    cases = plant_gap(600, 0.1, 0)
    dark = cases[cases["skin_tone"].isin(["V", "VI"])]
    found = judge(cases).factors["skin_tone"].subgroups["V-VI"]
    assert (found.cases, found.positives) == (len(dark), dark["eczema"].sum())
    assert found.auroc.value == pytest.approx(roc_auc_score(dark["eczema"], dark["p_fusion"]))
    called = dark["p_fusion"] >= 0.5
    assert found.sensitivity.value == pytest.approx(called[dark["eczema"] == 1].mean())
    assert found.specificity.value == pytest.approx((~called[dark["eczema"] == 0]).mean())
    assert found.in_the_large.value == pytest.approx((dark["p_fusion"] - dark["eczema"]).mean())


def test_gaps_are_corrected_for_all_pairs_and_other_comparisons():
    """For means of three ungrouped samples, p is that of Welch's test, times three pairs."""
    rng = np.random.default_rng(0)
    values, which = rng.normal(0, 1, 900), np.arange(900) % 3
    measured = {
        str(part): Mock(
            mean=estimate_mean(
                measure_mean(values[which == part]), Sampling(np.arange(300)), "undefined"
            )
        )
        for part in range(3)
    }
    gap = subgroups._find_gap(measured, "mean", share=1)
    pairs = [(0, 1), (0, 2), (1, 2)]
    tests = [ttest_ind(*(values[which == one] for one in pair), equal_var=False) for pair in pairs]
    assert gap.difference.p == pytest.approx(3 * min(one.pvalue for one in tests), rel=0.03)
    quarter = subgroups._find_gap(measured, "mean", share=1 / 4).difference
    assert quarter.p == pytest.approx(min(4 * gap.difference.p, 1))
    assert quarter.high > gap.difference.high
    assert (gap.difference.low > 0) == gap.found


def test_gap_interval_uses_facing_ends_and_the_clearest_gap_is_reported():
    ends = {"a": (0.9, 0.8, 0.95), "b": (0.5, 0.45, 0.7), "few": (0.2, 0.0, 0.9)}
    measured = {
        name: Mock(mean=Estimate(value=value, low=low, high=high))
        for name, (value, low, high) in ends.items()
    }
    two = {name: measured[name] for name in ("b", "a")}
    gap = subgroups._find_gap(two, "mean", share=1)
    below = np.hypot(0.9 - 0.8, 0.7 - 0.5)
    assert (gap.high, gap.low) == ("a", "b")
    assert gap.difference.low == pytest.approx(0.4 - below)
    assert gap.difference.high == pytest.approx(0.4 + np.hypot(0.95 - 0.9, 0.5 - 0.45))
    assert gap.difference.p == pytest.approx(2 * norm.sf(norm.ppf(0.975) * 0.4 / below))
    of_three = subgroups._find_gap(measured, "mean", share=1)
    # the gap from "a" to "few" is larger, but less clear
    assert (of_three.high, of_three.low) == ("a", "b")
    assert of_three.difference.p == pytest.approx(3 * gap.difference.p)
    same = dict.fromkeys(("b", "c"), measured["b"])
    assert subgroups._find_gap(same, "mean", share=1 / 4).difference.p == 1


def test_small_subgroup_rarely_shows_a_false_gap():
    """12 of 12 may well be 9 of 10 in truth: the subgroup's own interval begins at 0.76."""
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(40):
        cases = simulate_cases(624)
        few = np.arange(624) < 24
        positive = np.arange(624) % 2 == 0
        shown = rng.normal(0, 1, 624) + 2.563 * positive
        p = 1 / (1 + np.exp(-2.563 * (shown - 1.2815)))
        cases = cases.assign(
            group_id=np.arange(624).astype(str),
            sex=np.where(few, "female", "male"),
            eczema=positive.astype(float),
            p_fusion=p,
        )
        gaps = judge(cases).factors["sex"].gaps
        found += any(gap.found for gap in gaps.values())
    # 1 in 20 is the aim; with the sample's own standard errors it was half
    assert found <= 4


def test_subgroups_with_too_few_cases_are_named_but_not_judged():
    cases = plant_gap(300, 0, 0)
    cases["age_group"] = np.where(cases.index < 8, "60+", "18-59")
    found = judge(cases).factors["age_group"]
    assert judge(cases).comparisons == 2 * len(subgroups.SUBGROUP_METRICS)  # skin tone and sex
    assert list(found.subgroups) == ["18-59", "60+"]
    few = found.subgroups["60+"]
    assert (few.cases, few.auroc.value, found.gaps) == (8, None, {})
    assert few.auroc.reason == "too few: under 10 groups with a case of each class"
    shown = build_subgroups(judge(cases), "eczema")
    assert any("too few" in row for block in shown if hasattr(block, "rows") for row in block.rows)


@pytest.mark.parametrize(("of_each", "enough"), [(9, False), (10, True)])
def test_ten_groups_of_each_class_are_enough(of_each: int, enough: bool):
    cases = plant_gap(300, 0, 0).assign(group_id=np.arange(300).astype(str))
    few = cases.groupby("eczema").head(of_each).index
    cases["age_group"] = np.where(cases.index.isin(few), "60+", "18-59")
    found = judge(cases).factors["age_group"]
    assert found.subgroups["60+"].cases == 2 * of_each
    assert (found.subgroups["60+"].sensitivity.low is not None, bool(found.gaps)) == (enough,) * 2


def test_subgroup_shares_have_the_interval_of_their_own_class_size():
    cases = plant_gap(300, 0, 0).assign(group_id=np.arange(300).astype(str))
    positive = cases["eczema"] > 0.5
    few = [*cases[positive].index[:12], *cases[~positive].index[:30]]
    cases["age_group"] = np.where(cases.index.isin(few), "60+", "18-59")
    found = judge(cases).factors["age_group"].subgroups["60+"]
    for share, count in ((found.sensitivity, 12), (found.specificity, 30)):
        assert (share.low, share.high) == pytest.approx(compute_wilson(share.value, count))


def test_factors_sort_values_into_the_expected_subgroups():
    cases = pd.DataFrame(
        {
            "skin_tone": ["I", "V", "III-IV", ""],
            "monk_skin_tone": ["1", "4", "10", ""],
            "photos": [0, 1, 2, 7],
            "text_words": [0, 10, 11, 500],
        }
    )
    assert {name: list(values) for name, values in find_factors(cases).items()} == {
        "skin_tone": ["I-II", "V-VI", "III-IV", ""],
        "monk_skin_tone": ["1-3", "4-6", "7-10", ""],
        "photos": ["", "1", "2", "3 or more"],
        "text_words": ["", "1-10", "11-25", "51 or more"],
    }


def test_data_without_factors_has_no_subgroups():
    metrics = compute_metrics(
        simulate_cases(100), THRESHOLDS, label_threshold=0.5, seed=0, replicates=20
    )
    assert metrics.subgroups is None
    assert "subgroups" not in metrics.model_dump(exclude_unset=True)
    assert isinstance(metrics, Metrics)


def test_no_gap_is_found_between_sites_that_see_the_same_patients():
    """Each of twelve patients is seen at fourteen sites, with eczema and without."""
    cases = simulate_cases(600).query("text_used and image_used").head(336).reset_index(drop=True)
    place = np.arange(336)
    cases = cases.assign(
        group_id=[f"patient{number // 2 % 12}" for number in place],
        source=[f"site {number // 24}" for number in place],
        eczema=place % 2.0,
    )
    assert len(judge(cases).factors["source"].subgroups) == 14
    for gap in judge(cases).factors["source"].gaps.values():
        assert np.isfinite([gap.difference.low, gap.difference.high, gap.difference.p]).all()
        assert not gap.found


def test_unlabelled_cases_count_in_no_subgroup():
    cases = plant_gap(600, 0.1, 0)
    unlabelled = cases.assign(case_id="unlabelled " + cases["case_id"], eczema=np.nan)
    assert judge(pd.concat([cases, unlabelled], ignore_index=True)) == judge(cases)


def test_gaps_are_corrected_for_the_number_of_factors():
    cases = plant_gap(1200, 0.10, 0)
    alone, both = (
        judge(one).factors["skin_tone"].gaps["auroc"].difference
        for one in (cases.drop(columns="sex"), cases)
    )
    assert 0 < alone.p < 0.5
    assert both.p == pytest.approx(2 * alone.p)
    assert both.high > alone.high


def test_subgroups_count_a_repeated_case_once():
    cases = plant_gap(600, 0, 0)
    once = judge(cases).factors["sex"].subgroups
    again = pd.concat([cases.assign(fold=0, repeat=repeat) for repeat in range(3)])
    for name, found in judge(again).factors["sex"].subgroups.items():
        assert (found.cases, found.positives) == (once[name].cases, once[name].positives)


def test_calibration_of_subgroups_uses_shares_of_votes():
    cases = plant_gap(600, 0, 0)
    cases["eczema"] = cases["eczema"].map({0.0: 0.2, 1.0: 0.6})
    women = cases[cases["sex"] == "female"]
    found = judge(cases).factors["sex"].subgroups["female"]
    assert found.positives == (women["eczema"] == 0.6).sum()
    assert found.in_the_large.value == pytest.approx((women["p_fusion"] - women["eczema"]).mean())


def test_metrics_divide_the_whole_chance_of_a_false_alarm():
    assert sum(subgroups.SUBGROUP_METRICS.values()) == pytest.approx(1)
