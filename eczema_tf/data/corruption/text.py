"""Corrupted texts: mistyped, cut, shuffled, in other words, amid small talk, in other languages.

Shares of words are those of Wei and Zou 2019 ("EDA: Easy Data Augmentation Techniques", EMNLP:
synonyms, swaps and deletions, 0.1 to 0.5). Typing errors are swapped, lost and doubled letters, as
in Belinkov and Bisk (2018, ICLR). Small talk and foreign sentences come from the built-in data, in
wordings that none of its training texts has; the synonyms are in `synonyms.yaml`.
"""

from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import yaml

from eczema_tf.data.audit.diagnoses import mask_diagnoses
from eczema_tf.data.corruption import Corruption
from eczema_tf.data.synthetic.complaint import choose_alternatives
from eczema_tf.data.synthetic.grammar import load_grammar

WORD_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)  # Wei and Zou's without their 0.05
TEXT_SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)


def _mistype(text: str, share: float, rng: np.random.Generator) -> str:
    def misspell(word: str) -> str:
        place = int(rng.random() * (len(word) - 1))
        two = word[place : place + 2]
        wrong = (two[::-1], two[:1], two[:1] + two)[rng.integers(3)]
        return word[:place] + wrong + word[place + 2 :]

    words = text.split()
    for chosen in _choose(words, share, rng):
        words[chosen] = misspell(words[chosen])
    return " ".join(words)


def _drop(text: str, share: float, rng: np.random.Generator) -> str:
    """Drops words, but never all."""
    words = text.split()
    lost = set(_choose(words, share, rng)[: len(words) - 1])
    return " ".join(word for place, word in enumerate(words) if place not in lost)


def _swap(text: str, share: float, rng: np.random.Generator) -> str:
    """Swaps two words, as many times as `share` of the words."""
    words = text.split()
    for _ in range(round(share * len(words))):
        one, other = rng.integers(len(words), size=2)
        words[one], words[other] = words[other], words[one]
    return " ".join(words)


def _replace(text: str, share: float, rng: np.random.Generator) -> str:
    """Replaces a share of the words that have a synonym."""
    words, synonyms = text.split(), _load_synonyms()
    known = [place for place, word in enumerate(words) if word.lower().strip(".,;!?") in synonyms]
    for chosen in _choose(known, share, rng):
        place = known[chosen]
        bare = words[place].lower().strip(".,;!?")
        words[place] = words[place].lower().replace(bare, synonyms[bare])
    return " ".join(words)


def _shout(text: str, share: float, rng: np.random.Generator) -> str:
    words = text.split()
    loud = set(_choose(words, share, rng))
    return " ".join(word.upper() if place in loud else word for place, word in enumerate(words))


def _chat(text: str, sentences: float, rng: np.random.Generator) -> str:
    """Adds small talk, half of it before the text and half after it."""
    talk = load_grammar("new").talk
    kinds = [talk["middles"] + talk["openers"], talk["middles"] + talk["closers"]]
    before, after = ([_say(kind, rng) for _ in range(int(sentences) // 2)] for kind in kinds)
    return ". ".join([*before, text, *after])


def _go_foreign(text: str, share: float, rng: np.random.Generator) -> str:
    """Replaces the end of a text with foreign sentences of about the same length."""
    words = text.split()
    kept = words[: round((1 - share) * len(words))]
    length, foreign = len(text), " ".join(kept)
    while len(foreign) < length:
        foreign += f" {_say(load_grammar('new').unclear['foreign'], rng)}."
    return foreign


def _choose(things: list[str] | list[int], share: float, rng: np.random.Generator) -> list[int]:
    """Draws the places of a share of things."""
    return [*map(int, rng.permutation(len(things))[: round(share * len(things))])]


def _say(wordings: list[str], rng: np.random.Generator) -> str:
    random = Random(int(rng.integers(2**32)))
    return choose_alternatives(random.choice(wordings), random)


@cache
def _load_synonyms() -> dict[str, str]:
    return yaml.safe_load(Path(__file__).with_name("synonyms.yaml").read_text(encoding="utf-8"))


# by name, of texts that are not empty
TEXT_CORRUPTIONS: dict[str, Corruption[str]] = {
    "diagnoses_masked": Corruption(lambda text, *_: mask_diagnoses(text), (1,)),
    "typing_errors": Corruption(_mistype, WORD_SHARES),
    "dropped_words": Corruption(_drop, WORD_SHARES),
    "word_order": Corruption(_swap, WORD_SHARES),
    "synonyms": Corruption(_replace, TEXT_SHARES),
    "capitals": Corruption(_shout, TEXT_SHARES),
    "small_talk": Corruption(_chat, (2, 4, 8, 16, 32)),
    "other_language": Corruption(_go_foreign, TEXT_SHARES),
}
