"""Splits a text into words and finds phrases, in a time that depends only on the text's length.

The regular expressions repeat single characters of disjoint classes, so none can backtrack; phrases
are looked up word by word in a tree.
"""

import re
import unicodedata
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict

_APOSTROPHES = "'’‘ʼ`´"
# accents, soft hyphens and the like
_INSIDE = f"[^\\W\\d_]|[\u0300-\u036f\u00ad\u200b-\u200d]|[{_APOSTROPHES}](?=[^\\W\\d_])"
_WORD = re.compile(
    r"(?P<both>\(\s?\+/?[-–−]\s?\)|±|\+/-)"  # signs as in notes: "scale (-), itch ++"
    r"|(?P<plus>\(\s?\+{1,3}\s?\)|\+{1,3}(?:ve\b)?)"
    r"|(?P<minus>\(\s?[-–−]{1,3}\s?\)|[-–−]{1,3}(?:ve\b|(?=\s?[,.;/\n]|\Z)))"
    r"|(?P<query>(?<!\S)\?(?=\w))"  # "?eczema"
    r"|(?P<zero>\b0(?:/\d+)?\b(?![.,]\d))"  # "itch 0/10"
    r"|(?P<period>\b\d{1,3}/(?:7|12|52)\b)"  # days, months and weeks in British notes: "6/52"
    r"|(?P<number>\d+(?:[.,/–-]\d+)*)"  # "3-4" too
    r"|(?P<letters>\b[a-z]/[a-z]\b)"  # "w/o"
    rf"|(?P<word>[^\W\d_](?:{_INSIDE})*)"
    r"|(?P<dash>(?<!\S)[-–]{1,2}(?=\s)|—)"
    r"|(?P<hyphen>(?<!\S)[-–](?=[^\W\d])|(?<=\w)[-–](?=\s))"
    r"|(?P<mark>[,.;:!?)\n])",
    re.IGNORECASE,
)
# other forms of marks, one character for one; phones turn three dots into "…"
_MARKS = str.maketrans("…。，！？；：）", "..,!?;:)") | dict.fromkeys(
    map(ord, "•●▪→|\u2028\u2029\x0b\x0c\x85"), "\n"
)
_SILENT = re.compile(f"[\u0300-\u036f\u00ad\u200b-\u200d{_APOSTROPHES}]")
_WOULD = re.compile(rf"(?<=[^\W\d_])[{_APOSTROPHES}][dD]\Z")  # "she'd" is "she", not "shed"
_DRAWN_OUT = re.compile(r"(.)\1{2,}")  # "itchyyyy"
_SLOT = re.compile(r"(<[^<>]+>)")
NUMBER, DASH, NEW_LINE = "#", "—", "\n"
_PLUS, MINUS, _HYPHEN = "(+)", "(-)", "-"
_LINE_ENDS = frozenset({NEW_LINE, "."})
_FORMS = {
    "number": NUMBER,
    "period": "#/52",
    "dash": DASH,
    "both": "(+/-)",
    "plus": _PLUS,
    "minus": MINUS,
    "hyphen": _HYPHEN,
    "query": "query",  # the same as the word itself
    "zero": "zero",
}


@dataclass(frozen=True)
class Word:
    """A word, number or punctuation mark of a text.

    Attributes:
        start: Character offset.
        end: Offset after its last character.
        form: The form for look-ups: lower case, without accents and apostrophes; "#" for any number
            except "zero", "#/52" for a period such as "6/12", "(+)", "(-)" and "(+/-)" for signs,
            "query" for a question mark before a word.
    """

    start: int
    end: int
    form: str


def split_words(text: str, mended: Mapping[str, str] | None = None) -> list[Word]:
    """Splits a text into words, numbers and the punctuation that matters.

    Hyphens within words, quotes and emoji are left out.

    Args:
        text: Any text.
        mended: Forms that replace others, such as misspellings.
    """
    words = []
    for match in _WORD.finditer(text.translate(_MARKS)):
        kind, form = match.lastgroup, match.group()
        if kind == "word":
            form = _WOULD.sub("", form)
            # removes marks first: normalising would order them, in time quadratic in their number
            bare = unicodedata.normalize("NFKD", _SILENT.sub("", form))
            form = _SILENT.sub("", bare.casefold())
        form = _FORMS.get(kind or "", _DRAWN_OUT.sub(r"\1", form.casefold()))
        form = mended.get(form, form) if mended else form
        words.append(Word(match.start(), match.end(), form))
    lines = groupby(words, lambda word: word.form in _LINE_ENDS)
    return [word for _, line in lines for word in _read_dashes(list(line))]


def _read_dashes(line: Sequence[Word]) -> list[Word]:
    """Reads dashes as minus signs in notes: "- itch, + scale", "itch + scale - oozing +".

    A line or sentence with a plus is such a note if a sign ends an item (then signs follow their
    words) or begins the line. A dash before the first sign is a bullet, or follows a heading.
    """
    forms = [word.form for word in line]
    signs = [at for at, form in enumerate(forms) if form in {_PLUS, MINUS}]
    dashes = {at for at, form in enumerate(forms) if form in {DASH, _HYPHEN}}
    ends = {form for form, after in pairwise([*forms, "."]) if after in {",", ";", ".", "/"}}
    if _PLUS in forms and not ends.isdisjoint({_PLUS, MINUS}):
        minus = MINUS
        dashes = {at for at in dashes if at and (at > signs[0] or forms[at] == _HYPHEN)}
    elif _PLUS in forms and 0 in dashes.union(signs):
        minus = "no"
    else:
        return [word for word in line if word.form != _HYPHEN]
    return [replace(word, form=minus) if at in dashes else word for at, word in enumerate(line)]


class Part(BaseModel):
    """A part of a YAML file of this package: no unknown keys, no silent conversion."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PhraseFile(Part):
    """A YAML file with phrases, and the slots in them."""

    slots: dict[str, list[str]]

    @classmethod
    def load(cls, name: str) -> Self:
        """Reads a file of this package.

        Raises:
            ValidationError: If it has a key that nothing reads, or a value of another type.
        """
        text = Path(__file__).with_name(name).read_text(encoding="utf-8")
        return cls.model_validate(yaml.safe_load(text))


Meaning = TypeVar("Meaning", bound=Hashable)


@dataclass
class _Node(Generic[Meaning]):
    """What may follow the beginning of a phrase, and what the beginning means if it is a phrase."""

    words: dict[str, "_Node[Meaning]"] = field(default_factory=dict)
    slots: dict[str, "_Node[Meaning]"] = field(default_factory=dict)
    meanings: list[Meaning] = field(default_factory=list)


@dataclass(frozen=True)
class Found(Generic[Meaning]):
    """A phrase in a list of words.

    Attributes:
        start: Index of its first word.
        end: Index after its last.
        meanings: What the table says about it.
    """

    start: int
    end: int
    meanings: tuple[Meaning, ...]


class PhraseTable(Generic[Meaning]):
    """Phrases, and what each means.

    Args:
        phrases: Pairs of phrase and value; a phrase may occur again with another value. A phrase
            consists of words as in a text, "#" for any number in digits, and `<slot>`s.
        slots: Phrases that each slot stands for; they may contain slots named before. An empty
            phrase makes the slot optional.

    Raises:
        ValueError: If a phrase is not a string, could be empty, or contains an unknown slot.
    """

    def __init__(self, phrases: Iterable[tuple[str, Meaning]], slots: Mapping[str, Sequence[str]]):
        self._slots: dict[str, _Node[bool]] = {}
        for name, entries in slots.items():
            self._slots[name] = self._build((entry, True) for entry in entries)
        self._root = self._build(phrases)
        if self._may_be_nothing(self._root):
            raise ValueError("a phrase is empty, or made of slots that may be left out")
        self._firsts = {name: self._find_firsts(slot) for name, slot in self._slots.items()}
        self._optional = {name for name, slot in self._slots.items() if self._may_be_nothing(slot)}
        self._first = self._find_firsts(self._root)

    def find(self, forms: Sequence[str]) -> list[Found[Meaning]]:
        """Finds the phrases in a list of words.

        It takes the first phrase, the longest of those that start there, and continues at its end.
        """
        found, start = [], 0
        while start < len(forms):
            ways = list(self._walk(self._root, forms, start)) if forms[start] in self._first else []
            end = max((end for end, _ in ways), default=start + 1)
            if ways:
                # a slot and a plain word may lead to the same end
                meanings = chain.from_iterable(meanings for at, meanings in ways if at == end)
                found.append(Found(start, end, tuple(dict.fromkeys(meanings))))
            start = end
        return found

    def _build(self, phrases: Iterable[tuple[str, Any]]) -> _Node[Any]:
        """Builds the tree of some phrases."""
        root: _Node[Any] = _Node()
        for phrase, meaning in phrases:
            if not isinstance(phrase, str):
                raise ValueError(
                    f"{phrase!r}: a phrase must be a string; quote it in the YAML file"
                )
            node = root
            for part in _SLOT.split(phrase):
                if not part.startswith("<"):
                    for word in split_words(part.replace(NUMBER, "1")):
                        node = node.words.setdefault(word.form, _Node())
                elif part[1:-1] in self._slots:
                    node = node.slots.setdefault(part[1:-1], _Node())
                else:
                    raise ValueError(
                        f"{phrase!r}: this phrase names an unknown slot {part}; so far there are:"
                        f" {', '.join(self._slots) or 'none'}"
                    )
            if meaning not in node.meanings:
                node.meanings.append(meaning)
        return root

    def _walk(
        self, root: _Node[Any], forms: Sequence[str], start: int
    ) -> Iterator[tuple[int, list[Any]]]:
        """Yields end and meanings of each phrase that starts here."""
        ways = [(start, root)]
        while ways:
            at, node = ways.pop()
            if node.meanings:
                yield at, node.meanings
            form = forms[at] if at < len(forms) else ""
            if form in node.words:
                ways.append((at + 1, node.words[form]))
            for name, child in node.slots.items():
                if form in self._firsts[name] or name in self._optional:
                    ways += [(end, child) for end, _ in self._walk(self._slots[name], forms, at)]

    def _may_be_nothing(self, node: _Node[Any]) -> bool:
        slots = node.slots.items()
        return bool(node.meanings) or any(
            self._may_be_nothing(self._slots[name]) and self._may_be_nothing(child)
            for name, child in slots
        )

    def _find_firsts(self, node: _Node[Any]) -> frozenset[str]:
        """Finds the words that a continuation from this node may begin with."""
        firsts = set(node.words)
        for name, child in node.slots.items():
            firsts |= self._find_firsts(self._slots[name])
            if self._may_be_nothing(self._slots[name]):
                firsts |= self._find_firsts(child)
        return frozenset(firsts)
