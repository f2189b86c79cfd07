"""The vocabulary of cues: `cues.yaml`, read strictly, and its phrases as tables."""

from functools import cache, cached_property
from typing import Literal, NamedTuple

from pydantic import Field

from eczema_tf.symptoms.phrases import Part, PhraseFile, PhraseTable

Status = Literal["present", "negated", "uncertain"]
Subject = Literal["patient", "family"]


class CueMeaning(NamedTuple):
    """What a phrase of the vocabulary means; no category: nothing.

    `said_again`: status and subject of what was named before, by words that do not name it.
    """

    category: str
    kind: str = ""
    denies: bool = False
    said_again: tuple[Status, Subject] | None = None


class Category(Part):
    """A category of cues: its phrases by kind, and how they are read. Keys: see `cues.yaml`."""

    describe: str
    phrases: dict[str, list[str]]
    denials: list[str] = Field(default_factory=list)
    denials_of: Subject = "patient"
    reach: int | None = None
    symptom: bool = False
    repeats: bool = True
    history: list[str] = Field(default_factory=list)
    beside: dict[str, int] = Field(default_factory=dict)
    before: dict[str, int] = Field(default_factory=dict)
    dropped_by: str = ""
    doubted_by: str = ""
    inherited_by: str = ""


class CriterionRule(Part):
    """Which cues speak to a criterion; without a category only an examination can tell."""

    words: str
    category: str | None
    kinds: list[str] | None = None
    contrary: list[str] = Field(default_factory=list)
    relatives: bool = False


class Vocabulary(PhraseFile):
    """All of `cues.yaml`."""

    categories: dict[str, Category]
    ellipses: dict[Status, dict[Subject, list[str]]]
    ignored: list[str]
    misspellings: dict[str, list[str]]
    leads_on: list[str]
    criteria: dict[str, CriterionRule]

    @cached_property
    def phrases(self) -> PhraseTable[CueMeaning]:
        """Phrases of all categories, and those that only look like one."""
        phrases = [(phrase, CueMeaning("")) for phrase in self.ignored]
        for name, category in self.categories.items():
            for kind, group in category.phrases.items():
                phrases += [(phrase, CueMeaning(name, kind)) for phrase in group]
            phrases += [(phrase, CueMeaning(name, denies=True)) for phrase in category.denials]
        return PhraseTable(phrases, self.slots)

    @cached_property
    def said_again(self) -> PhraseTable[tuple[Status, Subject]]:
        """Ends of clauses that say again what was named before: with what status, of whom."""
        phrases = [
            (phrase, (status, subject))
            for status, subjects in self.ellipses.items()
            for subject, group in subjects.items()
            for phrase in group
        ]
        return PhraseTable(phrases, self.slots)

    @cached_property
    def mended(self) -> dict[str, str]:
        """By misspelling, the right form."""
        return {wrong: right for right, group in self.misspellings.items() for wrong in group}


@cache
def load_vocabulary() -> Vocabulary:
    """Loads `cues.yaml`, once."""
    return Vocabulary.load("cues.yaml")
