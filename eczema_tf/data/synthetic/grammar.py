"""What people say and how: reads `phrases.yaml` and `style.yaml`, and splits them like patients.

A fixed 30 % of every list of wordings, and some whole registers, are "new": `load_grammar("new")`
contains them, and `load_grammar("known")` never does.
"""

from functools import cache
from hashlib import md5
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from eczema_tf.config import Section

Wordings = Literal["known", "new"]
Sex = Literal["female", "male"]
NEW_SHARE = 0.3
# lists in style.yaml that are not wordings and are not split
WHOLE = ("range", "joins", "leads", "it", "misspellings")


class Saying(Section):
    """How people say one value of a finding; `negated`: they deny it; `note`: in shorthand."""

    clause: list[str] = Field(default_factory=list)
    np: list[str] = Field(default_factory=list)
    note: list[str] = Field(default_factory=list)
    negated: bool = False


class Finding(Section):
    """How people say a finding: the frame of its noun phrases, and its values."""

    frame: str
    values: dict[str, Saying]


class Age(Section):
    """How people say an age: its range, who speaks (by weight), and their words."""

    range: list[int]
    speakers: dict[str, float]
    own: list[str] = Field(default_factory=list)
    note: list[str]
    relative: dict[Sex, list[str]]


class Register(Section):
    """A way to write: its frames, who speaks, what starts and joins sentences."""

    weight: float
    frames: str
    voice: str = ""
    leads: list[str]
    joins: list[str]
    lower: bool = False
    tidy: bool = False
    new: bool = False


class Grammar(Section):
    """What people say, and how: one side of the split."""

    findings: dict[str, Finding]
    voices: dict[str, dict[str, str]]
    sexes: dict[Sex, dict[str, str]]
    it: list[str]
    ages: dict[str, Age]
    introductions: list[str]
    frames: dict[str, dict[str, list[str]]]
    registers: dict[str, Register]
    talk: dict[str, list[str]]
    spellings: dict[str, str]
    contractions: dict[str, str]
    abbreviations: dict[str, str]
    misspellings: dict[str, list[str]]
    unclear: dict[str, list[str]]


@cache
def load_grammar(wordings: Wordings) -> Grammar:
    """Reads `phrases.yaml` and `style.yaml`, once: the lists contain one side's wordings only."""
    phrases, style = (
        yaml.safe_load(Path(__file__).with_name(name).read_text(encoding="utf-8"))
        for name in ("phrases.yaml", "style.yaml")
    )
    return Grammar.parse(_take_side({"findings": phrases} | style, wordings), "the grammar")


def _take_side(node: Any, wordings: Wordings) -> Any:
    """Keeps what belongs to a side: the 30 % of each list with the smallest hashes are new."""
    if isinstance(node, dict):
        return {
            key: part if key in WHOLE else _take_side(part, wordings)
            for key, part in node.items()
            if wordings == "new" or not (isinstance(part, dict) and part.get("new"))
        }
    if not isinstance(node, list):
        return node
    ranked = sorted(node, key=lambda wording: md5(wording.encode()).digest())
    cut = max(1, round(NEW_SHARE * len(ranked)))
    return ranked[:cut] if wordings == "new" else ranked[cut:]
