"""The probability tables of the built-in data: drawing from them, and the exact P(eczema).

A *state* is a condition with a severity ("none" for healthy skin). Given the state, all slots
(attributes of the photo, facts of the text) are independent, so that Bayes' rule is a plain
product: P(state | attributes, facts) is proportional to P(state) * prod P(attribute | state)
* prod P(fact | state). Which facts are mentioned, the wording and how a photo is lit do not depend
on the state, so they cancel. No model that sees photo and text can rank cases better.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml

NO_SEVERITY = "none"
HEALTHY = "healthy"
ECZEMA = "eczema"
# the code of a slot that was not drawn: a fact not mentioned, an attribute of an absent lesion
UNSEEN = -1


@dataclass(frozen=True)
class Slot:
    """One attribute or one fact.

    Attributes:
        name: For example "border".
        values: What can be drawn; a draw is an index into these.
        probability: float64 (states, values), each row sums to 1.
        mention: How often a text speaks of it, whatever the state; 1 for attributes.
    """

    name: str
    values: tuple[str, ...]
    probability: np.ndarray
    mention: float = 1.0


@dataclass(frozen=True)
class Tables:
    """All tables.

    Attributes:
        states: (condition, severity) pairs.
        prior: float64 (states,), sums to 1.
        attributes: Slots of the photo. The first is `lesion`; where its value is not 0 ("visible"),
            the others are `UNSEEN`.
        facts: Slots of the text.
    """

    states: tuple[tuple[str, str], ...]
    prior: np.ndarray
    attributes: tuple[Slot, ...]
    facts: tuple[Slot, ...]


@cache
def load_tables() -> Tables:
    """Reads `tables.yaml`, once."""
    source = yaml.safe_load(Path(__file__).with_name("tables.yaml").read_text(encoding="utf-8"))
    prior: dict[tuple[str, str], float] = {}
    for condition, share in source["conditions"].items():
        severities = {NO_SEVERITY: 1.0} if condition == HEALTHY else source["severity"]
        prior |= {(condition, severity): share * part for severity, part in severities.items()}
    slots: dict[str, list[Slot]] = {"attributes": [], "facts": []}
    for kind, read in slots.items():
        for name, entry in source[kind].items():
            # a row belongs to a condition, to a severity, or to a severity inside a condition
            rows = []
            for condition, severity in prior:
                row = entry["rows"].get(condition, entry["rows"].get(severity))
                rows.append(row[severity] if isinstance(row, dict) else row)
            values, mention = tuple(entry["values"]), entry.get("mention", 1.0)
            read.append(Slot(name, values, np.array(rows, "float64"), mention))
    return Tables(
        states=tuple(prior),
        prior=np.array(list(prior.values())),
        attributes=tuple(slots["attributes"]),
        facts=tuple(slots["facts"]),
    )


def draw_states(tables: Tables, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws hidden states: int64 (count,), indices into `tables.states`."""
    return rng.choice(len(tables.states), size=count, p=tables.prior)


def draw_attributes(tables: Tables, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws what a photo shows.

    Args:
        tables: From `load_tables`.
        states: int (cases,), indices into `tables.states`.
        rng: Where randomness comes from.

    Returns:
        int64 (cases, attributes): indices into each slot's values, `UNSEEN` where there is no
        lesion to see it on.
    """
    codes = _draw_slots(tables.attributes, states, rng)
    codes[codes[:, 0] != 0, 1:] = UNSEEN
    return codes


def draw_facts(
    tables: Tables, states: np.ndarray, rng: np.random.Generator, *, at_least: int = 3
) -> np.ndarray:
    """Draws what a text says. Which facts are mentioned does not depend on the state.

    Args:
        tables: From `load_tables`.
        states: int (cases,), indices into `tables.states`.
        rng: Where randomness comes from.
        at_least: How many facts every text mentions, at the least.

    Returns:
        int64 (cases, facts): indices into each slot's values, `UNSEEN` where not mentioned.
    """
    codes = _draw_slots(tables.facts, states, rng)
    # mentioned where below 1
    eagerness = rng.random(codes.shape) / np.array([slot.mention for slot in tables.facts])
    mentioned = (eagerness < 1) | (eagerness.argsort(axis=1).argsort(axis=1) < at_least)
    return np.where(mentioned, codes, UNSEEN)


def _draw_slots(
    slots: tuple[Slot, ...], states: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    draws = rng.random((len(states), len(slots)))
    columns = [
        (draws[:, i, None] > slot.probability[states].cumsum(axis=1)[:, :-1]).sum(axis=1)
        for i, slot in enumerate(slots)
    ]
    return np.stack(columns, axis=1)


def compute_log_likelihood(slots: tuple[Slot, ...], codes: np.ndarray) -> np.ndarray:
    """Computes log P(codes | state).

    Args:
        slots: The tables of the codes' columns.
        codes: int (cases, slots), indices into each slot's values; `UNSEEN` says nothing.

    Returns:
        float64 (cases, states).
    """
    total = np.zeros((len(codes), len(slots[0].probability)))
    for slot, column in zip(slots, codes.T, strict=True):
        total += np.where((column == UNSEEN)[:, None], 0.0, np.log(slot.probability.T[column]))
    return total


def compute_eczema_posterior(tables: Tables, *log_likelihoods: np.ndarray) -> np.ndarray:
    """Computes P(eczema | evidence).

    Args:
        tables: From `load_tables`.
        *log_likelihoods: float64 (cases, states) each, from independent evidence.

    Returns:
        float64 (cases,) in 0..1.
    """
    log_joint = np.log(tables.prior) + sum(log_likelihoods)
    joint = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
    is_eczema = np.array([condition == ECZEMA for condition, _ in tables.states])
    return joint[:, is_eczema].sum(axis=1) / joint.sum(axis=1)
