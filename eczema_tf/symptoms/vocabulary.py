"""The vocabulary of cues: `cues.yaml`, read strictly, and its phrases as tables."""

from functools import cache, cached_property
from typing import Literal, NamedTuple

from pydantic import Field

from eczema_tf.symptoms.phrases import Part, PhraseFile, PhraseTable

Status = Literal["present", "negated", "uncertain"]
Subject = Literal["patient", "family"]


class CueMeaning(NamedTuple):
    """What a phrase of the vocabulary means; without a category, it means nothing.

    `said_again` is the status and subject of something named before, for words that do not name it.
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
    """Which cues bear on a criterion; without a category, only an examination can settle it."""

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
        """Phrases of all categories, and phrases that only look like one."""
        phrases = [(phrase, CueMeaning("")) for phrase in self.ignored]
        for name, category in self.categories.items():
            for kind, group in category.phrases.items():
                phrases += [(phrase, CueMeaning(name, kind)) for phrase in group]
            phrases += [(phrase, CueMeaning(name, denies=True)) for phrase in category.denials]
        return PhraseTable(phrases, self.slots)

    @cached_property
    def said_again(self) -> PhraseTable[tuple[Status, Subject]]:
        """Ends of clauses that repeat what was named before: with what status, and about whom."""
        phrases = [
            (phrase, (status, subject))
            for status, subjects in self.ellipses.items()
            for subject, group in subjects.items()
            for phrase in group
        ]
        return PhraseTable(phrases, self.slots)

    @cached_property
    def mended(self) -> dict[str, str]:
        """The right form of each misspelling."""
        return {wrong: right for right, group in self.misspellings.items() for wrong in group}


@cache
def load_vocabulary() -> Vocabulary:
    """Loads `cues.yaml`, once."""
    return Vocabulary.load("cues.yaml")
