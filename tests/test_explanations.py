"""Tests the figures of `evaluate --explanations` and `--robustness` on a tiny run."""

import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eczema_tf import evaluate
from eczema_tf.config import ImageConfig, TextConfig, load_config
from eczema_tf.data.checksums import CHECKSUMS
from eczema_tf.data.clinical.fields import Field
from eczema_tf.errors import RunError
from eczema_tf.evaluation.explanation_results import Cascade, Comparison, ModalityResults
from eczema_tf.evaluation.intervals import Estimate
from eczema_tf.model.encoders import specify_image_encoder, specify_text_encoder
from eczema_tf.model.multimodal import Encoders, build_model
from eczema_tf.reporting.explanation_report import describe_trust
from eczema_tf.reporting.facts import RunData
from eczema_tf.workflows import run_folder, stress
from eczema_tf.workflows.explanation_quality import photos as explained_photos
from eczema_tf.workflows.explanation_quality import stability as explained_stability
from eczema_tf.workflows.explanation_quality import texts as explained_texts
from eczema_tf.workflows.explanation_quality.stability import list_depths
from eczema_tf.workflows.explanation_quality.texts import TextWords
from eczema_tf.workflows.parity import check_completeness

CASES = 14


@pytest.fixture(scope="module")
def workplace(main_job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of prepared data and a finished run, which tests may change."""
    folder = tmp_path_factory.mktemp("explanations")
    for name in ("synthetic", "run"):
        shutil.copytree(main_job / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def few_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explained_stability, "DRAWS", 1)
        patch.setattr(explained_photos, "RANDOM_MAPS", 1)
        patch.setattr(explained_texts, "RANDOM_SCORES", 2)
        yield


@pytest.fixture(scope="module")
def figures(workplace: Path, few_draws: None) -> dict:
    assert evaluate.main(["--run-dir", str(workplace / "run"), "--explanations", str(CASES)]) == 0
    return json.loads((workplace / "run" / "explanations.json").read_text())


def estimates(part: object) -> list[dict]:
    if not isinstance(part, dict | list):
        return []
    if isinstance(part, dict) and {"value", "low", "high"} <= set(part):
        return [part]
    return [
        found
        for child in (part.values() if isinstance(part, dict) else part)
        for found in estimates(child)
    ]


def test_every_figure_comes_with_its_baselines(figures: dict):
    assert (figures["split"], figures["cases"]) == ("test", CASES)
    for figure in ("pointing", "energy_inside", "deletion", "insertion", "mu_fidelity"):
        assert {"heatmap", "centred_gaussian", "edges", "random"} < set(figures["photo"][figure])
        assert set(figures["photo"][figure]["gain_over"]) == {"centred_gaussian", "edges", "random"}
    for figure in ("average_precision", "precision", "recall", "comprehensiveness", "sufficiency"):
        assert {"integrated_gradients", "random"} < set(figures["text"][figure])
        assert set(figures["text"][figure]["gain_over"]) == {"random"}
    assert figures["text"]["fine"]["correlation"]["value"] > 0.95
    sums = figures["text"]["sums"]
    assert 0 <= sums["missed"]["value"] < 0.05 * sums["moved"]["value"]
    assert figures["contributions"]["cases"] > 0


def test_figures_are_in_range_and_undefined_ones_have_a_reason(figures: dict):
    found = estimates(figures)
    assert len(found) > 60
    for estimate in found:
        if estimate["value"] is None:
            assert estimate["reason"]
        elif estimate["low"] is not None:
            assert estimate["low"] <= estimate["value"] + 1e-9
            assert estimate["value"] <= estimate["high"] + 1e-9
    for figure in ("pointing", "energy_inside", "deletion", "insertion"):
        for name in ("heatmap", "centred_gaussian", "edges", "random"):
            value = figures["photo"][figure][name]["value"]
            assert value is None or 0 <= value <= 1
    assert 0 <= figures["contributions"]["image_share"]["value"] <= 1


def test_even_random_scores_find_many_known_phrases(figures: dict):
    """Two thirds of the words are symptoms, so even random scores are often right."""
    assert 0.5 < figures["text"]["average_precision"]["random"]["value"] < 0.95
    assert figures["text"]["recall"]["random"]["value"] > 0.7


def test_weights_are_randomised_from_the_answer_down_to_the_first_layer(
    figures: dict, workplace: Path
):
    for part, modality in (("photo", "image"), ("text", "text")):
        depths = figures[part]["randomised"]["depths"]
        assert depths[0]["depth"] in ("eczema_joint", f"eczema_{modality}")
        assert depths[-1]["depth"].startswith(f"{modality}_encoder, stage 1 of")
        other = {"image": "text", "text": "image"}[modality]
        assert not [depth for depth in depths if depth["depth"].startswith(other)]
    model = run_folder.load_model(workplace / "run").model
    listed = [
        weight
        for modality in ("image", "text")
        for depth in list_depths(model, modality)
        for weight in depth.weights
    ]
    assert {id(weight) for weight in model.get_layer("image_encoder").weights} <= {
        id(weight) for weight in listed
    }


def test_measuring_again_gives_the_same_figures(
    workplace: Path, figures: dict, capsys: pytest.CaptureFixture
):
    """The first measurement leaves no trace in the run folder or in a random generator."""
    metrics = (workplace / "run" / "metrics.json").read_text()
    assert evaluate.main(["--run-dir", str(workplace / "run"), "--explanations", str(CASES)]) == 0
    assert json.loads((workplace / "run" / "explanations.json").read_text()) == figures
    assert (workplace / "run" / "metrics.json").read_text() == metrics
    table = capsys.readouterr().out
    assert "pointing game" in table
    assert table.count("How far to trust them:") == 2
    assert max(map(len, table.splitlines())) <= 100


def test_figures_that_need_missing_ground_truth_are_null_with_a_reason(
    workplace: Path, few_draws: None, capsys: pytest.CaptureFixture
):
    folder = workplace / "no_truth"
    shutil.copytree(workplace / "synthetic" / "photos", folder / "photos")
    shutil.copy(workplace / "synthetic" / "manifest.csv", folder)
    arguments = [
        "--manifest",
        str(folder / "manifest.csv"),
        "--split",
        "all",
        "--allow-leaks",
        "--out",
        str(folder / "figures"),
        "--explanations",
        "8",
    ]
    assert evaluate.main(["--run-dir", str(workplace / "run"), *arguments]) == 0
    found = json.loads((folder / "figures" / "explanations.json").read_text())
    table = " ".join(capsys.readouterr().out.split())
    assert "no photo of eczema with a heatmap and a known lesion" in table
    assert "no text with known phrases" in table
    assert found["photo"]["pointing"]["heatmap"]["value"] is None
    assert "built-in data" in found["photo"]["pointing"]["heatmap"]["reason"]
    assert found["text"]["average_precision"]["integrated_gradients"]["value"] is None
    assert found["text"]["comprehensiveness"]["integrated_gradients"]["value"] is not None


def test_missing_modality_has_a_reason_in_place_of_figures(
    workplace: Path, few_draws: None, capsys: pytest.CaptureFixture
):
    table = pd.read_csv(workplace / "synthetic" / "manifest.csv", dtype=str, keep_default_na=False)
    for kept, dropped, part, other in (
        ("text", "image_path", "photo", "text"),
        ("image_path", "text", "text", "photo"),
    ):
        folder = workplace / f"only_{kept}"
        shutil.copytree(workplace / "synthetic" / "photos", folder / "photos")
        table[table[kept] != ""].head(6).assign(**{dropped: ""}).to_csv(
            folder / "manifest.csv", index=False
        )
        arguments = [
            "--manifest",
            str(folder / "manifest.csv"),
            "--split",
            "all",
            "--allow-leaks",
            "--out",
            str(folder),
            "--explanations",
        ]
        assert evaluate.main(["--run-dir", str(workplace / "run"), *arguments]) == 0
        found = json.loads((folder / "explanations.json").read_text())
        assert found[part]["method"] is None
        assert found[part]["reason"].startswith("no case has a")
        assert found[other][f"{other}s"] == 6
        assert any(estimate["value"] is not None for estimate in estimates(found[other]))
        assert found["contributions"]["image"]["value"] is None


@pytest.mark.parametrize("count", ["0", "-3", "2.5", "many"])
def test_invalid_number_of_cases_is_a_usage_error(count: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as caught:
        evaluate.main(["--run-dir", "run", "--explanations", count])
    assert caught.value.code == 2


# The tokens [CLS] it is itchy ##y . [SEP]
WORDS = TextWords(np.array([-1, 0, 1, 2, 2, 3, -1]), np.array([[0, 2], [3, 5], [6, 12], [12, 13]]))


def test_word_pieces_add_up_to_words_and_padding_is_left_out():
    np.testing.assert_allclose(WORDS.add_up(np.array([9.0, 1, 2, 3, 4, 5, 9, 7, 7])), [1, 2, 7, 5])


def test_word_overlaps_a_phrase_if_they_share_a_character():
    np.testing.assert_array_equal(WORDS.overlap([(3, 12)]), [False, True, True, False])
    np.testing.assert_array_equal(WORDS.overlap([(0, 1), (12, 13)]), [True, False, False, True])


def test_removed_words_leave_no_gap():
    kept = np.array(
        [[True, True, True, True], [True, False, True, False], [False, False, False, False]]
    )
    inputs = WORDS.keep(np.array([101, 11, 12, 13, 14, 15, 102], "int32"), kept)
    expected = [
        [101, 11, 12, 13, 14, 15, 102],
        [101, 11, 13, 14, 102, 0, 0],
        [101, 102, 0, 0, 0, 0, 0],
    ]
    np.testing.assert_array_equal(inputs["token_ids"], expected)
    np.testing.assert_array_equal(inputs["padding_mask"], np.array(expected) > 0)


def test_incomplete_word_scores_are_reported_or_stop_the_export(capsys: pytest.CaptureFixture):
    moved = {"contribution": np.array([[0.1, 0.5, 2.0]])}
    check_completeness([{**moved, "token_score": np.array([[1.0, 0.97]])}])  # misses 1.5 %
    little = {"contribution": np.array([[0.1, 0.5, 0.02]]), "token_score": np.array([[0.01, 0.0]])}
    check_completeness([little])  # misses half, but half of next to nothing
    assert not capsys.readouterr().err
    check_completeness([{**moved, "token_score": np.array([[1.0, 0.95]])}])
    assert "miss 0.050 of the 2.000 logits" in capsys.readouterr().err
    for scores in ([1.0, 0.75], [1.0, np.nan]):
        with pytest.raises(RunError, match=r"of the 2\.000 logits .* more than 10%"):
            check_completeness([{**moved, "token_score": np.array([scores])}])


def test_verdicts_on_trust_follow_from_intervals():
    sure, unsure = Estimate(value=0.1, low=0.05, high=0.15), Estimate(value=0.1, low=-0.1, high=0.3)
    worse = Estimate(value=-0.1, low=-0.2, high=-0.05)
    left = {"correlation": sure, "absolute_values": sure}
    pointing = Comparison(9, "higher", {}, {"edges": unsure, "random": sure})
    deletion = Comparison(9, "lower", {}, {"centred_gaussian": worse})
    results = ModalityResults(
        method="evidence",
        counts={},
        comparisons={"pointing": pointing, "deletion": deletion},
        changes={"noise": {"correlation": Estimate(value=0.5, low=0.4, high=0.6)}},
        randomised=Cascade(9, 1, {"top": {"correlation": sure}, "all": left}),
        sums={"moved": Estimate(value=2.0, low=None, high=None), "missed": sure, "unclear": unsure},
    )
    assert list(describe_trust(results)) == [
        "pointing game: better than random; not clearly better than edges",
        "deletion: worse than Gaussian",
        "after a little noise: somewhat steady",
        "sums of scores: not complete, 5.0% of what texts move is missing",
        "with all weights random: next to nothing is left of them",
    ]
    strong = Estimate(value=0.9, low=0.8, high=0.95)
    turned = Cascade(9, 1, {"all": {"correlation": unsure, "absolute_values": strong}})
    *_, said = describe_trust(replace(results, randomised=turned))
    assert said == "with all weights random: they remain: do not trust them"


@pytest.mark.parametrize(
    ("kept", "level"), [(0.71, "steady"), (0.69, "somewhat steady"), (0.41, "somewhat steady")]
)
def test_steadiness_is_worded_by_the_rank_correlation(kept: float, level: str):
    def of(value: float) -> dict[str, Estimate]:
        return {"correlation": Estimate(value=value, low=None, high=None)}

    for value, said in ((kept, level), (0.39, "not steady")):
        for left, rest in ((0.21, "they remain: do not trust them"), (-0.19, "next to nothing")):
            nothing = {"absolute_values": Estimate(value=0.39, low=None, high=None)}
            cascade = Cascade(9, 1, {"all": of(left) | nothing})
            results = ModalityResults("evidence", {}, {}, {"noise": of(value)}, cascade)
            change, weights = describe_trust(results)
            assert change == f"after a little noise: {said}"
            assert weights.startswith(f"with all weights random: {rest}")


def test_robustness_removes_exchanges_and_corrupts_photos_and_texts(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, chosen in (
        ("PHOTO_CORRUPTIONS", ("noise", "border_only")),
        ("TEXT_CORRUPTIONS", ("capitals", "other_language")),
    ):
        monkeypatch.setattr(stress, name, {one: getattr(stress, name)[one] for one in chosen})
    arguments = ["--run-dir", str(workplace / "run"), "--robustness", "12", "--out", str(tmp_path)]
    assert evaluate.main([*arguments, "--with-photos"]) == 0
    tests = json.loads((tmp_path / "metrics.json").read_text())["stress_tests"]
    changed = {name: (test["changed"], len(test["points"])) for name, test in tests.items()}
    assert changed == {
        "photo_missing": ("image", 5),
        "text_missing": ("text", 5),
        "photo_of_another": ("image", 2),
        "text_of_another": ("text", 2),
        "border_only": ("image", 2),
        "noise": ("image", 6),
        "capitals": ("text", 6),
        "other_language": ("text", 6),
    }
    # with only one modality, the answer is bit for bit that of the modality's own head
    for removed in ("photo_missing", "text_missing"):
        assert tests[removed]["points"][-1]["gain"]["value"] == 0
    # the tokenizer ignores capitals
    assert {point["change"]["value"] for point in tests["capitals"]["points"]} == {0}
    assert len({point["ece"]["value"] for point in tests["noise"]["points"]}) > 1
    assert (tmp_path / "corrupted_photos.png").is_file()
    page = (tmp_path / "report.html").read_text()
    assert "corrupted photos" in page
    check_examples(page, workplace)


def test_modality_absent_from_training_is_neither_scored_nor_shown(workplace: Path, tmp_path: Path):
    """The run is edited to have had no photos in training; the served graph ignores them, too."""
    run = tmp_path / "run"
    shutil.copytree(workplace / "run", run)
    (run / CHECKSUMS).unlink()
    data = RunData.read(run / run_folder.DATA)
    data.model_copy(update={"trained_on": ["text"]}).write(run / run_folder.DATA)
    out = tmp_path / "judged"
    assert evaluate.main(["--run-dir", str(run), "--with-photos", "--out", str(out)]) == 0
    heads = json.loads((out / "metrics.json").read_text())["heads"]
    assert heads["image"]["cases"] == 0
    assert heads["text"]["cases"] > 0
    cases = pd.read_csv(out / "predictions.csv")
    assert not cases["image_used"].any()
    told = cases[cases["text_used"]]
    np.testing.assert_allclose(told["p_fusion"], told["p_text"], atol=1e-6)
    assert "data:image/jpeg" not in (out / "report.html").read_text()


def check_examples(page: str, workplace: Path) -> None:
    """Checks that the page shows the surest cases, but without `--with-photos` only figures."""
    without = (workplace / "run" / "report.html").read_text()
    table = pd.read_csv(workplace / "synthetic" / "manifest.csv", dtype=str, keep_default_na=False)
    surest = table[[case in without for case in table["case_id"]]]
    assert 1 <= len(surest) <= 10
    words = re.sub(r"<[^>]+>| \((for|against)\)", "", page)
    for text in filter(None, surest["text"]):
        assert text in html.unescape(words)
        assert html.escape(text) not in without
    # all photos of these cases, and none without `--with-photos`
    assert page.count("data:image/jpeg") == (surest["image_path"] != "").sum()
    assert "data:image/jpeg" not in without


def test_layers_of_the_other_modality_are_not_randomised():
    """A layer belongs to a modality by its part in the answer, whatever its name."""
    config = load_config(overrides=["model.image.architecture=small", "model.image.size_px=32"])
    text = specify_text_encoder(TextConfig(preset=None, architecture="small"), 30)
    image = specify_image_encoder(ImageConfig(preset=None, architecture="small", size_px=32))
    encoders = Encoders(image, text, ("itch=yes", "site=bends"), (Field(name="age"),))
    model = build_model(config.model, encoders)
    depths = {
        modality: {depth.name for depth in list_depths(model, modality)}
        for modality in ("image", "text")
    }
    told = {"findings_projection", "window_findings", "text_projection", "eczema_text"}
    assert told <= depths["text"]
    assert not told & depths["image"]
    assert {"image_projection", "eczema_image"} <= depths["image"] - depths["text"]
    assert "eczema_joint" in depths["image"] & depths["text"]
    assert not {"typical_photo", "clinical_evidence"} & (depths["image"] | depths["text"])
