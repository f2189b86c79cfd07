"""Tests for thresholds, by Youden's index or to reach a sensitivity or specificity.

Youden's threshold lies halfway between neighbours, and ties go to the one nearest to 0.5. If there
is none, it is 0.5 and a warning is logged.
"""

import logging

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_curve

from eczema_tf.evaluation.thresholds import (
    choose_kind,
    choose_points,
    choose_thresholds,
    maximise_youden,
)


@pytest.mark.parametrize(
    ("probabilities", "positive", "expected"),
    [
        ([0.1, 0.2, 0.6, 0.9], [0, 0, 1, 1], 0.4),  # halfway between 0.2 and 0.6
        ([0.1, 0.3, 0.5, 0.7, 0.8], [0, 0, 1, 0, 1], 0.4),  # 1 + 2/3 there, 1/2 + 1 at 0.75
        (
            [0.1, 0.3, 0.8, 0.9, 0.95, 0.99],
            [0, 1, 0, 1, 0, 1],
            0.2,
        ),  # J = 1/3 at 0.2, 0.85 and 0.97; 0.2 is nearest to 0.5
        ([0.2, 0.4, 0.4, 0.6], [0, 0, 1, 1], 0.5),  # J = 1/2 at 0.3 and 0.5
    ],
)
def test_best_threshold_matches_hand_computation(probabilities, positive, expected):
    threshold, reason = maximise_youden(np.array(probabilities), np.array(positive, dtype=bool))
    assert (threshold, reason) == (pytest.approx(expected), "")


def test_no_other_threshold_is_better():
    rng = np.random.default_rng(0)
    for _ in range(20):
        positive = rng.random(40) < 0.5
        probabilities = np.clip(rng.normal(0.4 + 0.2 * positive, 0.2), 0, 1).round(2)
        threshold, _ = maximise_youden(probabilities, positive)
        youden = [
            (probabilities >= cut)[positive].mean() - (probabilities >= cut)[~positive].mean()
            for cut in (threshold, *probabilities)
        ]
        assert youden[0] == pytest.approx(max(youden))


@pytest.mark.parametrize(
    ("probabilities", "positive", "reason"),
    [
        ([], [], "0 validation cases"),
        ([0.1, 0.9], [1, 1], "2 validation cases, 2 of them eczema"),
        ([0.1, 0.9], [0, 0], ", 0 of them eczema"),
        ([0.3, 0.3], [0, 1], "better than chance"),
        ([0.9, 0.1], [0, 1], "better than chance"),
        ([0.1, 0.1, 0.3, 0.3], [0, 1, 0, 1], "better than chance"),  # as good as chance
    ],
)
def test_threshold_is_one_half_with_a_reason_if_none_is_best(probabilities, positive, reason):
    threshold, why = maximise_youden(np.array(probabilities), np.array(positive, dtype=bool))
    assert threshold == 0.5
    assert reason in why


@pytest.mark.parametrize(
    "low", [0.3, np.nextafter(0.3, 1)]
)  # the midpoint rounds up from one and down from the other
def test_threshold_separates_neighbouring_floats(low):
    high = np.nextafter(low, 1)
    threshold, _ = maximise_youden(np.array([low, high]), np.array([False, True]))
    assert low < threshold <= high


def test_each_head_gets_a_threshold_from_its_own_labelled_cases(caplog):
    nan = float("nan")
    cases = pd.DataFrame(
        {
            "eczema": [0.0, 0.4, 1.0, 0.6, nan],
            "p_image": [0.1, 0.2, 0.6, nan, 0.3],
            "p_text": [nan, nan, 0.6, 0.7, 0.1],
            "p_fusion": [0.2, 0.6, 0.7, 0.9, 0.65],
            "image_used": [True, True, True, False, True],
            "text_used": False,
        }
    )
    with caplog.at_level(logging.WARNING):
        thresholds = choose_thresholds(cases, 0.5)
    assert thresholds == pytest.approx({"image": 0.4, "text": 0.5, "fusion": 0.65})
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["threshold of text"]
    assert choose_thresholds(cases, label_threshold=0.3)["image"] == pytest.approx(0.15)


def test_choose_kind_returns_the_only_modality_or_fusion():
    assert choose_kind(image_used=True, text_used=True) == "fusion"
    assert choose_kind(image_used=True, text_used=False) == "image"
    assert choose_kind(image_used=False, text_used=True) == "text"


def test_fusion_threshold_is_chosen_on_cases_with_photo_and_text():
    probabilities = [0.1, 0.2, 0.6, 0.7, 0.9, 0.95]
    cases = pd.DataFrame(
        {
            "eczema": [0.0, 1.0, 0.0, 0.0, 1.0, 1.0],
            **dict.fromkeys(("p_image", "p_text", "p_fusion"), probabilities),
            "image_used": [False, False, False, True, True, True],
            "text_used": True,
        }
    )
    assert choose_thresholds(cases, 0.5)["fusion"] == pytest.approx(0.8)  # 0.7 | 0.9, 0.95
    none_with_both = cases[~cases["image_used"]]
    assert choose_thresholds(none_with_both, 0.5)["fusion"] == pytest.approx(0.15)  # 0.1 | 0.2, 0.6


def as_cases(probabilities, positive) -> pd.DataFrame:
    columns = dict.fromkeys(("p_image", "p_text", "p_fusion"), np.array(probabilities))
    labels = np.array(positive, dtype=float)
    return pd.DataFrame({"eczema": labels, **columns, "image_used": True, "text_used": True})


def choose(probabilities, positive, sensitivities=(), specificities=()) -> dict:
    cases = as_cases(probabilities, positive)
    return choose_points(cases, 0.5, sensitivities=sensitivities, specificities=specificities)


def test_points_that_reach_a_share_match_hand_computation():
    """Eczema cases get 0.2, 0.4, 0.6, 0.8 and 0.9; four of the five are a share of 0.8."""
    probabilities = [0.1, 0.3, 0.5, 0.7, 0.2, 0.4, 0.6, 0.8, 0.9]
    positive = [0, 0, 0, 0, 1, 1, 1, 1, 1]
    points = choose(probabilities, positive, [0.8, 0.81], [0.75, 0.76])
    found = {aim: thresholds["image"] for aim, thresholds in points.items()}
    assert found == pytest.approx(
        {
            "sensitivity 0.8": 0.35,  # between 0.3 and 0.4
            "sensitivity 0.81": 0.15,  # all five are needed
            "specificity 0.75": 0.55,  # 0.7 may be called
            "specificity 0.76": 0.75,
        }
    )


def test_points_are_corners_of_scikit_learns_roc_curve():
    rng = np.random.default_rng(0)
    positive = rng.random(300) < 0.4
    probabilities = np.clip(rng.normal(0.4 + 0.2 * positive, 0.2), 0, 1).round(2)
    false_alarms, sensitivity, _ = roc_curve(positive, probabilities, drop_intermediate=False)
    points = choose(probabilities, positive, [0.5, 0.9, 0.95], [0.8, 0.9])
    for aim, thresholds in points.items():
        goal, share = aim.split()
        called = probabilities >= thresholds["fusion"]
        seen = called[~positive].mean(), called[positive].mean()
        reached = sensitivity >= float(share)
        # the first corner to reach the share, for both coordinates
        best = (false_alarms[reached][0], sensitivity[reached][0])
        if goal == "specificity":
            reached = 1 - false_alarms >= float(share)
            best = (false_alarms[reached][-1], sensitivity[reached][-1])
        assert seen == pytest.approx(best)


def test_unreachable_share_calls_everybody_or_nobody():
    points = choose([0.9, 0.1], [0, 1], [0.9], [0.9])  # the wrong way round
    assert points["sensitivity 0.9"]["text"] <= 0.1
    assert points["specificity 0.9"]["text"] > 0.9


def test_one_class_or_no_cases_give_no_points():
    assert choose([0.1, 0.9], [1, 1], [0.9], [0.9]) == {}
    assert choose([], [], [0.9], [0.9]) == {}
