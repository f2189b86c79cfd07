"""Tests for training: what is learned, stopping and resuming, fine-tuning and scaling."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from test_encoder_families import efficientnet, mobilenet_v3

from eczema_tf.config import AugmentConfig, Config, ImageConfig
from eczema_tf.data.cache import ArrayCache
from eczema_tf.data.inputs import Column, Inputs, to_model_inputs
from eczema_tf.data.pipeline import build_evaluation_dataset, build_training_dataset
from eczema_tf.errors import ConfigError, RunError
from eczema_tf.model.encoders import (
    EncoderSpec,
    build_encoder,
    specify_image_encoder,
    specify_text_encoder,
)
from eczema_tf.model.features import predict_logits
from eczema_tf.model.inner_map import FINE_CELLS
from eczema_tf.model.losses import compute_targets
from eczema_tf.model.multimodal import Encoders, build_model, heads_of
from eczema_tf.model.trunk import TRUNK, encode_views, split_at, top_of
from eczema_tf.schema import (
    DISTANCES,
    ECZEMA_HEADS,
    HEADS,
    IMAGE,
    IMAGE_PRESENT,
    MODALITIES,
    PADDING_MASK,
    TEXT_PRESENT,
    TOKEN_IDS,
)
from eczema_tf.training import callbacks, stages
from eczema_tf.training.callbacks import KeepBest, compute_case_auroc
from eczema_tf.training.checkpoints import copy_weights
from eczema_tf.training.data import TrainingData, balance_labels, build_training_data
from eczema_tf.training.device import prepare_device
from eczema_tf.training.familiarity import find_typical, fit_distances
from eczema_tf.training.loop import LayerwiseAdamW, Stage, compile_for_training, train_stage
from eczema_tf.training.stacking import find_scales, fit_scale, scale_log_odds
from eczema_tf.training.stages import (
    Judged,
    share_rates,
    shift_log_odds,
    train_model,
    unfreeze_from,
)

ROWS, SIZE_PX = 24, 16


def config_of(**train) -> Config:
    return Config.parse(
        {
            "model": {
                "image": {"preset": None, "size_px": SIZE_PX},
                "text": {"preset": None, "pooling": "max"},
                "embedding_units": 16,
                "dropout": 0.0,
                "modality_dropout": 0.0,
            },
            "train": {
                "batch_size": 8,
                "learning_rate": 0.002,
                "warmup_epochs": 0.0,
                "weight_decay": 0.0,
                **train,
            },
        }
    )


def make_data() -> TrainingData:
    """Makes noise, which can be memorised but not generalised."""
    rng, rows = np.random.default_rng(0), np.arange(ROWS)
    eczema = rng.permutation(np.arange(ROWS) % 2).astype(float)
    grades = np.array(["mild", "moderate", "severe"])[rng.integers(0, 3, ROWS)]
    consistency = np.array(["eczema", "other", "unclear"])[rng.integers(0, 3, ROWS)]
    arrays = {
        IMAGE: rng.integers(0, 256, (ROWS, SIZE_PX, SIZE_PX, 3)).astype("uint8"),
        IMAGE_PRESENT: np.ones(ROWS, "float32"),
        TOKEN_IDS: rng.integers(5, 50, (ROWS, 6)).astype("int32"),
        PADDING_MASK: np.ones((ROWS, 6), "int32"),
        TEXT_PRESENT: np.ones(ROWS, "float32"),
    }
    columns = {name: Column(values, rows, name) for name, values in arrays.items()}
    inputs = Inputs(columns, np.full(ROWS, 6), np.full(ROWS, "", object))
    weights = {head: np.ones(ROWS, "float32") for head in HEADS}
    targets = compute_targets(eczema, consistency, grades)
    labelled, cases = np.ones(ROWS, bool), rows.astype(str)
    prevalence, none = float(eczema.mean()), np.array([], "int64")
    return TrainingData(
        inputs, targets, weights, eczema > 0.5, labelled, cases, cases, prevalence, rows, rows, none
    )


def repeat_rows(inputs: Inputs, rows: int) -> Inputs:
    """Repeats the rows of `make_data` over and over."""
    again = np.arange(rows) % ROWS
    columns = {
        name: replace(column, index=column.index[again]) for name, column in inputs.columns.items()
    }
    return replace(
        inputs,
        columns=columns,
        token_counts=inputs.token_counts[again],
        text_notices=inputs.text_notices[again],
    )


def make_model(config: Config) -> keras.Model:
    prepare_device(config.train, config.seed)
    encoders = Encoders(
        specify_image_encoder(config.model.image), specify_text_encoder(config.model.text, 50)
    )
    return build_model(config.model, encoders)


def train(
    model: keras.Model, data: TrainingData, config: Config, run_dir: Path
) -> list[dict[str, float]]:
    stage = Stage("heads", config.train.epochs, config.train.learning_rate)
    return train_stage(heads_of(model, (), HEADS), data, stage, config, run_dir)


def test_model_can_memorise_a_single_batch():
    data = make_data()
    batch = np.arange(8)
    data = replace(data, train_rows=batch, val_rows=batch)
    config = config_of(learning_rate=0.01)
    model = heads_of(make_model(config), (), HEADS)
    compile_for_training(model, data, Stage("heads", 60, 0.01), config.train)
    inputs = {
        name: np.asarray(value, "int32" if value.dtype == "int32" else "float32")
        for name, value in data.inputs.gather(batch).items()
    }
    targets = {head: values[batch] for head, values in data.targets.items()}
    losses = [float(np.ravel(model.train_on_batch(inputs, targets))[0]) for _ in range(60)]
    logits = model(inputs, training=True)
    assert losses[-1] < 0.15 * losses[0]
    for head in ("eczema", "eczema_image", "eczema_text"):
        np.testing.assert_array_equal(np.asarray(logits[head]) > 0, targets[head] > 0.5)
    np.testing.assert_array_equal(
        np.asarray(logits["consistency"]).argmax(1), targets["consistency"].argmax(1)
    )
    np.testing.assert_array_equal(np.asarray(logits["severity"]) > 0, targets["severity"] > 0.5)


def test_zero_weights_leave_the_layers_of_other_heads_unchanged():
    """If only one head has weights above 0, no layer that only other heads use may move."""
    data, config = make_data(), config_of(epochs=1)
    weights = {head: np.full(ROWS, float(head == "eczema_image"), "float32") for head in HEADS}
    model = heads_of(make_model(config), (), HEADS)
    before = {
        layer.name: [np.copy(w.numpy()) for w in layer.trainable_weights] for layer in model.layers
    }
    compile_for_training(model, data, Stage("heads", 1, 0.01), config.train)
    inputs = data.inputs.gather(np.arange(ROWS))
    model.train_on_batch(
        {n: v.astype("int32" if v.dtype == "int32" else "float32") for n, v in inputs.items()},
        data.targets,
        weights,
    )
    moved = {layer.name for layer in model.layers if has_moved(layer, before[layer.name])}
    assert {"image_encoder", "image_projection", "eczema_image"} <= moved
    assert not moved & {
        "text_encoder",
        "text_projection",
        "eczema_text",
        "consistency",
        "severity",
        "fusion_hidden",
        "eczema",
    }


def has_moved(layer: keras.Layer, before: list[np.ndarray]) -> bool:
    return any(
        (weight.numpy() != value).any()
        for weight, value in zip(layer.trainable_weights, before, strict=True)
    )


def test_killed_run_resumes_to_the_same_weights(tmp_path: Path):
    config = config_of(epochs=3)
    config = config.model_copy(
        update={"model": config.model.model_copy(update={"dropout": 0.3, "modality_dropout": 0.3})}
    )
    whole = make_model(config)
    history = train(whole, make_data(), config, tmp_path / "whole")

    class Killed(KeepBest):
        """Dies at the end of the second epoch, after saving."""

        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            if epoch == 1:
                raise KeyboardInterrupt

    broken = make_model(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eczema_tf.training.loop.KeepBest", Killed)
        with pytest.raises(KeyboardInterrupt):
            train(broken, make_data(), config, tmp_path / "broken")
    resumed = make_model(config)
    history_again = train(resumed, make_data(), config, tmp_path / "broken")
    for expected, got in zip(copy_weights(whole), copy_weights(resumed), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)
    assert [row["epoch"] for row in history_again] == [1, 2, 3]
    assert history_again[-1]["loss"] == pytest.approx(history[-1]["loss"], abs=1e-5)


def test_finished_stage_is_not_trained_again(tmp_path: Path):
    config, data = config_of(epochs=2), make_data()
    first = make_model(config)
    train(first, data, config, tmp_path)
    again = make_model(config.model_copy(update={"seed": 5}))
    train(again, data, config, tmp_path)
    for expected, got in zip(copy_weights(first), copy_weights(again), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_checkpoint_of_another_model_is_a_clear_error(tmp_path: Path):
    config, data = config_of(epochs=1), make_data()
    train(make_model(config), data, config, tmp_path)
    other = config.model_copy(
        update={"model": config.model.model_copy(update={"embedding_units": 8})}
    )
    with pytest.raises(RunError, match="does not fit this run"):
        train(make_model(other), data, other, tmp_path)


def test_non_finite_loss_stops_the_run_and_names_the_step(tmp_path: Path):
    config, data = config_of(epochs=2), make_data()
    targets = {**data.targets, "eczema": np.full((ROWS, 1), np.nan, "float32")}
    with pytest.raises(RunError, match="loss is nan at step 1 of epoch 1"):
        train(make_model(config), replace(data, targets=targets), config, tmp_path)


def test_non_finite_validation_loss_after_the_last_step_is_an_error(tmp_path: Path):
    config = config_of(epochs=2, batch_size=ROWS, learning_rate=1e30)  # one step per epoch
    with pytest.raises(RunError, match=r"validation loss is nan; lower train\.learning_rate"):
        train(make_model(config), make_data(), config, tmp_path)


def test_patience_ends_the_run_soon_after_the_best_epoch(tmp_path: Path):
    config, data = config_of(epochs=20, patience=2, learning_rate=0.01, keep="best"), make_data()
    model, weights = make_model(config), []

    class Noting(KeepBest):
        """Notes the weights after each epoch."""

        def on_epoch_end(self, epoch, logs=None):
            weights.append(copy_weights(model))
            super().on_epoch_end(epoch, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eczema_tf.training.loop.KeepBest", Noting)
        history = train(model, data, config, tmp_path)
    best = int(np.argmax([row["val_auroc_fusion"] for row in history]))
    assert len(history) == len(weights) == best + 1 + 2 < 20
    for now, then in zip(copy_weights(model), weights[best], strict=True):
        np.testing.assert_array_equal(now, then)
    assert list((tmp_path / "tensorboard" / "heads").rglob("events*"))
    assert train(make_model(config), data, config, tmp_path) == history  # no further epoch


def test_best_weights_are_restored_when_training_ends(tmp_path: Path):
    model, keeper = make_model(config_of()), KeepBest(tmp_path / "kept.npz", patience=2)
    keeper.set_model(model)
    keeper.start_from({})
    best = copy_weights(model)
    model.set_weights([weight + 1 for weight in best])
    keeper.on_train_end()
    for now, then in zip(copy_weights(model), best, strict=True):
        np.testing.assert_array_equal(now, then)


def test_validation_auroc_is_computed_per_case():
    logits, labels = np.array([1.0, 3.0, 1.5, 0.0]), np.array([False, False, True, False])
    cases = np.array(["a", "a", "b", "c"])  # means 2.0, 1.5, 0.0
    assert compute_case_auroc(logits, labels, cases) == 0.5
    assert compute_case_auroc(logits[2:], labels[2:], cases[2:]) == 1.0
    without_b = np.array([0, 1, 3])
    assert compute_case_auroc(logits[without_b], labels[without_b], cases[without_b]) is None
    assert compute_case_auroc(logits[:0], labels[:0], cases[:0]) is None


def test_grades_are_not_learned_from_cases_without_eczema():
    data = make_data()
    table = pd.DataFrame(
        {
            "eczema": 0.0,
            "consistency": "",
            "severity": "mild",
            "case_id": range(ROWS),
            "group_id": "a",
        }
    )
    table.loc[[0, 1, 2], "eczema"] = [1.0, 1.0, np.nan]
    splits = pd.Series(["train"] * 12 + ["val"] * 12)
    weights = build_training_data(config_of(), table, data.inputs, splits).weights["severity"]
    np.testing.assert_array_equal(weights, [1] * 3 + [0] * 21)


def test_balanced_labels_match_hand_computation():
    eczema = np.array([1.0, 0.0, 0.0, 0.0, 0.5, np.nan])
    targets, weights = balance_labels(eczema, prevalence=0.25)  # a = 2, b = 2 / 3
    np.testing.assert_allclose(targets, [1, 0, 0, 0, 0.75, np.nan])
    np.testing.assert_allclose(weights, [2, 2 / 3, 2 / 3, 2 / 3, 4 / 3, np.nan])
    assert weights[:4].mean() == pytest.approx(1)


def test_undoing_the_balance_of_soft_labels_restores_the_mean_label():
    """Two points: the votes at one are 0.2 and 0.6 (mean 0.4), at the other 0 and 0.2 (0.1)."""
    votes, point, prevalence = np.array([0.2, 0.6, 0.0, 0.2]), np.array([0, 0, 1, 1]), 0.25
    targets, weights = balance_labels(votes, prevalence)
    # the cross-entropy of a constant is smallest at the weighted mean of its targets
    least = np.bincount(point, weights * targets) / np.bincount(point, weights)
    log_odds = np.log(least / (1 - least)) + np.log(prevalence / (1 - prevalence))
    np.testing.assert_allclose(1 / (1 + np.exp(-log_odds)), [0.4, 0.1])


@pytest.mark.parametrize("balance", [True, False])
def test_mean_probability_matches_the_mean_share_of_five_votes(tmp_path: Path, balance: bool):
    """Each of five voters says eczema with a probability that photo and text determine."""
    rows, rng = 3000, np.random.default_rng(0)
    embeddings, words = rng.normal(size=(rows, 4)).astype("float32"), rng.integers(5, 15, rows)
    log_odds = 1.5 * embeddings[:, 0] + 0.4 * (words - 9.5) - 1.5
    votes = rng.binomial(5, 1 / (1 + np.exp(-log_odds))) / 5
    arrays = {
        IMAGE: embeddings,
        TOKEN_IDS: np.stack([np.full(rows, 2), words, np.full(rows, 3)], axis=1).astype("int32"),
        PADDING_MASK: np.ones((rows, 3), "int32"),
        IMAGE_PRESENT: np.ones(rows, "float32"),
        TEXT_PRESENT: np.ones(rows, "float32"),
    }
    index = np.arange(rows)
    columns = {name: Column(values, index, name) for name, values in arrays.items()}
    inputs = Inputs(columns, np.full(rows, 3), np.full(rows, "", object))
    table = pd.DataFrame(
        {"eczema": votes, "consistency": "", "severity": "", "case_id": index, "group_id": ""}
    )
    config = config_of(epochs=6, batch_size=100, balance_classes=balance, keep="last")
    data = build_training_data(config, table, inputs, pd.Series(["train"] * rows))
    encoders = Encoders(
        EncoderSpec(kind="precomputed", settings={}, pretrained=True, dimension=4),
        specify_text_encoder(config.model.text, 50),
    )
    prepare_device(config.train, config.seed)
    model = build_model(config.model, encoders)
    train_model(model, encoders, data, config, tmp_path)
    for head, logits in model.predict(arrays, batch_size=1000, verbose=0).items():
        if head in ECZEMA_HEADS.values():
            assert (1 / (1 + np.exp(-logits))).mean() == pytest.approx(votes.mean(), abs=0.01), head


def test_shift_log_odds_moves_only_the_eczema_logits_by_a_constant():
    data, config = make_data(), config_of()
    model = make_model(config)
    inputs = {
        n: v.astype("int32" if v.dtype == "int32" else "float32")
        for n, v in data.inputs.gather(np.arange(4)).items()
    }
    before = model(inputs)
    shift_log_odds(model, -1.5)
    after = model(inputs)
    for head in ("eczema", "eczema_image", "eczema_text"):
        np.testing.assert_allclose(after[head] - before[head], -1.5, rtol=1e-4)
    for head in ("consistency", "severity"):
        np.testing.assert_array_equal(after[head], before[head])


def test_fine_tuning_starts_at_the_named_block_and_leaves_batch_norm_frozen():
    model = make_model(config_of())
    encoder = model.get_layer("image_encoder")
    encoder.trainable = False
    unfreeze_from(encoder, "stage3", "key")
    trainable = {layer.name for layer in encoder.layers if layer.trainable and layer.weights}
    assert trainable == {"stage3_conv1", "stage3_conv2", "stage4_conv1", "stage4_conv2"}
    with pytest.raises(
        ConfigError,
        match=r"train\.fine_tune\.image_from: no layer's name begins with 'block9'.*stage1_conv1",
    ):
        unfreeze_from(encoder, "block9", "train.fine_tune.image_from")


def test_encoder_without_layers_cannot_be_fine_tuned():
    encoder = build_encoder(specify_image_encoder(ImageConfig(), embedding_dimension=4))
    for first in ("block", "embedding"):
        with pytest.raises(ConfigError, match=rf"^key: .* cannot be fine-tuned.*'{first}', set it"):
            unfreeze_from(encoder, first, "key")


def test_encoder_from_scratch_cannot_be_fine_tuned():
    config = config_of(fine_tune={"epochs": 1, "image_from": "stage4"})
    model = make_model(config)
    encoders = Encoders(
        specify_image_encoder(config.model.image), specify_text_encoder(config.model.text, 50)
    )
    with pytest.raises(
        ConfigError, match=r"image_from: .* no pretrained weights .*is from scratch"
    ):
        stages.try_fine_tuning(model, encoders, config.train.fine_tune)


@pytest.mark.parametrize("alone", [{"epochs": 2}, {"lora_rank": 4}])
def test_fine_tuning_requires_image_from_or_text_from(alone: dict):
    with pytest.raises(ConfigError, match=r"needs image_from or text_from, received"):
        config_of(fine_tune=alone)


def test_views_are_encoded_up_to_the_cut_and_used_in_turn(tmp_path: Path):
    model, data = make_model(config_of()), make_data()
    trunk, upper = split_at(model, "stage3")
    augment, cache = AugmentConfig(rotation_deg=180.0), ArrayCache(tmp_path)
    inputs = encode_views(trunk, data.inputs, 2, augment, 0, cache)
    rows = np.arange(ROWS)

    # === The part above the cut gives the same logits as the whole model ===
    top = top_of(model, trunk, upper, [], HEADS)
    whole = predict_logits(model, build_evaluation_dataset(data.inputs, rows, 8))
    above = predict_logits(top, build_evaluation_dataset(inputs, rows, 8))
    for head in ECZEMA_HEADS.values():
        np.testing.assert_allclose(above[head], whole[head], atol=5e-3)  # float16
    below = {weight.path for weight in trunk.weights}
    assert below
    assert below.isdisjoint(weight.path for weight in top.weights)

    # === An epoch has every row once, with one view of its photo; the next has the other view ===
    views = inputs.columns[TRUNK].values.reshape(3, ROWS, *trunk.output.shape[1:])
    assert len({view.tobytes() for view in views}) == 3
    for epoch in range(2):
        batches = build_training_dataset(
            inputs,
            {"row": rows},
            {},
            rows,
            batch_size=8,
            epochs=range(epoch, epoch + 1),
            seed=0,
            views=2,
        )
        taken = [
            (row, seen)
            for batch, target, _ in batches.as_numpy_iterator()
            for row, seen in zip(target["row"], batch[TRUNK], strict=True)
        ]
        assert sorted(row for row, _ in taken) == list(rows)
        for row, seen in taken:
            np.testing.assert_array_equal(seen, views[1 + (epoch + row) % 2][row])


def test_fine_tuning_with_views_trains_only_layers_above_the_cut(tmp_path: Path):
    tuning = {"epochs": 1, "learning_rate": 0.01, "image_from": "stage3", "views": 2}
    cache = str(tmp_path / "cache")
    config, data = config_of(epochs=1, fine_tune=tuning, cache_folder=cache), make_data()
    model = make_model(config)
    image = specify_image_encoder(config.model.image).model_copy(update={"pretrained": True})
    encoders = Encoders(image, specify_text_encoder(config.model.text, 50))
    before = {layer: read_kernels(model, layer) for layer in ("stage1", "stage2", "stage3")}
    history = train_model(model, encoders, data, config, tmp_path)
    assert (len(history.heads), len(history.fine_tune)) == (1, 1)
    moved = {
        layer: not np.array_equal(read_kernels(model, layer), kernels)
        for layer, kernels in before.items()
    }
    assert moved == {"stage1": False, "stage2": False, "stage3": True}
    (kept,) = (tmp_path / "cache").glob("image_views*")  # kept for the next run
    assert np.load(kept).shape[0] == 3 * ROWS  # the original photos and two views


def read_kernels(model: keras.Model, layer: str) -> np.ndarray:
    return np.array(model.get_layer("image_encoder").get_layer(f"{layer}_conv1").kernel)


def make_pretrained(fusion: str, size_px: int = SIZE_PX) -> keras.Model:
    settings = {**efficientnet("v1").get_config(), "name": "image_encoder"}
    image = EncoderSpec(
        kind="EfficientNetBackbone", settings=settings, pretrained=True, size_px=size_px
    )
    config = config_of().model
    return build_model(
        config.model_copy(update={"fusion": fusion}),
        Encoders(image, specify_text_encoder(config.text, 50)),
    )


def test_encoder_is_not_cut_where_data_flows_around_the_cut():
    model = make_pretrained("cross_attention")
    blocks = [layer.name for layer in model.get_layer("image_encoder").layers if layer.weights]
    with pytest.raises(ConfigError, match="cannot be cut before"):
        split_at(model, blocks[-3])
    with pytest.raises(ConfigError, match="cannot be cut before 'block99'"):
        split_at(model, "block99")


def test_encoder_with_a_measured_texture_is_cut_below_its_map(tmp_path: Path):
    size_px = 32  # maps of 16 and of 8 cells a side
    model, data = make_pretrained("concat", size_px), make_data()
    photos = np.random.default_rng(0).integers(0, 256, (ROWS, size_px, size_px, 3)).astype("uint8")
    columns = data.inputs.columns | {IMAGE: Column(photos, np.arange(ROWS), "photos")}
    data = replace(data, inputs=replace(data.inputs, columns=columns))
    with pytest.raises(ConfigError, match="cannot be cut before 'block99'"):
        split_at(model, "block99")
    blocks = [layer.name for layer in model.get_layer("image_encoder").layers if layer.weights]
    trunk, upper = split_at(model, blocks[-3])
    assert min(trunk.output.shape[1:3]) >= FINE_CELLS
    inputs = encode_views(trunk, data.inputs, 0, AugmentConfig(), 0, ArrayCache(tmp_path))
    top, rows = top_of(model, trunk, upper, [], HEADS), np.arange(ROWS)
    whole = predict_logits(model, build_evaluation_dataset(data.inputs, rows, 8))
    above = predict_logits(top, build_evaluation_dataset(inputs, rows, 8))
    for head in ECZEMA_HEADS.values():
        np.testing.assert_allclose(above[head], whole[head], atol=5e-3)  # float16


def test_typical_photo_features_average_the_roots_of_training_rows():
    model, data = make_model(config_of()), make_data()
    fit_distances(model, [], data)
    told = predict_logits(
        heads_of(model, [], ["typical_photo"]),
        build_evaluation_dataset(data.inputs, data.train_rows, 8),
    )["typical_photo"][data.inputs.present("image")[data.train_rows]]
    typical = model.get_layer("typical_photo").typical
    np.testing.assert_allclose(typical, np.sqrt(told).mean(axis=0) ** 2, rtol=1e-5)
    assert np.any(typical)
    np.testing.assert_allclose(find_typical(np.array([[4.0, -1.0], [0.0, -9.0]])), [1, -4])


def test_training_photos_that_are_all_identical_count_as_known():
    model, data = make_model(config_of()), make_data()
    column, name = data.inputs.columns[IMAGE], DISTANCES["image"]
    alike = replace(column, values=np.repeat(column.values[:1], len(column.values), axis=0))
    inputs = replace(data.inputs, columns=data.inputs.columns | {IMAGE: alike})
    limits = fit_distances(model, [], replace(data, inputs=inputs))
    assert limits["image"] > 0
    seen = data.train_rows[inputs.present("image")[data.train_rows]]
    batches = build_evaluation_dataset(inputs, seen, 8)
    assert (predict_logits(heads_of(model, [], [name]), batches)[name] <= 1).all()


def test_each_layer_learns_at_its_share_of_the_learning_rate():
    encoder = make_model(config_of()).get_layer("image_encoder")
    unfreeze_from(encoder, "stage3", "key")
    shares = share_rates(encoder, 0.125)
    by_layer = {path.split("/")[-2]: share for path, share in shares.items()}
    assert list(by_layer.values()) == pytest.approx([0.125, 0.25, 0.5, 1.0])
    assert list(by_layer) == ["stage3_conv1", "stage3_conv2", "stage4_conv1", "stage4_conv2"]

    slow, fast = keras.Variable([1.0], name="slow"), keras.Variable([1.0], name="fast")
    optimizer = LayerwiseAdamW(0.1, rates={slow.path: 0.125}, weight_decay=0.0)
    optimizer.build([slow, fast])
    optimizer.apply([np.ones(1, "float32")] * 2)  # Adam's first step is as long as the rate
    assert [1 - slow.numpy()[0], 1 - fast.numpy()[0]] == pytest.approx([0.0125, 0.1], rel=1e-4)


@pytest.mark.parametrize(
    "build",
    [
        lambda: make_model(config_of()).get_layer("image_encoder"),
        lambda: efficientnet("v1"),
        lambda: efficientnet("fused"),
        lambda: efficientnet("unfused"),
        mobilenet_v3,
    ],
)
def test_fine_tuning_leaves_the_batch_norm_of_every_backbone_unchanged(build):
    encoder = build()
    encoder.trainable = False
    unfreeze_from(encoder, encoder.layers[1].name, "key")
    statistics = [weight for weight in encoder.weights if "moving" in weight.path]
    before = [weight.numpy() for weight in statistics]
    encoder(np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32"), training=True)
    assert statistics
    assert encoder.trainable_weights
    assert not [weight.path for weight in encoder.trainable_weights if "gamma" in weight.path]
    for weight, value in zip(statistics, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


@pytest.mark.parametrize("tuned", [False, True])
def test_frozen_encoder_has_no_dropout_with_or_without_a_cache(tuned: bool, tmp_path: Path):
    """Otherwise dropout would change what the heads learn from one run to the next."""
    bert = {
        "vocabulary_size": 50,
        "num_layers": 1,
        "num_heads": 2,
        "hidden_dim": 8,
        "intermediate_dim": 16,
        "max_sequence_length": 16,
        "dropout": 0.5,
        "name": "text_encoder",
    }
    text = EncoderSpec(kind="BertBackbone", settings=bert, pretrained=True)
    kernels = []
    for cache_features in (True, False):
        config = config_of(
            epochs=2,
            cache_features=cache_features,
            cache_folder=str(tmp_path / f"cache-{cache_features}"),
            fine_tune={"epochs": int(tuned), "image_from": "stage4"},
        )
        image = specify_image_encoder(config.model.image).model_copy(update={"pretrained": True})
        encoders = Encoders(image, text)
        prepare_device(config.train, config.seed)
        model = build_model(config.model, encoders)
        run_dir = tmp_path / str(cache_features)
        run_dir.mkdir()
        train_model(model, encoders, make_data(), config, run_dir)
        kernels.append(model.get_layer("eczema_joint").kernel.numpy())
        kept = list((tmp_path / f"cache-{cache_features}").iterdir())
        assert len(kept) == (2 if cache_features else 0)
        assert not list(run_dir.rglob("*features*"))
    np.testing.assert_array_equal(*kernels)


def test_keep_best_chooses_the_best_or_the_last_epoch(tmp_path: Path):
    class Model:
        stop_training = False

    for last, expected in ((False, 0), (True, 2)):
        keep = KeepBest(tmp_path / f"{last}.npz", patience=10, last=last)
        keep.set_model(Model())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(callbacks, "copy_weights", lambda model: [])
            patch.setattr(callbacks, "save_state", lambda *arguments: None)
            for epoch, score in enumerate((0.9, 0.5, 0.6)):
                keep.on_epoch_end(epoch, {"val_auroc_fusion": score})
        assert keep.progress.best_epoch == expected


@pytest.mark.parametrize("architecture", ["vit", "deit"])
def test_vision_transformer_is_fine_tuned_from_a_given_block(architecture: str):
    encoder = build_encoder(
        specify_image_encoder(ImageConfig(architecture=architecture, size_px=32))
    )
    unfreeze_from(encoder, "transformer_block_3", "key")
    trained = {weight.path for weight in encoder.trainable_weights}
    assert any("transformer_block_3" in path for path in trained)
    assert not any(
        "transformer_block_1" in path or "transformer_block_2" in path or "patch" in path
        for path in trained
    )
    with pytest.raises(ConfigError, match="transformer_block_1"):
        unfreeze_from(encoder, "no_such_block", "key")


def test_fit_scale_finds_the_slope_of_each_part():
    """One part claims three times what it knows, and one is only noise."""
    rng = np.random.default_rng(0)
    honest, boastful, noise = rng.normal(0, 2, (3, 20000))
    chances = 1 / (1 + np.exp(-(honest + boastful / 3 - 1 + 0.4)))
    labels = (rng.random(20000) < chances).astype(float)
    parts, weights = np.stack([honest, boastful, noise], axis=1), np.ones(20000)
    found = fit_scale(parts, -1.0, labels, weights)
    np.testing.assert_allclose(found, [1, 1 / 3, 0.05, 0.4], atol=0.06)
    few = fit_scale(parts[:3] / 10, -1.0, labels[:3], weights[:3])
    np.testing.assert_allclose(few, [1, 1, 1, 0], atol=0.5)  # three cases change little


def test_scaled_heads_and_fusion_match_hand_computation():
    model = make_model(config_of())
    names, inputs = ("eczema_image", "eczema_text", "eczema"), make_data().inputs
    rows = to_model_inputs(inputs.gather(np.arange(4)))
    for name in names[:2]:
        model.get_layer(name).bias.assign([-0.5])
    model.get_layer("eczema_sum").prior.assign(-0.5)
    kernel = model.get_layer("eczema_joint").kernel
    kernel.assign(np.ones(kernel.shape))
    image, text, both = (np.array(model(rows)[name]) for name in names)
    joint = both - image - text - 0.5  # relative to the prior, -0.5
    scales = {
        "image": np.array([0.5, 0.1]),
        "text": np.array([2, -0.2]),
        "fusion": np.array([0.25, 0.5, 3, 1]),
    }
    scale_log_odds(model, scales, -0.5)
    scaled_image = -0.5 + 0.5 * (image + 0.5) + 0.1
    scaled_text = -0.5 + 2 * (text + 0.5) - 0.2
    scaled = -0.5 + 0.25 * (scaled_image + 0.5) + 0.5 * (scaled_text + 0.5) + 3 * joint + 1
    for name, expected in zip(names, (scaled_image, scaled_text, scaled), strict=True):
        np.testing.assert_allclose(model(rows)[name], expected, atol=1e-5)


def test_fusion_loss_does_not_train_the_single_heads_of_cases_with_both(tmp_path: Path):
    data, config = make_data(), config_of(epochs=1)
    weights = {head: np.full(ROWS, float(head == "eczema"), "float32") for head in HEADS}
    model = make_model(config)
    singles = [model.get_layer(name) for name in ("eczema_image", "eczema_text")]
    before = [np.copy(weight.numpy()) for layer in singles for weight in layer.weights]
    train(model, replace(data, weights=weights), config, tmp_path)
    after = [weight.numpy() for layer in singles for weight in layer.weights]
    for expected, got in zip(before, after, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_scales_are_found_for_each_kind_of_row_or_taken_as_given(tmp_path: Path):
    data, config = make_data(), config_of(epochs=1)
    model = make_model(config)
    encoders = Encoders(
        specify_image_encoder(config.model.image), specify_text_encoder(config.model.text, 50)
    )
    train_model(model, encoders, data, config, tmp_path)
    assert not np.any(np.array(model.get_layer("eczema_sum").slopes) == 1)
    absent = replace(data.inputs.columns[TEXT_PRESENT], values=np.zeros(ROWS, "float32"))
    columns = {**data.inputs.columns, TEXT_PRESENT: absent}
    alone = replace(data, inputs=replace(data.inputs, columns=columns))
    found = find_scales(model, alone, 0.0)
    assert [len(found[name]) for name in ("image", "text", "fusion")] == [2, 2, 4]
    np.testing.assert_array_equal(found["text"], [1, 0])
    np.testing.assert_array_equal(found["fusion"], [1, 1, 1, 0])
    assert found["image"][0] != 1
    same = {"image": np.array([1, 0]), "text": np.array([1, 0]), "fusion": np.array([0.5, 2, 1, 0])}
    judged = Judged(same, {"image": 3.0, "text": 4.0})
    train_model(model, encoders, data, config, tmp_path, judged)
    assert [model.get_layer(f"{name}_distance").limit for name in MODALITIES] == [3, 4]
    np.testing.assert_array_equal(model.get_layer("eczema_sum").slopes, [0.5, 2, 1])


@pytest.mark.parametrize("findings", [(), ("dry", "itchy")])
def test_text_grade_has_a_higher_learning_rate_with_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, findings: tuple[str, ...]
):
    config, stages_run = config_of(epochs=1), []
    encoders = Encoders(
        specify_image_encoder(config.model.image),
        specify_text_encoder(config.model.text, 50),
        findings,
    )
    model = build_model(config.model, encoders)

    def note_stage(_: keras.Model, __: TrainingData, stage: Stage, *rest: object) -> None:
        stages_run.append(stage)
        raise InterruptedError

    monkeypatch.setattr(stages, "train_stage", note_stage)
    with pytest.raises(InterruptedError):
        train_model(model, encoders, make_data(), config, tmp_path)
    weights = model.get_layer("severity_text_score").weights
    expected = {weight.path: 10.0 for weight in weights} if findings else {}
    assert dict(stages_run[0].rates) == expected
