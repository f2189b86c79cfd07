"""Tests for the evaluation under stress and for the baseline from metadata."""

from unittest.mock import MagicMock, Mock

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from test_evaluation_results import THRESHOLDS, simulate_cases

from eczema_tf.data.corruption import Corruption
from eczema_tf.evaluation.calibration import estimate_calibration_error
from eczema_tf.evaluation.metadata import judge_metadata
from eczema_tf.evaluation.results import compute_metrics
from eczema_tf.evaluation.sample import Sample
from eczema_tf.evaluation.stress import StressedCases, judge_stress, remove_some
from eczema_tf.reporting.document import format_text
from eczema_tf.reporting.stress import build_stress, select_plots, write_stress_plots
from eczema_tf.workflows import stress


def sample_of(cases: pd.DataFrame) -> Sample:
    return Sample.draw(cases, THRESHOLDS, 0.5, replicates=0, seed=0)


@pytest.fixture(scope="module")
def whole() -> pd.DataFrame:
    """Cases with photo and text; the model cannot tell in every tenth."""
    cases = simulate_cases().query("image_used and text_used").reset_index(drop=True)
    decisions = np.where(np.arange(len(cases)) % 10 == 0, "cannot tell", "eczema")
    return cases.assign(decision=decisions)


@pytest.fixture(scope="module")
def without(whole: pd.DataFrame) -> pd.DataFrame:
    """The same cases without their photos: fusion answers as text does, and can never tell."""
    return whole.assign(p_fusion=whole["p_text"], p_image=np.nan, decision="cannot tell")


def test_fusion_without_photos_performs_like_text(whole, without):
    stressed = StressedCases("image", {0.0: whole, 1.0: without})
    first, last = judge_stress(stressed, sample_of(whole)).points
    assert first.auroc.value == pytest.approx(roc_auc_score(whole["eczema"], whole["p_fusion"]))
    assert (first.change.value, first.change.p) == (0, None)
    assert first.cannot_tell.value == pytest.approx(0.1, abs=0.01)
    text = roc_auc_score(whole["eczema"], whole["p_text"])
    assert last.auroc.value == pytest.approx(text)
    assert last.gain.value == 0
    assert last.change.value == pytest.approx(text - first.auroc.value)
    assert last.change.high < 0
    assert last.cannot_tell.value == 1
    assert last.alone.value is None
    assert last.alone.reason


def test_gain_is_over_the_head_of_the_untouched_modality(whole):
    turned = whole.assign(p_fusion=1 - whole["p_fusion"], p_text=1 - whole["p_text"])
    stressed = StressedCases("text", {0.0: whole, 1.0: turned})
    last = judge_stress(stressed, sample_of(whole)).points[1]
    image, fusion = (roc_auc_score(whole["eczema"], turned[p]) for p in ("p_image", "p_fusion"))
    assert last.gain.value == pytest.approx(fusion - image)
    assert last.alone.value == pytest.approx(1 - roc_auc_score(whole["eczema"], whole["p_text"]))


@pytest.mark.parametrize("soft_labels", [True, False])
def test_calibration_under_stress_uses_the_labels_of_the_sample(whole, soft_labels: bool):
    votes = whole.assign(eczema=whole["eczema"].map({0.0: 0.2, 1.0: 0.6}))
    sample = Sample.draw(votes, THRESHOLDS, 0.5, soft_labels, replicates=0, seed=0)
    (point,) = judge_stress(StressedCases("image", {0.0: votes}), sample).points
    expected = estimate_calibration_error(
        sample.probability("fusion"), sample.labels(), sample.positive(), sample.sampling
    )
    assert point.ece == expected.error


def test_cases_that_lost_a_modality_stay_without_it_at_larger_shares(whole, without):
    answers = remove_some(whole, without, seed=3)
    pd.testing.assert_frame_equal(answers[1.0], without)
    lost = {share: set(np.flatnonzero(cases["p_image"].isna())) for share, cases in answers.items()}
    assert [len(one) for one in lost.values()] == [
        round(share * len(whole)) for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    assert lost[0.25] < lost[0.5] < lost[0.75] < lost[1.0]
    assert list(answers[0.5]["case_id"]) == list(whole["case_id"])


def judge(cases: pd.DataFrame):
    return judge_metadata(sample_of(cases))


def test_metadata_baseline_finds_a_planted_shortcut_but_not_noise(whole):
    rng = np.random.default_rng(0)
    noise = rng.random(len(whole)) < 0.5
    clinic = np.where(rng.random(len(whole)) < 0.9, whole["eczema"] > 0.5, noise)
    found = judge(whole.assign(source=np.where(clinic, "a", "b"), sex="female"))
    assert found.columns == ["source"]
    assert found.auroc.value == pytest.approx(roc_auc_score(whole["eczema"], clinic), abs=0.01)
    assert found.auroc.low > 0.85
    chance = judge(whole.assign(source=rng.choice(["a", "b"], len(whole))))
    assert chance.auroc.low < 0.5 < chance.auroc.high
    assert chance.fusion_gain.value == pytest.approx(
        roc_auc_score(whole["eczema"], whole["p_fusion"]) - chance.auroc.value
    )


def test_metadata_baseline_needs_metadata_and_enough_cases(whole):
    assert judge(whole) is None
    few = whole[(whole["eczema"] < 0.5) | (whole.index < 8)]
    assert judge(few.assign(sex=np.where(np.arange(len(few)) % 2, "male", "female"))) is None


def test_stress_sections_and_plots_show_the_tests_that_were_run(whole, without, tmp_path):
    removed = remove_some(whole, without, 0)
    stressed = {
        "photo_missing": StressedCases("image", removed),
        "photo_of_another": StressedCases("image", {0.0: whole, 1.0: without}),
        "noise": StressedCases("image", removed),
    }
    undecided = whole.drop(columns="decision")
    metrics = compute_metrics(
        undecided, THRESHOLDS, label_threshold=0.5, seed=0, replicates=20, stressed=stressed
    )
    missing, corrupted = build_stress(metrics)
    table = missing.blocks[1]
    assert [row[0] for row in table.rows] == [
        *(f"photo missing: {share:g}" for share in (0.25, 0.5, 0.75, 1)),
        "another case's photo",
    ]
    text = format_text([missing, corrupted])
    assert max(map(len, text.splitlines())) <= 100
    assert "of the change in AUROC is below 0 with noise." in " ".join(text.split())
    told = format_text(build_stress(metrics.model_copy(update={"clinical": ["age"]})))
    assert "Fusion also uses age; photo alone" in " ".join(told.split())
    write_stress_plots(tmp_path, metrics)
    assert {path.name for path in tmp_path.iterdir()} == {"missing.png", "corrupted_photos.png"}
    assert set(select_plots(metrics)) == {"missing.png", "corrupted_photos.png"}
    assert not build_stress(
        compute_metrics(undecided, THRESHOLDS, label_threshold=0.5, seed=0, replicates=20)
    )


def note_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces answers with the row numbers of their photos and texts."""

    def number(_trained, _dataset, pairs, versions: int) -> list[pd.DataFrame]:
        photos, texts = (np.split(rows, versions) for rows in pairs[:2])
        return [
            pd.DataFrame({"photo": own, "text": other})
            for own, other in zip(photos, texts, strict=True)
        ]

    monkeypatch.setattr(stress, "predict_versions", number)


def swap(case_ids: list[str], seed: int = 0) -> dict[str, pd.DataFrame]:
    """Returns which photo and text each row gets; all rows have both."""
    dataset = Mock(table=pd.DataFrame({"case_id": case_ids}))
    inputs = Mock(present=lambda _: np.ones(len(case_ids), bool), pair=lambda *rows: rows)
    trained = Mock(config=Mock(seed=seed))
    found = stress.predict_missing(trained, dataset, inputs, np.arange(len(case_ids)))
    return {name: found[f"{name}_of_another"].answers[1.0] for name in ("photo", "text")}


def test_exchange_gives_a_case_the_first_photo_or_text_of_another(monkeypatch: pytest.MonkeyPatch):
    note_versions(monkeypatch)
    case_ids = ["a", "b", "a", "c", "b", "a"]
    for name, rows in swap(case_ids).items():
        assert set(rows[name]) == {0, 1, 3}  # the first of each case
        assert all(case_ids[given] != own for given, own in zip(rows[name], case_ids, strict=True))
        assert list(rows["text" if name == "photo" else "photo"]) == list(range(6))


def test_exchange_is_random_even_if_ids_are_sorted(monkeypatch: pytest.MonkeyPatch):
    """With ids sorted by class, the next case's photo would support the same answer."""
    note_versions(monkeypatch)
    case_ids = [f"case{number:03}" for number in range(200)]
    first, again, other = (swap(case_ids, seed)["photo"]["photo"] for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).mean() > 0.9
    assert np.mean(np.abs(first - np.arange(200)) == 1) < 0.1


def test_each_text_is_corrupted_with_its_own_seed(monkeypatch: pytest.MonkeyPatch):
    put = []
    draw = Corruption(lambda _, __, rng: str(rng.integers(10**9)), (1.0, 2.0))
    monkeypatch.setattr(stress, "TEXT_CORRUPTIONS", {"draw": draw})
    monkeypatch.setattr(stress, "_put_texts", lambda _, texts, __: put.append(texts))
    monkeypatch.setattr(stress, "predict_versions", lambda *given: [pd.DataFrame()] * given[-1])
    dataset, inputs = Mock(table=pd.DataFrame({"text": ["itchy"] * 5})), MagicMock()
    inputs.__len__.return_value = 5
    for seed in (0, 1):
        trained = Mock(config=Mock(seed=seed))
        stress._predict_corruptions(trained, dataset, inputs, "text")
    as_is, drawn, as_is_again, of_another_seed = put
    assert as_is == as_is_again == ["itchy"] * 5
    assert drawn[:5] == drawn[5:]  # of each text at both strengths
    assert len({*drawn, *of_another_seed}) == 10


def test_seed_decides_which_cases_lose_their_photo_first(whole, without):
    first, other = (remove_some(whole, without, seed=seed)[0.25] for seed in (1, 2))
    assert (first["p_image"].isna() != other["p_image"].isna()).any()


def test_corruption_is_named_harmful_if_its_interval_is_below_0(whole, without):
    unchanged = judge_stress(StressedCases("image", {0.0: whole, 1.0: without}), sample_of(whole))
    first, last = unchanged.points
    said = {}
    for high in (-0.001, 0.001):
        change = last.change.model_copy(update={"low": -0.2, "high": high})
        points = [first, last.model_copy(update={"change": change})]
        test = unchanged.model_copy(update={"points": points})
        metrics = compute_metrics(
            whole.drop(columns="decision"), THRESHOLDS, label_threshold=0.5, seed=0, replicates=20
        ).model_copy(update={"stress_tests": {"noise": test}})
        said[high] = " ".join(format_text(build_stress(metrics)).split())
    assert "change in AUROC is below 0 with noise." in said[-0.001]
    assert "change in AUROC is below 0 with none of them." in said[0.001]
