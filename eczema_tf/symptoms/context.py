"""What the words around a symptom make of it: denied, over, doubted, or somebody else's.

Rules after NegEx (Chapman et al. 2001, doi 10.1006/jbin.2001.1029) and ConText (Harkema et al.
2009, doi 10.1016/j.jbi.2009.05.002): a phrase such as "no" or "is absent" reaches forwards or
backwards over a number of words, but never past the end of its clause. Phrases act in the order of
the text, so that a later one can undo an earlier: "no cream" denies the itch, "stops the itch"
takes that back. The phrases are in `context.yaml`.
"""

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, chain, islice, pairwise
from pathlib import Path

import yaml

from eczema_tf.symptoms.phrases import DASH, MINUS, NEW_LINE, Found, PhraseTable

# effects on symptoms; more may be in the file, which explains them
NEGATED, UNCERTAIN, PAST, FAMILY = "negated", "uncertain", "past", "family"
WAS = "was"  # so before; over, where the text denies it later
_RELATIVE = "relative"
_LIFTED, _REVERSED = "lifted", "reversed"
_EARLIER, _BEGUN, _NOW = "earlier", "begun", "now"
_MADE, _MAKE, _AWAY = "made", "make", "away"
# what two halves say together
_JOINT = {(_EARLIER, _NOW): PAST, (_MADE, _AWAY): _REVERSED, (_MAKE, _AWAY): _LIFTED}
_TURN, _CAUSE, _END, _NONE = ("turn", "cause", "end", "none")  # of clauses alone
_PRECEDING, _ADJACENT, _SENTENCE = "preceding", "adjacent", "sentence"  # else "following"
_LIMITED = (NEGATED, UNCERTAIN, PAST, _REVERSED, _EARLIER, _MADE, _MAKE)  # to its reach
CLAUSE_ENDS = frozenset({".", ";", ":", "!", "?", ")", DASH, NEW_LINE})
_LIST_ENDS = frozenset({"or", "nor", "plus", "etc"})  # and "and", with care
_LIST_HEADS = frozenset({("neg", ":"), ("negative", ":"), ("denies", ":"), ("absent", ":")})
_DETERMINERS = frozenset({"the", "my", "his", "her", "their", "our", "some", "a", "this", "these"})
# what a question for yes or no begins with
_AUXILIARIES = frozenset(
    {"is", "are", "can", "could", "does", "do", "would", "will", "should", "might", "may"}
)
# a request, or a question about what is there for certain
_ASKS_ELSE = frozenset(
    {"you", "anyone", "anybody", "everyone", "someone", "somebody", "doctor", "normal", "why"}
)
_RELATIVE_WORDS = frozenset({"which", "both", "present"})  # that begin an aside
_PLACES = frozenset({"to", "in", "on", "behind"})  # before the article of what is asked about, too
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
    around = load_rules().find(["" if at in inside else form for at, form in enumerate(forms)])
    scopes = _number_by_scope(forms, around, inside)
    subject = _find_subject(forms, around)
    effects = [set[str]() for _ in symptoms]
    for phrase in around:
        # each once, though several lists may have it
        for effect, number in dict.fromkeys(_reach(phrase, forms, scopes, symptoms, inside)):
            of_other = effect == _RELATIVE and phrase is not subject
            _apply(FAMILY if of_other else effect, effects[number])
    for number in _find_asked(forms, symptoms):
        effects[number].add(UNCERTAIN)
    return [frozenset(each) for each in effects]


def _number_by_scope(
    forms: Sequence[str], around: Sequence[Found[ContextRule]], inside: Mapping[int, int]
) -> defaultdict[str, list[int]]:
    """The number of each word's clause, by effect or by what a rule covers."""
    said = _number_clauses(forms, around, inside, (_TURN, _CAUSE, _END))
    timed = _number_clauses(forms, around, inside, (_TURN, _END))  # what causes lasts as long
    owned = _number_clauses(forms, around, inside, (_END,), joins_lists=True)
    sentences = list(accumulate(int(form in CLAUSE_ENDS) for form in forms))
    scopes = {FAMILY: owned, _RELATIVE: owned, PAST: timed, WAS: timed, _EARLIER: timed}
    scopes |= {_NOW: [0] * len(forms), _SENTENCE: sentences}
    return defaultdict(lambda: said, scopes)


def _reach(
    phrase: Found[ContextRule],
    forms: Sequence[str],
    scopes: Mapping[str, Sequence[int]],
    symptoms: Sequence[SymptomSpan],
    inside: Mapping[int, int],
) -> Iterator[tuple[str, int]]:
    """Yields the effects of a phrase, and the numbers of the symptoms that they are on."""
    for rule in phrase.meanings:
        if rule.covers == _ADJACENT and _ends_other(forms, phrase, inside):
            continue
        scope = scopes[_SENTENCE if rule.covers == _SENTENCE else rule.effect]
        for number, distance in _find_covered(phrase, rule, scope, inside):
            reach = symptoms[number].reach
            if rule.effect not in _LIMITED or reach is None or distance <= reach:
                yield rule.effect, number


def _find_asked(forms: Sequence[str], symptoms: Sequence[SymptomSpan]) -> Iterator[int]:
    """Yields the numbers of symptoms that a question is about: "Can stress cause itching?".

    Those with an article are known: "Will my itch go?", but for places: "in the creases".
    """
    asked = set(chain.from_iterable(_find_questions(forms)))
    for number, symptom in enumerate(symptoms):
        *_, before, article = "", "", *forms[max(symptom.start - 2, 0) : symptom.start]
        if symptom.start in asked and (article not in _DETERMINERS or before in _PLACES):
            yield number


def _find_questions(forms: Sequence[str]) -> Iterator[range]:
    """Yields the sentences that ask for yes or no: "Can stress cause itching?"."""
    start = 0
    for index, form in enumerate(forms):
        if (
            form == "?"
            and forms[start] in _AUXILIARIES
            and _ASKS_ELSE.isdisjoint(forms[start:index])
        ):
            yield range(start, index)
        if form == "," or form in CLAUSE_ENDS:
            start = index + 1


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
    preceding = beside or rule.covers in (_PRECEDING, _SENTENCE)
    anchor, step = (phrase.start, -1) if preceding else (phrase.end - 1, 1)
    words = range(phrase.start - 1, -1, -1) if preceding else range(phrase.end, len(clauses))
    # past a relative clause, unless the phrase is part of one
    passed = (index for index in words if clauses[index] >= 0 or clauses[anchor] < 0)
    near = list(islice(passed, 1 if beside else rule.reach + 1))
    home = clauses[near[0] if preceding and near else anchor]
    for distance, index in enumerate(near):
        if clauses[index] != home:
            return
        if index in inside and inside.get(index - step) != inside[index]:
            yield inside[index], distance


def _number_clauses(
    forms: Sequence[str],
    around: Sequence[Found[ContextRule]],
    inside: Mapping[int, int],
    ends: Sequence[str],
    joins_lists: bool = False,
) -> list[int]:
    """Gives each word the number of its clause; what ends a clause belongs to the next one.

    Those of relative clauses are negative. With `joins_lists` a comma between symptoms ends none:
    "her dry, cracked hands", "sister: no asthma, no eczema".
    """

    def find_starts(effects: Sequence[str]) -> set[int]:
        return {
            phrase.start
            for phrase in around
            if _means(phrase, effects) and not _adds_item(forms, phrase, inside)
        }

    asides = [
        range(phrase.start, phrase.end)
        for phrase in around
        if _means(phrase, (_NONE, _REVERSED))  # ", but not the itch" goes on with what was done
    ]
    commas = {index for index, form in enumerate(forms) if form == ","}.difference(*asides)
    if joins_lists:
        commas = {
            at
            for at in commas
            if not (at - 1 in inside and (at + 1 in inside or forms[at + 1] == "no"))
        }
    marks = {index for index, form in enumerate(forms) if form in CLAUSE_ENDS}
    borders = find_starts(ends) | marks
    borders |= commas - _find_list_commas(forms, find_starts([NEGATED]))
    borders -= inside.keys()
    relatives = list(_find_relative_clauses(forms))
    aside = set(chain.from_iterable(relatives))
    main = borders - aside - {relative.stop for relative in relatives}
    numbers = accumulate(index in main for index in range(len(forms)))
    within = accumulate(index in borders for index in range(len(forms)))
    return [
        -1 - numbered if index in aside else number
        for index, (number, numbered) in enumerate(zip(numbers, within, strict=True))
    ]


def _find_relative_clauses(forms: Sequence[str]) -> Iterator[range]:
    """Yields what stands between commas after a noun: "the itch, which was bad, has gone"."""
    commas = [index for index, form in enumerate(forms) if form == ","]
    for start, end in pairwise(commas):
        within = forms[start + 1 : end]
        if forms[start + 1] in _RELATIVE_WORDS and CLAUSE_ENDS.isdisjoint(within):
            yield range(start, end)


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
    begins = before < 1 or forms[before - 1] in CLAUSE_ENDS | {",", "and", "but", "both"}
    leads = before < phrase.start - 1 and begins and forms[before] in _DETERMINERS
    return leads or forms[after] in CLAUSE_ENDS | _LIST_ENDS | {",", "and", "but"}


def _find_list_commas(forms: Sequence[str], denials: Set[int]) -> set[int]:
    """Finds commas of a list that is denied as a whole ("no redness, scaling or oozing").

    A negation reaches past these. "And" closes such a list only where the sentence denies once, at
    its head; in "no scale, no blisters, dry and red" each item speaks for itself.
    """
    marks = [index for index, form in enumerate(forms) if form in CLAUSE_ENDS]
    listed: set[int] = set()
    for start, end in pairwise([-1, *marks, len(forms)]):
        commas = [index for index in range(start + 1, end) if forms[index] == ","]
        once = bool(commas) and denials.isdisjoint(range(commas[0], end))
        closing = _LIST_ENDS | {"and"} if once else _LIST_ENDS
        if start > 0 and tuple(forms[start - 1 : start + 1]) in _LIST_HEADS:
            listed.update(commas)
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
