"""A lay person's account of facts: drawn facts become a text, and it is known where each stands.

Wording, order, fillers and misspellings do not depend on the condition: the text says what its
facts say, and nothing more.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from eczema_tf.config import Section

MAX_WORDS = 80
_TERSE = 0.2  # share of texts in telegram style
_MISSPELT = 0.07  # share of the listed words that come out wrong


@dataclass(frozen=True)
class Phrase:
    """Where a fact stands in a text.

    Attributes:
        start: Character offset of the phrase in the text.
        end: Offset after its last character.
        category: The fact, for example "itch".
        value: Its value, for example "strong".
        negated: Whether the phrase denies it.
    """

    start: int
    end: int
    category: str
    value: str
    negated: bool


class Wordings(Section):
    """How people say one value of a fact: in clauses, or in a note; `negated`: they deny it."""

    clauses: list[str]
    note: str
    negated: bool = False


class Phrasebook(Section):
    """What people say (`phrases.yaml`): of facts (by fact and value), between them, and instead."""

    facts: dict[str, dict[str, Wordings]]
    fillers: dict[str, list[str]]
    misspellings: dict[str, list[str]]
    unclear: list[str]


_Fact = tuple[str, str, str, bool]  # wording, category, value, negated
_Sentence = Sequence[str | _Fact]


def write_complaint(facts: dict[str, str], rng: np.random.Generator) -> tuple[str, list[Phrase]]:
    """Writes a text.

    Args:
        facts: Value of each fact that is mentioned, at least three; or none, for a text that says
            nothing useful.
        rng: Where randomness comes from.

    Returns:
        The text (3 to 80 words) and its phrases, by position.
    """
    phrasebook = load_phrasebook()
    sentences: list[_Sentence]
    if facts:
        order = rng.permutation(sorted(facts))
        sentences = _write_sentences(order, facts, rng)
        if rng.random() < _TERSE or _count_words(sentences) > MAX_WORDS:
            # telegram style: "Very itchy, dry skin, no blisters."
            note: list[str | _Fact] = []
            for name in order:
                note += [_draw_wording(name, facts[name], rng, terse=True), ", "]
            sentences = [[*note[:-1], "."]]
    else:
        chosen = rng.choice(phrasebook.unclear, size=int(rng.integers(1, 4)), replace=False)
        sentences = [[str(sentence)] for sentence in chosen]
    ending: list[_Sentence] = []
    if rng.random() < 0.3:
        ending.append([str(rng.choice(phrasebook.fillers["closers"]))])
    if rng.random() < 0.08:
        ending.append([str(rng.choice(phrasebook.fillers["rambling"]))])
    if _count_words([*sentences, *ending]) <= MAX_WORDS:
        sentences = [*sentences, *ending]
    return _join(sentences)


def _write_sentences(
    order: np.ndarray, facts: dict[str, str], rng: np.random.Generator
) -> list[_Sentence]:
    """Writes clauses, most of them two by two, sometimes with fillers before or between them."""
    fillers = load_phrasebook().fillers
    clauses = [_draw_wording(name, facts[name], rng) for name in order]
    sentences: list[_Sentence] = []
    while clauses:
        taken, clauses = clauses[:2], clauses[2:]
        if len(taken) == 2 and rng.random() < 0.6:
            sentences.append([taken[0], str(rng.choice([" and ", ", and ", ", "])), taken[1], "."])
        else:
            sentences.extend([clause, "."] for clause in taken)
    if rng.random() < 0.25:
        index = int(rng.integers(1, len(sentences) + 1))
        sentences.insert(index, [str(rng.choice(fillers["middles"]))])
    if rng.random() < 0.25:
        sentences.insert(0, [str(rng.choice(fillers["openers"]))])
    return sentences


def _draw_wording(
    category: str, value: str, rng: np.random.Generator, *, terse: bool = False
) -> _Fact:
    """Draws how a fact is said: which clause, which number, which misspellings."""
    misspellings = load_phrasebook().misspellings
    wordings = load_phrasebook().facts[category][value]
    wording = wordings.note if terse else str(rng.choice(wordings.clauses))
    wording = wording.replace("<n>", str(rng.integers(2, 10)))

    def misspell(word: re.Match[str]) -> str:
        wrong = misspellings.get(word.group())
        return str(rng.choice(wrong)) if wrong and rng.random() < _MISSPELT else word.group()

    return re.sub(r"\w+", misspell, wording), category, value, wordings.negated


def _join(sentences: list[_Sentence]) -> tuple[str, list[Phrase]]:
    """Sets sentences, each with a capital, one after the other; notes where the facts stand."""
    text, phrases = "", []
    for sentence in sentences:
        text += " " if text else ""
        for i, piece in enumerate(sentence):
            wording = piece if isinstance(piece, str) else piece[0]
            wording = wording[0].upper() + wording[1:] if i == 0 else wording
            if not isinstance(piece, str):
                phrases.append(Phrase(len(text), len(text) + len(wording), *piece[1:]))
            text += wording
    return text, phrases


def _count_words(sentences: list[_Sentence]) -> int:
    return len(_join(sentences)[0].split())


@cache
def load_phrasebook() -> Phrasebook:
    """Reads `phrases.yaml`, once."""
    text = Path(__file__).with_name("phrases.yaml").read_text(encoding="utf-8")
    return Phrasebook.model_validate(yaml.safe_load(text))
