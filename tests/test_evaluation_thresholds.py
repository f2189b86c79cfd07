"""Thresholds: Youden's best cut, halfway between neighbours; ties go to the middle.

Where there is none, 0.5 and a warning.
"""

import logging

import numpy as np
import pandas as pd
import pytest

from eczema_tf.evaluation.thresholds import choose_kind, choose_thresholds, maximise_youden


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
def test_the_best_cut_by_hand(probabilities, positive, expected):
    threshold, reason = maximise_youden(np.array(probabilities), np.array(positive, dtype=bool))
    assert (threshold, reason) == (pytest.approx(expected), "")


def test_no_other_cut_is_better():
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
    ],
)
def test_where_there_is_no_best_cut_it_is_one_half_with_a_reason(probabilities, positive, reason):
    threshold, why = maximise_youden(np.array(probabilities), np.array(positive, dtype=bool))
    assert threshold == 0.5
    assert reason in why


@pytest.mark.parametrize(
    "low", [0.3, np.nextafter(0.3, 1)]
)  # halfway rounds up from one and down from the other
def test_neighbouring_floats_are_still_told_apart(low):
    high = np.nextafter(low, 1)
    threshold, _ = maximise_youden(np.array([low, high]), np.array([False, True]))
    assert low < threshold <= high


def test_each_head_is_judged_on_its_own_labelled_cases(caplog):
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
        thresholds = choose_thresholds(cases)
    assert thresholds == pytest.approx({"image": 0.4, "text": 0.5, "fusion": 0.65})
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["threshold of text"]
    assert choose_thresholds(cases, label_threshold=0.3)["image"] == pytest.approx(0.15)


def test_a_case_with_one_modality_is_decided_by_its_threshold():
    assert choose_kind(image_used=True, text_used=True) == "fusion"
    assert choose_kind(image_used=True, text_used=False) == "image"
    assert choose_kind(image_used=False, text_used=True) == "text"


def test_the_threshold_of_fusion_is_chosen_on_cases_with_photo_and_text():
    probabilities = [0.1, 0.2, 0.6, 0.7, 0.9, 0.95]
    cases = pd.DataFrame(
        {
            "eczema": [0.0, 1.0, 0.0, 0.0, 1.0, 1.0],
            **dict.fromkeys(("p_image", "p_text", "p_fusion"), probabilities),
            "image_used": [False, False, False, True, True, True],
            "text_used": True,
        }
    )
    assert choose_thresholds(cases)["fusion"] == pytest.approx(0.8)  # 0.7 | 0.9, 0.95
    none_with_both = cases[~cases["image_used"]]
    assert choose_thresholds(none_with_both)["fusion"] == pytest.approx(0.15)  # 0.1 | 0.2, 0.6
