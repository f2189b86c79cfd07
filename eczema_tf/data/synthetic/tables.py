"""Reads `tables.yaml`, draws attributes and facts from it, and computes the exact P(eczema).

A *state* is a condition with a severity ("none" for healthy skin). Given the state, all slots
(attributes of the photo, findings of the text) are independent, and whether a finding is mentioned
does not depend on the state (for some, only on an age that is itself mentioned). So Bayes' rule is
a plain product: P(state | attributes, facts) is proportional to P(state) * prod P(attribute |
state) * prod P(fact | state). Wording and light do not depend on the state, so they cancel. No
model that sees photo and text can rank cases better.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import yaml
from pydantic import Field

from eczema_tf.config import Section
from eczema_tf.schema import ECZEMA, SEVERITY

HEALTHY, NO_SEVERITY = "healthy", "none"
LESION, VISIBLE, AGE = "lesion", "visible", "age"
# How many facts a text says besides the age: one or two if terse, else 1 + gamma, 7.8 on average,
# as in the questions that people send to doctors (median 45 words).
TERSE, FACTS_SHAPE, FACTS_SCALE, MAX_FACTS = 0.05, 3.5, 2.1, 15

_Row = dict[str, float | dict[str, float]]  # by value; or by severity, then by value


class _Entry(Section):
    default: _Row
    rows: dict[str, _Row] = Field(default_factory=dict)
    weight: float = 1.0
    draws: int = 1
    misreport: float | None = None
    not_with: list[str] = Field(default_factory=list)
    only_with: list[str] = Field(default_factory=list)


class _Source(Section):
    conditions: dict[str, float]
    severity: dict[str, float]
    misreport: float
    attributes: dict[str, _Entry]
    facts: dict[str, _Entry]


@dataclass(frozen=True)
class Slot:
    """One attribute, or one finding that a text may mention.

    Attributes:
        log_likelihood: By value, log P(value | state), float64 (states,).
        cumulative: For each state, the running sums of its probabilities.
        weight: How readily people mention it, whatever the state; for the age, how often.
        not_with: Ages with which it is never mentioned.
        only_with: If there are any, the only ages with which it is mentioned.
    """

    log_likelihood: Mapping[str, np.ndarray]
    cumulative: list[list[float]]
    weight: float
    not_with: list[str]
    only_with: list[str]

    def draw(self, state: int, rng: Random) -> str:
        """Draws a value, given the index of a state."""
        return rng.choices([*self.log_likelihood], cum_weights=self.cumulative[state])[0]

    def fits(self, age: str) -> bool:
        """Whether it can be mentioned with an age, "" for none."""
        return age not in self.not_with and (not self.only_with or age in self.only_with)


@dataclass(frozen=True)
class Tables:
    """All tables.

    Attributes:
        states: (condition, severity) pairs.
        prior: float64 (states,), sums to 1.
        attributes: Slots of the photo, by name. Where the lesion is not visible, the others are
            not drawn.
        facts: Slots of the text; the second slot of a finding that is drawn twice is `<name>_2`.
    """

    states: tuple[tuple[str, str], ...]
    prior: np.ndarray
    attributes: Mapping[str, Slot]
    facts: Mapping[str, Slot]


@cache
def load_tables() -> Tables:
    """Reads `tables.yaml`, once. Tests check that its rows are distributions."""
    text = Path(__file__).with_name("tables.yaml").read_text(encoding="utf-8")
    source = _Source.parse(yaml.safe_load(text), "tables.yaml")
    weights: dict[tuple[str, str], float] = {}
    for condition, weight in source.conditions.items():
        severities = {NO_SEVERITY: 1.0} if condition == HEALTHY else source.severity
        weights |= {(condition, severity): weight * part for severity, part in severities.items()}
    prior = np.array([*weights.values()]) / sum(weights.values())
    attributes, facts = (
        _read_slots(entries, [*weights], prior, misreport)
        for entries, misreport in ((source.attributes, 0.0), (source.facts, source.misreport))
    )
    return Tables(tuple(weights), prior, attributes, facts)


def _read_slots(
    entries: Mapping[str, _Entry],
    states: list[tuple[str, str]],
    prior: np.ndarray,
    misreport: float,
) -> dict[str, Slot]:
    slots: dict[str, Slot] = {}
    for finding, entry in entries.items():
        rows = [_complete_row(entry, *state) for state in states]
        probability = np.array([[*row.values()] for row in rows])  # (states, values)
        # a misreport says what anybody might say
        part = misreport if entry.misreport is None else entry.misreport
        probability = (1 - part) * probability + part * prior @ probability
        for draw in range(entry.draws):
            slots[f"{finding}_{draw + 1}" if draw else finding] = Slot(
                log_likelihood=dict(zip(rows[0], np.log(probability.T), strict=True)),
                cumulative=probability.cumsum(axis=1).tolist(),
                weight=entry.weight / (1 + draw),  # a second one is mentioned half as often
                not_with=entry.not_with,
                only_with=entry.only_with,
            )
    return slots


def _complete_row(entry: _Entry, condition: str, severity: str) -> dict[str, float]:
    """Returns P(value | state); values that a row leaves out share the rest as in `default`."""
    default = _choose_severity(entry.default, severity)
    row = _choose_severity(entry.rows.get(condition, {}), severity)
    rest, unnamed = 1 - sum(row.values()), [value for value in default if value not in row]
    share = rest / sum(default[value] for value in unnamed) if unnamed else 0
    return {value: row.get(value, share * default[value]) for value in default}


def _choose_severity(row: _Row, severity: str) -> dict[str, float]:
    """Chooses the values of a severity, if a row differs by severity."""
    chosen = {}
    for key, part in row.items():
        if not isinstance(part, dict):
            chosen[key] = part
        elif key == severity:
            chosen |= part
    return chosen


def draw_state(tables: Tables, rng: Random) -> int:
    """Draws a hidden state: its index in `tables.states`."""
    return rng.choices(range(len(tables.states)), tables.prior.tolist())[0]


def draw_attributes(tables: Tables, state: int, rng: Random) -> dict[str, str]:
    """Draws what a photo shows: the value of each attribute; without a lesion, no others."""
    drawn = {name: slot.draw(state, rng) for name, slot in tables.attributes.items()}
    return drawn if drawn[LESION] == VISIBLE else {LESION: drawn[LESION]}


def draw_facts(tables: Tables, state: int, rng: Random) -> dict[str, str]:
    """Draws what a text says: the value of each slot that is mentioned, at least one."""
    age = tables.facts[AGE]
    facts = {AGE: age.draw(state, rng)} if rng.random() < age.weight else {}
    # weighted draws without replacement (Efraimidis and Spirakis 2006)
    eagerness = {
        name: rng.random() ** (1 / slot.weight)
        for name, slot in tables.facts.items()
        if name != AGE and slot.fits(facts.get(AGE, ""))
    }
    count = min(1 + int(rng.gammavariate(FACTS_SHAPE, FACTS_SCALE)), MAX_FACTS)
    if rng.random() < TERSE:
        count = rng.randint(1, 2)
    for name in sorted(eagerness, key=eagerness.__getitem__, reverse=True)[:count]:
        facts[name] = tables.facts[name].draw(state, rng)
    return facts


def compute_log_likelihood(slots: Mapping[str, Slot], drawn: Mapping[str, str]) -> np.ndarray:
    """Computes log P(drawn | state): float64 (states,), or () and zero if nothing was drawn."""
    known = (slots[name].log_likelihood[value] for name, value in drawn.items())
    return sum(known, start=np.zeros(()))


class Posterior(NamedTuple):
    """What evidence says about a case.

    Attributes:
        eczema: P(eczema | evidence).
        grade: Expected grade, 0 (mild) to 2 (severe), if it is eczema.
    """

    eczema: float
    grade: float


def compute_posterior(tables: Tables, *log_likelihoods: np.ndarray) -> Posterior:
    """Computes the exact posterior by Bayes' rule.

    Args:
        tables: From `load_tables`.
        *log_likelihoods: Log-likelihoods of independent pieces of evidence, float64 (states,) each.
    """
    log_joint = np.log(tables.prior) + sum(log_likelihoods)
    joint = np.exp(log_joint - log_joint.max())
    is_eczema = [condition == ECZEMA for condition, _ in tables.states]
    of_eczema = joint[is_eczema]
    grades = [SEVERITY.index(grade) for condition, grade in tables.states if condition == ECZEMA]
    return Posterior(
        eczema=float(of_eczema.sum() / joint.sum()),
        grade=float(of_eczema @ grades / of_eczema.sum()),
    )
