"""Tests pooling the answers to several photos of a case, by the same rule as in evaluation."""

import numpy as np
import pytest
from scipy.special import expit, logit

from eczema_tf.serving.cases import IMPLIED, LEFT_OUT, join_row_statuses, pool_rows

UNDECIDED = {"image": (0.4, 0.6), "text": (0.3, 0.7), "fusion": (0.2, 0.8)}


def answer_rows(*rows: dict) -> dict[str, np.ndarray]:
    """Builds a signature's outputs; the defaults are those of a known photo with a known text."""
    plain = {
        "eczema": 0.5,
        "eczema_image": 0.5,
        "eczema_text": 0.5,
        "consistency": [0.5, 0.3, 0.2],
        "severity": [0.2, 0.3, 0.5],
        "image_used": True,
        "text_used": True,
        "known_image": True,
        "known_text": True,
        "status": b"ok",
        "decision": b"cannot tell",
    }
    outputs = {name: np.array([(plain | row)[name] for row in rows]) for name in plain}
    for name, values in outputs.items():
        outputs[name] = values.astype({"f": "float32", "S": object}.get(values.dtype.kind, bool))
    return outputs


def test_case_gets_the_mean_log_odds_of_its_photos():
    rows = answer_rows(
        {"eczema": 0.9, "eczema_image": 0.8, "severity": [0.1, 0.2, 0.7]},
        {"eczema": 0.3},
        {"eczema": 0.6, "eczema_image": 0.4, "severity": [0.6, 0.3, 0.1]},
    )
    found = pool_rows(rows, ["a", "b", "a"], UNDECIDED)
    assert found["eczema"][0] == pytest.approx(expit((logit(0.9) + logit(0.6)) / 2), abs=1e-6)
    assert found["eczema_image"][0] == pytest.approx(expit((logit(0.8) + logit(0.4)) / 2))
    worse = expit((logit([0.9, 0.7]) + logit([0.4, 0.1])) / 2)  # than mild, and than moderate
    np.testing.assert_allclose(found["severity"][0], [1 - worse[0], worse[0] - worse[1], worse[1]])
    np.testing.assert_allclose(found["consistency"][0], [0.5, 0.3, 0.2], rtol=1e-6)
    for name, values in rows.items():  # a single row stays as it is
        assert np.array_equal(found[name][1], values[1])
        assert found[name].dtype == values.dtype


def test_unfamiliar_photo_is_left_out_and_the_status_says_so():
    strange = {"known_image": False, "eczema": 0.99, "eczema_image": 0.99}
    familiar = {"eczema": 0.1, "eczema_image": 0.2, "decision": b"not eczema"}
    found = pool_rows(answer_rows(familiar, strange), [0, 0], UNDECIDED)
    assert found["eczema"][0] == pytest.approx(0.1)
    assert (found["known_image"][0], found["decision"][0]) == (True, b"not eczema")
    assert found["status"][0].decode() == f"photo 2: {LEFT_OUT}"
    found = pool_rows(answer_rows(strange, strange), [0, 0], UNDECIDED)
    assert found["eczema"][0] == pytest.approx(0.99)
    assert (found["known_image"][0], found["decision"][0]) == (False, b"cannot tell")


def test_unusable_photo_does_not_change_the_answer_to_the_others():
    refused = {"image_used": False, "known_image": False, "eczema": 0.01, "eczema_image": 0.01}
    rows = answer_rows({"eczema": 0.9}, refused | {"status": b"photo: too large"})
    found = pool_rows(rows, [0, 0], UNDECIDED)
    assert found["eczema"][0] == pytest.approx(0.9)
    assert found["eczema_image"][0] == pytest.approx(0.5)
    assert (found["decision"][0], found["status"][0]) == (b"eczema", b"photo 2: too large")


def test_with_bounds_evidence_decides_and_without_photos_must_agree():
    sure, unsure = {"eczema": 0.99, "decision": b"eczema"}, {"eczema": 0.6}
    against = {"eczema": 0.01, "decision": b"not eczema"}
    for rows, with_bounds, without in (
        ((sure, sure), b"eczema", b"eczema"),
        ((sure, unsure), b"eczema", b"cannot tell"),
        ((unsure, unsure), b"cannot tell", b"cannot tell"),
        ((sure, against), b"cannot tell", b"cannot tell"),
        ((against, unsure), b"not eczema", b"cannot tell"),
        ((against, against), b"not eczema", b"not eczema"),
    ):
        outputs = answer_rows(*rows)
        assert pool_rows(outputs, [0, 0], UNDECIDED)["decision"][0] == with_bounds
        assert pool_rows(outputs, [0, 0], None)["decision"][0] == without
    assert set(IMPLIED) == {b"eczema", b"not eczema", b"cannot tell"}


def test_saturated_probability_has_finite_evidence():
    found = pool_rows(answer_rows({"eczema": 1.0}, {"eczema": 0.5}), [0, 0], UNDECIDED)
    assert 0.99 < found["eczema"][0] < 1


def test_explanations_are_averaged_over_the_known_photos():
    rows = answer_rows({}, {}, {"known_image": False})
    rows["contribution"] = np.array([[1.0, 2, 3], [3, 4, 5], [9, 9, 9]], "float32")
    rows["token_score"] = np.array([[1.0], [2], [9]], "float32")
    rows["token_start"] = np.array([[4], [4], [4]], "int32")
    rows["heatmap"] = np.zeros((3, 2, 2), "float32")
    rows["heatmap_scale"] = np.ones(3, "float32")
    found = pool_rows(rows, [0, 0, 0], UNDECIDED)
    assert found["contribution"].tolist() == [[2, 3, 4]]
    assert (found["token_score"].item(), found["token_start"].item()) == (1.5, 4)
    assert not {"heatmap", "heatmap_scale"} & found.keys()


def test_remarks_on_text_and_fields_appear_once_in_the_status():
    said = b"text: read to word 4 of 9; text: mostly words this model does not know"
    statuses = [said, b"photo: bad; allowed: JPEG; " + said, said]
    assert join_row_statuses(statuses, [False, False, True]).decode() == (
        f"photo 2: bad; allowed: JPEG; photo 3: {LEFT_OUT}; {said.decode()}"
    )
    told = b"clinical: not all of it can be used, only age (a number)"
    assert join_row_statuses([told, b"photo: bad; " + told], [False, False]).decode() == (
        f"photo 2: bad; {told.decode()}"
    )
    assert join_row_statuses([told, told], [False, True]).decode() == (
        f"photo 2: {LEFT_OUT}; {told.decode()}"
    )
    other = b"text: mostly words this model does not know"
    assert join_row_statuses([told, other], [False, False]).decode() == (
        f"{told.decode()}; {other.decode()}"
    )
    fault = b"row: has 4 fields; allowed: 5"
    assert join_row_statuses([b"ok", fault], [False, False]) == b"row 2: has 4 fields; allowed: 5"
    assert join_row_statuses([b"ok", b"neither"], [False, False]) == b"ok"
    assert join_row_statuses([b"neither", b"neither"], [False, False]) == b"neither"
