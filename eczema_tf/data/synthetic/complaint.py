"""Writes people's accounts of findings, and records where each finding is in the text.

The wording comes from `grammar`. A finding is a clause of its own or a noun phrase in a frame, in
one of several registers, by the person, a relative or a clinician, amid small talk. None of this
depends on the condition: the text tells no more than its findings.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from eczema_tf.data.synthetic.grammar import Grammar, Register, Sex, Wordings, load_grammar
from eczema_tf.data.synthetic.tables import AGE

LEAST_WORDS = 3
# what may directly continue what is seen: "red bumps on my arms for three days"
TIGHT = (
    ("site", "look"),
    ("site_2", "look_2"),
    ("site", "called"),
    ("duration", "site"),
    ("duration", "called"),
)
RAMBLING = 0.04  # share of texts with much small talk
SHORTHAND = 0.15  # share of a note's findings in shorthand: "pruritus ++"
UNCLEAR_KINDS = {"empty": 0.4, "offtopic": 0.25, "foreign": 0.2, "nonsense": 0.15}
_LETTERS = "aeioubcdfghklmnprstvwxyz"  # letters of nonsense words
_ALTERNATIVES = re.compile(r"\(([^()]*)\)")
_MARK = re.compile(r"<(\w+)>")
_WORD = re.compile(r"\w+")
# "on between my toes"
_NO_ON = re.compile(
    r"\bon (?=(?:between|around|behind|under|along|beside|where|everywhere|all over|from|down)\b)"
)
_SENTENCE_END = re.compile(r"[.?!]\s*$")


@dataclass(frozen=True)
class Phrase:
    """Where a finding is in a text.

    Attributes:
        start: Character offset of the phrase in the text.
        end: Offset after its last character.
        category: The finding, for example "itch".
        value: Its value, for example "severe".
        negated: Whether the phrase denies it.
    """

    start: int
    end: int
    category: str
    value: str
    negated: bool


@dataclass(frozen=True)
class _Piece:
    """A sentence or a part of one.

    Attributes:
        wording: As it will be written, except for the first letter's case.
        fact: Category, value and negated, if it states a finding.
        tight: Whether it continues the piece before it.
    """

    wording: str
    fact: tuple[str, str, bool] | None = None
    tight: bool = False


def write_complaint(
    facts: Mapping[str, str], sex: Sex, rng: Random, wordings: Wordings = "known"
) -> tuple[str, list[Phrase]]:
    """Writes a text of 3 to 200 words.

    Args:
        facts: Value of each slot that is mentioned, from `tables.draw_facts`; empty for a text that
            says nothing useful (of any length).
        sex: Sex of the patient.
        rng: Where randomness comes from.
        wordings: Which side of the split.

    Returns:
        The text and its phrases, by position.
    """
    grammar = load_grammar(wordings)
    if not facts:
        return _write_unclear(grammar, rng), []
    registers = [*grammar.registers.values()]
    register = rng.choices(registers, [register.weight for register in registers])[0]
    writer = _Writer(grammar, register, facts.get(AGE, ""), sex, rng)
    order, tight = {name: rng.random() for name in facts if name != AGE}, set()
    if "called" in order and rng.random() < 0.6:
        order["called"] = 0.0  # what it is called comes first
    for name, seen in TIGHT:
        if order.keys() >= {name, seen} and rng.random() < 0.45:
            order[name] = order[seen] + 1e-9
            tight.add(name)
    pieces = [writer.write_age(facts[AGE])] if AGE in facts else []
    for name in sorted(order, key=order.__getitem__):
        pieces.append(writer.write_fact(name.removesuffix("_2"), facts[name], name in tight))
    talk = rng.randint(4, 7) if rng.random() < RAMBLING else min(int(rng.expovariate(1.2)), 4)
    for _ in range(talk):
        loose = [i for i, piece in enumerate(pieces) if not piece.tight]
        pieces.insert(rng.choice([*loose, len(pieces)]), writer.write_talk("middles"))
    if rng.random() < 0.3:
        pieces.insert(0, writer.write_talk("openers"))
    if rng.random() < 0.4 or sum(len(piece.wording.split()) for piece in pieces) < LEAST_WORDS:
        pieces.append(writer.write_talk("closers"))
    return _join_pieces(pieces, register, rng)


class _Writer:
    """Writes the pieces of one text: one register, one speaker, one way to spell."""

    def __init__(
        self, grammar: Grammar, register: Register, age: str, sex: Sex, rng: Random
    ) -> None:
        self.grammar, self.sex, self.rng = grammar, sex, rng
        self.frames = grammar.frames[register.frames]
        self.noted = register.frames != "spoken"
        self.shorthand = SHORTHAND if register.frames == "noted" else 0.0
        self.speaker = "note" if self.noted else "own"
        if age and not self.noted:
            speakers = grammar.ages[age].speakers
            self.speaker = rng.choices([*speakers], [*speakers.values()])[0]
        voice = register.voice or (sex if self.speaker == "relative" else self.speaker)
        self.marks = grammar.voices[voice] | grammar.sexes[sex]
        self.max_number = 3 if age == "child" else 9  # of years, so that it fits the age
        sloppy = not register.tidy
        self.careless = rng.random() * 0.25 if sloppy and rng.random() < 0.4 else 0.0
        chances = (
            (grammar.spellings, 0.5),
            (grammar.contractions, 0.0 if self.noted else 0.6),
            (grammar.abbreviations, 0.15 * sloppy),
        )
        self.rewrites = [table for table, chance in chances if rng.random() < chance]

    def write_talk(self, kind: str) -> _Piece:
        """Writes one of the "openers", "middles" or "closers"."""
        return _Piece(self.expand(self.rng.choice(self.grammar.talk[kind])))

    def write_fact(self, finding: str, value: str, tight: bool) -> _Piece:
        """Writes a finding as a clause of its own or as a noun phrase in a frame.

        `tight`: it is a site or a duration and continues what was said before.
        """
        rng, frame = self.rng, self.grammar.findings[finding].frame
        saying = self.grammar.findings[finding].values[value]
        if saying.negated and frame != "bare":
            frame = "denied"
        clause_share = 0.15 if self.noted else 0.85 if frame == "bare" else 0.6
        if saying.note and not tight and rng.random() < self.shorthand:
            wording = rng.choice(saying.note)
        elif saying.clause and not tight and rng.random() < clause_share:
            wording = rng.choice(saying.clause)
        else:
            go_on = "on <x>" if frame == "site" else "<x>"
            wording = go_on if tight else rng.choice(self.frames[frame])
            wording = wording.replace("<x>", rng.choice(saying.np))
        return _Piece(self.expand(wording), (finding, value, saying.negated), tight)

    def write_age(self, age: str) -> _Piece:
        """Writes whom it is about and how old they are."""
        entry, rng = self.grammar.ages[age], self.rng
        if self.speaker == "relative":
            frame = rng.choice(self.grammar.introductions)
            wording = frame.replace("<x>", rng.choice(entry.relative[self.sex]))
        else:
            wording = rng.choice(entry.note if self.noted else entry.own)
        wording = wording.replace("<n>", str(rng.randint(*entry.range)))
        return _Piece(self.expand(wording), (AGE, age, False))

    def expand(self, wording: str) -> str:
        """Chooses among alternatives, fills the marks, and spells as this writer does."""
        rng = self.rng
        marks = self.marks | {
            "n": str(rng.randint(2, self.max_number)),
            "b": str(rng.randint(2, 3)),
            "it": rng.choice(self.grammar.it),
        }
        chosen = choose_alternatives(wording, rng)
        wording = _NO_ON.sub("", _MARK.sub(lambda mark: marks[mark[1]], chosen))
        for table in self.rewrites:
            wording = _replace_words(wording, table)
        if self.careless:
            wording = _WORD.sub(self.misspell, wording)
        return " ".join(wording.split())

    def misspell(self, match: re.Match[str]) -> str:
        """Misspells some words: as people do, or with letters swapped, lost or doubled."""
        word, rng, listed = match[0], self.rng, self.grammar.misspellings
        if rng.random() > self.careless:
            return word
        if word in listed or len(word) < 5 or rng.random() < 0.7:
            return rng.choice(listed.get(word, [word]))
        i = rng.randint(1, len(word) - 3)
        wrong = rng.choice([word[i + 1] + word[i], word[i], word[i] + word[i : i + 2]])
        return word[:i] + wrong + word[i + 2 :]


def _write_unclear(grammar: Grammar, rng: Random) -> str:
    """Writes a text without information: nothing said, off topic, another language, nonsense."""
    kind = rng.choices([*UNCLEAR_KINDS], [*UNCLEAR_KINDS.values()])[0]
    lines: list[str] = []
    while not lines or (len(lines) < 8 and rng.random() < 0.6):
        chatty = kind in ("empty", "offtopic") and lines and rng.random() < 0.6
        talk = grammar.talk[rng.choice(["openers", "middles", "middles", "closers"])]
        line = choose_alternatives(rng.choice(talk if chatty else grammar.unclear[kind]), rng)
        lines.append(
            _MARK.sub(lambda _: "".join(rng.choices(_LETTERS, k=rng.randint(2, 11))), line)
        )
    return rng.choice([". ", " ", "\n"]).join(lines)


def _join_pieces(
    pieces: Sequence[_Piece], register: Register, rng: Random
) -> tuple[str, list[Phrase]]:
    """Joins the pieces and records where the facts are."""
    text, phrases = "", []
    for piece in pieces:
        if text:
            close = piece.tight or _SENTENCE_END.search(text)
            text += " " if close else rng.choice(register.joins)
        starts = not text or bool(_SENTENCE_END.search(text))
        lead = rng.choice(register.leads) if piece.fact and starts else ""
        if lead:
            text += _set_case(lead, starts, register) + " "
        wording = _set_case(piece.wording, starts and not lead, register)
        if piece.fact:
            phrases.append(Phrase(len(text), len(text) + len(wording), *piece.fact))
        text += wording
    return text + ("" if text.endswith("?") else rng.choice([".", ".", "", "!"])), phrases


def _set_case(wording: str, starts: bool, register: Register) -> str:
    """Begins a sentence with a capital, unless the register is in lower case."""
    if register.lower:
        return wording.lower()
    # after a comma "My" becomes "my"; "I" and "M" stay
    small = wording[:1].lower() if wording[1:2].islower() else wording[:1]
    return (wording[:1].upper() if starts else small) + wording[1:]


def choose_alternatives(wording: str, rng: Random) -> str:
    """Chooses one of each `(a|b|)`, from the inside out."""
    while "(" in wording:
        wording = _ALTERNATIVES.sub(lambda match: rng.choice(match[1].split("|")), wording)
    return wording


def _replace_words(text: str, table: Mapping[str, str]) -> str:
    return _compile_words(tuple(table)).sub(lambda word: table[word[0]], text)


@cache
def _compile_words(words: tuple[str, ...]) -> re.Pattern[str]:
    """Finds any of these, as whole words, the longest first."""
    return re.compile(rf"\b({'|'.join(sorted(words, key=len, reverse=True))})\b")
