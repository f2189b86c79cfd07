"""Tests for when the model decides and when it says that it cannot tell."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from scipy.special import expit

from eczema_tf.data.text.reading import is_read
from eczema_tf.evaluation.abstention import find_surest, judge_abstention
from eczema_tf.evaluation.predictions import BOUNDS, decide
from eczema_tf.evaluation.sample import Sample
from eczema_tf.evaluation.thresholds import choose_bounds, find_lowest
from eczema_tf.model.decision import (
    DistanceFromTraining,
    ScaledFeatures,
    SureSide,
    compute_decision,
    measure_decision,
)
from eczema_tf.model.inner_map import Texture
from eczema_tf.reporting.decisions import give_reason
from eczema_tf.schema import CONSISTENCY, DECISIONS, IMAGE_PRESENT, MOSTLY_UNKNOWN, TEXT_PRESENT
from eczema_tf.training.familiarity import find_directions

# Distance from training.


def test_scaled_features_have_length_one_and_keep_their_signs():
    scaled = np.asarray(ScaledFeatures()(np.array([[4.0, -9.0], [0.0, 0.0]], "float32")))
    np.testing.assert_allclose(scaled[0], np.array([2, -3]) / np.sqrt(13), rtol=1e-6)
    np.testing.assert_array_equal(scaled[1], 0)


def test_distance_is_mahalanobis_with_a_ridge():
    rng = np.random.default_rng(0)
    away = rng.normal(size=(200, 4)) * [3.0, 1.0, 0.5, 0.1]
    away -= away.mean(axis=0)
    layer = DistanceFromTraining()
    layer.build((None, 4))
    layer.centre.assign(np.ones(4))
    layer.directions.assign(find_directions(away, 4, 0.03))
    covariance = np.cov(away.T)
    ridge = 0.03 * np.linalg.eigvalsh(covariance).max()
    others = rng.normal(size=(5, 4)).astype("float32")
    inverse = np.linalg.inv(covariance + ridge * np.eye(4))
    expected = ridge * np.einsum("ri,ij,rj->r", others, inverse, others)
    layer.limit.assign(2.0)
    np.testing.assert_allclose(layer(others + 1), expected / 2, rtol=1e-4)


def test_texture_is_mean_and_deviation_and_is_scaled_like_pooled_features():
    maps = np.array([[[[1.0, 5.0], [3.0, 5.0]]], [[[0.0, 2.0], [0.0, -2.0]]]], "float32")
    texture = Texture()(maps)
    np.testing.assert_allclose(texture, [[2, 5, 1, 0], [0, 0, 0, 2]], atol=1e-6)
    inputs = [keras.Input(shape) for shape in ((3,), (4,), (2,), (1,), (), ())]
    model = keras.Model(inputs, measure_decision(inputs[:2], *inputs[2:]))
    seen = keras.Model(inputs[:2], model.get_layer("image_scaled").output)
    values = np.asarray(seen([np.array([[0.0, -4.0, 0.0]]), np.array([[9.0, 0.0, 0.0, 16.0]])]))
    np.testing.assert_allclose(values, [[0, -1, 0, 0.6, 0, 0, 0.8]], atol=1e-6)


def test_texture_of_a_uniform_map_has_a_finite_gradient():
    even = tf.ones((1, 2, 2, 1))
    with tf.GradientTape() as tape:
        tape.watch(even)
        texture = Texture()(even)
    assert np.isfinite(tape.gradient(texture, even)).all()


def test_directions_beyond_the_number_of_rows_are_zero():
    directions = find_directions(np.array([[1.0, 0, 0], [-1.0, 0, 0]]), 3, 0.03)
    np.testing.assert_allclose(np.abs(directions[0, 0]), 1 / np.sqrt(1.03), rtol=1e-6)
    assert np.linalg.norm(directions[:, 1:]) < 1e-6


def test_everything_is_known_before_the_layer_is_fitted():
    layer = DistanceFromTraining()
    scaled = ScaledFeatures()(np.random.default_rng(0).normal(size=(9, 7)).astype("float32"))
    assert (np.asarray(layer(scaled)) <= 1).all()


# Sides and decisions.


def test_each_kind_of_case_has_its_own_bounds():
    layer = SureSide()
    present = np.array([1, 0, 1], "float32"), np.array([0, 1, 1], "float32")  # photo, text, both

    def ask(*logits: float) -> list[float]:
        return np.asarray(layer([np.array(logits, "float32")[:, None], *present])).tolist()

    assert ask(9, -9, 9) == [0, 0, 0]  # undecided until it is fitted
    layer.low.assign([-1, -2, -3])
    layer.high.assign([1, 2, 3])
    assert ask(1.5, 1.5, 1.5) == [1, 0, 0]
    assert ask(-2.5, -2.5, -2.5) == [-1, -1, 0]
    assert ask(1, 2, 3) == ask(-1, -2, -3) == [0, 0, 0]  # exactly at a bound


CLEAR, UNCLEAR = (0.0, 0.1, 0.0), (0.0, -0.1, 0.1)  # logits of consistency

# name -> photo and text used, both distances, text read, consistency, side; known, decision
ROWS = {
    "both known": ((1, 1), (0.5, 0.5), True, CLEAR, 1, (True, True), "eczema"),
    "not eczema": ((1, 1), (0.5, 1.0), True, CLEAR, -1, (True, True), "not eczema"),
    "undecided": ((1, 1), (0.5, 0.5), True, CLEAR, 0, (True, True), "cannot tell"),
    "strange photo": ((1, 1), (1.1, 0.5), True, CLEAR, 1, (False, True), "cannot tell"),
    "strange text": ((1, 1), (0.5, 1.1), True, CLEAR, 1, (True, False), "cannot tell"),
    "unread text": ((1, 1), (0.5, 0.5), False, CLEAR, 1, (True, False), "cannot tell"),
    "photo alone": ((1, 0), (0.5, 9.0), True, CLEAR, 1, (True, False), "eczema"),
    "text alone": ((0, 1), (np.nan, 0.5), True, CLEAR, -1, (False, True), "not eczema"),
    "unclear text": ((0, 1), (0.5, 0.5), True, UNCLEAR, 1, (False, True), "cannot tell"),
    "photo, unclear text": ((1, 1), (0.5, 0.5), True, UNCLEAR, 1, (True, True), "eczema"),
    "photo, no text": ((1, 0), (0.5, 0.5), True, UNCLEAR, -1, (True, False), "not eczema"),
    "nothing": ((0, 0), (0.5, 0.5), True, CLEAR, 1, (False, False), "cannot tell"),
}


@pytest.mark.parametrize("name", ROWS)
def test_decision_requires_that_every_used_input_is_known(name: str):
    used, distances, read, consistency, side, known, decision = ROWS[name]
    as_row = {key: np.array([value], "float32") for key, value in zip("ab", distances, strict=True)}
    outputs = {"image_distance": as_row["a"], "text_distance": as_row["b"]}
    outputs |= {"side": np.array([side], "float32"), "consistency": np.array([consistency])}
    inputs = {IMAGE_PRESENT: np.array(used[:1], "float32")}
    inputs[TEXT_PRESENT] = np.array(used[1:], "float32")
    found = {key: np.asarray(v)[0] for key, v in compute_decision(outputs, inputs, [read]).items()}
    assert (found["known_image"], found["known_text"]) == known
    assert DECISIONS[found["decision"]] == decision
    case = pd.DataFrame(
        {
            "image_used": [bool(used[0])],
            "text_used": [bool(used[1])],
            "known_image": known[:1],
            "known_text": known[1:],
            "consistency_predicted": [CONSISTENCY[np.argmax(consistency)] if used[1] else ""],
            "eczema_logit": [2.0 * side],
            BOUNDS[0]: [-1.0],
            BOUNDS[1]: [1.0],
        }
    )
    assert decide(case)[0] == decision


def test_text_counts_as_read_if_half_was_read_and_words_are_known():
    statuses = {
        "ok": True,
        "text: read to word 10 of 20": True,
        "photo: too large; text: read to word 9 of 20": False,
        f"text: read to word 19 of 20; {MOSTLY_UNKNOWN}": False,
        MOSTLY_UNKNOWN: False,
    }
    assert is_read(tf.constant(list(statuses))).numpy().tolist() == list(statuses.values())


# Conformal bounds.


def test_lowest_score_of_a_class_leaves_out_one_in_ten():
    scores = np.arange(19.0)
    assert find_lowest(scores) == 1  # the second of 19: one is below it, and of 20 at most two
    assert find_lowest(scores[:8]) == -np.inf  # too few to leave out any


@pytest.mark.parametrize("count", [9, 40, 57])
def test_at_most_one_new_case_in_ten_is_left_out(count: int):
    rng = np.random.default_rng(count)
    drawn = rng.normal(size=(20_000, count + 1))
    lowest = np.array([find_lowest(scores[:-1]) for scores in drawn])
    left_out = (drawn[:, -1] < lowest).mean()
    assert 0.1 - 1.2 / (count + 1) < left_out < 0.1 + 4 * np.sqrt(0.09 / len(drawn))


def make_cases(count: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    eczema = (rng.random(count) < 0.4).astype("float64")
    logit = rng.normal(np.where(eczema > 0, 1.0, -1.0), 1.2)
    image = rng.random(count) < 0.7
    cases = pd.DataFrame({"eczema": eczema, "image_used": image, "text_used": True})
    cases["case_id"] = cases["group_id"] = [str(number) for number in range(count)]
    cases["eczema_logit"], cases["p_fusion"] = logit, expit(logit)
    cases["eczema_text_logit"], cases["p_text"] = logit / 2, expit(logit / 2)
    cases["eczema_image_logit"] = np.where(image, logit, np.nan)
    cases["p_image"] = expit(cases["eczema_image_logit"])
    return cases.assign(known_image=image, known_text=True, consistency_predicted="other")


def test_bounds_are_quantiles_of_both_classes_around_the_threshold():
    cases, thresholds = make_cases(), {"image": 0.5, "text": 0.5, "fusion": 0.999}
    bounds = choose_bounds(cases, thresholds, 0.5)
    positive = cases["eczema"] > 0.5
    for kind, column in (("image", "eczema_image_logit"), ("text", "eczema_text_logit")):
        low, high = bounds[kind]
        ill, well = (cases.loc[own, column].dropna() for own in (positive, ~positive))
        assert (ill < low).mean() == pytest.approx(0.1, abs=0.015)
        assert (well > high).mean() == pytest.approx(0.1, abs=0.015)
    assert bounds["fusion"][1] == pytest.approx(
        np.log(999)
    )  # nothing is eczema below its threshold
    few = choose_bounds(cases[:5], thresholds, 0.5)
    assert few["image"] == (-np.inf, np.inf)


def test_fusion_bounds_are_chosen_only_on_cases_with_both():
    """A case with only a text is answered by the text's head, so fusion's logit is ignored."""
    cases, thresholds = make_cases(), {"image": 0.5, "text": 0.5, "fusion": 0.5}
    alone = cases.assign(image_used=False, eczema_logit=100 * (0.5 - cases["eczema"]))
    both = cases[cases["image_used"]]
    bounds = choose_bounds(pd.concat([both, alone], ignore_index=True), thresholds, 0.5)
    assert bounds["fusion"] == choose_bounds(both, thresholds, 0.5)["fusion"]


def test_bounds_enclose_the_threshold():
    """With separate classes, the bounds alone would not reach a threshold outside both."""
    apart = pd.DataFrame({"eczema": np.repeat([0.0, 1.0], 20), "image_used": True})
    logit = np.r_[np.linspace(-2, -1, 20), np.linspace(1, 2, 20)]
    columns = [f"eczema{head}_logit" for head in ("", "_image", "_text")]
    apart = apart.assign(text_used=True, **dict.fromkeys(columns, logit))
    apart = apart.assign(**{p: expit(logit) for p in ("p_image", "p_text", "p_fusion")})
    for cut in (-3.0, 0.0, 3.0):
        bounds = choose_bounds(apart, dict.fromkeys(("image", "fusion"), expit(cut)), 0.5)
        for low, high in bounds.values():
            assert low <= cut + 1e-9
            assert high >= cut - 1e-9


def test_tied_answers_are_dropped_at_random_and_not_by_position():
    cases = make_cases(400).assign(**dict(zip(BOUNDS, (-0.5, 0.5), strict=True)))
    cases = cases.assign(decision="eczema", eczema_logit=1.0, p_fusion=0.73)
    thresholds = {"image": 0.5, "text": 0.5, "fusion": 0.5}
    for ascending in (True, False):
        ordered = cases.sort_values("eczema", ascending=ascending, ignore_index=True)
        sample = Sample.draw(ordered, thresholds, 0.5, replicates=0, seed=0)
        points = {one.answered: one.accuracy for one in judge_abstention(sample).risk_coverage}
        assert points[0.5].value == pytest.approx(points[1.0].value, abs=0.08)


def test_accuracy_and_coverage_match_hand_computation():
    cases = make_cases(40).assign(**dict(zip(BOUNDS, (-0.5, 0.5), strict=True)))
    cases.loc[:9, "known_text"] = False
    cases = cases.assign(decision=decide(cases))
    thresholds = {"image": 0.5, "text": 0.5, "fusion": 0.5}
    sample = Sample.draw(cases, thresholds, 0.5, replicates=10, seed=0)
    found = judge_abstention(sample).groups["all"]
    logit, positive = cases["eczema_logit"], cases["eczema"] > 0.5
    answered = (np.arange(40) > 9) & (logit.abs() > 0.5)
    assert (found.cases, found.unknown) == (40, 10)
    assert found.undecided == (~answered).sum() - 10
    assert found.answered.value == pytest.approx(answered.mean())
    right = (logit > 0) == positive
    assert found.accuracy.value == pytest.approx(right[answered].mean())
    covered = np.where(positive, logit >= -0.5, logit <= 0.5)
    assert found.coverage.value == pytest.approx(covered.mean())
    whole = judge_abstention(sample).risk_coverage[0]
    assert (whole.answered, whole.accuracy.value) == (1.0, pytest.approx(right.mean()))
    surest = find_surest(sample, 3)
    for name, chosen in (("right", right & answered), ("wrong", ~right & answered)):
        furthest = cases.loc[logit.abs()[chosen].nlargest(3).index]
        assert list(surest[name]["case_id"]) == list(furthest["case_id"])
        assert list(surest[name]["positive"]) == list(furthest["eczema"] > 0.5)
    assert (
        judge_abstention(Sample.draw(make_cases(), thresholds, 0.5, replicates=1, seed=0)) is None
    )


def test_answer_is_judged_by_the_bounds_of_the_model_that_gave_it():
    """In a cross-validation, the mean of the thresholds of all models decides nothing."""
    cases = make_cases(40).assign(**dict(zip(BOUNDS, (-0.5, 0.5), strict=True)))
    cases = cases.assign(decision=np.where(cases["eczema"] > 0.5, "eczema", "not eczema"))
    thresholds = {"image": 0.5, "text": 0.5, "fusion": 0.5}
    surest = find_surest(Sample.draw(cases, thresholds, 0.5, replicates=0, seed=0), 40)
    assert (len(surest["right"]), len(surest["wrong"])) == (40, 0)


def test_answer_exactly_at_a_bound_counts_as_covered():
    cases = make_cases(40).assign(**dict(zip(BOUNDS, (-0.5, 0.5), strict=True)))
    cases = cases.assign(decision="cannot tell", eczema_logit=np.where(cases["eczema"], -0.5, 0.5))
    sample = Sample.draw(
        cases, {"image": 0.5, "text": 0.5, "fusion": 0.5}, 0.5, replicates=0, seed=0
    )
    assert judge_abstention(sample).groups["all"].coverage.value == 1


def test_unknown_cases_are_dropped_first_however_sure_they_are():
    cases = make_cases(40).assign(**dict(zip(BOUNDS, (-0.5, 0.5), strict=True)))
    unlike = np.arange(40) < 12
    logit = np.where(cases["eczema"] > 0.5, 1.0, -1.0) * np.where(unlike, -9.0, 1.0)
    cases = cases.assign(known_text=~unlike, eczema_logit=logit, p_fusion=expit(logit))
    cases = cases.assign(decision=decide(cases), image_used=True, known_image=True)
    sample = Sample.draw(
        cases, {"image": 0.5, "text": 0.5, "fusion": 0.5}, 0.5, replicates=0, seed=0
    )
    points = {one.answered: one.accuracy for one in judge_abstention(sample).risk_coverage}
    assert points[1.0].value == pytest.approx(28 / 40)
    assert points[0.7].value == 1


def test_dropping_tied_answers_does_not_depend_on_manifest_order():
    cases = make_cases(400).assign(**dict(zip(BOUNDS, (-0.5, 0.5), strict=True)))
    cases = cases.assign(decision="eczema", eczema_logit=1.0, p_fusion=0.73)
    thresholds, found = {"image": 0.5, "text": 0.5, "fusion": 0.5}, []
    for order in (np.arange(400), np.random.default_rng(1).permutation(400)):
        ordered = cases.iloc[order].reset_index(drop=True)
        sample = Sample.draw(ordered, thresholds, 0.5, replicates=0, seed=0)
        found.append([one.accuracy.value for one in judge_abstention(sample).risk_coverage])
    assert found[0] == pytest.approx(found[1])


def test_abstention_is_reported_by_known_skin_tones():
    cases = make_cases(40).assign(**dict(zip(BOUNDS, (-0.5, 0.5), strict=True)))
    cases = cases.assign(decision="eczema", skin_tone=np.array(["", "II", "V", ""] * 10))
    sample = Sample.draw(
        cases, {"image": 0.5, "text": 0.5, "fusion": 0.5}, 0.5, replicates=0, seed=0
    )
    groups = judge_abstention(sample).groups
    assert list(groups) == ["all", "text", "fusion", "skin tone II", "skin tone V"]
    assert groups["skin tone V"].cases == 10


def test_surest_answers_are_furthest_from_their_own_threshold():
    """Log-odds of 5 are 5 from the text's threshold; 4 are 7.9 from that of cases with both."""
    cases = make_cases(40).assign(image_used=np.arange(40) < 20, eczema=1.0)
    logit = np.where(cases["image_used"], 4.0, 5.0)
    cases = cases.assign(eczema_logit=logit, p_fusion=expit(logit))
    sample = Sample.draw(
        cases, {"image": 0.5, "text": 0.5, "fusion": 0.02}, 0.5, replicates=0, seed=0
    )
    surest = find_surest(sample, 20)["right"]
    assert set(surest["case_id"]) == {str(number) for number in range(20)}


# Reasons.


def test_every_reason_is_explained_in_a_sentence():
    row = dict.fromkeys(("image_used", "text_used", "known_image", "known_text"), True)
    row |= {"decision": "cannot tell", "status": "ok", "consistency": [0.2, 0.3, 0.5]}
    assert "too often mixed up" in give_reason(row)
    assert give_reason({**row, "known_image": False}).startswith("the photo is unlike")
    both = give_reason({**row, "known_image": False, "known_text": False})
    assert both.count("unlike anything the model was trained on") == 2
    unread = {**row, "known_text": False, "status": MOSTLY_UNKNOWN}
    assert "does not know" in give_reason(unread)
    assert "nothing in particular" in give_reason({**row, "image_used": False})
    clear = {**row, "image_used": False, "consistency": [0.5, 0.3, 0.2]}
    assert "too often mixed up" in give_reason(clear)
    nothing = {**row, "image_used": False, "text_used": False}
    assert give_reason(nothing) == "nothing could be used"
    for decision in ("eczema", "not eczema"):
        assert "one in ten validation cases" in give_reason({**row, "decision": decision})


def test_reason_for_unknown_photos_is_worded_by_their_number():
    row = {"consistency": [1.0, 0.0, 0.0], "decision": "cannot tell", "status": "ok"}
    row |= {"image_used": True, "text_used": False, "known_image": False, "known_text": False}
    assert give_reason(row, 1) == "the photo is unlike anything the model was trained on"
    assert give_reason(row, 2) == "no photo is like those that the model was trained on"


# Rebuilding.


def test_layers_rebuilt_from_their_settings_and_weights_give_the_same_outputs():
    rng = np.random.default_rng(0)
    features, (image, text) = rng.normal(size=(4, 3)), np.array([[1, 0, 1, 1], [0, 1, 1, 1]])
    for layer, given in (
        (DistanceFromTraining(name="a", dtype="float64"), features),
        (SureSide(name="b", dtype="float64"), [features[:, :1], image, text]),
        (ScaledFeatures(name="c", dtype="float64"), features),
    ):
        layer(given)
        layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
        assert (type(again), again.name) == (type(layer), layer.name)
        again(given)
        again.set_weights(layer.get_weights())
        np.testing.assert_array_equal(again(given), layer(given))
