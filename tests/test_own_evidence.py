"""Tests adding evidence from your own data to a model that was trained on other data."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score
from test_other_data import save_data
from test_training import ROWS, config_of, make_data, repeat_rows

from eczema_tf import evaluate, train
from eczema_tf.config import Config, load_config
from eczema_tf.data.inputs import to_model_inputs
from eczema_tf.errors import ConfigError
from eczema_tf.evaluation.records import Metrics
from eczema_tf.model.encoders import specify_image_encoder, specify_text_encoder
from eczema_tf.model.fusion import ECZEMA_SUM
from eczema_tf.model.multimodal import WIDE_FEATURES, Encoders, build_model
from eczema_tf.reporting.facts import RunData, describe_data
from eczema_tf.schema import HEADS, IMAGE_PRESENT, NEVER_SEEN_PHOTOS, NOTICE, TEXT_PRESENT
from eczema_tf.training import own_evidence
from eczema_tf.training.data import TrainingData
from eczema_tf.training.device import prepare_device
from eczema_tf.training.own_evidence import (
    Sample,
    add_own_evidence,
    choose_ridge,
    fit_evidence,
    take_over,
)
from eczema_tf.training.stages import shift_log_odds
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.base_run import load_base
from eczema_tf.workflows.fit import list_modalities

pytestmark = pytest.mark.usefixtures("without_board")

SMOKE = Path(__file__).parents[1] / "configs" / "smoke.yaml"
PRIOR = -1.0


def build(fusion: str = "concat", *, widened: bool, seed: int = 0) -> keras.Model:
    config = config_of().model.model_copy(update={"fusion": fusion})
    prepare_device(config_of().train, seed)
    image, text = specify_image_encoder(config.image), specify_text_encoder(config.text, 50)
    return build_model(config, Encoders(image, text, widened=widened))


@pytest.mark.parametrize("fusion", ["concat", "late"])
def test_take_over_keeps_the_answers_of_the_base(fusion: str):
    base, model = build(fusion, widened=False), build(fusion, widened=True, seed=1)
    total = base.get_layer(ECZEMA_SUM)
    if fusion == "concat":
        joint = base.get_layer("eczema_joint").kernel
        joint.assign(np.random.default_rng(0).normal(size=joint.shape))
    total.slopes.assign([1.0, 1.0, 0.3])
    shift_log_odds(base, PRIOR)
    take_over(model, base)
    inputs = to_model_inputs(make_data().inputs.gather(np.arange(4)))
    for photo, text in ((1, 1), (1, 0), (0, 1), (0, 0)):
        present = {
            IMAGE_PRESENT: keras.ops.full((4,), float(photo)),
            TEXT_PRESENT: keras.ops.full((4,), float(text)),
        }
        said, expected = (one({**inputs, **present}, training=False) for one in (model, base))
        for head in HEADS:
            np.testing.assert_allclose(said[head], expected[head], atol=1e-5, err_msg=head)


def draw(rows: int, said_counts: float, own_counts: float) -> tuple[Sample, np.ndarray]:
    """Draws cases whose log-odds are a weighted sum of what was said and the first of 20 features.

    Returns:
        The sample and its true log-odds.
    """
    rng = np.random.default_rng(0)
    features, said = rng.normal(size=(rows, 20)), 2 * rng.normal(size=rows)
    odds = PRIOR + said_counts * said + own_counts * features[:, 0]
    targets = (rng.random(rows) < expit(odds)).astype("float64")
    return Sample(features, said, targets, np.ones(rows), PRIOR), odds


def split_in_five(rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
    folds = np.arange(rows) % 5
    return [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(5)]


def test_evidence_fitted_to_many_cases_is_close_to_the_truth():
    sample, _ = draw(20_000, 0.0, 1.5)
    *kernel, bias = fit_evidence(sample, 1e-3)
    np.testing.assert_allclose(kernel, [1.5] + [0] * 19, atol=0.1)
    assert bias == pytest.approx(0, abs=0.05)


def test_said_and_added_evidence_count_as_much_as_they_tell():
    """A regression on features only would be flatter, since it leaves out what was said."""
    sample, odds = draw(4000, 1.0, 1.0)
    ridge, (kept, added, shift) = choose_ridge(sample, split_in_five(4000))
    assert kept == pytest.approx(1, abs=0.15)
    *kernel, bias = added * fit_evidence(sample, ridge)
    found = PRIOR + kept * sample.said + sample.features @ kernel + bias + shift
    assert np.abs(found - odds).mean() < 0.25
    assert roc_auc_score(sample.targets, found) > roc_auc_score(sample.targets, odds) - 0.003


def test_evidence_that_tells_nothing_is_neither_kept_nor_added():
    sample, _ = draw(600, 0.0, 2.0)
    ridge, (kept, added, _) = choose_ridge(sample, split_in_five(600))
    assert kept < 0.15
    assert added * fit_evidence(sample, ridge)[0] > 1
    sample, _ = draw(600, 1.0, 0.0)
    ridge, (kept, added, _) = choose_ridge(sample, split_in_five(600))
    assert kept > 0.8
    assert np.abs(added * fit_evidence(sample, ridge)[:-1]).max() < 0.1


def draw_data(rows: int) -> TrainingData:
    """Repeats the rows of `make_data`, in groups of two rows, every second time without texts."""
    data, again = make_data(), np.arange(rows) % ROWS
    inputs = repeat_rows(data.inputs, rows)
    texts = inputs.columns[TEXT_PRESENT]
    kept = np.where(np.arange(rows) // ROWS % 2, -1, texts.index)
    inputs.columns[TEXT_PRESENT] = replace(texts, index=kept)
    groups = (np.arange(rows) // 2).astype(str)
    return replace(
        data,
        inputs=inputs,
        targets={"eczema": data.targets["eczema"][again]},
        weights={name: np.ones(rows, "float32") for name in ("eczema_image", "eczema_text")},
        positive=data.positive[again],
        labelled=np.ones(rows, bool),
        groups=groups,
        train_rows=np.arange(rows),
    )


def test_added_evidence_improves_the_answers_to_similar_rows():
    model, data = build(widened=True), draw_data(240)
    take_over(model, build(widened=False, seed=1))
    shift_log_odds(model, PRIOR)
    inputs = to_model_inputs(data.inputs.gather(np.arange(ROWS)))
    before = {name: np.asarray(one) for name, one in model(inputs, training=False).items()}
    add_own_evidence(model, (), data, PRIOR)
    after, labels = model(inputs, training=False), data.positive[:ROWS]
    for name in ("eczema_image", "eczema_text"):
        gained = roc_auc_score(labels, after[name][:, 0]) - roc_auc_score(labels, before[name])
        assert gained > 0.1
        assert expit(after[name]).mean() == pytest.approx(labels.mean(), abs=0.05)
    np.testing.assert_array_equal(after["severity"], before["severity"])
    np.testing.assert_array_equal(after["consistency"], before["consistency"])
    # an absent photo counts as the average, which tells nothing
    absent = model({**inputs, IMAGE_PRESENT: keras.ops.zeros(ROWS)}, training=False)
    assert np.ptp(absent["eczema_image"]) == 0
    centre = model.get_layer(WIDE_FEATURES["image"]).missing.numpy()
    assert centre.any()


def test_head_is_scaled_by_its_trust_if_nothing_is_added(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(own_evidence, "choose_ridge", lambda *_: (30.0, np.array([0.5, 0, 0.25])))
    model, data = build(widened=True), draw_data(240)
    take_over(model, build(widened=False, seed=1))
    shift_log_odds(model, PRIOR)
    inputs = to_model_inputs(data.inputs.gather(np.arange(ROWS)))
    before = np.asarray(model(inputs, training=False)["eczema_text"])
    add_own_evidence(model, (), data, PRIOR)
    after = model(inputs, training=False)["eczema_text"]
    np.testing.assert_allclose(after, PRIOR + 0.5 * (before - PRIOR) + 0.25, atol=1e-5)


def test_too_few_groups_add_nothing(capsys: pytest.CaptureFixture):
    model, data = build(widened=True), draw_data(240)
    take_over(model, build(widened=False, seed=1))
    before = model.get_weights()
    few = replace(data, groups=np.where(data.positive, "one", data.groups))
    add_own_evidence(model, (), few, PRIOR)
    for value, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)
    assert "text: 1 positive and 40 other groups" in capsys.readouterr().err


def test_base_run_cannot_be_combined_with_fine_tuning():
    with pytest.raises(ConfigError, match=r"base_run keeps .* fine_tune.epochs: 2"):
        load_config(
            None, ["train.base_run=runs/a", "train.fine_tune={epochs: 2, image_from: block}"]
        )


def settings(folder: Path, **changed: object) -> list[str]:
    values = {
        "data.embeddings": folder / "e.npz",
        "data.manifest": folder / "m.csv",
        "train.cache_folder": folder.parent / "cache",
        "train.epochs": 1,
        "export.enabled": "false",
        **changed,
    }
    return [argument for key, value in values.items() for argument in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the data in `a`, labelled as built-in; `b`, next to it, has other data."""
    folder = tmp_path_factory.mktemp("own")
    save_data(folder / "a", range(80), source=["synthetic"] * 80)
    save_data(folder / "b", range(1000, 1120))
    given = ["--config", str(SMOKE), *settings(folder / "a"), "--run-dir", str(folder / "base")]
    assert train.main(given) == 0
    return folder / "base"


def add(base: Path, run: str, **changed: object) -> int:
    own = settings(base.parent / "b", **{"train.base_run": base, **changed})
    return train.main(["--config", str(SMOKE), *own, "--run-dir", str(base.parent / run)])


def test_run_keeps_the_weights_of_its_base_and_says_so(base: Path, capsys: pytest.CaptureFixture):
    assert (
        add(base, "added", **{"export.enabled": "true", "export.folder": base.parent / "out"}) == 0
    )
    run = base.parent / "added"
    assert "largest difference from Keras" in capsys.readouterr().out
    trained = run_folder.load_model(run)
    assert trained.encoders.widened
    old, new = (
        run_folder.load_model(folder).model.get_layer("text_projection").get_weights()
        for folder in (base, run)
    )
    np.testing.assert_array_equal(old[0], new[0])  # the base's own weights are kept
    data = RunData.read(run / run_folder.DATA)
    assert data.base is not None
    assert data.base.splits is None
    assert data.learned_from == {"image", "text"}
    card = (run / "model_card.md").read_text()
    assert "added to the model of base" in card
    assert "| fine-tuning | as in that model |" in card
    said = "trained on other data, of 80 cases (synthetic (80); licence: "
    assert said in card
    # whatever the base has seen, this run has seen, too
    given = ["--run-dir", str(run), "--manifest", str(base.parent / "a" / "m.csv")]
    given += ["--embeddings", str(base.parent / "a" / "e.npz"), "--split", "all"]
    assert evaluate.main(given) == 1
    assert "was in training or validation" in capsys.readouterr().err


def test_modality_that_the_base_has_not_learned_from_is_left_out(
    base: Path, capsys: pytest.CaptureFixture
):
    """A photo head that was never trained must not answer."""
    columns = {"image_path": ["", "a.jpg"], "text": ["itchy", "dry"]}
    given = settings(base.parent / "b", **{"train.base_run": base})[1::2]
    rows, whole = pd.DataFrame(columns), load_base(load_config(SMOKE, given))
    assert list_modalities(rows, None) == ["image", "text"]
    assert not capsys.readouterr().err
    told = whole._replace(trained=replace(whole.trained, learned_from=frozenset({"text"})))
    assert list_modalities(rows, told) == ["text"]
    assert "has not learned from the image" in capsys.readouterr().err


def test_base_that_has_seen_the_evaluated_cases_is_refused(
    base: Path, capsys: pytest.CaptureFixture
):
    own = base.parent / "a"
    changed = {"data.manifest": own / "m.csv", "data.embeddings": own / "e.npz"}
    assert add(base, "seen", **changed) == 1
    assert "was in training or validation" in capsys.readouterr().err
    assert add(base, "allowed", **changed, **{"data.allow_leaks": "true"}) == 0
    leaks = Metrics.read(base.parent / "allowed" / run_folder.METRICS).leaks
    assert leaks is not None
    assert leaks.leaks


def test_base_with_another_model_or_question_is_refused(base: Path, capsys: pytest.CaptureFixture):
    assert add(base, "other", **{"model.fusion": "late", "model.embedding_units": 5}) == 1
    error = capsys.readouterr().err
    assert "model.fusion: is 'late' here and 'concat' there" in error
    assert "model.embedding_units: is 5" in error
    assert add(base, "none", **{"train.base_run": base.parent / "nowhere"}) == 1
    assert "contains no trained model" in capsys.readouterr().err
    asked = save_data(base.parent / "q", range(2000, 2080), positive_class=["malignant"] * 80)
    files = {"data.manifest": asked / "m.csv", "data.embeddings": asked / "e.npz"}
    assert add(base, "question", **files) == 1
    assert "they ask for malignant, but train.base_run for eczema" in capsys.readouterr().err
    wide = save_data(base.parent / "w", range(4000, 4080), dimension=9)
    files = {"data.manifest": wide / "m.csv", "data.embeddings": wide / "e.npz"}
    assert add(base, "wide", **files) == 1
    said = "their embeddings have 9 values, but those of train.base_run have 6"
    assert said in capsys.readouterr().err


def test_notice_says_so_if_model_has_seen_only_synthetic_photos(base: Path):
    built_in = RunData.read(base / run_folder.DATA)
    assert built_in.built_in
    none = built_in.counts.model_copy(update={"image_only": 0, "both": 0})
    added = built_in.model_copy(
        update={"sources": {"clinic": 80}, "counts": none, "base": built_in}
    )
    assert not added.built_in
    assert added.notice == f"{NEVER_SEEN_PHOTOS} {NOTICE}"
    again = added.model_copy(update={"base": added})
    assert again.notice == added.notice
    with_photos = added.model_copy(update={"counts": built_in.counts})
    again = added.model_copy(update={"base": with_photos})
    assert with_photos.notice == again.notice == NOTICE


def test_card_names_all_data_of_a_model_and_their_licences(base: Path):
    first = RunData.read(base / run_folder.DATA).model_copy(
        update={"sources": {"hospital": 80}, "provenance": {"licence": "CC BY-NC 4.0"}}
    )
    second, third = (
        first.model_copy(update={"sources": {name: 80}, "provenance": {"licence": "CC0"}})
        for name in ("clinic", "office")
    )
    second = second.model_copy(update={"base": first})
    third = third.model_copy(update={"base": second})
    assert third.licences == ["CC0", "CC BY-NC 4.0"]
    said = " ".join(describe_data(replace(run_folder.read_run_facts(base, Config()), data=third)))
    assert "(clinic (80); licence: CC0)" in said
    assert "(hospital (80); licence: CC BY-NC 4.0)" in said
