"""Tests of text cleaning, eagerly and in a graph, and of tokenizers, also saved ones."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from eczema_tf.data.text.tokenizer import (
    SETTINGS_FILE,
    clean_text,
    learn_tokenizer,
    load_tokenizer,
    read_tokenizer,
)
from eczema_tf.errors import PresetError, RunError
from eczema_tf.schema import MAX_TEXT_BYTES

TEXTS = ["my skin is itchy and dry", "the rash is red, no blisters", "itchy at night"] * 10


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        (b"  dry \t\n skin  ", "dry skin"),
        # NFKC: ligature, circled digit, full width
        ("ﬁne \u2460 \uff49tchy".encode(), "fine 1 itchy"),
        (b"a <b>bold</b> rash<br/>here", "a bold rash here"),
        (b"temperature < 38 and > 36", "temperature < 38 and > 36"),
        ("1½ weeks, ½ day".encode(), "1 1⁄2 weeks, 1⁄2 day"),
        (b"nul\x00 and bell\x07", "nul and bell"),
        ("red\u2028dry\u2029raw\u1680sore\u00a0skin".encode(), "red dry raw sore skin"),
        ("zero\u200bwidth \u202e reversed".encode(), "zerowidth reversed"),
        ("it\u00adchy \ufeffel\u2060bow".encode(), "itchy elbow"),
        (b"\xff\xfe broken \xc3", "broken"),
        ("café naïve".encode(), "café naïve"),
        (b"", ""),
        (b"<p></p>", ""),
    ],
)
def test_clean_text_on_examples(raw: bytes, cleaned: str):
    assert clean_text(tf.constant([raw])).numpy()[0].decode() == cleaned


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5))
@settings(max_examples=60)
def test_any_bytes_become_valid_text_alike_in_eager_and_graph_mode(texts: list[bytes]):
    once = clean_text(tf.constant(texts))
    for text in once.numpy():
        decoded = text.decode("utf-8")  # always valid
        assert decoded == " ".join(decoded.split())
    np.testing.assert_array_equal(
        once, tf.data.Dataset.from_tensors(tf.constant(texts)).map(clean_text).get_single_element()
    )


def test_length_of_cleaned_text_is_limited():
    assert len(clean_text(tf.constant([b"a" * 10 * MAX_TEXT_BYTES])).numpy()[0]) <= MAX_TEXT_BYTES


def tokenize(tokenizer, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    ids, mask = tf.data.Dataset.from_tensors(tf.constant(texts)).map(tokenizer).get_single_element()
    return ids.numpy(), mask.numpy()


def test_token_ids_are_framed_cut_and_padded_to_the_longest_text():
    tokenizer = learn_tokenizer(TEXTS, 200, max_tokens=8)
    ids, mask = tokenize(tokenizer, ["itchy", "", "red " * 50])
    start, end, pad = (tokenizer.vocabulary.index(token) for token in ("[CLS]", "[SEP]", "[PAD]"))
    assert ids.shape == (3, 8)
    assert list(mask.sum(1))[1:] == [2, 8]  # the empty text is [CLS] [SEP]
    assert (ids[:, 0] == start).all()
    assert ids[2, -1] == end
    assert (ids[mask == 0] == pad).all()
    assert tokenize(tokenizer, ["", ""])[0].shape == (2, 2)  # no longer than needed


def test_learned_vocabulary_knows_its_words_and_marks_others_as_unknown():
    tokenizer = learn_tokenizer(TEXTS, 200, max_tokens=16)
    known, _ = tokenize(tokenizer, ["itchy skin"])
    unknown, _ = tokenize(tokenizer, ["\u6f22"])
    assert tokenizer.vocabulary.index("[UNK]") not in known
    assert tokenizer.vocabulary.index("[UNK]") in unknown


def test_tokenizer_learned_from_no_text_knows_no_words():
    tokenizer = learn_tokenizer(["", "\x00"], 200, 16)
    assert tokenizer.vocabulary == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    token_ids, _ = tf.function(tokenizer)(clean_text(tf.constant(["it itches"])))
    assert token_ids.numpy().tolist() == [[2, 1, 1, 3]]


def test_saved_tokenizer_is_read_back_unchanged(tmp_path: Path):
    tokenizer = learn_tokenizer(TEXTS, 200, max_tokens=12)
    tokenizer.save(tmp_path)
    again = read_tokenizer(tmp_path)
    assert again.vocabulary == tokenizer.vocabulary
    for mine, theirs in zip(tokenize(tokenizer, TEXTS), tokenize(again, TEXTS), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("settings", [None, "", "{", "[1]", '{"max_tokens": 12, "unknown": 1}'])
def test_missing_or_damaged_tokenizer_is_a_clear_error(tmp_path: Path, settings: str | None):
    learn_tokenizer(TEXTS, 200, max_tokens=12).save(tmp_path)
    (tmp_path / SETTINGS_FILE).unlink()
    if settings is not None:
        (tmp_path / SETTINGS_FILE).write_text(settings)
    with pytest.raises(RunError, match="contains no readable tokenizer"):
        read_tokenizer(tmp_path)


def test_preset_that_cannot_be_loaded_is_a_preset_error(tmp_path: Path):
    with pytest.raises(PresetError, match=f"{tmp_path}: no tokenizer can be loaded from it"):
        load_tokenizer(str(tmp_path), 16)


def test_minilm_tokenizer_gives_the_token_ids_of_bert(shared: Path):
    tokenizer = load_tokenizer(str(shared / "presets" / "all_minilm_l6_v2_en"), 16)
    ids, mask = tokenize(tokenizer, ["hello world"])
    # [CLS] hello world [SEP] in the vocabulary of bert-base-uncased
    assert ids.tolist() == [[101, 7592, 2088, 102]]
    assert mask.tolist() == [[1, 1, 1, 1]]
