"""A lay person's account of facts: `write_complaint` turns drawn facts into text and says where each fact stands in it.

Wording, order, fillers and misspellings do not depend on the condition: the text says what its
facts say, and nothing more.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

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


def write_complaint(facts: dict[str, str], rng: np.random.Generator) -> tuple[str, list[Phrase]]:
    """Writes a text.

    Args:
        facts: Value of each fact that is mentioned, at least three; or none, for a text that says
            nothing useful.
        rng: Where randomness comes from.

    Returns:
        The text (3 to 80 words) and its phrases, by position.
    """
    if not facts:
        return _write_unclear(rng), []
    order = rng.permutation(sorted(facts))
    sentences = _write_sentences(order, facts, rng)
    if rng.random() < _TERSE or _count_words(sentences) > MAX_WORDS:
        sentences = _write_notes(order, facts, rng)
    return _join([*sentences, *_draw_ending(sentences, rng)])


# A sentence is a list of pieces: plain strings, and (wording, category, value, negated) where a
# fact stands.
Piece = str | tuple[str, str, str, bool]


def _write_sentences(
    order: np.ndarray, facts: dict[str, str], rng: np.random.Generator
) -> list[list[Piece]]:
    fillers = _load_phrases()["fillers"]
    clauses = [_draw_wording(name, facts[name], rng) for name in order]
    sentences: list[list[Piece]] = []
    while clauses:
        taken, clauses = clauses[:2], clauses[2:]
        if len(taken) == 2 and rng.random() < 0.6:
            sentences.append([taken[0], str(rng.choice([" and ", ", and ", ", "])), taken[1], "."])
        else:
            sentences.extend([clause, "."] for clause in taken)
    if rng.random() < 0.25:
        sentences.insert(
            int(rng.integers(1, len(sentences) + 1)), [str(rng.choice(fillers["middles"]))]
        )
    return [[str(rng.choice(fillers["openers"]))], *sentences] if rng.random() < 0.25 else sentences


def _write_notes(
    order: np.ndarray, facts: dict[str, str], rng: np.random.Generator
) -> list[list[Piece]]:
    """Telegram style: "Very itchy, dry skin, no blisters."."""
    notes = [_draw_wording(name, facts[name], rng, terse=True) for name in order]
    return [[*[piece for note in notes for piece in (note, ", ")][:-1], "."]]


def _draw_ending(sentences: list[list[Piece]], rng: np.random.Generator) -> list[list[Piece]]:
    fillers = _load_phrases()["fillers"]
    closer = [[str(rng.choice(fillers["closers"]))]] if rng.random() < 0.3 else []
    rambling = [[str(rng.choice(fillers["rambling"]))]] if rng.random() < 0.08 else []
    ending = closer + rambling
    return [] if _count_words([*sentences, *ending]) > MAX_WORDS else ending


def _write_unclear(rng: np.random.Generator) -> str:
    chosen = rng.choice(_load_phrases()["unclear"], size=int(rng.integers(1, 4)), replace=False)
    return _join([[str(sentence)] for sentence in chosen] + _draw_ending([], rng))[0]


def _draw_wording(
    category: str, value: str, rng: np.random.Generator, *, terse: bool = False
) -> Piece:
    entry = _load_phrases()["facts"][category][value]
    wording = entry["note"] if terse else str(rng.choice(entry["clauses"]))
    wording = wording.replace("<n>", str(rng.integers(2, 10)))
    return _misspell(wording, rng), category, value, entry.get("negated", False)


def _misspell(wording: str, rng: np.random.Generator) -> str:
    misspellings = _load_phrases()["misspellings"]

    def change(match: re.Match) -> str:
        wrong = misspellings.get(match.group())
        return str(rng.choice(wrong)) if wrong and rng.random() < _MISSPELT else match.group()

    return re.sub(r"\w+", change, wording)


def _join(sentences: list[list[Piece]]) -> tuple[str, list[Phrase]]:
    """Sets sentences one after the other, each with a capital first letter, and notes where the facts stand."""
    text, phrases = "", []
    for sentence in sentences:
        text += " " if text else ""
        for i, piece in enumerate(sentence):
            wording, *fact = (piece,) if isinstance(piece, str) else piece
            wording = wording[0].upper() + wording[1:] if i == 0 else wording
            if fact:
                phrases.append(Phrase(len(text), len(text) + len(wording), *fact))
            text += wording
    return text, phrases


def _count_words(sentences: list[list[Piece]]) -> int:
    return len(_join(sentences)[0].split())


@cache
def _load_phrases() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("phrases.yaml").read_text(encoding="utf-8"))
