"""What the words around a symptom make of it: denied, over, doubted, or somebody else's.

Rules after NegEx (Chapman et al. 2001, doi 10.1006/jbin.2001.1029) and ConText (Harkema et al.
2009, doi 10.1016/j.jbi.2009.05.002): a phrase such as "no" or "is absent" reaches forwards or
backwards over a number of words, but never past the end of its clause. Phrases act in the order of
the text, so that a later one can undo an earlier: "no cream" denies the itch, "stops the itch"
takes that back. The phrases are in `context.yaml`.
"""

from collections.abc import Container, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path

import yaml

from eczema_tf.symptoms.phrases import DASH, MINUS, NEW_LINE, Found, PhraseTable

# effects on symptoms; more may be in the file, which explains them
NEGATED, UNCERTAIN, PAST, FAMILY = "negated", "uncertain", "past", "family"
_RELATIVE = "relative"
_LIFTED, _REVERSED = "lifted", "reversed"
_EARLIER, _BEGUN, _NOW = "earlier", "begun", "now"
_MADE, _MAKE, _AWAY = "made", "make", "away"
# what two halves say together
_JOINT = {(_EARLIER, _NOW): PAST, (_MADE, _AWAY): _REVERSED, (_MAKE, _AWAY): _LIFTED}
_TURN, _CAUSE, _END, _NONE = ("turn", "cause", "end", "none")  # of clauses alone
_PRECEDING, _ADJACENT = "preceding", "adjacent"  # what a rule covers; else "following"
_LIMITED = (NEGATED, UNCERTAIN, PAST, _REVERSED, _EARLIER, _MADE, _MAKE)  # to its reach
_CLAUSE_ENDS = frozenset({".", ";", ":", "!", "?", ")", DASH, NEW_LINE})
_LIST_ENDS = frozenset({"or", "nor", "plus", "etc"})  # and "and", with care
_DETERMINERS = frozenset({"the", "my", "his", "her", "their", "our", "some", "a", "this", "these"})
_SELF = frozenset({"i", "im", "ive", "my"})  # who writes
_ITEM_WORDS = 4  # most words of an item of a list: "itching, very dry skin or crusts"


@dataclass(frozen=True)
class SymptomSpan:
    """A symptom phrase among the words of a text.

    Attributes:
        start: Index of its first word.
        end: Index after its last.
        reach: How many words may stand between it and what denies or doubts it; None: as many as
            the rule says.
    """

    start: int
    end: int
    reach: int | None = None


@dataclass(frozen=True)
class ContextRule:
    """What a phrase does to symptoms near it: the keys of `context.yaml`."""

    effect: str
    covers: str
    reach: int


def read_context(forms: Sequence[str], symptoms: Sequence[SymptomSpan]) -> list[frozenset[str]]:
    """Reads what is said about symptoms.

    Args:
        forms: Forms of the words of a text (`phrases.split_words`).
        symptoms: By position, without overlap.

    Returns:
        The effects on each symptom: "negated", "past", "uncertain", "family", and whatever more
            `context.yaml` names.
    """
    inside = {
        index: number
        for number, symptom in enumerate(symptoms)
        for index in range(symptom.start, symptom.end)
    }
    forms = [*forms, "."]
    around = [
        phrase
        for phrase in load_rules().find(forms)
        if inside.keys().isdisjoint(range(phrase.start, phrase.end))
    ]
    said = _number_clauses(forms, around, inside, (_TURN, _CAUSE, _END))
    timed = _number_clauses(forms, around, inside, (_TURN, _END))  # what causes lasts as long
    owned = _number_clauses(forms, around, inside, (_END,))
    scopes = {FAMILY: owned, _RELATIVE: owned, PAST: timed, _EARLIER: timed, _NOW: [0] * len(forms)}
    subject = _find_subject(forms, around)
    effects = [set[str]() for _ in symptoms]
    for phrase in around:
        for rule in phrase.meanings:
            scope = scopes.get(rule.effect, said)
            if rule.covers == _ADJACENT and _ends_other(forms, phrase, inside):
                continue
            for number, distance in _find_covered(phrase, rule, scope, inside):
                reach = symptoms[number].reach
                if rule.effect not in _LIMITED or reach is None or distance <= reach:
                    of_other = rule.effect == _RELATIVE and phrase is not subject
                    _apply(FAMILY if of_other else rule.effect, effects[number])
    return [frozenset(each) for each in effects]


def _means(phrase: Found[ContextRule], effects: Sequence[str]) -> bool:
    return any(rule.effect in effects for rule in phrase.meanings)


def _find_subject(
    forms: Sequence[str], around: Sequence[Found[ContextRule]]
) -> Found[ContextRule] | None:
    """Finds the relative of whom a text of several sentences tells before the writer's own skin."""
    own = (phrase for phrase in around if phrase.start and forms[phrase.start - 1] == "my")
    first = next((phrase for phrase in own if _means(phrase, (_RELATIVE,))), None)
    if not first or {".", "!", "?"}.isdisjoint(forms[first.end : -2]):
        return None
    writer = [at for at, form in enumerate(forms[: first.end]) if form in _SELF]
    return first if writer == [first.start - 1] else None


def _apply(effect: str, effects: set[str]) -> None:
    """Adds an effect to those that the words before had on a symptom, or undoes some of them."""
    denied = not effects.isdisjoint({NEGATED, _LIFTED})
    for before in () if _BEGUN in effects else sorted(effects):
        effect = _JOINT.get((before, effect), effect)
    if effect == _REVERSED:
        effect = _LIFTED if denied else NEGATED
    if effect == _LIFTED:
        effects -= {NEGATED, PAST}
    if effect != _LIFTED or denied:
        effects.add(effect)


def _ends_other(forms: Sequence[str], phrase: Found[ContextRule], inside: Container[int]) -> bool:
    """Whether a minus stands after a word that is no symptom: "oedema - / itch +"."""
    before = phrase.start - 1
    signed = before >= 0 and forms[phrase.start] == MINUS
    return signed and before not in inside and forms[before].isalpha()


def _find_covered(
    phrase: Found[ContextRule], rule: ContextRule, clauses: Sequence[int], inside: Mapping[int, int]
) -> Iterator[tuple[int, int]]:
    """Yields the symptoms that a phrase reaches in its clause, and how many words stand between."""
    beside = rule.covers == _ADJACENT and phrase.start - 1 in inside
    preceding = beside or rule.covers == _PRECEDING
    first, step = (phrase.start - 1, -1) if preceding else (phrase.end, 1)
    home = phrase.start - 1 if preceding else phrase.end - 1
    for distance in range(1 if beside else rule.reach + 1):
        index = first + step * distance
        if not 0 <= index < len(clauses) or clauses[index] != clauses[home]:
            return
        if index in inside and inside.get(index - step) != inside[index]:
            yield inside[index], distance


def _number_clauses(
    forms: Sequence[str],
    around: Sequence[Found[ContextRule]],
    inside: Container[int],
    ends: Sequence[str],
) -> list[int]:
    """Gives each word the number of its clause; what ends a clause belongs to the next one."""

    def find_starts(effects: Sequence[str]) -> set[int]:
        return {
            phrase.start
            for phrase in around
            if _means(phrase, effects) and not _adds_item(forms, phrase, inside)
        }

    asides = [range(phrase.start, phrase.end) for phrase in around if _means(phrase, (_NONE,))]
    commas = {index for index, form in enumerate(forms) if form == ","}.difference(*asides)
    marks = {index for index, form in enumerate(forms) if form in _CLAUSE_ENDS}
    borders = find_starts(ends) | marks
    borders |= commas - _find_list_commas(forms, find_starts([NEGATED]))
    starts = [index in borders and index not in inside for index in range(len(forms))]
    return list(accumulate(map(int, starts)))


def _adds_item(forms: Sequence[str], phrase: Found[ContextRule], inside: Container[int]) -> bool:
    """Whether a symptom with its article ends a list, so that "and the" begins no new clause.

    So it does before the end of the clause, and after a symptom that begins one: "The itch and the
    redness disappeared".
    """
    *_, link, article = "", *forms[phrase.start : phrase.end]
    if article not in _DETERMINERS or link not in {",", "and"} or phrase.end not in inside:
        return False
    after = next(index for index in range(phrase.end, len(forms)) if index not in inside)
    before = next(index for index in range(phrase.start - 1, -2, -1) if index not in inside)
    begins = before < 1 or forms[before - 1] in _CLAUSE_ENDS | {",", "and", "but", "both"}
    leads = before < phrase.start - 1 and begins and forms[before] in _DETERMINERS
    return leads or forms[after] in _CLAUSE_ENDS | _LIST_ENDS | {",", "and", "but"}


def _find_list_commas(forms: Sequence[str], denials: Set[int]) -> set[int]:
    """Finds commas of a list that is denied as a whole ("no redness, scaling or oozing").

    A negation reaches past these. "And" closes such a list only where the sentence denies once, at
    its head; in "no scale, no blisters, dry and red" each item speaks for itself.
    """
    marks = [index for index, form in enumerate(forms) if form in _CLAUSE_ENDS]
    listed: set[int] = set()
    for start, end in pairwise([-1, *marks, len(forms)]):
        commas = [index for index in range(start + 1, end) if forms[index] == ","]
        once = bool(commas) and denials.isdisjoint(range(commas[0], end))
        closing = _LIST_ENDS | {"and"} if once else _LIST_ENDS
        for comma in reversed(commas):
            if _is_in_list(forms, comma, closing, listed):
                listed.add(comma)
    return listed


def _is_in_list(forms: Sequence[str], comma: int, closing: Set[str], listed: Set[int]) -> bool:
    """Whether the next item leads to a closing word or to a comma of a list, the first to come."""
    before = forms[max(comma - 1 - _ITEM_WORDS, 0) : comma]
    after = forms[comma + 1 : comma + 2 + _ITEM_WORDS]
    ends = _LIST_ENDS | {",", "and"}
    length = next((length for length, form in enumerate(after) if form in ends), None)
    if length is None or "and" in before or not _LIST_ENDS.isdisjoint(before):
        return False
    if after[length] == ",":
        return comma + 1 + length in listed
    is_pair = length == 0 and after[0] == "and" and "," not in before  # "not red, and itchy"
    return after[length] in closing and not is_pair


@cache
def load_rules() -> PhraseTable[ContextRule]:
    """Loads the rules of `context.yaml`, once."""
    source = yaml.safe_load(Path(__file__).with_name("context.yaml").read_text(encoding="utf-8"))
    rules = [
        (phrase, ContextRule(group["effect"], group["covers"], group["reach"]))
        for group in source["rules"]
        for phrase in group["phrases"]
    ]
    return PhraseTable(rules, source["slots"])
