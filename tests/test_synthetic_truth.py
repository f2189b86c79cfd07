"""The truth behind the built-in data: exact probabilities, and texts that say their facts."""

import itertools

import numpy as np
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from eczema_tf.data.synthetic import complaint
from eczema_tf.data.synthetic.cases import draw_case
from eczema_tf.data.synthetic.complaint import MAX_WORDS, load_phrasebook, write_complaint
from eczema_tf.data.synthetic.tables import (
    ECZEMA,
    HEALTHY,
    UNSEEN,
    Slot,
    Tables,
    compute_eczema_posterior,
    compute_log_likelihood,
    draw_attributes,
    draw_facts,
    draw_states,
    load_tables,
)

STATES = (("eczema", "mild"), ("eczema", "severe"), ("healthy", "none"))
TOY = Tables(
    states=STATES,
    prior=np.array([0.3, 0.1, 0.6]),
    attributes=(
        Slot("lesion", ("visible", "none"), np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]])),
    ),
    facts=(
        Slot(
            "itch",
            ("strong", "denied"),
            np.array([[0.5, 0.5], [0.8, 0.2], [0.1, 0.9]]),
            mention=0.5,
        ),
    ),
)


@pytest.fixture(scope="module")
def simulation() -> dict[str, np.ndarray]:
    """100,000 cases, all with photo and text."""
    tables, rng = load_tables(), np.random.default_rng(0)
    states = draw_states(tables, 100_000, rng)
    image = compute_log_likelihood(tables.attributes, draw_attributes(tables, states, rng))
    text = compute_log_likelihood(tables.facts, draw_facts(tables, states, rng))
    text[rng.random(len(states)) < 0.15] = 0  # unclear
    is_eczema = np.array([condition == ECZEMA for condition, _ in tables.states])[states]
    return {"eczema": is_eczema, "image": image, "text": text}


def test_every_row_of_every_table_is_a_probability():
    tables = load_tables()
    assert tables.prior.sum() == pytest.approx(1)
    for slot in (*tables.attributes, *tables.facts):
        assert slot.probability.shape == (len(tables.states), len(slot.values)), slot.name
        assert (slot.probability > 0).all(), slot.name
        np.testing.assert_allclose(slot.probability.sum(axis=1), 1, err_msg=slot.name)


def test_about_forty_percent_are_eczema_and_healthy_has_no_severity():
    tables = load_tables()
    eczema = sum(
        p
        for (condition, _), p in zip(tables.states, tables.prior, strict=True)
        if condition == ECZEMA
    )
    assert eczema == pytest.approx(0.40)
    assert [severity for condition, severity in tables.states if condition == HEALTHY] == ["none"]


def test_posterior_equals_a_hand_computed_one():
    codes = (
        compute_log_likelihood(TOY.attributes, np.array([[0]])),
        compute_log_likelihood(TOY.facts, np.array([[0]])),
    )
    joint = [0.3 * 0.9 * 0.5, 0.1 * 0.9 * 0.8, 0.6 * 0.2 * 0.1]
    assert compute_eczema_posterior(TOY, *codes)[0] == pytest.approx(
        (joint[0] + joint[1]) / sum(joint)
    )


def test_posterior_without_evidence_is_the_prior():
    nothing = compute_log_likelihood(TOY.facts, np.array([[UNSEEN]]))
    assert compute_eczema_posterior(TOY, nothing)[0] == pytest.approx(0.4)


def test_posterior_equals_brute_force_over_every_state():
    tables = load_tables()
    case = draw_case(seed=3, index=1)
    codes = [
        (slot, slot.values.index(case.attributes[slot.name]))
        for slot in tables.attributes
        if slot.name in case.attributes
    ]
    codes += [
        (slot, slot.values.index(case.facts[slot.name]))
        for slot in tables.facts
        if slot.name in case.facts
    ]
    assert case.photos
    assert case.facts
    joint = [
        tables.prior[i] * np.prod([slot.probability[i, code] for slot, code in codes])
        for i in range(len(tables.states))
    ]
    eczema = sum(
        p for p, (condition, _) in zip(joint, tables.states, strict=True) if condition == ECZEMA
    )
    assert case.posterior["fusion"] == pytest.approx(eczema / sum(joint))


@pytest.mark.parametrize("kinds", [("image",), ("text",), ("image", "text")])
def test_posterior_is_calibrated(simulation, kinds):
    """Among cases with posterior p, a share p has eczema: only true of the exact posterior."""
    posterior = compute_eczema_posterior(load_tables(), *(simulation[kind] for kind in kinds))
    edges = np.linspace(0, 1, 11)
    for low, high in itertools.pairwise(edges):
        inside = (posterior >= low) & (posterior < high)
        error = np.sqrt(0.25 / max(inside.sum(), 1))
        assert (
            abs(simulation["eczema"][inside].mean() - posterior[inside].mean()) < 4 * error + 1e-9
        )


def test_limits_are_where_fusion_has_work_to_do(simulation):
    """Near 0.90, 0.88 and, for cases with and without photo and text together, 0.97."""
    tables, eczema = load_tables(), simulation["eczema"]
    rng = np.random.default_rng(1)
    missing = rng.random(len(eczema))
    image = np.where((missing < 0.1)[:, None], 0, simulation["image"])
    text = np.where(((missing >= 0.1) & (missing < 0.2))[:, None], 0, simulation["text"])
    limit = {
        "image": roc_auc_score(eczema, compute_eczema_posterior(tables, simulation["image"])),
        "text": roc_auc_score(eczema, compute_eczema_posterior(tables, simulation["text"])),
        "fusion": roc_auc_score(eczema, compute_eczema_posterior(tables, image, text)),
    }
    assert limit == pytest.approx({"image": 0.90, "text": 0.88, "fusion": 0.97}, abs=0.012)


def test_which_facts_are_mentioned_says_nothing():
    tables, rng = load_tables(), np.random.default_rng(0)
    shares = []
    for wanted in (True, False):
        states = [
            i for i, (condition, _) in enumerate(tables.states) if (condition == ECZEMA) == wanted
        ]
        facts = draw_facts(tables, rng.choice(states, 20_000), rng)
        assert ((facts != UNSEEN).sum(axis=1) >= 3).all()
        shares.append((facts != UNSEEN).mean(axis=0))
    np.testing.assert_allclose(*shares, atol=0.02)


def test_a_lesion_that_is_not_there_shows_nothing():
    tables, rng = load_tables(), np.random.default_rng(0)
    attributes = draw_attributes(tables, draw_states(tables, 500, rng), rng)
    clear = attributes[:, 0] == 1
    assert clear.any()
    assert (attributes[clear, 1:] == UNSEEN).all()
    assert (attributes[~clear] != UNSEEN).all()


def test_every_fact_has_wordings():
    phrases = load_phrasebook().facts
    assert {name: set(values) for name, values in phrases.items()} == {
        slot.name: set(slot.values) for slot in load_tables().facts
    }
    for name, values in phrases.items():
        for value, entry in values.items():
            assert len(entry.clauses) >= 3, (name, value)
            assert entry.negated == (value == "denied"), (name, value)


def test_texts_have_3_to_80_words_and_their_phrases_stand_where_they_should(monkeypatch):
    monkeypatch.setattr(complaint, "_MISSPELT", 0.0)
    rng, tables = np.random.default_rng(0), load_tables()
    known = load_phrasebook().facts
    for index in range(300):
        mentioned = rng.permutation(len(tables.facts))[: 3 + index % (len(tables.facts) - 2)]
        facts = {tables.facts[i].name: str(rng.choice(tables.facts[i].values)) for i in mentioned}
        text, phrases = write_complaint(facts, rng)
        assert 3 <= len(text.split()) <= MAX_WORDS
        assert {phrase.category: phrase.value for phrase in phrases} == facts
        for phrase in phrases:
            entry = known[phrase.category][phrase.value]
            said = "".join(
                "<n>" if letter.isdigit() else letter for letter in text[phrase.start : phrase.end]
            ).lower()
            assert said in [wording.lower() for wording in (*entry.clauses, entry.note)]
            assert phrase.negated == (phrase.value == "denied")


def test_some_words_are_misspelt():
    rng = np.random.default_rng(0)
    texts = [
        write_complaint({"itch": "strong", "history": "atopy", "scale": "silvery"}, rng)[0].lower()
        for _ in range(300)
    ]
    assert 0.05 < np.mean(["astma" in text or "athsma" in text for text in texts]) < 0.20


def test_no_wording_reads_as_something_else_in_yaml():
    """PyYAML reads a bare `no` as False: every wording must still be text."""
    for values in load_phrasebook().facts.values():
        assert all(
            isinstance(wording, str)
            for entry in values.values()
            for wording in (*entry.clauses, entry.note)
        )
    assert yaml.safe_load("no") is False
