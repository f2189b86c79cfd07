"""Where clauses begin and end: how far a statement about a symptom reaches."""

from collections.abc import Container, Iterator, Mapping, Sequence, Set
from itertools import accumulate, chain, pairwise

from eczema_tf.symptoms.phrases import DASH, NEW_LINE, Found
from eczema_tf.symptoms.rules import ContextRule, means

CLAUSE_ENDS = frozenset({".", ";", ":", "!", "?", ")", DASH, NEW_LINE})
DETERMINERS = frozenset({"the", "my", "his", "her", "their", "our", "some", "a", "this", "these"})
_LIST_ENDS = frozenset({"or", "nor", "plus", "etc"})  # and sometimes "and"
_LIST_HEADS = frozenset({("neg", ":"), ("negative", ":"), ("denies", ":"), ("absent", ":")})
_LIST_TAILS = frozenset(
    (":", form) for form in ("no", "none", "nil", "neg", "negative", "absent", "all", "both")
)
_RELATIVE_WORDS = frozenset({"which", "both", "present"})  # these begin an aside
# after a comma, these continue what is said about the same person
_SAME_OWNER = frozenset(
    {"no", "not", "never", "dont", "doesnt", "didnt", "isnt", "arent", "wasnt", "hasnt", "havent"}
)
_ITEM_WORDS = 4  # the most words in a list item: "itching, very dry skin or crusts"


def number_clauses(
    forms: Sequence[str],
    around: Sequence[Found[ContextRule]],
    inside: Mapping[int, int],
    ends: Sequence[str],
    joins_lists: bool = False,
) -> list[int]:
    """Gives each word the number of its clause; what ends a clause belongs to the next one.

    Relative clauses have negative numbers. With `joins_lists`, a comma between symptoms ends no
    clause: "her dry, cracked hands", "sister: no asthma, no eczema".
    """

    def find_starts(effects: Sequence[str]) -> set[int]:
        return {
            phrase.start
            for phrase in around
            if means(phrase, effects) and not _adds_item(forms, phrase, inside)
        }

    asides = [
        range(phrase.start, phrase.end)
        for phrase in around
        if means(phrase, ("none", "reversed"))  # ", but not the itch" continues what was said
    ]
    commas = {index for index, form in enumerate(forms) if form == ","}.difference(*asides)
    if joins_lists:
        commas = {
            at
            for at in commas
            if not (at - 1 in inside and (at + 1 in inside or forms[at + 1] in _SAME_OWNER))
        }
    marks = {index for index, form in enumerate(forms) if form in CLAUSE_ENDS}
    borders = find_starts(ends) | marks
    borders |= commas - _find_list_commas(forms, find_starts(["negated"]))
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
    """Yields the words between commas after a noun: "the itch, which was bad, has gone"."""
    commas = [index for index, form in enumerate(forms) if form == ","]
    for start, end in pairwise(commas):
        within = forms[start + 1 : end]
        if forms[start + 1] in _RELATIVE_WORDS and CLAUSE_ENDS.isdisjoint(within):
            yield range(start, end)


def _adds_item(forms: Sequence[str], phrase: Found[ContextRule], inside: Container[int]) -> bool:
    """Whether a symptom with its article ends a list, so "and the" does not begin a new clause.

    It does so before the end of the clause, and after a symptom that begins one: "The itch and the
    redness disappeared".
    """
    *_, link, article = "", *forms[phrase.start : phrase.end]
    if article not in DETERMINERS or link not in {",", "and"} or phrase.end not in inside:
        return False
    after = next(index for index in range(phrase.end, len(forms)) if index not in inside)
    before = next(index for index in range(phrase.start - 1, -2, -1) if index not in inside)
    begins = before < 1 or forms[before - 1] in CLAUSE_ENDS | {",", "and", "but", "both"}
    leads = before < phrase.start - 1 and begins and forms[before] in DETERMINERS
    return leads or forms[after] in CLAUSE_ENDS | _LIST_ENDS | {",", "and", "but"}


def _find_list_commas(forms: Sequence[str], denials: Set[int]) -> set[int]:
    """Finds commas of a list that is denied as a whole ("no redness, scaling or oozing").

    A negation reaches past these. "And" closes such a list only if the sentence denies once, at its
    beginning; in "no scale, no blisters, dry and red" each item stands by itself.
    """
    marks = [index for index, form in enumerate(forms) if form in CLAUSE_ENDS]
    listed: set[int] = set()
    for start, end in pairwise([-1, *marks, len(forms)]):
        commas = [index for index in range(start + 1, end) if forms[index] == ","]
        once = bool(commas) and denials.isdisjoint(range(commas[0], end))
        closing = _LIST_ENDS | {"and"} if once else _LIST_ENDS
        heads = start > 0 and tuple(forms[start - 1 : start + 1]) in _LIST_HEADS
        heads |= "denies" in forms[start + 1 : start + 3]
        bare = once and all(_is_bare(forms, comma) for comma in commas)
        if heads or bare or tuple(forms[end : end + 2]) in _LIST_TAILS:
            listed.update(commas)
        for comma in reversed(commas):
            if _is_in_list(forms, comma, closing, listed):
                listed.add(comma)
    return listed


def _is_bare(forms: Sequence[str], comma: int) -> bool:
    """Whether a single noun follows a noun: "no redness, weeping", but not "no itching, red"."""
    item, end = [*forms[comma + 1 : comma + 3], "."][:2]
    both = all(noun.endswith(("ness", "ing")) for noun in (forms[comma - 1], item))
    return both and (end == "," or end in CLAUSE_ENDS)


def _is_in_list(forms: Sequence[str], comma: int, closing: Set[str], listed: Set[int]) -> bool:
    """Whether the next item ends with a closing word or a comma of a list, whichever is first."""
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
