"""The rules of `context.yaml`, read strictly: phrases, and what they do to symptoms near them."""

from collections.abc import Container
from dataclasses import dataclass
from functools import cache
from typing import Literal

from eczema_tf.symptoms.phrases import Found, Part, PhraseFile, PhraseTable

# the file explains what each does
Effect = Literal[
    "activity",
    "affirmed",
    "asked",
    "away",
    "begun",
    "cause",
    "earlier",
    "end",
    "family",
    "gone",
    "lifted",
    "made",
    "make",
    "negated",
    "none",
    "now",
    "past",
    "questioned",
    "refuted",
    "relative",
    "reversed",
    "turn",
    "uncertain",
    "was",
]
Covers = Literal["following", "preceding", "adjacent", "sentence", "inside"]


@dataclass(frozen=True)
class ContextRule:
    """What a phrase does to symptoms near it: the keys of `context.yaml`."""

    effect: Effect
    covers: Covers
    reach: int


class _Group(Part):
    effect: Effect
    covers: Covers
    reach: int
    phrases: list[str]


class _Context(PhraseFile):
    rules: list[_Group]


@cache
def load_rules() -> PhraseTable[ContextRule]:
    """Loads the rules of `context.yaml`, once."""
    context = _Context.load("context.yaml")
    rules = [
        (phrase, ContextRule(group.effect, group.covers, group.reach))
        for group in context.rules
        for phrase in group.phrases
    ]
    return PhraseTable(rules, context.slots)


def means(phrase: Found[ContextRule], effects: Container[str]) -> bool:
    """Whether a phrase has one of these effects."""
    return any(rule.effect in effects for rule in phrase.meanings)
