"""Texts that name a diagnosis: a model can read the answer off them instead of the symptoms.

Takes texts and returns the conditions that each names, separating the writer's own from the
family's ("my father has psoriasis"). A name counts even if it is denied or doubted ("could it be
eczema?"): it was somebody's guess, and often the doctor's. The names are in `diagnoses.yaml`.
"""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from eczema_tf.data.audit.near_texts import show_letters

OWN, FAMILY = "own", "family"  # whose diagnosis a text names
# "and" ends a clause where another subject follows: not in "eczema and asthma in the family"
_CLAUSE_END = re.compile(
    r"[.;!?,\n]|(?<!\bFH)(?<!\bFHx):|\b(?:but|while|whereas)\b"
    r"|\band\b(?=\s+(?:I|my|he|she|we|they|you|it|this|the|his|her|now|also)\b)",
    re.IGNORECASE,
)


def find_named_diagnoses(texts: pd.Series) -> pd.DataFrame:
    """Finds the diagnoses that texts name.

    Args:
        texts: Texts by example id.

    Returns:
        One row for each text and finding, sorted: `example_id`, `condition` (as in
        `diagnoses.yaml`), `whose` ("own" or "family").
    """
    named = {text: name_diagnoses(text) for text in set(texts) if text}
    rows = [
        (example_id, *found) for example_id, text in texts.items() for found in named.get(text, ())
    ]
    return pd.DataFrame(sorted(rows), columns=["example_id", "condition", "whose"], dtype=str)


def name_diagnoses(text: str) -> set[tuple[str, str]]:
    """Returns the (condition, "own" or "family") that a text names."""
    names, conditions, family = _compile_names()
    clauses = _CLAUSE_END.split(_simplify(text))
    return {
        (conditions[match.lastindex - 1], FAMILY if family.search(clause) else OWN)
        for clause in clauses
        for match in names.finditer(clause)
        if match.lastindex is not None  # the group of the name
    }


def mask_diagnoses(text: str) -> str:
    """Replaces every name of a diagnosis with "this"."""
    masked, names = _compile_names()[0].subn("this", _simplify(text))
    return masked if names else text


def _simplify(text: str) -> str:
    """Writes letters, apostrophes and hyphens as `diagnoses.yaml` does."""
    return show_letters(text).replace("\u2019", "'").replace("\u2010", "-")


@cache
def _compile_names() -> tuple[re.Pattern[str], list[str], re.Pattern[str]]:
    """Returns the names, one group each; the condition of each group; the words for the family."""
    source = yaml.safe_load(Path(__file__).with_name("diagnoses.yaml").read_text(encoding="utf-8"))
    condition_of = {
        name: condition for condition, names in source["conditions"].items() for name in names
    }
    # the first match wins, so the longest names come first
    names = sorted(condition_of, key=lambda name: (-len(name), name))
    family = {spelling for word in source["family"] for spelling in _spell(word)}
    return _compile(names), [condition_of[name] for name in names], _compile(sorted(family))


def _spell(word: str) -> set[str]:
    """Returns a word and, if it is long, its slips: a letter doubled ("fathher") or two swapped."""
    letters = range(len(word) if len(word) > 4 else 0)
    doubled = {word[:at] + word[at] + word[at:] for at in letters}
    exchanged = {word[:at] + word[at : at + 2][::-1] + word[at + 2 :] for at in letters}
    return {word, *doubled, *exchanged}


def _compile(names: Iterable[str]) -> re.Pattern[str]:
    """Matches whole words; allows a plural, and a hyphen or several spaces for a space."""
    words = "|".join("(" + r"[\s-]+".join(map(re.escape, name.split())) + ")" for name in names)
    return re.compile(rf"\b(?:{words})(?:e?s)?\b", re.IGNORECASE)
