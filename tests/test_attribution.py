"""Tests explanations: heatmaps, token scores, contributions, the served signature, `explain`."""

import asyncio
import functools
import io
import json
import re
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tf_keras_vis.layercam import Layercam

from eczema_tf.config import ImageConfig, ModelConfig, PreprocessConfig, TextConfig
from eczema_tf.data.inputs import to_model_inputs
from eczema_tf.data.photo.upright import upright_jpeg
from eczema_tf.data.text.tokenizer import clean_text, learn_tokenizer
from eczema_tf.errors import ConfigError
from eczema_tf.explain import main as explain_main
from eczema_tf.explanation import photo_evidence
from eczema_tf.explanation.contributions import Contributions, split_evidence
from eczema_tf.explanation.heatmaps import HEATMAP_METHODS, compute_heatmaps
from eczema_tf.explanation.maps import HEATMAP_METHOD, upsample_heatmap
from eczema_tf.explanation.neutral_text import find_neutral_text
from eczema_tf.explanation.one_pass import explain_in_one_pass, show_evidence
from eczema_tf.explanation.path_integral import GROUP
from eczema_tf.explanation.photo_evidence import (
    LEAST,
    NOISY_COPIES,
    ZOOM,
    PhotoEvidence,
    add_noisy_copies,
    compute_layercam,
    fill_up,
    locate_evidence,
    measure_scale,
    spread_evidence,
)
from eczema_tf.explanation.spans import Span, join_phrases, join_words
from eczema_tf.explanation.submodels import (
    CONTEXT,
    RAMP,
    TARGETS,
    EvidenceScale,
    Submodels,
    select_logit,
    smooth_gradient,
)
from eczema_tf.explanation.token_scores import NODES, score_tokens
from eczema_tf.model.encoders import specify_image_encoder, specify_text_encoder
from eczema_tf.model.fusion import FUSIONS
from eczema_tf.model.multimodal import Encoders, build_model
from eczema_tf.reporting.answer import Answer
from eczema_tf.schema import (
    DISTANCES,
    HEADS,
    IMAGE,
    IMAGE_PRESENT,
    OUTPUTS,
    PADDING_MASK,
    TEXT_PRESENT,
    TOKEN_IDS,
)
from eczema_tf.serving.answering import Question, answer_case
from eczema_tf.serving.graph.served_model import ServedModel, save_served
from eczema_tf.workflows.explain import RunBackend

SIZE_PX = 32
TEXTS = ["my skin is itchy and dry", "the rash is red", "itchy"]
TOKENIZER = learn_tokenizer(TEXTS * 5, 100, 16)


def build_case(
    fusion: str = "concat",
    image: str = "small",
    text: str = "small",
    dimension: int | None = None,
    size_px: int = SIZE_PX,
    last_layers: int = 1,
    pretrained: bool = False,
    textures: bool = False,
):
    keras.utils.set_random_seed(0)
    spec = specify_image_encoder(ImageConfig(size_px=size_px, architecture=image), dimension)
    spec = spec.model_copy(update={"pretrained": spec.pretrained or pretrained})
    text_spec = specify_text_encoder(
        TextConfig(architecture=text, max_tokens=16), len(TOKENIZER.vocabulary)
    ).model_copy(update={"last_layers": last_layers})
    encoders = Encoders(spec, text_spec)
    config = ModelConfig(embedding_units=8, fusion=fusion, image={"textures": textures})
    model = build_model(config, encoders)
    # untrained heads give nearly 0 for everything, so scale them up to make differences visible
    for head in ("eczema_image", "eczema_text"):
        model.get_layer(head).kernel.assign(model.get_layer(head).kernel * 20)
    return model, spec


def batch(model: keras.Model) -> dict[str, np.ndarray]:
    ids, mask = tf.function(TOKENIZER)(clean_text(tf.constant([*TEXTS, ""])))
    return {
        IMAGE: (
            np.random.default_rng(0)
            .uniform(0, 255, (4, *model.input[IMAGE].shape[1:]))
            .astype("float32")
        ),
        IMAGE_PRESENT: np.array([1, 1, 0, 1], "float32"),
        TOKEN_IDS: ids.numpy(),
        PADDING_MASK: mask.numpy(),
        TEXT_PRESENT: np.array([1, 1, 1, 0], "float32"),
    }


def score(submodels: Submodels, inputs, target: str = "eczema", nodes: int = NODES):
    tensors = to_model_inputs(inputs)
    features = submodels.encode_image(tensors[IMAGE]), submodels.encode_text(tensors)
    return score_tokens(submodels, *features, tensors, target, nodes)


@pytest.fixture(scope="module")
def small():
    model, _ = build_case()
    return Submodels(model), batch(model)


@pytest.mark.parametrize(
    ("image", "text", "last_layers", "fusion"),
    [
        ("small", "small", 1, "cross_attention"),
        ("vit", "bert", 1, "cross_attention"),
        ("efficientnet", "bert", 2, "cross_attention"),
        ("efficientnet", "small", 1, "concat"),
        ("efficientnet", "small", 1, "textures"),
    ],
)
def test_submodels_give_the_same_outputs_as_the_whole_model(
    image: str, text: str, last_layers: int, fusion: str
):
    told, fusion = fusion == "textures", fusion.replace("textures", "concat")
    model, _ = build_case(
        fusion, image, text, size_px=96, last_layers=last_layers, pretrained=True, textures=told
    )
    textures = [layer.name for layer in model.layers if layer.name.startswith("image_texture")]
    measured = 0 if image != "efficientnet" or fusion != "concat" else 2 if told else 1
    assert len(textures) == measured
    # until it is fitted, the distance layer treats every photo as known
    directions = model.get_layer("image_distance").directions
    directions.assign(np.random.default_rng(0).normal(0, 0.1, directions.shape))
    inputs, submodels = batch(model), Submodels(model)
    tensors = to_model_inputs(inputs)
    photo = submodels.encode_image(tensors[IMAGE])
    outputs = submodels.compute_logits(photo, submodels.encode_text(tensors), tensors)
    assert outputs.keys() == set(OUTPUTS)
    assert np.ptp(outputs["image_distance"]) > 1e-4
    for name, expected in model.predict_on_batch(inputs).items():
        np.testing.assert_allclose(outputs[name], expected, atol=1e-5, rtol=1e-5)
    assert submodels.has_feature_map
    fine_map = submodels.to_fine_map(tensors[IMAGE], training=False)
    sides = [ZOOM * side for side in fine_map.shape[1:3]]
    assert compute_heatmaps(submodels, inputs).shape == (4, *sides)


@pytest.mark.parametrize(("image", "cells"), [("small", 12), ("efficientnet", 12), ("vit", 12)])
def test_fine_map_has_twelve_cells_a_side_and_splits_the_encoder_exactly(image: str, cells: int):
    model, _ = build_case(image=image, size_px=96, pretrained=True)
    submodels, photos = Submodels(model), to_model_inputs(batch(model))[IMAGE]
    fine_map = submodels.to_fine_map(photos, training=False)
    assert fine_map.shape[1:3] == (cells, cells)
    features = submodels.from_fine_map(fine_map)[1]
    np.testing.assert_allclose(features, submodels.encode_image(photos), atol=1e-5)
    maps = compute_heatmaps(submodels, batch(model))
    assert maps.shape == (4, ZOOM * cells, ZOOM * cells)
    np.testing.assert_allclose(
        explain_in_one_pass(submodels, to_model_inputs(batch(model))).heatmap, maps, atol=1e-5
    )


def test_unknown_heatmap_method_is_refused():
    model, _ = build_case("concat")
    with pytest.raises(ConfigError, match="method 'magic': allowed: evidence, layercam, gradcam"):
        compute_heatmaps(Submodels(model), batch(model), method="magic")


@pytest.mark.parametrize("fusion", FUSIONS)
def test_one_pass_gives_the_same_explanation_as_the_offline_methods(fusion: str):
    model, _ = build_case(fusion)
    submodels, inputs = Submodels(model), batch(model)
    explained = explain_in_one_pass(submodels, to_model_inputs(inputs))
    np.testing.assert_allclose(explained.heatmap, compute_heatmaps(submodels, inputs), atol=1e-5)
    words = score(submodels, inputs)
    # two float32 graphs, whose last bits depend on the processor
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    close(explained.token_scores, words.scores)
    close(explained.contributions, words.contributions)
    both = explained.logits["eczema"][:, 0]
    np.testing.assert_allclose(np.sum(words.contributions, axis=1), both, atol=1e-5)


def test_layercam_matches_tf_keras_vis(small):
    submodels, inputs = small
    photo = keras.Input((SIZE_PX, SIZE_PX, 3))
    fine_map = keras.layers.Activation("linear", name="fine_map")(submodels.to_fine_map(photo))
    others = [keras.Input(tensor.shape[1:]) for tensor in submodels.heads.inputs[1:]]
    features = submodels.from_fine_map(fine_map)[1]
    logits = submodels.heads([features, *others])
    tensors = to_model_inputs(inputs)
    text = submodels.encode_text(tensors)  # (batch, tokens, channels)
    context = [tf.cast(tensors[name], tf.float32) for name in CONTEXT]
    expected = Layercam(keras.Model([photo, *others], logits["eczema"]), clone=False)(
        lambda output: output[:, 0],
        [tensors[IMAGE], text, *context],
        penultimate_layer="fine_map",
        seek_penultimate_conv_layer=False,
        expand_cam=False,
        normalize_cam=False,
    )
    fine_map = submodels.to_fine_map(tensors[IMAGE])
    with tf.GradientTape() as tape:
        tape.watch(fine_map)
        features = submodels.from_fine_map(fine_map)[1]
        logit = submodels.compute_logits(features, text, tensors)["eczema"][:, 0]
    found = compute_layercam(fine_map, tape.gradient(logit, fine_map))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_layercam_matches_a_hand_computed_example():
    features = tf.constant([[[[1.0, 0.0], [2.0, 1.0]], [[-1.0, 3.0], [4.0, 0.0]]]])  # (1, 2, 2, 2)
    # negative gradients count as 0
    gradients = tf.constant([[[[2.0, -1.0], [1.0, 2.0]], [[2.0, -1.0], [-3.0, 5.0]]]])
    np.testing.assert_allclose(compute_layercam(features, gradients), [[[2, 4], [0, 0]]])


def locate(submodels: Submodels, inputs, target: str = "eczema", **options) -> PhotoEvidence:
    tensors = to_model_inputs(inputs)
    return locate_evidence(submodels, submodels.encode_text(tensors), tensors, target, **options)


@pytest.mark.parametrize(("fusion", "textures"), [("concat", True), *((f, False) for f in FUSIONS)])
def test_cells_add_up_to_the_difference_from_a_typical_photo(fusion: str, textures: bool):
    model, _ = build_case(fusion, "efficientnet", size_px=96, pretrained=True, textures=textures)
    submodels, inputs = Submodels(model), to_model_inputs(batch(model))
    typical = model.get_layer("typical_photo").typical
    typical.assign(np.random.default_rng(0).uniform(0, 0.3, typical.shape))
    text, evidence = submodels.encode_text(inputs), locate(submodels, batch(model))
    typical = tf.ones_like(evidence.features) * submodels.find_typical(evidence.features)
    answers = [
        submodels.compute_logits(features, text, inputs)["eczema"][:, 0].numpy()
        for features in (evidence.features, typical)
    ]
    apart = (answers[0] - answers[1]) * inputs[IMAGE_PRESENT].numpy()
    assert np.abs(apart).max() > 0.1
    # a wide tolerance: the scaled-up untrained heads have more kinks on the path than trained ones
    np.testing.assert_allclose(np.sum(evidence.cells, axis=(1, 2)), apart, atol=0.02, rtol=0.04)


@pytest.mark.parametrize("fusion", ["concat", "cross_attention"])
def test_typical_photo_is_scaled_to_the_photos_norm_except_its_textures(fusion: str):
    model, _ = build_case(fusion, "efficientnet", size_px=96, pretrained=True)
    submodels, photos = Submodels(model), to_model_inputs(batch(model))[IMAGE]
    features = submodels.encode_image(photos)
    assert not np.any(submodels.find_typical(features))  # zeros until it is learned
    remembered = model.get_layer("typical_photo").typical
    values = np.random.default_rng(0).uniform(0.1, 0.3, remembered.shape).astype("float32")
    remembered.assign(values)
    typical = np.reshape(submodels.find_typical(features), (4, -1))
    channels = model.get_layer("image_pooling").output.shape[-1]
    pooled = np.reshape(np.mean(features, axis=tuple(range(1, len(features.shape) - 1))), (4, -1))
    lengths = np.linalg.norm(pooled[:, :channels], axis=1)
    direction = values[:channels] / np.linalg.norm(values[:channels])
    np.testing.assert_allclose(typical[:, :channels], lengths[:, None] * direction, rtol=1e-5)
    np.testing.assert_array_equal(typical[:, channels:], np.tile(values[channels:], (4, 1)))


def test_density_adds_up_to_the_cells_that_support_the_target(small):
    submodels, inputs = small
    both = [locate(submodels, inputs, "eczema_image", against=against) for against in (False, True)]
    for evidence in both:
        total = np.maximum(evidence.cells, 0).sum(axis=(1, 2))
        np.testing.assert_allclose(evidence.total, total, rtol=1e-6)
        np.testing.assert_allclose(100 * np.mean(evidence.density, axis=(1, 2)), total, rtol=1e-5)
    np.testing.assert_allclose(both[0].cells, -both[1].cells, atol=1e-6)
    assert (both[0].total + both[1].total).numpy()[[0, 1, 3]].all()


def test_fill_up_divides_missing_evidence_equally_among_cells():
    cells = tf.constant([[[1.0, -3.0]], [[0.0, 0.0]]])
    np.testing.assert_array_equal(fill_up(cells, [6.0, -1.0]), [[[5, 1]], [[-0.5, -0.5]]])


def test_evidence_is_spread_over_the_product_of_coarse_and_fine_map():
    cells, shape = tf.constant([[[1.0, 0.0]]]), tf.constant([[[2.0, 2.0]]])
    density = spread_evidence(tf.constant([8.0]), cells, shape).numpy()
    # bilinear resizing gives two rows of 1, 3/4, 1/4 and 0; each cell is 12.5 hundredths
    np.testing.assert_allclose(density, [[[0.16, 0.12, 0.04, 0]] * 2], rtol=1e-6)
    assert not spread_evidence(tf.constant([8.0]), 0 * cells, shape).numpy().any()


def test_noisy_copies_follow_the_photos_and_always_have_the_same_noise():
    photos = tf.constant(np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)), tf.float32)
    first, second = add_noisy_copies(photos), add_noisy_copies(photos[1:])
    np.testing.assert_array_equal(first[:2], photos)
    np.testing.assert_array_equal(first[1::2], second)
    assert first.shape[0] == 2 * (NOISY_COPIES + 1)
    assert 4 < np.std(first[2:4] - photos) < 9


def test_weak_evidence_is_dimmed_and_below_the_floor_or_unknown_is_hidden():
    density = tf.constant([[[0.1, 0.4]], [[0.2, 0.1]], [[0.01, 0.0]], [[0.2, 0.1]]])
    evidence = PhotoEvidence(tf.zeros(4), density, density, tf.constant([25.0, 15.0, 0.5, 15.0]))
    known = tf.constant([True, True, True, False])
    heatmap, scale = show_evidence(evidence, known, EvidenceScale(floor=1.0, full=0.25))
    np.testing.assert_allclose(scale, [0.4, 0.25, 0.25, 0.25])
    np.testing.assert_allclose(heatmap, [[[0.25, 1]], [[0.8, 0.4]], [[0, 0]], [[0, 0]]])
    heatmap, _ = show_evidence(evidence, known, EvidenceScale())
    np.testing.assert_allclose(heatmap[2], [[1, 0]])


def test_evidence_scale_is_measured_from_the_given_photos(small, monkeypatch):
    submodels, inputs = small
    photos = {name: value[[0, 1, 3]] for name, value in inputs.items()}
    evidence = locate(submodels, photos)
    assert measure_scale(submodels, [to_model_inputs(photos)]).floor >= LEAST
    monkeypatch.setattr(photo_evidence, "LEAST", 0.0)
    found = measure_scale(submodels, [to_model_inputs(photos)])
    peaks = np.max(evidence.density, axis=(1, 2))
    assert found.floor == pytest.approx(np.quantile(evidence.total, 0.05), rel=1e-4)
    assert found.full == pytest.approx(np.median(peaks), rel=1e-4)
    assert measure_scale(submodels, []) == EvidenceScale(0, 0)


def test_photos_unknown_to_the_model_get_an_empty_heatmap():
    model, _ = build_case()
    model.get_layer(DISTANCES["image"]).limit.assign(1e-9)
    assert not compute_heatmaps(Submodels(model), batch(model)).any()


@pytest.mark.parametrize("name", ["relu", "relu6"])
def test_smoothed_relu_keeps_its_values_and_has_a_ramp_as_gradient(name: str):
    relu = keras.layers.Activation(name)
    smooth = smooth_gradient(relu)
    x = tf.constant([-1.0, -RAMP / 2, 0.0, RAMP / 2, 3.0, 6 - RAMP / 2, 6.0, 7.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = smooth(x)
    falling = [0.75, 0.5, 0] if name == "relu6" else [1, 1, 1]
    np.testing.assert_array_equal(values, relu(x))
    np.testing.assert_allclose(tape.gradient(values, x), [0, 0.25, 0.5, 0.75, 1, *falling], 1e-4)


def test_heatmap_is_stable_under_rounding_errors():
    """Noise in the fine map simulates another processor. A ReLU at its kink moved maps by 0.015."""
    submodels = Submodels(build_case(size_px=96)[0])
    inputs, trunk = to_model_inputs(batch(submodels.model)), submodels.to_fine_map
    noise = np.random.default_rng(0).standard_normal(trunk.output.shape[1:]).astype("float32")
    before = explain_in_one_pass(submodels, inputs)
    noisy = np.tile(noise[None], (NOISY_COPIES + 1, 1, 1, 1)).repeat(4, axis=0)
    submodels.to_fine_map = lambda photo, training: trunk(photo) * (1 + 1e-5 * noisy)
    after = explain_in_one_pass(submodels, inputs)
    assert 0 < np.abs(np.subtract(before.heatmap, after.heatmap)).max() < 2e-4


@pytest.mark.parametrize("method", HEATMAP_METHODS)
def test_every_method_gives_maps_in_range_and_zeros_without_a_photo(small, method: str):
    submodels, inputs = small
    maps = compute_heatmaps(submodels, inputs, target="eczema_image", method=method)
    assert maps.shape == ((4, 32, 32) if method == HEATMAP_METHOD else (4, 2, 2))
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert not maps[2].any()


@pytest.mark.parametrize("textures", [False, True])
def test_class_activation_maps_use_the_last_map_that_carries_the_answer(textures: bool):
    model, _ = build_case(image="efficientnet", size_px=96, pretrained=True, textures=textures)
    submodels, inputs = Submodels(model), to_model_inputs(batch(model))
    last_map = submodels.to_last_map(inputs[IMAGE], training=False)
    cells = last_map.shape[1]
    assert (cells == submodels.to_fine_map.output.shape[1]) == textures
    text, photos = submodels.encode_text(inputs), submodels.encode_image(inputs[IMAGE])
    logits, expected = (
        submodels.compute_logits(features, text, inputs)["eczema"]
        for features in (submodels.from_last_map(last_map), photos)
    )
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    maps = compute_heatmaps(submodels, inputs, target="eczema_image", method="gradcam")
    assert maps.shape == (4, cells, cells)


def test_textures_are_refused_if_the_encoder_has_no_inner_maps():
    with pytest.raises(ConfigError, match=r"model\.image\.textures: true needs a pretrained image"):
        build_case("concat", "small", size_px=32, textures=True)


def test_maps_for_and_against_the_target_do_not_overlap(small):
    submodels, inputs = small
    both_ways = [
        compute_heatmaps(
            submodels, inputs, target="eczema_image", method="gradcam", against=against
        )
        for against in (False, True)
    ]
    for_it, against_it = both_ways
    assert not (for_it * against_it).any()
    assert (for_it + against_it)[[0, 1, 3]].any(axis=(1, 2)).all()


@pytest.mark.parametrize("method", HEATMAP_METHODS)
def test_head_has_no_evidence_in_a_photo_that_it_never_sees(small, method: str):
    submodels, inputs = small
    assert not compute_heatmaps(submodels, inputs, target="eczema_text", method=method).any()


def test_head_has_no_evidence_in_a_text_that_it_never_sees(small):
    submodels, inputs = small
    assert not score(submodels, inputs, "eczema_image").scores.numpy().any()


def test_scorecam_follows_the_sign_of_the_answer(capfd: pytest.CaptureFixture):
    model, _ = build_case()
    submodels, inputs = Submodels(model), batch(model)
    head = model.get_layer("eczema_image")
    head.kernel.assign(np.random.default_rng(0).normal(size=head.kernel.shape))
    head.bias.assign([0.3])
    found = partial(compute_heatmaps, submodels, inputs, target="eczema_image", method="scorecam")
    supports, opposes = found(), found(against=True)
    for weight in (head.kernel, head.bias):
        weight.assign(-weight)
    np.testing.assert_allclose(found(), opposes, atol=1e-4)
    np.testing.assert_allclose(found(against=True), supports, atol=1e-4)
    assert supports[0].any()
    assert np.abs(supports - opposes).max() > 0.5
    assert "step" not in capfd.readouterr().out  # no progress bar of each photo


@pytest.mark.parametrize("method", [each for each in HEATMAP_METHODS if each != "scorecam"])
def test_heatmap_is_highest_where_the_deciding_channel_is(method: str):
    """The head reads one channel: first one of the bright corner, then one of the dark rest."""
    model, _ = build_case()
    submodels, inputs = Submodels(model), batch(model)
    inputs[IMAGE][:] = 0
    inputs[IMAGE][:, :12, 20:] = 255
    projection = model.get_layer("image_projection").kernel
    head = model.get_layer("eczema_image").kernel
    head.assign(np.eye(*head.shape))
    features = submodels.to_last_map(to_model_inputs(inputs)[IMAGE]).numpy()[0]  # 2 x 2 cells
    apart = features[0, 1] - features[1, 0]
    for channel, place in ((apart.argmax(), (0, 1)), (apart.argmin(), (1, 0))):
        weights = np.zeros(projection.shape)
        weights[channel, 0] = 1
        projection.assign(weights)
        heatmap = compute_heatmaps(submodels, inputs, target="eczema_image", method=method)[0]
        row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
        assert (2 * row // len(heatmap), 2 * column // len(heatmap)) == place


def test_embeddings_have_no_heatmap():
    model, _ = build_case(dimension=6)
    submodels, inputs = Submodels(model), batch(model)
    with pytest.raises(ConfigError, match="no places"):
        compute_heatmaps(submodels, inputs)
    assert explain_in_one_pass(submodels, to_model_inputs(inputs)).heatmap.shape == (4, 1, 1)


def test_select_logit_accepts_heads_and_labels_and_refuses_others():
    logits = {
        "eczema": tf.constant([[2.0]]),
        "consistency": tf.constant([[1.0, 3.0, 0.0]]),
        "severity": tf.constant([[0.5, -1.0]]),
    }
    assert select_logit(logits, "eczema").numpy() == pytest.approx([2.0])
    assert select_logit(logits, "severity:severe").numpy() == pytest.approx([-1.0])
    probability = np.exp(3) / (np.exp(1) + np.exp(3) + 1)
    assert select_logit(logits, "consistency:other").numpy() == pytest.approx(
        [np.log(probability / (1 - probability))], rel=1e-5
    )
    for wrong in ("severity:mild", "eczema:other", "consistency", "nothing"):
        with pytest.raises(ConfigError, match="allowed: eczema"):
            select_logit(logits, wrong)
    explained = {target.partition(":")[0] for target in TARGETS}
    # severity is explained only for the whole case
    assert set(HEADS) - explained == {"severity_image", "severity_text"}


@pytest.mark.parametrize("text", ["small", "bert"])
@pytest.mark.parametrize("fusion", ["concat", "cross_attention"])
def test_token_scores_add_up_to_the_texts_contribution(text: str, fusion: str):
    model, _ = build_case(fusion, text=text)
    submodels, inputs = Submodels(model), batch(model)
    words = score(submodels, inputs)
    moved = words.contributions.numpy()[:, 2]
    assert np.abs(moved[:3]).min() > 1e-3
    np.testing.assert_allclose(words.scores.numpy().sum(axis=1), moved, atol=0.02, rtol=0.02)
    assert not words.scores[3].numpy().any()  # a row without a text
    assert moved[3] == 0
    assert words.contributions.numpy()[2, 1] == 0  # a row without a photo
    between = np.pad(inputs[PADDING_MASK][:, 2:], [(0, 0), (1, 1)])
    assert not (words.scores.numpy() * (1 - between)).any()  # [CLS], [SEP] and padding


def test_groups_of_nodes_give_the_same_sum_as_one_quadrature(small):
    """24 nodes in three groups give the sum over all 24, which the test adds up itself."""
    submodels, inputs = small
    tensors = to_model_inputs(inputs)
    photo, text = submodels.encode_image(tensors[IMAGE]), submodels.encode_text(tensors)
    roots, weights = np.polynomial.legendre.leggauss(3 * GROUP)
    total = np.zeros(text.shape)
    for share, weight in zip((roots + 1) / 2, weights / 2, strict=True):
        with tf.GradientTape() as tape:
            point = tf.Variable(share * text)
            logit = submodels.compute_logits(photo, point, tensors)["eczema_text"][:, 0]
        total += weight * tape.gradient(logit, point).numpy()
    expected = (total * text.numpy()).sum(axis=(1, 2)) * inputs[TEXT_PRESENT]
    words = score(submodels, inputs, "eczema_text", 3 * GROUP)
    np.testing.assert_allclose(words.scores.numpy().sum(axis=1), expected, atol=1e-5)


def test_token_scores_of_a_linear_logit_are_exact_with_one_node(small):
    """A token's score is its own sum, plus an equal share of what [CLS] and [SEP] move."""
    submodels, inputs = small
    words = score(_Linear(submodels), inputs, nodes=1)
    sums = submodels.encode_text(to_model_inputs(inputs)).numpy().sum(axis=-1)
    tokens = int(inputs[PADDING_MASK][0].sum())
    special = sums[0, 0] + sums[0, tokens - 1]
    expected = sums[0, 1 : tokens - 1] + special / (tokens - 2)
    np.testing.assert_allclose(words.scores[0, 1 : tokens - 1], expected, rtol=1e-4)
    moved = words.contributions.numpy()[:, 2]
    np.testing.assert_allclose(words.scores.numpy().sum(axis=1), moved, atol=1e-4)


def test_neutral_text_gets_the_mean_answer_to_the_given_texts(small):
    submodels, inputs = small
    told = {name: value[:3] for name, value in to_model_inputs(inputs).items()}
    answers = submodels.model.predict_on_batch({name: value[:3] for name, value in inputs.items()})
    neutral = find_neutral_text(submodels, [told])
    tensors = to_model_inputs(inputs)
    silent = tf.ones_like(submodels.encode_text(tensors)) * neutral
    photo = submodels.encode_image(tensors[IMAGE])
    answer = submodels.compute_logits(photo, silent, tensors)["eczema_text"].numpy()[:3, 0]
    np.testing.assert_allclose(answer, answers["eczema_text"].mean(), atol=1e-4)
    # word scores start from this answer, which is the whole starting point without a photo
    words = score(Submodels(submodels.model, neutral), inputs)
    start = words.contributions.numpy()[2, 0]
    assert start == pytest.approx(answers["eczema_text"].mean(), abs=1e-4)
    assert not find_neutral_text(submodels, []).any()


class _Linear(Submodels):
    def __init__(self, submodels: Submodels):
        self.__dict__.update(submodels.__dict__)

    def compute_logits(self, image_features, text_features, inputs):
        mask = tf.cast(inputs[PADDING_MASK], tf.float32)[..., None]
        total = tf.reduce_sum(text_features * mask, axis=(1, 2))
        total *= inputs[TEXT_PRESENT]
        return dict.fromkeys(HEADS, (total + tf.reduce_sum(image_features, axis=-1))[:, None])


def test_word_pieces_are_added_up_to_words():
    tokens = [
        (0, 0, 9, False),
        (0, 4, 1, False),
        (4, 7, 2, True),
        (9, 10, -3, False),
        (0, 0, 9, False),
    ]
    words = join_words("itchier, sore", tokens)
    assert words == [Span(0, 7, "itchier", 3.0), Span(9, 10, "s", -3.0)]


def test_phrases_join_neighbouring_words_of_the_same_sign():
    text = "dry itchy skin. red not sore"
    scores = {
        "dry": 1.0,
        "itchy": 0.5,
        "skin": 0.01,
        ".": 2.0,
        "red": 1.5,
        "not": -0.5,
        "sore": -0.5,
    }
    words = [
        Span(m.start(), m.end(), m.group(), scores[m.group()]) for m in re.finditer(r"\w+|\.", text)
    ]
    phrases = join_phrases(text, words)
    assert [(phrase.text, phrase.score) for phrase in phrases] == [
        ("dry itchy", 1.5),
        ("red", 1.5),
        ("not sore", -1.0),
    ]


def test_phrases_keep_words_of_a_tenth_and_end_with_a_sentence():
    text = "dry sore red; itchy… raw"
    scores = {"dry": -2.0, "sore": -0.2, "red": -0.19, ";": 0.0, "itchy": 1.0, "…": 0.3, "raw": 0.5}
    words = [
        Span(m.start(), m.end(), m.group(), scores[m.group()]) for m in re.finditer(r"\w+|\S", text)
    ]
    phrases = [(phrase.text, phrase.score) for phrase in join_phrases(text, words)]
    assert phrases == [("dry sore", -2.2), ("itchy", 1.0), ("raw", 0.5)]


def test_text_without_scored_words_has_no_phrases():
    assert join_phrases("", []) == []
    assert join_phrases("a", [Span(0, 1, "a", 0.0)]) == []


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ((3.0, 1.0, 1.5, -1.0), Contributions(-1.0, 1.75, 2.25)),
        ((1.0, -1.0, 1.0, -1.0), Contributions(-1.0, 0.0, 2.0)),
    ],
)
def test_contributions_add_up_and_are_zero_for_a_missing_modality(
    logits: tuple[float, ...], expected: Contributions
):
    split = Contributions(*split_evidence(*logits))
    assert split == expected
    assert split.logit == logits[0]


def test_upsampling_stretches_the_heatmap_to_the_photos_size():
    heatmap = np.array([[0, 1], [0, 0]], "float32")
    large = upsample_heatmap(heatmap, 30, 60)
    assert large.shape == (30, 60)
    assert large[2, 57] == pytest.approx(1, abs=0.01)
    assert large[2, 2] == large[28, 2] == 0
    assert np.unravel_index(large.argmax(), large.shape)[1] > 30


# ---- the served signature ----


def test_served_explanation_agrees_with_the_plain_answer_and_adds_up(tmp_path: Path):
    model, spec = build_case()
    kernel = model.get_layer("eczema_image").kernel
    kernel.assign(-kernel / 10)  # so that this photo supports eczema
    submodels = Submodels(model)
    served = ServedModel(
        model=model,
        image_encoder=spec,
        tokenizer=TOKENIZER,
        preprocess=PreprocessConfig(),
        explainer=functools.partial(explain_in_one_pass, submodels),
    )
    save_served(served, tmp_path / "1")
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 3)).astype("uint8")).save(
        buffer, "PNG"
    )
    rows = {
        "image": tf.constant([buffer.getvalue(), b"", b"GIF89a" * 9]),
        "text": tf.constant(["The  rash is itchy", "red & dry", ""]),
    }
    explained, plain = (loaded.signatures[name](**rows) for name in ("explain", "serving_default"))
    for name, value in plain.items():
        if value.dtype == tf.float32:
            np.testing.assert_allclose(explained[name], value, atol=1e-6)
        else:
            np.testing.assert_array_equal(explained[name], value)
    assert explained["clean_text"].numpy().tolist() == [b"The rash is itchy", b"red & dry", b""]
    starts, ends, scores = (
        explained[name].numpy() for name in ("token_start", "token_end", "token_score")
    )
    assert starts.shape == ends.shape == scores.shape
    words = b"".join(
        b"The rash is itchy"[start:end] for start, end in zip(starts[0], ends[0], strict=True)
    )
    assert words == b"Therashisitchy"
    assert scores[0].any()
    assert not scores[2].any()
    assert explained["heatmap"].shape == (3, 32, 32)
    assert (explained["heatmap_scale"].numpy() > 0).tolist() == [True, False, False]
    assert not explained["heatmap"].numpy()[1:].any()
    contribution = explained["contribution"].numpy()
    both = explained["eczema"].numpy()
    np.testing.assert_allclose(contribution.sum(axis=1), np.log(both / (1 - both)), atol=1e-4)
    np.testing.assert_allclose(scores.sum(axis=1), contribution[:, 2], atol=0.02)


# ---- the command ----


@pytest.fixture(scope="module")
def run(main_job: Path) -> Path:
    return main_job / "run"


def jpeg(pixels: np.ndarray, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif, quality=100, subsampling=0)
    return buffer.getvalue()


def test_explain_writes_heatmap_json_and_page(run: Path, main_job: Path, tmp_path: Path):
    photo = tmp_path / "photo.jpg"
    with Image.open(min((main_job / "synthetic" / "photos").iterdir())) as seen:
        lying = seen.convert("RGB").resize((280, 200))
    standing = lying.transpose(Image.Transpose.ROTATE_90)
    photo.write_bytes(jpeg(np.asarray(standing), orientation=6))
    (tmp_path / "other.jpg").write_bytes(jpeg(np.zeros((90, 60, 3), "uint8")))
    text = "My skin <b>is</b> itchy,  no blisters"
    assert (
        explain_main(
            [
                "--run-dir",
                str(run),
                "--image",
                str(photo),
                str(tmp_path / "other.jpg"),
                "--text",
                text,
                "--out",
                str(tmp_path / "why"),
            ]
        )
        == 0
    )
    answer = json.loads((tmp_path / "why" / "explanation.json").read_text())
    assert "not a diagnosis" in answer["notice"]
    split = answer["contributions"]
    assert split["image"] + split["text"] + split["neither"] == pytest.approx(
        split["logit"], abs=1e-5
    )
    for word in answer["text"]["words"]:
        assert text[word["start"] : word["end"]] == word["text"] != ""
    assert "itchy" in {word["text"] for word in answer["text"]["words"]}
    assert {cue["category"]: cue["status"] for cue in answer["text"]["cues"]}["itch"] == "present"
    page = (tmp_path / "why" / "explanation.html").read_text()
    assert "&lt;b&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    with Image.open(tmp_path / "why" / "heatmap.png") as picture:
        width, height = picture.size
    assert width > height  # turned upright, the photo is wider than tall
    assert not (tmp_path / "why" / "heatmap-2.png").exists()  # black, unlike all training photos
    assert [heatmap["known"] for heatmap in answer["heatmaps"]] == [True, False]
    assert [heatmap["method"] for heatmap in answer["heatmaps"]] == ["evidence"] * 2
    assert (answer["photos"], page.count("<figure>")) == (2, 2)


def test_checks_equal_answers_without_each_part_and_words_are_whole(run: Path):
    photo = upright_jpeg(jpeg(np.random.default_rng(0).integers(0, 256, (60, 90, 3), "uint8")))
    text = "my skin is itchy, skinny"  # "skinny" is "skin" and two more pieces
    backend = RunBackend(run, Question())

    def ask(photo: bytes, text: str) -> Answer:
        return asyncio.run(answer_case(backend, [photo] if photo else [], text))

    both = ask(photo, text)
    phrase, without_photo, without_text = both.explanation.checks
    assert without_photo.eczema == pytest.approx(ask(b"", text).eczema["fusion"], abs=1e-6)
    assert without_text.eczema == pytest.approx(ask(photo, "").eczema["fusion"], abs=1e-6)
    first = both.explanation.text.phrases[0]
    rest = f"{text[: first.start]} {text[first.end :]}"
    assert phrase.words == first.text
    assert phrase.eczema == pytest.approx(ask(photo, rest).eczema["fusion"], abs=1e-6)
    assert ask(photo, "").explanation.checks == ()
    words = asyncio.run(answer_case(backend, [], text)).explanation.text.words
    assert [word.text for word in words] == re.findall(r"\w+|,", text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to explain"),
        (["--text", "itchy", "--target", "mood"], "allowed: eczema"),
        (["--image", "missing.jpg"], "no such file"),
        (["--text", "\u200b\x00"], "nothing readable"),
    ],
)
def test_explain_reports_bad_arguments_and_writes_nothing(
    run: Path, tmp_path: Path, capsys, arguments: list[str], said: str
):
    assert explain_main(["--run-dir", str(run), *arguments, "--out", str(tmp_path / "why")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "why").exists()


def test_page_escapes_hostile_text_and_forbids_scripts(run: Path, tmp_path: Path):
    text = "<script>alert(1)</script> itchy \" onmouseover='x' & so on"
    assert (
        explain_main(["--run-dir", str(run), "--text", text, "--out", str(tmp_path / "why")]) == 0
    )
    page = (tmp_path / "why" / "explanation.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "default-src 'none'" in page


def test_explain_reports_a_truncated_text_of_mostly_unknown_words(
    run: Path, tmp_path: Path, capsys
):
    text, out = "zqx " * 600, tmp_path / "why"
    assert explain_main(["--run-dir", str(run), "--text", text, "--out", str(out)]) == 0
    status = json.loads((out / "explanation.json").read_text())["status"]
    assert re.fullmatch(r"text: read to word \d+ of 600; text: mostly words this .*", status)
    assert f"note: {status}" in capsys.readouterr().out
    assert "Text: mostly words this model does not know." in (out / "explanation.html").read_text()


def test_page_without_a_photo_says_so_and_has_no_heatmap(run: Path, tmp_path: Path):
    assert (
        explain_main(["--run-dir", str(run), "--text", "itchy", "--out", str(tmp_path / "why")])
        == 0
    )
    answer = json.loads((tmp_path / "why" / "explanation.json").read_text())
    page = (tmp_path / "why" / "explanation.html").read_text()
    assert "There was no photo, so this answer comes from the text alone." in page
    assert 'id="heatmap-title"' not in page
    assert "heatmap" not in answer
    assert not (tmp_path / "why" / "heatmap.png").exists()
