"""Tests the model: its layers, losses and encoders, missing modalities, and cached features."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from eczema_tf.config import FineTuneConfig, ImageConfig, ModelConfig, TextConfig, TrainConfig
from eczema_tf.data.cache import ArrayCache
from eczema_tf.data.inputs import Column, Inputs
from eczema_tf.errors import PresetError, RunError
from eczema_tf.model.branches import IMAGE_FEATURES
from eczema_tf.model.encoders import (
    EncoderSpec,
    build_encoder,
    specify_image_encoder,
    specify_text_encoder,
)
from eczema_tf.model.features import compute_features, frozen_encoders, weights_digest
from eczema_tf.model.fusion import FUSIONS
from eczema_tf.model.layers import (
    AnyWindow,
    CumulativeLogits,
    HeldWindows,
    MaskedPooling,
    MissingModality,
    ModalityDropout,
    WindowMean,
)
from eczema_tf.model.losses import (
    FindingsCrossentropy,
    build_losses,
    compute_probabilities,
    compute_targets,
)
from eczema_tf.model.multimodal import Encoders, build_model, encoder_of, heads_of
from eczema_tf.schema import (
    HEADS,
    IMAGE,
    IMAGE_PRESENT,
    PADDING_MASK,
    SEVERITY_HEADS,
    TEXT_PRESENT,
    TOKEN_IDS,
)

SMALL = ModelConfig(embedding_units=8, text=TextConfig(preset=None, pooling="max"))
TINY_BERT = {
    "vocabulary_size": 50,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
    "max_sequence_length": 16,
}


def scratch_encoders(size_px: int = 32) -> Encoders:
    return Encoders(
        specify_image_encoder(ImageConfig(preset=None, size_px=size_px)),
        specify_text_encoder(TextConfig(preset=None), 50),
    )


def pretrained_encoders() -> Encoders:
    """Encoders marked as pretrained, with random weights; what matters is that they are frozen."""
    image = specify_image_encoder(ImageConfig(preset=None, size_px=32)).model_copy(
        update={"pretrained": True}
    )
    return Encoders(
        image,
        EncoderSpec(
            kind="BertBackbone", settings={**TINY_BERT, "name": "text_encoder"}, pretrained=True
        ),
    )


def batch(rows: int = 5, tokens: int = 7, size_px: int = 32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = (np.arange(tokens) < rng.integers(2, tokens + 1, (rows, 1))).astype("int32")
    return {
        IMAGE: rng.uniform(0, 255, (rows, size_px, size_px, 3)).astype("float32"),
        IMAGE_PRESENT: np.ones(rows, "float32"),
        TOKEN_IDS: (rng.integers(5, 50, (rows, tokens)) * mask).astype("int32"),
        PADDING_MASK: mask,
        TEXT_PRESENT: np.ones(rows, "float32"),
    }


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_model(SMALL, scratch_encoders())


def run(model: keras.Model, inputs: dict, **changes) -> dict[str, np.ndarray]:
    return {
        head: np.asarray(value)
        for head, value in model({**inputs, **changes}, training=False).items()
    }


def test_layers_and_outputs_have_the_expected_names_and_shapes(model: keras.Model):
    names = {layer.name for layer in model.layers}
    assert {
        "image_encoder",
        "text_encoder",
        "image_projection",
        "text_projection",
        "fusion_concat",
        IMAGE_FEATURES,
        *HEADS,
    } <= names
    shapes = {head: value.shape for head, value in run(model, batch()).items()}
    assert shapes == {
        "eczema_image": (5, 1),
        "eczema_text": (5, 1),
        "eczema": (5, 1),
        "consistency": (5, 3),
        **dict.fromkeys(SEVERITY_HEADS.values(), (5, 2)),
        **dict.fromkeys(("image_distance", "text_distance", "side"), (5,)),
    }


def test_single_heads_see_only_their_own_modality(model: keras.Model):
    inputs, absent = batch(), np.zeros(5, "float32")
    full = run(model, inputs)
    np.testing.assert_allclose(
        full["eczema_text"], run(model, inputs, **{IMAGE_PRESENT: absent})["eczema_text"], atol=1e-6
    )
    np.testing.assert_allclose(
        full["eczema_image"],
        run(model, inputs, **{TEXT_PRESENT: absent})["eczema_image"],
        atol=1e-6,
    )


def test_padding_does_not_change_the_answer(model: keras.Model):
    inputs = batch()
    padded = {name: np.pad(inputs[name], ((0, 0), (0, 9))) for name in (TOKEN_IDS, PADDING_MASK)}
    for head, value in run(model, inputs).items():
        np.testing.assert_allclose(value, run(model, inputs, **padded)[head], atol=1e-5)


def test_row_gets_the_same_answer_alone_as_in_a_batch(model: keras.Model):
    inputs = batch()
    together = run(model, inputs)
    alone = run(model, {name: value[2:3] for name, value in inputs.items()})
    for head in HEADS:
        np.testing.assert_allclose(alone[head][0], together[head][2], atol=1e-5)


def test_missing_modality_is_replaced_by_a_trainable_vector():
    layer = MissingModality()
    layer([np.ones((2, 4)), np.array([1.0, 0.0])])
    layer.missing.assign([5, 6, 7, 8])
    np.testing.assert_array_equal(
        layer([np.ones((2, 4)), np.array([1.0, 0.0])]), [[1, 1, 1, 1], [5, 6, 7, 8]]
    )
    assert len(layer.trainable_weights) == 1


def test_modality_dropout_never_drops_both_modalities():
    keras.utils.set_random_seed(0)
    layer, rng = ModalityDropout(0.4), np.random.default_rng(0)
    image, text = (rng.integers(0, 2, 4000).astype("float32") for _ in range(2))
    kept_image, kept_text = (np.asarray(kept) for kept in layer([image, text], training=True))
    both = (image + text) == 2
    np.testing.assert_array_equal(kept_image[~both], image[~both])
    np.testing.assert_array_equal(kept_text[~both], text[~both])
    assert (kept_image + kept_text)[both].min() == 1
    assert ((kept_image + kept_text)[both] == 1).mean() == pytest.approx(0.4, abs=0.05)
    assert (kept_image[both] == 0).mean() == pytest.approx(0.2, abs=0.04)
    for before, after in zip((image, text), layer([image, text], training=False), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("mean", [2.0, -3.0]), ("max", [3.0, -2.0]), ("mean_max", [2.0, -3.0, 3.0, -2.0])],
)
def test_pooling_ignores_padding(kind: str, expected: list[float]):
    tokens = np.array([[[1.0, -4.0], [3.0, -2.0], [99.0, 99.0]], [[9.0, 9.0]] * 3])
    pooled = np.asarray(MaskedPooling(kind)([tokens, np.array([[1, 1, 0], [0, 0, 0]])]))
    np.testing.assert_allclose(pooled, [expected, [0.0] * len(expected)])


def test_windows_are_means_of_real_tokens_whatever_the_padding():
    tokens = np.arange(10, dtype="float32").reshape(1, 5, 2)
    mask = np.array([[1, 1, 1, 1, 0]])
    windows = np.asarray(WindowMean(3)([tokens, mask]))
    np.testing.assert_allclose(windows, [[[2, 3], [6, 7]]])  # of tokens 0 to 2, and of token 3
    padding = [(0, 0), (0, 4)]
    padded = np.asarray(WindowMean(3)([np.pad(tokens, [*padding, (0, 0)]), np.pad(mask, padding)]))
    np.testing.assert_array_equal(padded, [[[2, 3], [6, 7], [0, 0]]])
    np.testing.assert_array_equal(HeldWindows()(padded), [[1, 1, 0]])


def test_finding_in_any_window_counts_for_the_whole_text():
    logits = np.array([[[5.0, -9.0], [-9.0, -9.0], [99.0, 99.0]]])
    somewhere = np.asarray(AnyWindow()([logits, np.array([[1.0, 1.0, 0.0]])]))
    # log(e^5 + e^-9), log(2 e^-9): the window of padding does not count
    np.testing.assert_allclose(somewhere, [[5.0, -9 + np.log(2)]], atol=1e-5)


def test_findings_loss_is_a_sum_of_binary_crossentropies():
    said, logits = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[2.0, -1.0], [0.0, 0.0]])
    expected = [np.log1p(np.exp(-2)) + np.log1p(np.exp(-1)), 2 * np.log(2)]
    loss = FindingsCrossentropy(reduction=None)(said, logits)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_cumulative_logits_never_rise_whatever_the_weights():
    layer = CumulativeLogits(4)
    layer(np.zeros((1, 1)))
    for steps in ([-50.0, 0.0], [3.0, -1.0]):
        layer.steps.assign(steps)
        logits = np.asarray(layer(np.linspace(-5, 5, 11)[:, None]))
        assert (np.diff(logits, axis=1) <= 0).all()


def test_ordinal_loss_grows_with_the_distance_between_grades():
    """A confident "severe" costs less if the truth is "moderate" than if it is "mild"."""
    severe = np.array([[6.0, 6.0]])
    costs = [
        float(build_losses()["severity"](np.array([truth]), severe))
        for truth in ([0.0, 0.0], [1.0, 0.0], [1.0, 1.0])
    ]
    assert costs[0] > costs[1] > costs[2]
    assert costs[1] == pytest.approx(
        (np.log1p(np.exp(-6)) + 6 + np.log1p(np.exp(-6))) / 2, rel=1e-4
    )  # computed by hand


def test_loss_of_a_soft_label_is_lowest_at_its_own_probability():
    loss = build_losses()["eczema"]
    costs = [
        float(loss(np.array([[0.3]]), np.array([[np.log(p / (1 - p))]]))) for p in (0.2, 0.3, 0.4)
    ]
    assert min(costs) == costs[1]


def test_targets_encode_eczema_consistency_and_severity():
    targets = compute_targets(
        np.array([1, 0.25, np.nan]),
        np.array(["unclear", "", "eczema"]),
        np.array(["mild", "severe", ""]),
    )
    np.testing.assert_allclose(targets["eczema"], [[1], [0.25], [0]])
    np.testing.assert_array_equal(targets["consistency"], [[0, 0, 1], [0, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(targets["severity"], [[0, 0], [1, 1], [0, 0]])


def test_probabilities_match_hand_computed_values_and_sum_to_one(model: keras.Model):
    logits = {
        head: np.zeros((1, 1), "float32") for head in ("eczema", "eczema_image", "eczema_text")
    }
    logits |= {
        "consistency": np.log([[0.2, 0.3, 0.5]]),
        "severity": np.log([[0.8 / 0.2, 0.3 / 0.7]]),
    }
    out = {head: np.asarray(value) for head, value in compute_probabilities(logits).items()}
    assert out["eczema"] == pytest.approx([0.5])
    np.testing.assert_allclose(out["consistency"], [[0.2, 0.3, 0.5]], rtol=1e-5)
    np.testing.assert_allclose(out["severity"], [[0.2, 0.5, 0.3]], rtol=1e-5)
    for head, values in compute_probabilities(model(batch())).items():
        assert np.asarray(values).min() >= 0
        if head in ("consistency", "severity"):
            np.testing.assert_allclose(np.asarray(values).sum(-1), 1, rtol=1e-5)


def inputs_of(arrays: dict[str, np.ndarray]) -> Inputs:
    rows = len(arrays[IMAGE])
    columns = {
        name: Column(values, np.arange(rows), f"digest of {name}")
        for name, values in arrays.items()
    }
    token_counts = arrays[PADDING_MASK].sum(1).astype("int64")
    return Inputs(columns, token_counts, np.full(rows, "", object))


@pytest.mark.parametrize("frozen", [{"image"}, {"text"}, {"image", "text"}])
@pytest.mark.parametrize(
    ("pooling", "fusion"),
    [("mean", "concat"), ("mean_max", "concat"), *(("max", fusion) for fusion in FUSIONS)],
)
@pytest.mark.parametrize("findings", [(), ("dry", "itchy")])
def test_cached_features_give_the_same_answers_as_the_whole_model(
    frozen: set[str], pooling: str, fusion: str, findings: tuple[str, ...], tmp_path
):
    keras.utils.set_random_seed(0)
    config = ModelConfig(embedding_units=8, fusion=fusion, text=TextConfig(pooling=pooling))
    encoders = replace(pretrained_encoders(), findings=findings)
    model, arrays = build_model(config, encoders), batch()
    features = compute_features(model, inputs_of(arrays), frozen, ArrayCache(tmp_path))
    cached = heads_of(model, frozen)(features.gather(np.arange(5)), training=False)
    for head, value in run(model, arrays).items():
        # token features are cached as float16
        np.testing.assert_allclose(cached[head], value, atol=2e-3)
    assert len(list(tmp_path.iterdir())) == len(frozen)
    trained_by_features = {id(weight) for weight in heads_of(model, frozen).trainable_weights}
    assert trained_by_features < {id(weight) for weight in model.trainable_weights}


def test_cached_features_of_other_weights_are_not_used(tmp_path):
    model, arrays = build_model(SMALL, pretrained_encoders()), batch()
    before = compute_features(model, inputs_of(arrays), {"image"}, ArrayCache(tmp_path)).gather(
        np.arange(5)
    )["image_summary"]
    kernel = model.get_layer("image_encoder").get_layer("stage1_conv1").kernel
    kernel.assign(np.asarray(kernel) + 0.1)
    after = compute_features(model, inputs_of(arrays), {"image"}, ArrayCache(tmp_path)).gather(
        np.arange(5)
    )["image_summary"]
    assert np.abs(before - after).max() > 1e-3


def test_weights_digest_does_not_depend_on_trainability():
    encoder = build_model(SMALL, pretrained_encoders()).get_layer("image_encoder")
    loaded = weights_digest(encoder)
    encoder.trainable = False
    assert weights_digest(encoder) == loaded


def test_photos_that_are_all_absent_are_not_encoded(tmp_path):
    model, nobody = build_model(SMALL, pretrained_encoders()), np.zeros(5, "float32")
    inputs = inputs_of({**batch(), IMAGE_PRESENT: nobody})
    features = compute_features(model, inputs, {"image"}, ArrayCache(tmp_path))
    assert len(features.columns["image_summary"].values) == 0
    assert not features.gather(np.arange(5))["image_summary"].any()
    assert not list(tmp_path.iterdir())


def test_cached_features_of_another_pooling_are_not_used(tmp_path):
    widths = []
    for pooling in ("mean", "mean_max"):
        model = build_model(ModelConfig(text=TextConfig(pooling=pooling)), pretrained_encoders())
        features = compute_features(
            model, inputs_of(batch()), {"text"}, ArrayCache(tmp_path)
        ).gather(np.arange(5))
        widths.append(features["text_pooling"].shape[1])
    assert widths[1] == 2 * widths[0]


@pytest.mark.parametrize(
    ("fine_tune", "frozen"),
    [
        ({}, {"image", "text"}),
        ({"image_from": "stage1"}, {"image", "text"}),  # epochs is 0
        ({"epochs": 1, "image_from": "stage1"}, {"text"}),
        ({"epochs": 1, "image_from": "stage1", "text_from": "transformer"}, set()),
    ],
)
def test_pretrained_encoders_are_frozen_unless_fine_tuned(fine_tune: dict, frozen: set[str]):
    train = TrainConfig(fine_tune=FineTuneConfig(**fine_tune))
    assert frozen_encoders(train, pretrained_encoders()) == frozen
    assert not frozen_encoders(train, scratch_encoders())


def test_weights_digest_does_not_depend_on_layer_counters():
    digests = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        model = build_model(SMALL, pretrained_encoders())
        digests.append(
            [weights_digest(encoder_of(model, modality)) for modality in ("image", "text")]
        )
    assert digests[0] == digests[1]


def test_weights_digest_does_not_depend_on_nested_models_built_before():
    """`train` has built the encoder before; `evaluate`, in its own process, has not."""
    digests = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        image = keras.Input((8, 8, 3))
        inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])
        digests.append(weights_digest(keras.Model(image, inner(image))))
    assert digests[0] == digests[1]
    keras.utils.set_random_seed(3)
    inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3, strides=2)])
    assert weights_digest(keras.Model(image, inner(image))) != digests[0]


@pytest.mark.parametrize("kind", ["os.system", "BertTokenizer", "nonsense"])
def test_unknown_encoder_kind_is_refused(kind: str):
    with pytest.raises(RunError, match="encoder kind"):
        build_encoder(EncoderSpec(kind=kind, settings={}, pretrained=False))


@pytest.mark.parametrize("preset", ["./no/such/folder", "no_such_preset_name_at_all"])
def test_error_for_an_unavailable_preset_lists_ways_to_provide_it(preset: str):
    with pytest.raises(
        PresetError,
        match=(
            r"\(1\) all_minilm_l6_v2_en.*\(2\) another KerasHub preset name.*\(3\) a local KerasHub"
            r" preset folder.*\(4\) a Hugging Face folder"
        ),
    ):
        specify_image_encoder(ImageConfig(preset=preset))


@pytest.mark.parametrize(
    "keras_json", ['{"image_data_format": "channels_first"}', '{"floatx": "float16"}']
)
def test_incompatible_keras_configuration_is_refused(tmp_path, keras_json):
    (tmp_path / "keras.json").write_text(keras_json)
    command = [sys.executable, "-m", "eczema_tf.train", "--config", "configs/smoke.yaml"]
    command += ["--run-dir", str(tmp_path / "run"), "--set", f"data.synthetic.folder={tmp_path}"]
    environment = {**os.environ, "KERAS_HOME": str(tmp_path)}
    environment.pop("KERAS_BACKEND", None)
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "correct ~/.keras/keras.json" in done.stderr.splitlines()[-1]


def test_keras_backend_other_than_tensorflow_is_refused():
    command = [sys.executable, "-m", "eczema_tf.train"]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "KERAS_BACKEND is 'jax'; only 'tensorflow' is supported" in done.stderr
