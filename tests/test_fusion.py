"""Tests what every fusion guarantees: one modality is enough, and an absent one is ignored."""

import keras
import numpy as np
import pytest
from test_model import batch, run, scratch_encoders

from eczema_tf.config import ImageConfig, ModelConfig, TextConfig
from eczema_tf.errors import ConfigError
from eczema_tf.model.branches import IMAGE_FEATURES, SUMMARY
from eczema_tf.model.encoders import specify_image_encoder, specify_text_encoder
from eczema_tf.model.fusion import FUSIONS
from eczema_tf.model.layers import AddedEvidence, PatchGrid
from eczema_tf.model.losses import compute_probabilities
from eczema_tf.model.multimodal import Encoders, build_model, feature_name, heads_of
from eczema_tf.schema import (
    HEADS,
    IMAGE,
    IMAGE_PRESENT,
    OUTPUTS,
    SEVERITY_HEADS,
    TEXT_PRESENT,
    TOKEN_IDS,
)

ABSENT = np.zeros(5, "float32")


@pytest.fixture(scope="module", params=FUSIONS)
def model(request: pytest.FixtureRequest) -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_model(ModelConfig(embedding_units=8, fusion=request.param), scratch_encoders())


def test_config_allows_exactly_the_known_fusions():
    assert set(ModelConfig.model_fields["fusion"].annotation.__args__) == set(FUSIONS)


def test_every_head_gives_finite_logits_whatever_is_absent(model: keras.Model):
    for presence in (
        {},
        {IMAGE_PRESENT: ABSENT},
        {TEXT_PRESENT: ABSENT},
        {IMAGE_PRESENT: ABSENT, TEXT_PRESENT: ABSENT},
    ):
        logits = run(model, batch(), **presence)
        assert {head: value.shape for head, value in logits.items()} == {
            "eczema_image": (5, 1),
            "eczema_text": (5, 1),
            "eczema": (5, 1),
            "consistency": (5, 3),
            **dict.fromkeys(SEVERITY_HEADS.values(), (5, 2)),
            **dict.fromkeys(("image_distance", "text_distance", "side"), (5,)),
        }
        assert all(np.isfinite(value).all() for value in logits.values())


def test_content_of_an_absent_photo_or_text_is_ignored(model: keras.Model):
    inputs = batch()
    rubbish = {IMAGE: np.full_like(inputs[IMAGE], np.nan)}
    photoless, again = (
        run(model, inputs, **{IMAGE_PRESENT: ABSENT, **change}) for change in ({}, rubbish)
    )
    textless, other = (
        run(model, inputs, **{TEXT_PRESENT: ABSENT, TOKEN_IDS: ids})
        for ids in (inputs[TOKEN_IDS], inputs[TOKEN_IDS][::-1].copy())
    )
    for head in HEADS:
        np.testing.assert_array_equal(photoless[head], again[head])
        np.testing.assert_allclose(textless[head], other[head], atol=1e-6)


def test_both_modalities_move_the_answer(model: keras.Model):
    inputs = batch()
    full = run(model, inputs)["eczema"]
    assert np.abs(full - run(model, inputs, **{IMAGE: 255 - inputs[IMAGE]})["eczema"]).max() > 1e-6
    assert (
        np.abs(
            full - run(model, inputs, **{TOKEN_IDS: inputs[TOKEN_IDS][::-1].copy()})["eczema"]
        ).max()
        > 1e-6
    )


@pytest.mark.parametrize("model", [name for name in FUSIONS if name != "late"], indirect=True)
def test_every_trainable_weight_of_the_fusion_gets_a_gradient(model: keras.Model):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        logits = model(batch(), training=False)
        loss = tf.reduce_sum(logits["eczema"] ** 2) + tf.reduce_sum(logits["severity"] ** 2)
    fusion = [
        weight
        for layer in model.layers
        if layer.name.startswith("fusion")
        for weight in layer.trainable_variables
    ]
    assert fusion
    gradients = tape.gradient(loss, [weight.value for weight in fusion])
    assert all(gradient is not None for gradient in gradients)


def test_heads_on_cached_features_answer_like_the_whole_model(model: keras.Model):
    inputs = batch()
    name = feature_name(model, "image")
    assert name == (
        IMAGE_FEATURES if any(layer.name == "fusion_regions" for layer in model.layers) else SUMMARY
    )
    features = keras.Model(model.input[IMAGE], model.get_layer(name).output).predict_on_batch(
        inputs[IMAGE]
    )
    heads = heads_of(model, {"image"})
    answers = heads(
        {**{key: value for key, value in inputs.items() if key != IMAGE}, name: features},
        training=False,
    )
    for head, value in run(model, inputs).items():
        np.testing.assert_allclose(np.asarray(answers[head]), value, atol=1e-5)


def shake(model: keras.Model) -> None:
    """Changes every weight outside the encoders, as training would; some start at zero."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if "encoder" not in layer.name:
            for weight in layer.weights:
                value = weight.numpy()
                weight.assign(value + rng.normal(0, 0.3, value.shape).astype(value.dtype))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_answer_from_one_modality_is_bit_for_bit_that_of_its_own_head(fusion: str):
    model = build_model(ModelConfig(embedding_units=8, fusion=fusion), scratch_encoders())
    shake(model)
    photo_only = run(model, batch(), **{TEXT_PRESENT: ABSENT})
    text_only = run(model, batch(), **{IMAGE_PRESENT: ABSENT})
    both = run(model, batch())
    for name in ("eczema", "severity"):
        np.testing.assert_array_equal(photo_only[name], both[f"{name}_image"])
        np.testing.assert_array_equal(text_only[name], both[f"{name}_text"])


def test_answer_without_photo_and_text_is_the_prior():
    model = build_model(ModelConfig(embedding_units=8), scratch_encoders())
    shake(model)
    model.get_layer("eczema_sum").prior.assign(-0.7)
    neither = run(model, batch(), **{TEXT_PRESENT: ABSENT, IMAGE_PRESENT: ABSENT})["eczema"]
    np.testing.assert_array_equal(neither, np.float32(-0.7))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_untrained_fusion_adds_up_evidence_and_late_fusion_always_does(fusion: str):
    model = build_model(ModelConfig(embedding_units=8, fusion=fusion), scratch_encoders())
    if fusion == "late":
        shake(model)
        model.get_layer("eczema_sum").slopes.assign([1, 1, 1])
        model.get_layer("eczema_sum").shift.assign(0)
    model.get_layer("eczema_sum").prior.assign(-0.7)
    logits = run(model, batch())
    np.testing.assert_allclose(
        logits["eczema"], logits["eczema_image"] + logits["eczema_text"] + 0.7, atol=1e-6
    )


def test_added_evidence_matches_hand_computed_sums():
    layer = AddedEvidence()
    image, text = (np.array([[value]] * 3 + [[np.nan]]) for value in (2.0, 4.0))
    image[1], text[2] = np.nan, np.nan
    presence = np.array([1.0, 0, 1, 0]), np.array([1.0, 1, 0, 0])
    joint = np.array([[10.0], [np.nan], [10.0], [10.0]])
    np.testing.assert_allclose(layer([image, text, *presence, joint]), [[16], [4], [2], [0]])
    layer.prior.assign(1.0)
    layer.slopes.assign([0.5, 2.0, 0.1])
    layer.shift.assign(3.0)
    # 1 + 0.5 (2 - 1) + 2 (4 - 1) + 0.1 * 10 + 3
    np.testing.assert_allclose(layer([image, text, *presence, joint]), [[11.5], [7], [1.5], [1]])
    assert not layer.trainable_weights


def test_untrained_consistency_and_severity_are_uniform():
    model = build_model(ModelConfig(embedding_units=8), scratch_encoders())
    told = compute_probabilities(run(model, batch()))
    for name in ("consistency", "severity"):
        np.testing.assert_allclose(told[name], 1 / 3, atol=1e-6)


def test_regions_are_listed_row_by_row():
    config = ModelConfig(embedding_units=8, fusion="cross_attention")
    regions = build_model(config, scratch_encoders()).get_layer("fusion_regions")
    grid = np.arange(2.0 * 2 * 128).reshape(1, 2, 2, 128)
    np.testing.assert_array_equal(regions(grid)[0], grid[0].reshape(4, 128))
    assert regions(grid)[0][1, 0] == grid[0, 0, 1, 0]


def test_patch_grid_leaves_out_the_tokens_before_the_patches():
    # a class and a distillation token, then 3 x 3 patches
    tokens = np.concatenate([np.full((1, 2, 1), -9.0), np.arange(9.0).reshape(1, 9, 1)], axis=1)
    np.testing.assert_array_equal(
        PatchGrid(3)(tokens)[0, ..., 0], [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    )


@pytest.mark.parametrize("architecture", ["efficientnet", "vit", "deit"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_image_encoder_has_a_feature_map_for_every_fusion(architecture: str, fusion: str):
    image = specify_image_encoder(ImageConfig(architecture=architecture, size_px=32))
    model = build_model(
        ModelConfig(embedding_units=8, fusion=fusion),
        Encoders(image, specify_text_encoder(TextConfig(preset=None), 50)),
    )
    _, height, width, channels = model.get_layer(IMAGE_FEATURES).output.shape
    assert height == width > 1
    assert channels > 1
    assert set(run(model, batch())) == set(OUTPUTS)


def build_with_embeddings(fusion: str) -> keras.Model:
    image = specify_image_encoder(ImageConfig(), embedding_dimension=6)
    return build_model(
        ModelConfig(embedding_units=8, fusion=fusion),
        Encoders(image, specify_text_encoder(TextConfig(preset=None), 50)),
    )


@pytest.mark.parametrize("fusion", [fusion for fusion in FUSIONS if fusion != "cross_attention"])
def test_embeddings_can_take_the_place_of_photos(fusion: str):
    logits = run(build_with_embeddings(fusion), batch(), **{IMAGE: np.ones((5, 6), "float32")})
    assert all(np.isfinite(value).all() for value in logits.values())


def test_cross_attention_is_refused_for_embeddings():
    others = ", ".join(name for name in FUSIONS if name != "cross_attention")  # keeps their order
    said = f"one embedding per photo has no regions; allowed: {others}"
    with pytest.raises(ConfigError, match=said):
        build_with_embeddings("cross_attention")
