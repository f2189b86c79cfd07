"""Tests for findings: from cells of the manifest to detectors that are trained and saved."""

import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from eczema_tf.config import Config, ImageConfig, ModelConfig, TextConfig
from eczema_tf.data.inputs import Column, Inputs
from eczema_tf.data.text.findings import (
    FEWEST_TEXTS,
    MOST_FINDINGS,
    choose_findings,
    encode_findings,
    join_findings,
    split_findings,
)
from eczema_tf.data.text.tokenizer import learn_tokenizer
from eczema_tf.model.encoders import specify_image_encoder, specify_text_encoder
from eczema_tf.model.losses import FindingsCrossentropy
from eczema_tf.model.multimodal import SEVERITY_TEXT_SCORE, Encoders, build_model
from eczema_tf.schema import FINDINGS, IMAGE, IMAGE_PRESENT, PADDING_MASK, TEXT_PRESENT, TOKEN_IDS
from eczema_tf.training.data import build_training_data
from eczema_tf.workflows.run_folder import ENCODERS, load_encoders, save_encoders


def test_findings_are_joined_into_cells_and_split_again():
    assert join_findings(["itch=strong", "age=child", "itch=strong"]) == "age=child;itch=strong"
    assert split_findings("age=child;itch=strong") == {"age=child", "itch=strong"}
    assert join_findings([]) == "none"
    assert split_findings("none") == split_findings("") == split_findings(" ; ") == set()
    assert split_findings(" dry ; itchy;") == {"dry", "itchy"}


def test_only_frequent_findings_are_learned():
    often, seldom = ["itchy;dry"] * FEWEST_TEXTS, ["scaly"] * (FEWEST_TEXTS - 1)
    assert choose_findings([*often, *seldom, "none", ""]) == ("dry", "itchy")
    # of equally frequent findings, the first are kept
    many = [f"f{number:03}" for number in range(MOST_FINDINGS + 88)]
    assert choose_findings([join_findings(many)] * FEWEST_TEXTS) == tuple(many[:MOST_FINDINGS])


def test_encoded_findings_have_the_columns_in_the_given_order():
    said = encode_findings(["itchy", "", "none", "scaly;dry;itchy"], ("dry", "itchy"))
    np.testing.assert_array_equal(said, [[0, 1], [0, 0], [0, 0], [1, 1]])
    assert said.dtype == "float32"


def test_texts_without_known_findings_do_not_train_detectors():
    table = pd.DataFrame(
        {
            "case_id": list("abcd"),
            "group_id": list("abcd"),
            "text": ["itchy", "itchy", "hello", ""],
            "eczema": [1.0, 0.0, np.nan, 0.0],
            "consistency": "",
            "severity": "",
            "findings": ["itchy", "", "none", "itchy"],
        }
    )
    present = (table["text"] != "").astype("int64").to_numpy()
    column = Column(np.array([0.0, 1.0], "float32"), present, "presence")
    columns = {TEXT_PRESENT: column, IMAGE_PRESENT: column}
    inputs = Inputs(columns, np.ones(4, "int64"), np.full(4, "", object))
    splits = pd.Series(["train"] * 4)
    data = build_training_data(Config(), table, inputs, splits, ("dry", "itchy"))
    np.testing.assert_array_equal(data.weights[FINDINGS], [1, 0, 1, 0])
    np.testing.assert_array_equal(data.targets[FINDINGS][:3], [[0, 1], [0, 0], [0, 0]])
    assert FINDINGS not in build_training_data(Config(), table, inputs, splits).targets


def test_detectors_learn_words_at_any_place_in_texts_of_any_length():
    """Word 7 is "dry" and word 9 is "itchy", in texts of 9 to 40 words; no other word matters."""
    keras.utils.set_random_seed(0)
    rng, rows, tokens = np.random.default_rng(0), 512, 41
    said = rng.random((rows, 2)) < 0.5
    words = rng.integers(10, 50, (rows, tokens))
    lengths = rng.integers(9, tokens, rows)
    for index, word in enumerate((7, 9)):
        place = rng.integers(0, lengths)
        words[said[:, index], place[said[:, index]]] = word
    # one of the two words may have replaced the other
    said = np.stack([(words == word).any(1) for word in (7, 9)], axis=1)
    mask = (np.arange(tokens) < lengths[:, None]).astype("int32")
    config = ModelConfig(text=TextConfig(preset=None), image=ImageConfig(preset=None, size_px=16))
    encoders = Encoders(
        specify_image_encoder(config.image), specify_text_encoder(config.text, 50), ("dry", "itchy")
    )
    model = build_model(config, encoders)
    detect = keras.Model(
        [model.input[TOKEN_IDS], model.input[PADDING_MASK]], model.get_layer(FINDINGS).output
    )
    detect.compile(keras.optimizers.Adam(0.01), FindingsCrossentropy())
    inputs, train = [(words * mask).astype("int32"), mask], slice(0, 384)
    detect.fit([x[train] for x in inputs], said[train], epochs=15, batch_size=32, verbose=0)
    logits = detect.predict([x[384:] for x in inputs], verbose=0)
    assert roc_auc_score(said[384:], logits) > 0.95


def test_findings_reach_severity_without_passing_the_projection():
    config = ModelConfig(text=TextConfig(preset=None), image=ImageConfig(preset=None, size_px=16))
    encoders = Encoders(
        specify_image_encoder(config.image), specify_text_encoder(config.text, 50), ("mild", "bad")
    )
    model = build_model(config, encoders)
    score = model.get_layer(SEVERITY_TEXT_SCORE)
    kernel = np.zeros(score.kernel.shape)
    kernel[-2:, 0] = [-1, 2]
    score.kernel.assign(kernel)
    words = np.random.default_rng(0).integers(1, 50, (3, 9)).astype("int32")
    part = keras.Model(
        model.input, [model.get_layer(FINDINGS).output, model.output["severity_text"]]
    )
    inputs = {TOKEN_IDS: words, PADDING_MASK: np.ones_like(words), TEXT_PRESENT: np.ones(3)}
    inputs |= {IMAGE: np.zeros((3, 16, 16, 3)), IMAGE_PRESENT: np.zeros(3)}
    logits, grades = part.predict(inputs, verbose=0)
    expected = expit(logits) @ [-1, 2]
    assert np.ptp(expected) > 1e-4
    cuts = np.log([1 / 2, 2])  # of an untrained model
    np.testing.assert_allclose(grades, expected[:, None] - cuts, rtol=1e-4)


def test_run_folder_keeps_the_findings_that_its_model_detects(tmp_path: Path):
    image, text = specify_image_encoder(ImageConfig(preset=None)), TextConfig(preset=None)
    encoders = Encoders(image, specify_text_encoder(text, 50), ("dry", "itchy"))
    save_encoders(tmp_path, encoders, learn_tokenizer(["dry and itchy"], 50, 16))
    assert load_encoders(tmp_path) == encoders
    written = json.loads((tmp_path / ENCODERS).read_text())
    del written["findings"]  # as in older runs
    (tmp_path / ENCODERS).write_text(json.dumps(written))
    assert load_encoders(tmp_path) == replace(encoders, findings=())
