"""Cues: the symptom phrases that a text mentions, denies or doubts, and whose they are.

A text goes in, `Cue`s with character offsets come out. The vocabulary is in `cues.yaml`, the
phrases around it are in `context.yaml`. Both are lists of phrases, so what was found can always be
shown; no model is involved.
"""

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from eczema_tf.symptoms.clauses import CLAUSE_ENDS
from eczema_tf.symptoms.context import (
    FAMILY,
    GONE,
    NEGATED,
    PAST,
    UNCERTAIN,
    WAS,
    SymptomSpan,
    read_context,
)
from eczema_tf.symptoms.phrases import NEW_LINE, split_words
from eczema_tf.symptoms.vocabulary import Category, CueMeaning, load_vocabulary

PRESENT, PATIENT = "present", "patient"
MENTIONED, DENIED, OPEN = "mentioned", "denied", "open"
CRITERIA_NOTICE = (
    "What the text says about the UK Working Party's criteria for atopic dermatitis (Williams et"
    " al. 1994). Fixed rules read the text; this is not a diagnosis."
)
_NEAR = 12  # the most words between a phrase and the symptom that it needs nearby
_AGE, _INFANCY, _LATER = "age", "infancy", "later"  # kinds of onset
# by unit, as written; otherwise the unit is years
_TWO_YEARS = {r"\bday|/7\b": 730, r"\bweek|/52\b": 104, r"\bmonth|/12\b": 24}
# the words in the slot <digit>
_NUMBERS = {
    "zero": 0,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "eleven": 11,
    "twelve": 12,
    "thirteen": 13,
    "fourteen": 14,
    "fifteen": 15,
    "sixteen": 16,
    "seventeen": 17,
    "eighteen": 18,
    "nineteen": 19,
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
}


@dataclass(frozen=True)
class Cue:
    """A symptom phrase in a text.

    Attributes:
        start: Character offset of the phrase in the text.
        end: Offset after its last character.
        text: The words themselves.
        category: For example "itch", as in `cues.yaml`.
        status: "present", "negated" (denied, or no longer so) or "uncertain" (doubted, asked about,
            feared, or conditional).
        subject: Whose symptom it is: "patient" or "family".
        attribution: How far it moved the answer, signed, in the unit of the given scores; None
            if no model was asked.
        kind: Finer than the category, for example "asthma"; "" for a phrase that is itself a
            denial.
    """

    start: int
    end: int
    text: str
    category: str
    status: str
    subject: str
    attribution: float | None = None
    kind: str = ""


@dataclass(frozen=True)
class Criterion:
    """What a text says about one criterion; see `CRITERIA_NOTICE`.

    Attributes:
        name: As in `cues.yaml`.
        words: The criterion, in words for people.
        status: "mentioned", "denied" or "open".
        cues: The cues that bear on it, by position, whether or not they settle it.
    """

    name: str
    words: str
    status: str
    cues: tuple[Cue, ...]


class _Mention(NamedTuple):
    """A phrase in a text, as a range of words, and its category."""

    start: int
    end: int
    meaning: CueMeaning
    category: Category


def find_cues(text: str) -> list[Cue]:
    """Finds the symptom phrases of a text.

    Args:
        text: Any text; even for hostile ones, the time is proportional to the length.

    Returns:
        The cues by position, without overlap.
    """
    vocabulary = load_vocabulary()
    words = split_words(text, vocabulary.mended)
    # without line breaks that only wrap a line
    words = [
        word
        for before, word in zip([None, *words], words, strict=False)
        if not (before and word.form == NEW_LINE and before.form in vocabulary.leads_on)
    ]
    forms = [word.form for word in words]
    mentions = _find_mentions(forms)
    spans = [SymptomSpan(each.start, each.end, each.category.reach) for each in mentions]
    cues: list[Cue] = []
    ended = set[str]()  # categories that later words deny
    for mention, effects in zip(mentions[::-1], read_context(forms, spans)[::-1], strict=True):
        if mention.category.dropped_by in effects:
            continue
        if WAS in effects and FAMILY not in effects and mention.meaning.category in ended:
            effects |= {PAST}
        start, end = words[mention.start].start, words[mention.end - 1].end
        cue = _make_cue(mention, effects, start, text[start:end])
        if mention.meaning.kind == _AGE:  # its unit may follow: "at the age of 6 | weeks"
            last = words[min(mention.end, len(words) - 1)]
            cue = replace(cue, kind=_read_age(text[start : last.end]))
        if (cue.status, cue.subject) == (NEGATED, PATIENT):
            ended.add(cue.category)
        cues.append(cue)
    return cues[::-1]


def _find_mentions(forms: Sequence[str]) -> list[_Mention]:
    """Finds the phrases that mean something in their place, by position."""
    vocabulary = load_vocabulary()
    mentions = [
        _Mention(found.start, found.end, meaning, vocabulary.categories[meaning.category])
        for found in vocabulary.phrases.find(forms)
        if (meaning := min(found.meanings, key=lambda meaning: meaning.category != "")).category
    ]
    meant = [
        each
        for number, each in enumerate(mentions)
        if _leads(
            each, mentions[max(number - _NEAR, 0) : number], mentions[number + 1 : number + _NEAR]
        )
    ]
    return sorted([*meant, *_find_ellipses(forms, meant)], key=lambda mention: mention.start)


def _leads(mention: _Mention, before: Sequence[_Mention], after: Sequence[_Mention]) -> bool:
    """Whether a phrase that means something only near a symptom has one nearby."""
    beside = mention.category.beside.get(mention.meaning.kind)
    within = mention.category.before.get(mention.meaning.kind, beside)
    return within is None or any(
        each.category.symptom and max(each.start - mention.end, mention.start - each.end) <= within
        for each in [*(before if beside else []), *after]
    )


def _find_ellipses(forms: Sequence[str], mentions: Sequence[_Mention]) -> Iterator[_Mention]:
    """Yields ends of clauses that repeat, about somebody, what was named shortly before."""
    inside = {index for each in mentions for index in range(each.start, each.end)}
    named = {each.end - 1: each for each in mentions if each.category.repeats}
    ends = {",", *CLAUSE_ENDS}
    for found in load_vocabulary().said_again.find(forms):
        near = range(found.start - 1, found.start - 1 - _NEAR, -1)
        before = next((named[index] for index in near if index in named), None)
        at_end = ends.issuperset(forms[found.end : found.end + 1])
        if before and at_end and inside.isdisjoint(range(found.start, found.end)):
            meaning = before.meaning._replace(said_again=found.meanings[0])
            yield _Mention(found.start, found.end, meaning, before.category)


def _make_cue(mention: _Mention, effects: Container[str], start: int, words: str) -> Cue:
    """Makes a cue from words that begin at the character offset `start`."""
    meaning, category = mention.meaning, mention.category
    ended = {PAST, GONE}.difference(category.history)
    denied = meaning.denies or any(effect in effects for effect in {NEGATED, *ended})
    doubted = UNCERTAIN in effects or category.doubted_by in effects
    of_family = FAMILY in effects or category.inherited_by in effects
    of_family |= meaning.denies and category.denials_of == FAMILY
    status = NEGATED if denied else UNCERTAIN if doubted else PRESENT
    status, subject = meaning.said_again or (status, FAMILY if of_family else PATIENT)
    return Cue(
        start=start,
        end=start + len(words),
        text=words,
        category=meaning.category,
        status=status,
        subject=subject,
        kind=meaning.kind,
    )


def _read_age(words: str) -> str:
    """Says whether an age is below the two years that the criteria ask about.

    Args:
        words: Such as "at the age of 6 months", "when I was five", "onset 5/12".
    """
    words = words.casefold()
    forms = re.findall(r"\d{1,9}|[a-z]+", words)
    numbers = [
        int(form) if form.isdigit() else _NUMBERS[form]
        for form in forms
        if form.isdigit() or form in _NUMBERS
    ]
    limits = [limit for unit, limit in _TWO_YEARS.items() if re.search(unit, words)]
    return _INFANCY if (numbers or [0])[0] < (limits or [2])[0] else _LATER


def attribute_cues(cues: Iterable[Cue], spans: Sequence[tuple[int, int, float]]) -> list[Cue]:
    """Adds up, for each cue, the scores of its words or tokens.

    Args:
        cues: Found in a text.
        spans: Start and end (character offsets into the same text) and signed score of each word or
            token. One that a cue covers partly gives that share of its score; empty ones, such as
            padding, give nothing.

    Returns:
        The same cues with their attribution; 0.0 if no span overlaps, for example past the end of
        what the model read.
    """
    starts, ends, scores = np.array(spans, "float64").reshape(-1, 3).T
    per_character = scores / np.maximum(ends - starts, 1)

    def add_up(cue: Cue) -> float:
        overlap = np.clip(np.minimum(ends, cue.end) - np.maximum(starts, cue.start), 0, None)
        return float(overlap @ per_character)

    return [replace(cue, attribution=add_up(cue)) for cue in cues]


def read_criteria(cues: Iterable[Cue]) -> list[Criterion]:
    """Reads what cues say about the criteria for atopic dermatitis of the UK Working Party.

    Source: Williams et al. 1994, "The U.K. Working Party's Diagnostic Criteria for Atopic
    Dermatitis", British Journal of Dermatology 131, doi 10.1111/j.1365-2133.1994.tb08530.x.

    Only the patient's own symptoms settle a criterion. One that is both mentioned and denied ("not
    in the elbows, but behind the knees") counts as mentioned. A doubted one stays open, as does
    one that only an examination can settle.

    Returns:
        All criteria, in the order of the source. Show them with `CRITERIA_NOTICE`.
    """
    cues = list(cues)
    criteria = []
    for name, rule in load_vocabulary().criteria.items():
        spoken = [cue for cue in cues if cue.category == rule.category]
        own = [cue for cue in spoken if cue.subject == PATIENT]
        for_it = [
            cue
            for cue in own
            if rule.kinds is None
            or cue.kind in rule.kinds
            or (not cue.kind and cue.status == NEGATED)
        ]
        against_it = [cue for cue in own if cue.kind in rule.contrary and cue.status == PRESENT]
        relatives = [cue for cue in spoken if rule.relatives and cue.subject == FAMILY]
        if any(cue.status == PRESENT for cue in for_it):
            status = MENTIONED
        elif against_it or any(cue.status == NEGATED for cue in for_it):
            status = DENIED
        else:
            status = OPEN
        shown = sorted({*for_it, *against_it, *relatives}, key=lambda cue: cue.start)
        criteria.append(Criterion(name, rule.words, status, tuple(shown)))
    return criteria


def describe_category(category: str) -> str:
    """Returns a category in words for people.

    Raises:
        KeyError: If there is no such category.
    """
    return load_vocabulary().categories[category].describe
