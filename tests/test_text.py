"""Text to tokens: cleaning by example, eagerly and in a graph; tokenizers that survive saving."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from eczema_tf.data.text.tokenizer import (
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
        (
            "ﬁne \u2460 \uff49tchy".encode(),
            "fine 1 itchy",
        ),  # NFKC: ligature, circled digit, full width
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
def test_cleaning_by_example(raw: bytes, cleaned: str):
    assert clean_text(tf.constant([raw])).numpy()[0].decode() == cleaned


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5))
@settings(max_examples=60)
def test_cleaning_any_bytes_gives_clean_text_and_again_changes_nothing(texts: list[bytes]):
    once = clean_text(tf.constant(texts))
    for text in once.numpy():
        decoded = text.decode("utf-8")  # always valid
        assert decoded == " ".join(decoded.split())
    np.testing.assert_array_equal(
        once, tf.data.Dataset.from_tensors(tf.constant(texts)).map(clean_text).get_single_element()
    )


def test_endless_texts_are_bounded():
    assert len(clean_text(tf.constant([b"a" * 10 * MAX_TEXT_BYTES])).numpy()[0]) <= MAX_TEXT_BYTES


def tokenize(tokenizer, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    ids, mask = tf.data.Dataset.from_tensors(tf.constant(texts)).map(tokenizer).get_single_element()
    return ids.numpy(), mask.numpy()


def test_tokens_are_framed_cut_and_padded_to_the_longest_of_the_batch():
    tokenizer = learn_tokenizer(TEXTS, 200, max_tokens=8)
    ids, mask = tokenize(tokenizer, ["itchy", "", "red " * 50])
    start, end, pad = (tokenizer.vocabulary.index(token) for token in ("[CLS]", "[SEP]", "[PAD]"))
    assert ids.shape == (3, 8)
    assert list(mask.sum(1))[1:] == [2, 8]  # the empty text is [CLS] [SEP]
    assert (ids[:, 0] == start).all()
    assert ids[2, -1] == end
    assert (ids[mask == 0] == pad).all()
    assert tokenize(tokenizer, ["", ""])[0].shape == (2, 2)  # no longer than needed


def test_a_learned_vocabulary_knows_its_words_and_marks_others():
    tokenizer = learn_tokenizer(TEXTS, 200, max_tokens=16)
    known, _ = tokenize(tokenizer, ["itchy skin"])
    unknown, _ = tokenize(tokenizer, ["\u6f22"])
    assert tokenizer.vocabulary.index("[UNK]") not in known
    assert tokenizer.vocabulary.index("[UNK]") in unknown


def test_without_any_training_text_no_word_is_known():
    tokenizer = learn_tokenizer(["", "\x00"], 200, 16)
    assert tokenizer.vocabulary == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    token_ids, _ = tf.function(tokenizer)(clean_text(tf.constant(["it itches"])))
    assert token_ids.numpy().tolist() == [[2, 1, 1, 3]]


def test_a_saved_tokenizer_reads_back_the_same(tmp_path: Path):
    tokenizer = learn_tokenizer(TEXTS, 200, max_tokens=12)
    tokenizer.save(tmp_path)
    again = read_tokenizer(tmp_path)
    assert again.vocabulary == tokenizer.vocabulary
    for mine, theirs in zip(tokenize(tokenizer, TEXTS), tokenize(again, TEXTS), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_damaged_tokenizer_is_a_clear_error(tmp_path: Path):
    with pytest.raises(RunError, match="contains no readable tokenizer"):
        read_tokenizer(tmp_path)


def test_a_preset_that_cannot_be_had_is_a_clear_error(tmp_path: Path):
    with pytest.raises(PresetError):
        load_tokenizer(str(tmp_path), 16)


def test_minilm_tokens_are_berts(shared: Path):
    tokenizer = load_tokenizer(str(shared / "presets" / "all_minilm_l6_v2_en"), 16)
    ids, mask = tokenize(tokenizer, ["hello world"])
    assert ids.tolist() == [
        [101, 7592, 2088, 102]
    ]  # [CLS] hello world [SEP] in bert-base-uncased's vocabulary
    assert mask.tolist() == [[1, 1, 1, 1]]
