"""Tests for the truth behind the built-in data: exact probabilities and texts with facts."""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
import yaml

from eczema_tf.data.synthetic import tables as tables_module
from eczema_tf.data.synthetic.cases import AGE_GROUPS, UNCLEAR, draw_case
from eczema_tf.data.synthetic.complaint import write_complaint
from eczema_tf.data.synthetic.grammar import WHOLE, load_grammar
from eczema_tf.data.synthetic.tables import (
    AGE,
    ECZEMA,
    HEALTHY,
    LESION,
    VISIBLE,
    Slot,
    Tables,
    compute_log_likelihood,
    compute_posterior,
    draw_attributes,
    draw_facts,
    draw_state,
    load_tables,
)
from eczema_tf.schema import SEVERITY

STATES = (("eczema", "mild"), ("eczema", "severe"), ("healthy", "none"))
TABLES = load_tables()
PRIOR = sum(p for (name, _), p in zip(TABLES.states, TABLES.prior, strict=True) if name == ECZEMA)
SOURCE = yaml.safe_load(
    Path(tables_module.__file__).with_name("tables.yaml").read_text(encoding="utf-8")
)


def make_slot(probability: dict[str, list[float]]) -> Slot:
    return Slot({value: np.log(row) for value, row in probability.items()}, [], 1.0, [], [])


TOY = Tables(
    states=STATES,
    prior=np.array([0.3, 0.1, 0.6]),
    attributes={"lesion": make_slot({"visible": [0.9, 0.9, 0.2], "none": [0.1, 0.1, 0.8]})},
    facts={"itch": make_slot({"severe": [0.5, 0.8, 0.1], "denied": [0.5, 0.2, 0.9]})},
)


def judge(**facts: str) -> float:
    return compute_posterior(TABLES, compute_log_likelihood(TABLES.facts, facts)).eczema


@pytest.fixture(scope="module")
def simulation() -> dict[str, np.ndarray]:
    """Simulates 20,000 cases, all with photo and text."""
    rng, rows = Random(0), []
    for _ in range(20_000):
        state = draw_state(TABLES, rng)
        photo = compute_log_likelihood(TABLES.attributes, draw_attributes(TABLES, state, rng))
        said = {} if rng.random() < UNCLEAR else draw_facts(TABLES, state, rng)
        text = compute_log_likelihood(TABLES.facts, said)
        evidence = {"image": (photo,), "text": (text,), "fusion": (photo, text)}
        rows.append(
            {"eczema": TABLES.states[state][0] == ECZEMA}
            | {kind: compute_posterior(TABLES, *logs).eczema for kind, logs in evidence.items()}
        )
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def test_every_row_of_every_table_is_a_distribution():
    assert TABLES.prior.sum() == pytest.approx(1)
    for name, slot in (TABLES.attributes | TABLES.facts).items():
        probability = np.exp([*slot.log_likelihood.values()])
        assert (probability > 0).all(), name
        np.testing.assert_allclose(probability.sum(axis=0), 1, err_msg=name)
        np.testing.assert_allclose(np.array(slot.cumulative)[:, -1], 1, err_msg=name)


def test_rows_name_only_known_conditions_values_and_ages():
    for name, entry in (SOURCE["attributes"] | SOURCE["facts"]).items():
        assert set(entry.get("rows", {})) <= set(SOURCE["conditions"]), name
        values = set((TABLES.attributes | TABLES.facts)[name].log_likelihood)
        for row in entry.get("rows", {}).values():
            parts = [row]
            if any(isinstance(part, dict) for part in row.values()):
                assert set(row) == set(SOURCE["severity"]), name
                parts = row.values()
            assert all(set(part) <= values for part in parts), name
        ages = {*entry.get("not_with", ()), *entry.get("only_with", ())}
        assert ages <= set(TABLES.facts[AGE].log_likelihood) == set(AGE_GROUPS), name


def test_row_shares_what_it_does_not_name_as_in_the_default():
    state = TABLES.states.index(("psoriasis", "mild"))
    surface = TABLES.attributes["surface"].log_likelihood
    known = {value: np.exp(log[state]) for value, log in surface.items()}
    row = {"thick_scale": 0.68, "fine_scale": 0.2, "smooth": 0.08}
    assert SOURCE["attributes"]["surface"]["rows"]["psoriasis"] == row
    # 0.04 is left, shared as 6 : 5 : 2
    row |= {"crust": 0.04 * 6 / 13, "swollen": 0.04 * 5 / 13, "warty": 0.04 * 2 / 13}
    assert known == pytest.approx(row)
    state = TABLES.states.index(("mole", "mild"))
    scratched = TABLES.attributes["excoriation"].log_likelihood["scratched"][state]
    assert np.exp(scratched) == pytest.approx(0.04)


def test_about_a_third_are_eczema_and_healthy_has_no_severity():
    assert pytest.approx(0.31, abs=0.01) == PRIOR
    assert [severity for name, severity in TABLES.states if name == HEALTHY] == ["none"]


def test_posterior_matches_hand_computation():
    logs = (
        compute_log_likelihood(TOY.attributes, {"lesion": "visible"}),
        compute_log_likelihood(TOY.facts, {"itch": "severe"}),
    )
    joint = [0.3 * 0.9 * 0.5, 0.1 * 0.9 * 0.8, 0.6 * 0.2 * 0.1]
    assert compute_posterior(TOY, *logs).eczema == pytest.approx((joint[0] + joint[1]) / sum(joint))


def test_expected_grade_uses_only_the_states_of_eczema():
    logs = compute_log_likelihood(TOY.facts, {"itch": "severe"})
    joint = [0.3 * 0.5, 0.1 * 0.8]  # the two states of eczema
    grades = [SEVERITY.index(severity) for name, severity in STATES if name == ECZEMA]
    expected = np.dot(joint, grades) / sum(joint)
    assert compute_posterior(TOY, logs).grade == pytest.approx(expected)


def test_posterior_without_evidence_is_the_prior():
    nothing = compute_log_likelihood(TOY.facts, {})
    assert compute_posterior(TOY, nothing).eczema == pytest.approx(0.4)


def test_posterior_equals_brute_force_over_every_state():
    """The likelihoods, which include misreports, are multiplied state by state."""
    case = draw_case(seed=3, index=1)
    assert case.photos
    assert case.facts
    joint = TABLES.prior.copy()
    for slots, drawn in ((TABLES.attributes, case.attributes), (TABLES.facts, case.facts)):
        for name, value in drawn.items():
            joint *= np.exp(slots[name].log_likelihood[value])
    eczema = sum(p for p, (name, _) in zip(joint, TABLES.states, strict=True) if name == ECZEMA)
    assert case.posterior["fusion"].eczema == pytest.approx(eczema / joint.sum())


def test_misreported_facts_are_those_of_the_whole_population():
    scale, part = SOURCE["facts"]["scale"], SOURCE["misreport"]
    rows = {name: scale["rows"].get(name, scale["default"]) for name in SOURCE["conditions"]}
    everybody = sum(
        p * rows[name]["flaky"] for (name, _), p in zip(TABLES.states, TABLES.prior, strict=True)
    )
    said = np.exp(TABLES.facts["scale"].log_likelihood["flaky"])
    state = TABLES.states.index((ECZEMA, "mild"))
    assert said[state] == pytest.approx((1 - part) * 0.74 + part * everybody)


@pytest.mark.parametrize("kind", ["image", "text", "fusion"])
def test_posterior_is_calibrated(simulation, kind):
    """Among cases with an exact posterior of p, a share p has eczema."""
    truth, posterior = simulation["eczema"], simulation[kind]
    for low, high in itertools.pairwise([0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98, 1.0001]):
        inside = (posterior >= low) & (posterior < high)
        p = posterior[inside]
        error = np.sqrt(np.sum(p * (1 - p))) / max(inside.sum(), 1)
        assert not inside.any() or abs(truth[inside].mean() - p.mean()) < 4 * error + 1e-3


def test_textbook_cases_have_a_posterior_near_one_or_zero():
    assert judge(itch="night", site="flexures", age="child", history="own_atopy") > 0.98
    assert judge(itch="severe", site="hands", look="cracked", duration="years") > 0.9
    for facts in (
        {"site": "elbows_knees", "look": "silvery"},
        {"site": "groin", "look": "ring"},
        {"look": "weals", "course": "within_day"},
        {"site": "webs_wrists", "itch": "night", "household": "itch_too"},
        {"site": "band", "look": "band_blisters"},
        {"site": "face", "look": "blackheads"},
        {"look": "honey", "course": "spreading", "duration": "days"},
        {"look": "pale", "itch": "denied"},
        {"look": "warm_swelling", "general": "fever"},
    ):
        assert judge(**facts) < 0.03, facts


def test_choice_of_stated_facts_does_not_depend_on_eczema():
    """A stated age does rule out some facts (a baby has no teens), so those cases are left out."""
    rng, shares = Random(0), []
    for wanted in (True, False):
        states = [i for i, (name, _) in enumerate(TABLES.states) if (name == ECZEMA) == wanted]
        drawn = [draw_facts(TABLES, rng.choice(states), rng) for _ in range(8000)]
        assert min(map(len, drawn)) >= 1
        ageless = [facts for facts in drawn if AGE not in facts]
        shares.append(
            [np.mean([AGE in facts for facts in drawn])]
            + [np.mean([name in facts for facts in ageless]) for name in TABLES.facts]
        )
    np.testing.assert_allclose(*shares, atol=0.035)


def test_lesion_that_is_not_visible_has_no_attributes():
    rng = Random(0)
    for _ in range(500):
        attributes = draw_attributes(TABLES, draw_state(TABLES, rng), rng)
        shown = attributes.keys() if attributes[LESION] != VISIBLE else {LESION}
        assert shown == {LESION}
        assert (len(attributes) == 1) == (attributes[LESION] != VISIBLE)


def test_every_value_has_known_and_new_wordings():
    for wordings in ("known", "new"):
        findings = load_grammar(wordings).findings
        for name, slot in TABLES.facts.items():
            if name != AGE:
                sayings = findings[name.removesuffix("_2")].values
                assert set(sayings) == set(slot.log_likelihood)
                assert all(saying.np for saying in sayings.values()), name


def expand(wording: str) -> set[str]:
    """Returns all that a wording can become by choosing one way from each `(a|b|)`."""
    match = re.search(r"\(([^()]*)\)", wording)
    if not match:
        return {" ".join(wording.lower().split())}
    before, after = wording[: match.start()], wording[match.end() :]
    return set().union(*(expand(before + way + after) for way in match[1].split("|")))


def pair_lists(known: object, new: object, path: str = "") -> Iterator[tuple[str, set, set]]:
    """Yields the path of each list, and all that its known and its new wordings can become."""
    if isinstance(known, dict):
        for key in known.keys() & new.keys() - set(WHOLE):
            yield from pair_lists(known[key], new[key], f"{path}/{key}")
    elif isinstance(known, list) and known:
        yield path, *(set().union(*map(expand, side)) for side in (known, new))


def test_known_and_new_wordings_have_nothing_in_common():
    sides = [load_grammar(side).model_dump() for side in ("known", "new")]
    pairs = list(pair_lists(*sides))
    assert len(pairs) > 200
    for path, known, new in pairs:
        assert not known & new, path
    known, new = (sum(len(pair[side]) for pair in pairs) for side in (1, 2))
    assert new / (known + new) == pytest.approx(0.3, abs=0.05)
    registers = [side["registers"].keys() for side in sides]
    assert registers[1] - registers[0] == {"letter", "forum", "dictated"}


def test_every_value_can_be_said_in_at_least_thirty_ways():
    """Spelling, abbreviations, joins and speakers multiply these ways further."""
    grammar = load_grammar("known")
    for name, finding in grammar.findings.items():
        frame = sum(len(frames[finding.frame]) for frames in grammar.frames.values())
        for value, saying in finding.values.items():
            clauses, nouns = (
                set().union(*map(expand, side)) for side in (saying.clause, saying.np)
            )
            assert len(clauses) + len(nouns) * frame >= 30, (name, value)


def test_every_value_has_many_wordings_that_fit_no_other_value():
    sides = [load_grammar(side).findings for side in ("known", "new")]
    for name, finding in sides[0].items():
        meant: dict[str, str] = {}
        for value in finding.values:
            sayings = [side[name].values[value] for side in sides]
            assert sum(len(saying.clause) for saying in sayings) >= 14, (name, value)
            assert sum(len(saying.np) for saying in sayings) >= 10, (name, value)
            assert all(saying.note for saying in sayings), (name, value)
            for saying in sayings:
                for wording in {*saying.clause, *saying.np, *saying.note}:
                    assert all(meant.setdefault(way, value) == value for way in expand(wording))


def test_probabilities_are_the_same_to_the_bit_in_every_process():
    """Python seeds string hashes anew in each process, so no sum may run over a set of strings."""
    code = (
        "from eczema_tf.data.synthetic.tables import load_tables;"
        "print([slot.cumulative for slot in load_tables().facts.values()])"
    )
    first, second = (
        subprocess.check_output(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2")
    )
    assert first == second


def test_known_and_new_texts_state_the_same_facts():
    facts = {"itch": "night", "site": "flexures", "age": "child"}
    known, new = (write_complaint(facts, "male", Random(4), side) for side in ("known", "new"))
    assert known[0] != new[0]
    assert {(p.category, p.value) for p in known[1]} == {(p.category, p.value) for p in new[1]}


def test_texts_have_3_to_200_words_and_phrases_at_their_offsets():
    for index, wordings in itertools.product(range(1500), ("known", "new")):
        rng = Random(f"{index} {wordings}")
        facts = draw_facts(TABLES, draw_state(TABLES, rng), rng)
        text, phrases = write_complaint(facts, rng.choice(("female", "male")), rng, wordings)
        assert 3 <= len(text.split()) <= 200
        assert not re.search(r"<\w+>|\(\w+\||\|", text)
        said = sorted((name.removesuffix("_2"), value) for name, value in facts.items())
        assert sorted((phrase.category, phrase.value) for phrase in phrases) == said
        ends = [0, *(phrase.end for phrase in phrases)]
        assert all(phrase.start >= end for phrase, end in zip(phrases, ends, strict=False))
        assert all(text[phrase.start : phrase.end].strip(" ,.") for phrase in phrases)


def test_texts_without_facts_vary_widely():
    texts = {write_complaint({}, "female", Random(i))[0] for i in range(500)}
    assert len(texts) > 400
    assert sum(bool(re.search("[^\x00-\x7f]", text)) for text in texts) > 50


def test_stated_ages_and_relatives_fit_the_age_group_and_the_sex():
    of_others = {
        "male": r"\b(daughter|wife|mother|gran|niece|woman|female|girl)\b",
        "female": r"\b(son|husband|father|grandad|nephew|man|male|boy)\b",
    }
    for case in (draw_case(11, index) for index in range(1500)):
        assert case.age_group == AGE_GROUPS.get(case.facts.get(AGE), "")
        said = [case.text[p.start : p.end].lower() for p in case.phrases if p.category == AGE]
        assert not any(re.search(of_others[case.sex], phrase) for phrase in said)
