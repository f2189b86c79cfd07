"""What the words around a symptom say about it: denied, over, doubted, or somebody else's.

The rules follow NegEx (Chapman et al. 2001, doi 10.1006/jbin.2001.1029) and ConText (Harkema et al.
2009, doi 10.1016/j.jbi.2009.05.002): a phrase such as "no" or "is absent" reaches forwards or
backwards over a number of words, but never past the end of its clause. Phrases act in the order of
the text, so a later one can undo an earlier one: "no cream" denies the itch, "stops the itch" takes
that back. The phrases are in `context.yaml`.
"""

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice

from eczema_tf.symptoms.clauses import CLAUSE_ENDS, DETERMINERS, number_clauses
from eczema_tf.symptoms.phrases import MINUS, Found
from eczema_tf.symptoms.rules import ContextRule, load_rules, means

# effects on symptoms; the file explains these, and may have more
NEGATED, UNCERTAIN, FAMILY = "negated", "uncertain", "family"
PAST, GONE = "past", "gone"
WAS = "was"  # was so before; over, if the text denies it later
_RELATIVE = "relative"
_LIFTED, _REVERSED = "lifted", "reversed"
_EARLIER, _BEGUN, _NOW = "earlier", "begun", "now"
_MADE, _MAKE, _AWAY = "made", "make", "away"
_QUESTIONED, _REFUTED, _AFFIRMED = "questioned", "refuted", "affirmed"
_CONFIRMED = "confirmed"  # no longer doubted
# what two effects mean together
_JOINT = {
    (_EARLIER, _NOW): PAST,
    (_MADE, _AWAY): _REVERSED,
    (_MAKE, _AWAY): _LIFTED,
    (UNCERTAIN, _REFUTED): NEGATED,
    (_QUESTIONED, _REFUTED): NEGATED,
    (UNCERTAIN, _AFFIRMED): _CONFIRMED,
}
_TURN, _CAUSE, _END = ("turn", "cause", "end")  # these only affect clauses
_PRECEDING, _ADJACENT, _SENTENCE, _INSIDE = "preceding", "adjacent", "sentence", "inside"
# limited to the symptom's reach
_LIMITED = (NEGATED, UNCERTAIN, PAST, GONE, _REVERSED, _EARLIER, _MADE, _MAKE)
# words that begin a yes-or-no question
_AUXILIARIES = frozenset(
    {"is", "are", "can", "could", "does", "do", "would", "will", "should", "might", "may"}
) | {"shouldnt"}
# words of a request, or of a question about something that is certainly there
_ASKS_ELSE = frozenset(
    {"you", "anyone", "anybody", "everyone", "someone", "somebody", "doctor", "normal", "why"}
)
_PLACES = frozenset({"to", "in", "on", "behind"})  # after these, an article does not mean "known"
_SYMPTOM = "symptom"  # stands for a symptom's words when rules are applied
_SELF = frozenset({"i", "im", "ive", "my"})  # the writer


@dataclass(frozen=True)
class SymptomSpan:
    """A symptom phrase among the words of a text.

    Attributes:
        start: Index of its first word.
        end: Index after its last.
        reach: How many words may be between it and what denies or doubts it; None for as many as
            the rule allows.
    """

    start: int
    end: int
    reach: int | None = None


def read_context(forms: Sequence[str], symptoms: Sequence[SymptomSpan]) -> list[frozenset[str]]:
    """Reads what is said about symptoms.

    Args:
        forms: Forms of the words of a text (`phrases.split_words`).
        symptoms: By position, without overlap.

    Returns:
        The effects on each symptom: "negated", "past", "uncertain", "family", and any others that
            `context.yaml` names.
    """
    inside = {
        index: number
        for number, symptom in enumerate(symptoms)
        for index in range(symptom.start, symptom.end)
    }
    forms = [*forms, "."]
    around = load_rules().find(
        [  # "two years ago" is a cue itself, and tells when others were
            _SYMPTOM if at in inside and forms[symptoms[inside[at]].end - 1] != "ago" else form
            for at, form in enumerate(forms)
        ]
    )
    scopes = _number_by_scope(forms, around, inside)
    subject = _find_subject(forms, around)
    asked = set(_find_asked(forms, symptoms))
    effects = [{UNCERTAIN} if number in asked else set() for number in range(len(symptoms))]
    for phrase in around:
        # each effect once, even if several lists have it
        for effect, number in dict.fromkeys(_reach(phrase, forms, scopes, symptoms, inside)):
            of_other = effect == _RELATIVE and phrase is not subject
            _apply(FAMILY if of_other else effect, effects[number])
    return [frozenset(each) for each in effects]


def _number_by_scope(
    forms: Sequence[str], around: Sequence[Found[ContextRule]], inside: Mapping[int, int]
) -> defaultdict[str, list[int]]:
    """Numbers each word's clause, by effect or by what a rule covers."""
    said = number_clauses(forms, around, inside, (_TURN, _CAUSE, _END))
    timed = number_clauses(forms, around, inside, (_TURN, _END))  # a cause lasts as long
    owned = number_clauses(forms, around, inside, (_END,), joins_lists=True)
    sentences = list(accumulate(int(form in CLAUSE_ENDS) for form in forms))
    scopes = {FAMILY: owned, _RELATIVE: owned}
    scopes |= dict.fromkeys((PAST, GONE, WAS, _EARLIER), timed)
    scopes |= {_NOW: [0] * len(forms), _SENTENCE: sentences}
    return defaultdict(lambda: said, scopes)


def _reach(
    phrase: Found[ContextRule],
    forms: Sequence[str],
    scopes: Mapping[str, Sequence[int]],
    symptoms: Sequence[SymptomSpan],
    inside: Mapping[int, int],
) -> Iterator[tuple[str, int]]:
    """Yields the effects of a phrase, with the number of the symptom that each is on."""
    for rule in phrase.meanings:
        if rule.covers == _ADJACENT and _ends_other(forms, phrase, inside):
            continue
        if rule.covers == _INSIDE:
            within = dict.fromkeys(map(inside.get, range(phrase.start, phrase.end)))
            yield from ((rule.effect, number) for number in within if number is not None)
            continue
        scope = scopes[_SENTENCE if rule.covers == _SENTENCE else rule.effect]
        for number, distance in _find_covered(phrase, rule, scope, inside):
            reach = symptoms[number].reach
            if rule.effect not in _LIMITED or reach is None or distance <= reach:
                yield rule.effect, number


def _find_asked(forms: Sequence[str], symptoms: Sequence[SymptomSpan]) -> Iterator[int]:
    """Yields the numbers of symptoms that a question is about: "Can stress cause itching?".

    Symptoms with an article are known ("Will my itch go?"), except places: "in the creases".
    """
    asked = set(chain.from_iterable(_find_questions(forms)))
    for number, symptom in enumerate(symptoms):
        *_, before, article = "", "", *forms[max(symptom.start - 2, 0) : symptom.start]
        if symptom.start in asked and (article not in DETERMINERS or before in _PLACES):
            yield number


def _find_questions(forms: Sequence[str]) -> Iterator[range]:
    """Yields the sentences that are yes-or-no questions: "Can stress cause itching?"."""
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


def _find_subject(
    forms: Sequence[str], around: Sequence[Found[ContextRule]]
) -> Found[ContextRule] | None:
    """Finds the relative that a text of several sentences is about before the writer's own skin."""
    own = (phrase for phrase in around if phrase.start and forms[phrase.start - 1] == "my")
    first = next((phrase for phrase in own if means(phrase, (_RELATIVE,))), None)
    if not first or {".", "!", "?"}.isdisjoint(forms[first.end : -2]):
        return None
    writer = [at for at, form in enumerate(forms[: first.end]) if form in _SELF]
    return first if writer == [first.start - 1] else None


def _apply(effect: str, effects: set[str]) -> None:
    """Adds an effect to those that earlier words had on a symptom, or undoes some of them."""
    denied = not effects.isdisjoint({NEGATED, _LIFTED})
    for before in () if _BEGUN in effects else sorted(effects):
        effect = _JOINT.get((before, effect), effect)
    if effect == _REVERSED:
        effect = _LIFTED if denied else NEGATED
    if effect == _LIFTED:
        effects -= {NEGATED, PAST, GONE}
    if effect == _CONFIRMED:
        effects -= {UNCERTAIN}
    if effect != _LIFTED or denied:
        effects.add(effect)


def _ends_other(forms: Sequence[str], phrase: Found[ContextRule], inside: Container[int]) -> bool:
    """Whether a minus follows a word that is not a symptom: "oedema - / itch +"."""
    before = phrase.start - 1
    signed = before >= 0 and forms[phrase.start] == MINUS
    return signed and before not in inside and forms[before].isalpha()


def _find_covered(
    phrase: Found[ContextRule], rule: ContextRule, clauses: Sequence[int], inside: Mapping[int, int]
) -> Iterator[tuple[int, int]]:
    """Yields the symptoms that a phrase reaches in its clause, and the number of words between."""
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
