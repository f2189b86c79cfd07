"""Tests for averaging rows into cases, and for writing and reading `predictions.csv`."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eczema_tf.errors import DataError
from eczema_tf.evaluation.grades import compute_grade_probabilities, has_learned, name_grades
from eczema_tf.evaluation.predictions import (
    BOUNDS,
    SEVERITY_LOGITS,
    average_rows_by_case,
    is_scored,
    load_predictions,
)
from eczema_tf.files import write_csv
from eczema_tf.model.pooling import find_speaking_rows

NAN = float("nan")


def row(case_id, **values):
    """Builds a row with photo and text, and with all logits 0."""
    logits = [
        "eczema_image_logit",
        "eczema_text_logit",
        "eczema_logit",
        *(f"consistency_logit_{index}" for index in range(3)),
    ]
    labels = {
        "group_id": f"group of {case_id}",
        "eczema": NAN,
        "consistency": "",
        "severity": "",
        "image_used": True,
        "text_used": True,
    }
    severity = dict.fromkeys((name for names in SEVERITY_LOGITS.values() for name in names), 0.0)
    return {
        "example_id": "row",
        "case_id": case_id,
        **labels,
        **dict.fromkeys(logits, 0.0),
        **severity,
        **values,
    }


def average(*rows):
    return average_rows_by_case(pd.DataFrame(rows))


def test_logits_are_averaged_over_the_rows_that_have_them():
    cases = average(
        row("a", eczema_image_logit=1.0, eczema_logit=0.0, eczema_text_logit=NAN, text_used=False),
        row("b", eczema_image_logit=NAN, image_used=False, eczema_logit=-1.0),
        row("a", eczema_image_logit=3.0, eczema_logit=4.0, eczema_text_logit=-2.0),
        row(
            "a", eczema_image_logit=NAN, eczema_logit=-1.0, eczema_text_logit=-4.0, image_used=False
        ),
    )
    assert list(cases["case_id"]) == ["a", "b"]
    assert list(cases["rows"]) == [3, 1]
    first, second = cases.iloc[0], cases.iloc[1]
    # photo: 1 and 3; text: -2 and -4; both: the only row that has both
    assert (first["eczema_image_logit"], first["eczema_text_logit"], first["eczema_logit"]) == (
        2.0,
        -3.0,
        4.0,
    )
    assert first["p_image"] == pytest.approx(
        1 / (1 + np.exp(-2))
    )  # of the mean logit, not the mean probability
    assert (first["image_used"], first["text_used"]) == (True, True)
    assert (np.isnan(second["p_image"]), second["image_used"], second["p_text"]) == (
        True,
        False,
        0.5,
    )


def test_rows_without_a_photo_do_not_dilute_the_pooled_photos():
    without = {"eczema_image_logit": NAN, "image_used": False}
    cases = average(
        row("a", eczema_logit=2.0, severity_logit_0=1.0),
        row("a", eczema_logit=4.0, severity_logit_0=3.0),
        row("a", eczema_logit=-9.0, severity_logit_0=-9.0, **without),
        row("b", eczema_logit=-1.0, **without),
        row("b", eczema_logit=-3.0, **without),
    )
    assert list(cases["eczema_logit"]) == [3.0, -2.0]
    assert cases["severity_logit_0"][0] == 2.0
    assert list(cases["rows"]) == [3, 2]


def test_unfamiliar_photo_is_ignored_if_another_photo_is_known():
    bounds = dict(zip(BOUNDS, (-1.0, 1.0), strict=True))
    strange = {"known_image": False, "eczema_image_logit": 9.0, "eczema_logit": 9.0}
    familiar = {"known_image": True, "eczema_image_logit": -2.0, "eczema_logit": -3.0}
    cases = average(
        *(row(case, known_text=True, **bounds, **strange) for case in "aab"),
        *(row(case, known_text=True, **bounds, **familiar) for case in "aac"),
    )
    assert cases["eczema_image_logit"].tolist() == [-2, 9, -2]
    assert cases["eczema_logit"].tolist() == [-3, 9, -3]
    assert cases["known_image"].tolist() == [True, False, True]
    assert cases["decision"].tolist() == ["not eczema", "cannot tell", "not eczema"]


EVERYWHERE = list(itertools.product([False, True], repeat=4))


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(EVERYWHERE)), min_size=1, max_size=8))
def test_some_row_speaks_for_every_case_and_known_inputs_come_first(rows):
    cases = np.array([case for case, _ in rows])
    flags = np.array([flags for _, flags in rows])
    used = {"image": flags[:, 0], "text": flags[:, 1]}
    known = {"image": flags[:, 2] & used["image"], "text": flags[:, 3] & used["text"]}
    speaks = find_speaking_rows(cases, used, known)
    for own in (cases == case for case in set(cases.tolist())):
        assert speaks["fusion"][own].any()
        for name in ("image", "text"):
            assert speaks[name][own].any() == used[name][own].any()
            if known[name][own].any():
                assert not (speaks[name] & ~known[name])[own].any()
    together = find_speaking_rows(np.zeros(len(cases)), used, known)
    both = known["image"] & known["text"]
    if both.any():  # then no other row speaks
        assert (together["fusion"] == both).all()


def test_case_labels_are_the_mean_or_the_first_that_is_given():
    cases = average(
        row("a", eczema=NAN, consistency="", severity="", skin_tone="", posterior_image=NAN),
        row(
            "a",
            eczema=0.25,
            consistency="other",
            severity="severe",
            skin_tone="IV",
            posterior_image=0.5,
        ),
        row(
            "a",
            eczema=0.75,
            consistency="eczema",
            severity="mild",
            skin_tone="V",
            posterior_image=0.5,
        ),
        row("b"),
    )
    given = cases.loc[0, ["eczema", "consistency", "severity", "skin_tone", "posterior_image"]]
    assert list(given) == [0.5, "other", "severe", "IV", 0.5]
    assert np.isnan(cases.loc[1, "eczema"])
    assert list(cases.loc[1, ["consistency", "severity", "skin_tone"]]) == ["", "", ""]


def test_error_names_every_case_in_two_groups():
    with pytest.raises(DataError, match=r"2 faults.*\n.*'a': group_id is 'g1', 'g2'\n.*'c'"):
        average(
            row("a", group_id="g2"),
            row("a", group_id="g1"),
            row("b"),
            row("c", group_id="g1"),
            row("c", group_id="g2"),
        )


def test_no_rows_give_an_empty_table_with_its_columns():
    cases = average_rows_by_case(pd.DataFrame([row("a")]).head(0))
    assert len(cases) == 0
    assert {"p_image", "severity_mild", "severity_predicted"} <= set(cases)


def test_consistency_is_a_softmax_and_undefined_without_logits():
    cases = average(
        row(
            "a",
            consistency_logit_0=np.log(2.0),
            consistency_logit_1=np.log(5.0),
            consistency_logit_2=np.log(3.0),
        ),
        row("b", consistency_logit_0=NAN, consistency_logit_1=NAN, consistency_logit_2=NAN),
        row("c", consistency_logit_0=900.0, consistency_logit_1=-900.0),
        row("d", consistency_logit_0=0.2, consistency_logit_1=0.2, consistency_logit_2=0.2),
    )
    columns = ["consistency_eczema", "consistency_other", "consistency_unclear"]
    np.testing.assert_allclose(
        cases[columns], [[0.2, 0.5, 0.3], [NAN] * 3, [1, 0, 0], [1 / 3] * 3], atol=1e-15
    )
    # the logits of d are equal, as in a head that was never trained
    assert list(cases["consistency_predicted"]) == ["other", "", "eczema", ""]


def test_severity_is_computed_from_cumulative_logits():
    logits = np.log(
        [[4.0, 0.25], [0.25, 1 / 9], [9.0, 4.0]]
    )  # P(> mild), P(> moderate) = (0.8, 0.2), (0.2, 0.1), (0.9, 0.8)
    np.testing.assert_allclose(
        compute_grade_probabilities(logits), [[0.2, 0.6, 0.2], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]
    )
    cases = average(
        *(
            row(name, severity_logit_0=low, severity_logit_1=high)
            for name, (low, high) in zip("abc", logits, strict=True)
        )
    )
    assert list(cases["severity_predicted"]) == ["moderate", "mild", "severe"]


def test_predicted_severity_is_the_median_grade():
    cases = average(
        row("a", severity_logit_0=np.log(0.6 / 0.4), severity_logit_1=np.log(0.35 / 0.65))
    )  # P = 0.40, 0.25, 0.35
    assert list(cases["severity_predicted"]) == ["moderate"]


def test_predicted_grade_is_empty_without_evidence_for_it():
    told, even, known = [0.2, 0.5, 0.3], [1 / 3] * 3, np.array([False, False, False])
    assert list(name_grades(np.array([told, even, [NAN] * 3]), known)) == ["moderate", "", ""]
    assert list(name_grades(np.array([told]), np.array([True]))) == [""]
    text_alone = {"image_used": False, "severity_logit_0": 2.0, "severity_text_logit_0": 2.0}
    cases = average(
        row("a", consistency_logit_2=5.0, **text_alone),
        row("b", consistency_logit_1=5.0, **text_alone),
        row("c", consistency_logit_2=5.0, severity_logit_0=2.0, severity_text_logit_0=2.0),
    )
    assert list(cases["severity_predicted"]) == ["", "moderate", "moderate"]
    assert list(cases["severity_text_predicted"]) == ["", "moderate", ""]


@pytest.mark.parametrize("logits", [[800.0, -800.0], [-800.0, -800.0], [0.0, 1e-9], [-1.0, 3.0]])
def test_grade_probabilities_are_valid_for_extreme_logits(logits):
    probabilities = compute_grade_probabilities(np.array([logits]))
    assert (probabilities >= 0).all()
    assert probabilities.sum() == pytest.approx(1)


def test_head_is_scored_on_cases_with_a_label_and_a_probability():
    cases = average(row("a", eczema=1.0), row("b"), row("c", eczema=0.0, eczema_image_logit=NAN))
    assert list(is_scored(cases, "image")) == [True, False, False]
    assert list(is_scored(cases, "fusion")) == [True, False, True]


def test_predictions_are_read_back_as_written(tmp_path):
    names = [
        "-1000600354148496558",
        "=1+1",
        "'=quoted",
        "@home",
        "-x",
        "+41 79",
        'a,"b"',
        "NA",
        "größe",
        "007",
        "\tx",
        "'",
        "\rx",
        "a\rb",
    ]
    rng = np.random.default_rng(0)
    rows = [
        row(
            name,
            eczema=rng.random(),
            eczema_image_logit=rng.normal(),
            eczema_logit=rng.normal() * 30,
            fold=1,
        )
        for name in names
    ]
    rows[0] |= {"eczema_text_logit": NAN, "text_used": False, "skin_tone": "=VI"}
    cases = average(*rows)
    write_csv(tmp_path / "predictions.csv", cases)
    pd.testing.assert_frame_equal(
        load_predictions(tmp_path / "predictions.csv"), cases, check_exact=True
    )


def test_formula_like_text_is_escaped_and_numbers_are_not(tmp_path):
    write_csv(
        tmp_path / "predictions.csv",
        average(row("=cmd()", group_id="-1000600354148496558", source="@x")),
    )
    written = pd.read_csv(tmp_path / "predictions.csv", dtype=str).iloc[0]
    assert (written["case_id"], written["group_id"], written["source"]) == (
        "'=cmd()",
        "-1000600354148496558",
        "'@x",
    )


@pytest.mark.parametrize("content", [None, b"", b"case_id,p_image\na,zero\n", b"\xff\xfe\x00"])
def test_unreadable_table_is_a_clear_error(tmp_path, content):
    if content is not None:
        (tmp_path / "predictions.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"predictions\.csv: not a readable table"):
        load_predictions(tmp_path / "predictions.csv")


def test_missing_columns_are_named(tmp_path):
    (tmp_path / "predictions.csv").write_text("case_id,eczema,p_fusion\na,1,0.5\n")
    with pytest.raises(DataError, match=r"has no column group_id, image_used, .*, p_text; start"):
        load_predictions(tmp_path / "predictions.csv")


def test_words_of_a_case_are_those_of_its_longest_text():
    cases = average(row("a", text_words=3), row("a", text_words=40), row("b", text_words=0))
    assert list(cases["text_words"]) == [40, 0]


def test_head_has_learned_if_one_label_is_likelier_by_a_thousandth():
    likelier = np.array([0.0, 0.0009, 0.0011, 0.5])
    shares = np.stack([1 / 3 + likelier, *[1 / 3 - likelier / 2] * 2], axis=1)
    assert list(has_learned(shares)) == [False, False, True, True]
