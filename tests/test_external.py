"""Tests of results on external data: shift of inputs, unpaired differences, recalibration."""

import colorsys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import laplace
from scipy.special import expit, logit
from test_evaluation_results import THRESHOLDS, simulate_cases

from eczema_tf.data.dataset import Dataset
from eczema_tf.data.distributions import Distribution, describe_inputs, measure_photos
from eczema_tf.data.inputs import Column, Inputs
from eczema_tf.data.manifest.table import Manifest
from eczema_tf.evaluation.calibration import fit_logistic, fit_offset
from eczema_tf.evaluation.external import compare_inputs, judge_external
from eczema_tf.evaluation.intervals import Estimate, compute_wilson, estimate_unpaired
from eczema_tf.evaluation.metrics import measure_auroc
from eczema_tf.evaluation.results import compute_metrics
from eczema_tf.evaluation.sample import Sample
from eczema_tf.reporting.comparison_tables import build_external
from eczema_tf.reporting.document import Section, format_text
from eczema_tf.schema import IMAGE, IMAGE_PRESENT, TEXT_PRESENT


def test_offset_of_a_constant_answer_matches_the_formula():
    """To turn 1/2 into 1 in 4, add log(1/3); its error is that of the logit of a share."""
    labels = np.array([1.0, 0, 0, 0] * 25)
    offset = fit_offset(np.full(100, 0.5), labels)
    assert offset.value == pytest.approx(-np.log(3))
    assert np.sqrt((offset.influence**2).sum()) == pytest.approx(1 / np.sqrt(100 * 3 / 16))


def test_offset_is_recovered_and_corrects_the_mean():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, 20_000)
    labels = (rng.random(len(logits)) < expit(logits - 0.7)).astype(float)
    offset = fit_offset(expit(logits), labels)
    error = np.sqrt((offset.influence**2).sum())
    assert abs(offset.value + 0.7) < 3 * error < 0.1
    moved = expit(logits + offset.value)
    assert moved.mean() == pytest.approx(labels.mean())
    slope, intercept = fit_logistic(moved, labels)  # nothing is left to correct
    assert abs(slope.value - 1) < 0.05
    assert abs(intercept.value) < 0.05


def test_offset_corrects_the_mean_of_extreme_probabilities():
    given, labels = np.repeat([1e-9, 0.9], 50), np.repeat([0.0, 1, 0, 1], [40, 10, 5, 45])
    offset = fit_offset(given, labels)
    assert expit(np.log(given / (1 - given)) + offset.value).mean() == pytest.approx(0.55)
    certain = fit_offset(np.repeat([0.0, 1.0], 50), labels)
    assert np.isfinite([certain.value, *certain.influence]).all()


@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1]])
def test_offset_is_nan_without_both_classes(labels: list[float]):
    assert np.isnan(fit_offset(np.full(len(labels), 0.5), np.array(labels, float)).value)


def test_unpaired_difference_matches_a_published_example():
    """Newcombe 1998, Statistics in Medicine 17:873, method 10: 56/70 - 48/80."""
    one, other = (
        Estimate(value=share, low=low, high=high)
        for share, (low, high) in (
            (56 / 70, compute_wilson(56 / 70, 70)),
            (48 / 80, compute_wilson(48 / 80, 80)),
        )
    )
    found = estimate_unpaired(one, other)
    assert [round(end, 4) for end in (found.low, found.value, found.high)] == [0.0524, 0.2, 0.3339]


def test_difference_has_no_interval_if_an_estimate_has_none():
    whole = Estimate(value=0.5, low=0.4, high=0.6)
    bare = Estimate(value=0.7, low=None, high=None, reason="too few")
    found = estimate_unpaired(bare, whole)
    assert (found.value, found.low, found.reason) == (pytest.approx(0.2), None, "too few")
    nothing = Estimate(value=None, low=None, high=None, reason="one class")
    assert estimate_unpaired(whole, nothing).value is None


def test_shifts_match_those_computed_by_hand():
    training = {
        "words": Distribution(count=9, mean=10, deviation=3),
        "tone": Distribution(count=4, shares={"I": 0.5, "V": 0.5}),
        "same": Distribution(count=4, mean=1, deviation=0),
        "only here": Distribution(count=1, mean=1, deviation=1),
    }
    here = {
        "words": Distribution(count=9, mean=14, deviation=4),
        "tone": Distribution(count=4, shares={"I": 0.25, "II": 0.25, "V": 0.5}),
        "same": Distribution(count=4, mean=1, deviation=0),
    }
    found = {name: one.difference for name, one in compare_inputs(training, here).items()}
    assert found == pytest.approx({"words": 4 / np.sqrt(12.5), "tone": 0.25, "same": 0})
    moved = compare_inputs(training, {"same": Distribution(count=4, mean=2, deviation=0)})
    assert moved["same"].difference is None


def test_measures_of_photos_match_other_libraries():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 6, 5, 3)).astype("uint8")
    pixels[1] = 128  # plain grey
    photos = Column(pixels, np.array([2, -1, 1, 0]), "")
    found = measure_photos(photos, np.array([0, 2, 3]))  # photos 2, 1 and 0
    for place, photo in enumerate(pixels[[2, 1, 0]] / 255):
        luma = photo @ [0.299, 0.587, 0.114]
        saturation = [colorsys.rgb_to_hsv(*pixel)[1] for pixel in photo.reshape(-1, 3)]
        expected = {
            "brightness of a photo": luma.mean(),
            "contrast of a photo": luma.std(),
            "colour of a photo": np.mean(saturation),
            "sharpness of a photo": laplace(luma)[1:-1, 1:-1].std(),
        }
        for name, value in expected.items():
            assert found[name][place] == pytest.approx(value, abs=1e-5)


def test_inputs_count_each_case_once_but_every_photo():
    table = pd.DataFrame(
        {
            "case_id": ["a", "a", "b", "c"],
            "image_path": ["1.png", "2.png", "", "3.png"],
            "text": ["it itches", "it itches", "dry red skin", ""],
            "eczema": [1.0, 1.0, 0.0, np.nan],
            **{name: ["", "II", "", "V"] for name in ("skin_tone", "age_group", "sex")},
        }
    )
    shades = np.stack([np.full((4, 4, 3), shade, "uint8") for shade in (0, 51, 255)])
    present = Column(np.array([0.0, 1.0], "float32"), np.array([1, 1, 0, 1]), "")
    told = Column(np.array([0.0, 1.0], "float32"), np.array([1, 1, 1, 0]), "")
    photos = Column(shades, np.array([0, 1, -1, 2]), "")
    columns = {IMAGE: photos, IMAGE_PRESENT: present, TEXT_PRESENT: told}
    inputs = Inputs(columns, np.ones(4, int), np.array([""] * 4, object))
    dataset = Dataset(Manifest(Path("m.csv"), table), pd.DataFrame(), None)
    found = describe_inputs(dataset, inputs, np.arange(4))
    assert (found["words of text"].count, found["words of text"].mean) == (2, 2.5)
    assert (found["eczema label"].count, found["eczema label"].mean) == (2, 0.5)
    assert (found["photos of a case"].count, found["photos of a case"].mean) == (2, 1.5)
    brightness = found["brightness of a photo"]
    assert (brightness.count, brightness.median) == (3, pytest.approx(0.2))
    assert found["skin_tone"].shares == {"II": 0.5, "V": 0.5}
    kinds = {"both": 1 / 3, "photo alone": 1 / 3, "text alone": 1 / 3}
    assert found["what is given"].shares == pytest.approx(kinds)
    alone = describe_inputs(dataset, inputs, np.array([2]))
    assert "brightness of a photo" not in alone
    assert "skin_tone" not in alone


def test_external_results_are_compared_with_internal_ones():
    own, others = simulate_cases(400), simulate_cases(400, seed=1, shift=1.0)
    others = others.assign(p_fusion=expit(logit(others["p_fusion"]) + 1.0))
    internal, here = (
        compute_metrics(cases, THRESHOLDS, label_threshold=0.5, seed=0, replicates=20)
        for cases in (own, others)
    )
    found = judge_external(others, here, internal, {})
    for head, by_metric in found.heads.items():
        auroc = by_metric["auroc"]
        assert auroc.internal == internal.heads[head].auroc
        assert auroc.here == here.heads[head].auroc
        assert auroc.difference.value == pytest.approx(auroc.here.value - auroc.internal.value)
    fusion = found.heads["fusion"]["auroc"].difference
    assert fusion.high < 0
    assert found.recalibration["fusion"].high < 0  # its probabilities are too high
    shown = " ".join(format_text([Section("x", build_external(found, "malignant"))]).split())
    assert "train it again" in shown
    assert "P(malignant) from" in shown
    assert "eczema" not in shown
    assert f"{found.recalibration['fusion'].value:.3f} [" in shown


def few_positives():
    cases = simulate_cases(400).assign(group_id=[f"g{place}" for place in range(400)])
    scored = cases["p_fusion"].notna() & cases["eczema"].notna()
    beyond = cases.index[scored & (cases["eczema"] > 0.5)][9:]
    return cases.drop(index=beyond).reset_index(drop=True)


def test_auroc_difference_needs_enough_groups_of_the_rarer_class():
    sample = Sample.draw(few_positives(), THRESHOLDS, 0.5, replicates=0, seed=0).of_kind("fusion")
    positive = sample.positive()
    one = measure_auroc(sample.probability("fusion"), positive)
    other = measure_auroc(np.random.default_rng(0).random(len(positive)), positive)
    found = sample.estimate_auroc_difference(one, other, "")
    assert found.reason.endswith("groups have a case of the rarer class, 10 are needed")


def test_recalibration_needs_enough_groups_of_the_rarer_class():
    cases = few_positives()
    here = compute_metrics(cases, THRESHOLDS, label_threshold=0.5, seed=0, replicates=20)
    found = judge_external(cases, here, here, {}).recalibration["fusion"]
    assert found.reason.endswith("groups have a case of the rarer class, 10 are needed")


def test_recalibration_matches_shares_of_votes_with_soft_labels():
    votes = simulate_cases(600).assign(image_used=True, text_used=True)
    votes = votes.assign(eczema=votes["eczema"].map({0.0: 0.2, 1.0: 0.6}))
    votes = votes.assign(p_image=votes["p_fusion"], p_text=votes["p_fusion"])
    for soft_labels, share in ((True, votes["eczema"]), (False, votes["eczema"] > 0.5)):
        metrics = compute_metrics(
            votes, THRESHOLDS, label_threshold=0.5, seed=0, replicates=20, soft_labels=soft_labels
        )
        offset = judge_external(votes, metrics, metrics, {}).recalibration["fusion"].value
        moved = expit(logit(votes["p_fusion"]) + offset)
        assert moved.mean() == pytest.approx(share.mean(), abs=1e-6)
