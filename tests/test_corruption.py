"""Corruptions of photos and texts are repeatable and change as much as their strength says."""

import numpy as np
import pytest
from PIL import Image

from eczema_tf.data.corruption.photo import PHOTO_CORRUPTIONS, SHORTER_SIDE_PX, shrink
from eczema_tf.data.corruption.text import TEXT_CORRUPTIONS

TEXT = (
    "my skin is very dry and itchy at night since two weeks, now they say it is eczema or Psoriasis"
)
WORDS = TEXT.split()


def draw_photo() -> Image.Image:
    """Draws a smooth picture with one edge, in skin colours."""
    rows, columns = np.mgrid[0:60, 0:80] / 80
    pixels = np.stack([180 + 40 * rows, 120 + 60 * columns, 100 + 30 * (rows > 0.4)], axis=2)
    return Image.fromarray(pixels.astype("uint8"))


def corrupt(name: str, strength: float, place: int = 0) -> np.ndarray:
    photo = PHOTO_CORRUPTIONS[name].apply(draw_photo(), strength, np.random.default_rng(place))
    return np.asarray(photo, "float64")


def corrupt_text(name: str, strength: float, text: str = TEXT, seed: int = 0) -> str:
    return TEXT_CORRUPTIONS[name].apply(text, strength, np.random.default_rng(seed))


@pytest.mark.parametrize("name", PHOTO_CORRUPTIONS)
def test_photo_corruption_is_repeatable_and_strongest_changes_most(name):
    changes = []
    for strength in PHOTO_CORRUPTIONS[name].strengths:
        photo = corrupt(name, strength)
        assert photo.shape == (60, 80, 3)
        assert (photo == corrupt(name, strength)).all()
        changes.append(np.abs(photo - np.asarray(draw_photo())).mean())
    assert min(changes) > 0
    assert changes[-1] == max(changes)


def test_border_only_shows_nothing_of_the_inside():
    one, other = draw_photo(), draw_photo()
    other.paste((0, 0, 255), (20, 20, 60, 40))
    bordered = [
        np.asarray(PHOTO_CORRUPTIONS["border_only"].apply(photo, 0.1, np.random.default_rng(0)))
        for photo in (one, other)
    ]
    assert (bordered[0] == bordered[1]).all()
    assert (bordered[0][:6] == np.asarray(one)[:6]).all()


def test_occlusion_has_the_stated_size():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 140, 3), "uint8"))
    covered = PHOTO_CORRUPTIONS["occlusion"].apply(photo, 0.4, np.random.default_rng(1))
    changed = (np.asarray(covered) != np.asarray(photo)).any(axis=2)
    assert 0.95 * 40 * 40 < changed.sum() <= 40 * 40


def test_only_large_photos_shrink():
    assert shrink(Image.new("RGB", (1024, 512))).size == (512, SHORTER_SIDE_PX)
    assert shrink(Image.new("RGB", (300, 200))).size == (300, 200)


def test_text_corruptions_change_the_stated_share_of_words():
    assert (
        sum(a != b for a, b in zip(corrupt_text("capitals", 0.4).split(), WORDS, strict=True)) == 8
    )
    assert corrupt_text("capitals", 1) == TEXT.upper()
    dropped = corrupt_text("dropped_words", 0.5).split()
    assert len(dropped) == len(WORDS) - 10
    assert [word for word in WORDS if word in dropped] == dropped
    assert sorted(corrupt_text("word_order", 0.5).split()) == sorted(WORDS)
    assert corrupt_text("word_order", 0.5) != TEXT
    mistyped = corrupt_text("typing_errors", 0.5).split()
    assert 0 < sum(a != b for a, b in zip(mistyped, WORDS, strict=True)) <= 10


def test_dropping_more_words_drops_the_same_words_and_others():
    few, many = (corrupt_text("dropped_words", share).split() for share in (0.2, 0.4))
    assert set(many) < set(few)


def test_text_of_one_word_never_becomes_empty():
    for name, corruption in TEXT_CORRUPTIONS.items():
        for strength in corruption.strengths:
            assert corrupt_text(name, strength, "itchy").strip()


def test_synonyms_replace_words_and_keep_their_punctuation():
    assert (
        corrupt_text("synonyms", 1, "Itchy, dry; at night.") == "pruritic, parched; at night-time."
    )


def test_small_talk_surrounds_the_text_and_other_language_replaces_it():
    chatty = corrupt_text("small_talk", 4)
    assert TEXT in chatty
    assert not chatty.startswith(TEXT)
    assert not chatty.endswith(TEXT)
    foreign = corrupt_text("other_language", 1)
    assert not set(foreign.lower().split()) & {"skin", "itchy", "eczema"}
    assert corrupt_text("other_language", 0.4).startswith(" ".join(WORDS[:12]))


def test_diagnoses_are_masked_in_upper_and_lower_case():
    assert corrupt_text("diagnoses_masked", 1).endswith("they say it is this or this")
