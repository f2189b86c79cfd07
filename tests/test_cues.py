"""Tests for cues: what a text mentions, denies and doubts, mostly on labelled sentences.

The rules were made on `symptom_sentences.csv`. When they were done, they first read
`symptom_sentences_kept_aside.csv`: 118 of its 135 sentences were read entirely right, and in 5
something denied was read as present. Some of these kinds of mistakes were mended later, so the set
is no longer unseen. `symptom_sentences_usual.csv` and `_hard.csv` were written and scored later, by
somebody else. So was `symptom_sentences_voices.csv`: fourteen writers wrote one set after the
other, and each set was scored before rules were made on it. No rule was made on
`symptom_sentences_unseen.csv`, whose author wrote as people do, nor on
`symptom_sentences_varied.csv`, whose author was to vary the sentences as much as possible. An
adversary wrote 2,080 plain sentences: `symptom_sentences_constructions.csv` has those that were
misread at first and are read right now; 324 of the others are still misread.
"""

import csv
import re
import subprocess
import sys
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from eczema_tf.data.synthetic.cases import draw_case
from eczema_tf.symptoms import cues as cues_module
from eczema_tf.symptoms.cues import (
    DENIED,
    FAMILY,
    MENTIONED,
    NEGATED,
    OPEN,
    PATIENT,
    PRESENT,
    UNCERTAIN,
    Cue,
    attribute_cues,
    describe_category,
    find_cues,
    read_criteria,
)
from eczema_tf.symptoms.phrases import PhraseTable, split_words
from eczema_tf.symptoms.vocabulary import Vocabulary

HERE = Path(__file__).parent
VOCABULARY, CONTEXT = (
    yaml.safe_load(Path(cues_module.__file__).with_name(name).read_text(encoding="utf-8"))
    for name in ("cues.yaml", "context.yaml")
)
COLUMNS = ("present", "negated", "family", "family_negated", "uncertain")


def read_sentence(text: str) -> dict[str, set[str]]:
    """Reads the categories of a sentence, by column of the tables."""
    found = {column: set() for column in COLUMNS}
    for cue in find_cues(text):
        family = "family_negated" if cue.status == NEGATED else "family"
        found[family if cue.subject == FAMILY else cue.status].add(cue.category)
    return found


def read_table(name: str) -> list[tuple[str, dict[str, set[str]]]]:
    with (HERE / name).open(encoding="utf-8", newline="") as file:
        return [
            (row["sentence"], {column: set(row[column].split()) for column in COLUMNS})
            for row in csv.DictReader(file)
        ]


def parts(text: str) -> list[tuple[str, str, str]]:
    return [(cue.text, cue.category, cue.status) for cue in find_cues(text)]


@pytest.mark.parametrize(
    ("table", "sentences", "at_least", "at_most"),
    [
        ("negation_sentences.csv", 100, 100, 0),
        ("negation_sentences_held_out.csv", 40, 38, 0),
        ("negation_sentences_later.csv", 60, 59, 0),
        ("symptom_sentences.csv", 579, 550, 0),
        ("symptom_sentences_constructions.csv", 300, 300, 0),
        ("symptom_sentences_kept_aside.csv", 135, 131, 0),
        ("symptom_sentences_usual.csv", 120, 106, 0),
        ("symptom_sentences_hard.csv", 60, 18, 31),
        ("symptom_sentences_voices.csv", 3030, 2743, 26),
        ("symptom_sentences_unseen.csv", 197, 181, 1),
        ("symptom_sentences_varied.csv", 240, 175, 10),
    ],
)
def test_sentences_are_read_as_their_authors_meant_them(table, sentences, at_least, at_most):
    rows = read_table(table)
    assert len({text for text, _ in rows}) == sentences
    # The aims are 95 of 100 and none; the limits are what was reached, so a regression shows.
    wrong = {text: read_sentence(text) for text, meant in rows if read_sentence(text) != meant}
    assert sentences - len(wrong) >= at_least, wrong
    shown = []  # texts in which something denied is read as present
    for text, meant in rows:
        denied = (meant["negated"] | meant["family_negated"]) - meant["present"] - meant["family"]
        found = read_sentence(text)
        if denied & (found["present"] | found["family"]):
            shown.append(text)
    assert len(shown) <= at_most, shown


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("It is itchy.", [("itchy", "itch", PRESENT)]),
        (
            "xerotic, LICHENIFIED plaques",
            [("xerotic", "dryness", PRESENT), ("LICHENIFIED", "thickening", PRESENT)],
        ),
        (
            "ichy skin, scraching all day",
            [("ichy", "itch", PRESENT), ("scraching", "itch", PRESENT)],
        ),
        ("Itchyyyy!!", [("Itchyyyy", "itch", PRESENT)]),
        ("in the creases of both elbows", [("creases of both elbows", "flexures", PRESENT)]),
        ("behind my\nknees", [("behind my\nknees", "flexures", PRESENT)]),
        ("hay-fever", [("hay-fever", "atopy", PRESENT)]),
        ("review in 2/52", []),
        ("wet wraps for 3 people", []),
        ("itch 3/52", [("itch", "itch", PRESENT), ("3/52", "duration", PRESENT)]),
        ("onset 5/12", [("onset 5/12", "onset", PRESENT)]),
        ("never had any kind of allergy", [("allergy", "atopy", NEGATED)]),
        ("Could it be the soap at work?", [("be the soap", "trigger", UNCERTAIN)]),
        ("the nurse draws blood", []),
        ("a cream for winter", []),
        ("it healed leaving red marks", [("red", "redness", PRESENT)]),
        ("It stops working and the itch is there", [("itch", "itch", PRESENT)]),
        ("she stops scratching", [("scratching", "itch", NEGATED)]),
        ("oedema nil, scale", [("scale", "scale", PRESENT)]),
        ("she'd rather wait", []),
        (
            "Tomato sauce makes her chin red",
            [("makes her chin", "trigger", PRESENT), ("red", "redness", PRESENT)],
        ),
        ("It makes her cry", []),
        ("it makes her red", [("red", "redness", PRESENT)]),  # "it" is the rash, not a trigger
        (
            "I itch when I wear wool",
            [("itch", "itch", PRESENT), ("when I wear wool", "trigger", PRESENT)],
        ),
        ("I itch when I use the cream", [("itch", "itch", PRESENT)]),
        ("When I wear it my friends laugh", []),
        ("oedema - / scale +", [("scale", "scale", PRESENT)]),
        ("for about 3-4 weeks", [("for about 3-4 weeks", "duration", PRESENT)]),
        ("for two or three years", [("for two or three years", "duration", PRESENT)]),
        ("flares up with hot weather", [("flares up with hot weather", "trigger", PRESENT)]),
        (
            "I slept badly, she keeps me awake at night",
            [("keeps me awake at night", "sleep_loss", PRESENT)],
        ),
        ("thick silvery scales", [("thick silvery scales", "scale", PRESENT)]),
        ("nonpruritic", [("nonpruritic", "itch", NEGATED)]),
        ("Eczema?", [("Eczema", "atopy", UNCERTAIN)]),
        ("I have a dry cough and drank red wine, on a scale of 1 to 10", []),
        ("No sleep loss", [("No sleep loss", "sleep_loss", NEGATED)]),
        ("The nights are quiet.", [("nights are quiet", "sleep_loss", NEGATED)]),
        ("It lets her sleep.", [("lets her sleep", "sleep_loss", NEGATED)]),
        ("It never lets me sleep.", [("never lets me sleep", "sleep_loss", PRESENT)]),
        ("supple skin", [("supple", "dryness", NEGATED)]),
        ("The rash is 3 weeks old.", [("The rash is 3 weeks old", "duration", PRESENT)]),
        ("My baby is 3 weeks old.", []),
        ("no damp spots", [("damp spots", "weeping", NEGATED)]),
        ("Peeling an apple in wet weather, under a leaking roof, my hair is shedding", []),
        ("A 25-year-old man used the cream for 3 days", []),
        ("The kitchen, the car, the weather.", []),
    ],
)
def test_cues_have_the_expected_text_category_and_status(text, meant):
    assert parts(text) == meant


@pytest.mark.parametrize(
    ("text", "statuses"),
    [
        ("no redness, scaling or oozing", [NEGATED, NEGATED, NEGATED]),
        ("Without itching, weeping and crusts.", [NEGATED, NEGATED, NEGATED]),
        ("no redness, dry skin, scaling, or oozing", [NEGATED, NEGATED, NEGATED, NEGATED]),
        ("not red, itchy or dry, but scaly", [NEGATED, NEGATED, NEGATED, PRESENT]),
        ("not only itchy but dry", [PRESENT, PRESENT]),
        ("red, itchy clear blisters", [PRESENT, PRESENT, PRESENT]),
        ("Skin: no itching", [NEGATED]),
        ("itching: no", [NEGATED]),
        ("dry skin itch: no", [PRESENT, NEGATED]),
        ("denied itching", [NEGATED]),
        ("no scale, no blisters, dry and red", [NEGATED, NEGATED, PRESENT, PRESENT]),
        ("no pain or itching, scales on the elbows", [NEGATED, PRESENT]),
        ("no itching, my skin is red", [NEGATED, PRESENT]),
        ("no pain or itching, dry or scaly", [NEGATED, PRESENT, PRESENT]),
        ("no pain and itching, dry or scaly", [NEGATED, PRESENT, PRESENT]),
        ("not red, and itchy", [NEGATED, PRESENT]),
        ("no redness, scaling, and itching", [NEGATED, NEGATED, NEGATED]),
        ("no itching (but dryness)", [NEGATED, PRESENT]),
        ("not itchy - very dry", [NEGATED, PRESENT]),
        ("no\nitching\ndry", [NEGATED, PRESENT]),
        ("itching\nno dryness\nred", [PRESENT, NEGATED, PRESENT]),
        ("no cream stops the itching", [PRESENT]),
        ("not without itching", [PRESENT]),
        ("The itching has not gone away.", [PRESENT]),
        ("The itching has gone.", [NEGATED]),
        ("dry (-), itch (+)", [NEGATED, PRESENT]),
        ("(-) dryness (+) itch", [NEGATED, PRESENT]),
        ("it might be a little dry", [UNCERTAIN]),
        ("not very itchy", [UNCERTAIN]),
        ("I might not be itchy", [NEGATED]),
    ],
)
def test_negation_covers_its_list_and_nothing_after_it(text, statuses):
    assert [cue.status for cue in find_cues(text)] == statuses


@pytest.mark.parametrize(
    ("text", "statuses"),
    [
        ("The ointment cleared the scale.", [NEGATED]),
        ("It never cleared the scale.", [PRESENT]),
        ("It got rid of the scale but not of the itch.", [NEGATED, PRESENT]),
        ("It helped with the redness but the itching stayed.", [NEGATED, PRESENT]),
        ("no cream ever got rid of the itch", [PRESENT]),
        ("No itch… dry skin", [NEGATED, PRESENT]),  # as phones write three dots
        ("• no itch • dry skin", [NEGATED, PRESENT]),
        ("No itch。dry skin，red", [NEGATED, PRESENT, PRESENT]),
        ("No itch\u2028dry skin", [NEGATED, PRESENT]),
        ("Oozing (no), itch (yes)", [NEGATED, PRESENT]),
        ("Why does it itch so much?", [PRESENT]),  # it does itch
        ("Does it itch?", [UNCERTAIN]),
        ("The itch has not completely gone.", [PRESENT]),
        ("The blisters have not all healed.", [PRESENT]),
        ("The itch is not yet gone and the redness has partly faded.", [PRESENT, PRESENT]),
        ("Three weeks ago it was weeping. Now it is dry.", [PRESENT, NEGATED, PRESENT]),
        ("Two years ago it was itchy, today it is not.", [PRESENT, NEGATED]),
        ("It began three weeks ago and itches now.", [PRESENT, PRESENT]),
        ("It started 5 days ago it is very itchy now.", [PRESENT, PRESENT]),
        ("It did not itch at first but now it does.", [PRESENT]),
        ("It didn't itch until last week.", [PRESENT]),
        ("It may itch.", [UNCERTAIN]),
        ("Three weeks ago I got red patches which now itch.", [PRESENT, PRESENT, PRESENT]),
        ("The redness has faded.", [NEGATED]),
        ("The redness has not faded.", [PRESENT]),
        ("The redness faded but it came back.", [PRESENT]),
        ("It used to itch, it is still dry.", [NEGATED, PRESENT]),
        ("I used to have asthma.", [PRESENT]),  # a history of asthma counts
        ("a cream used to treat dryness", [PRESENT]),
        ("At first it was itchy.", [PRESENT]),
        ("At first it was itchy, now it is dry.", [NEGATED, PRESENT]),
        ("It itched, but now it doesn't.", [NEGATED]),
        ("it itched but now it doesn't", [NEGATED]),
        ("It cleared the redness and the scale.", [NEGATED, NEGATED]),
        ("It cleared the redness and the itch is better.", [NEGATED, PRESENT]),
        ("no redness and the itch", [NEGATED, NEGATED]),
        ("Call us if it starts to itch.", [UNCERTAIN]),
        ("if the itching gets worse", [PRESENT]),  # the itching exists
        ("She asked about dryness.", [UNCERTAIN]),
        ("Any dryness?", [UNCERTAIN]),
        ("no itch unless it is hot", [PRESENT]),
        ("isn't just dry", [PRESENT]),
        ("It's not the redness that bothers me.", [PRESENT]),
        ("itch ++, scale -, crust +/-", [PRESENT, NEGATED, UNCERTAIN]),
        ("itch 0/10, dryness 3/10", [NEGATED, PRESENT]),
        ("asthma -ve, scale +ve", [NEGATED, PRESENT]),
        ("pruritus +", [PRESENT]),
        ("+ itch - scale - oozing", [PRESENT, NEGATED, NEGATED]),
        ("-itch, +scale", [NEGATED, PRESENT]),
        ("redness +++ crusts - dry skin - itch +", [PRESENT, NEGATED, NEGATED, PRESENT]),
        ("itch+ scaling- redness+", [PRESENT, NEGATED, PRESENT]),
        ("Eczema - itch ++, scale -", [PRESENT, PRESENT, NEGATED]),  # a heading
        ("- itch +\n- scale -", [PRESENT, NEGATED]),  # bullets
        ("itchy - the skin is dry + red", [PRESENT, PRESENT, PRESENT]),
        ("The ointment made the crusts fall off.", [NEGATED]),
        ("Nothing made the itch go away.", [PRESENT]),
        ("It does not make the itch go away.", [PRESENT]),
        ("What makes the itch go away?", [PRESENT]),
        ("I used to lie awake because of the itch.", [NEGATED, NEGATED]),
        ("I no longer scratch because of the dryness.", [NEGATED, PRESENT]),
        ("It was red at first, then it turned scaly.", [NEGATED, PRESENT]),
        ("It was red at first, then it became scaly, too.", [PRESENT, PRESENT]),
        ("The redness turned into scaling.", [NEGATED, PRESENT]),
        ("It was itchy at the beginning, now it has spread.", [PRESENT]),
        ("Last week red spots appeared, now they itch.", [PRESENT, PRESENT]),
        ("The itch was worst last week and is gone now.", [NEGATED]),
        ("Dry, but the itching and the redness disappeared.", [PRESENT, NEGATED, NEGATED]),
        ("I have redness and the itch has gone.", [PRESENT, NEGATED]),
        ("Itching no, dryness yes.", [NEGATED, PRESENT]),
        ("No, it itches.", [PRESENT]),
        ("I am not sure if the redness comes from it.", [PRESENT]),
        ("I am not sure if my skin is dry.", [UNCERTAIN]),
        ("Some said it was eczema.", [UNCERTAIN]),
        # the duration of a treatment is not that of the rash
        ("I have used urea cream, vitamin E and zinc for two weeks.", []),
        ("?eczema", [UNCERTAIN]),
        ("- itchy\n- dry", [PRESENT, PRESENT]),  # a list
        ("malaise ++. The itch - what is it?", [PRESENT]),  # no minus sign: it is another sentence
        ("Scaling: n, itch: y", [NEGATED, PRESENT]),
        ("I have never seen it weep.", [NEGATED]),
        ("The itch, which was bad at night, has gone.", [NEGATED]),
        ("The skin, which itches, has gone dry.", [PRESENT, PRESENT]),
        ("He had crusts when we met; both have gone.", [NEGATED]),
        ("My cheeks were peeling. They've stopped.", [NEGATED]),
        ("My hands were crusted; they no longer weep.", [NEGATED, NEGATED]),
        ("It was itchy. Today there is no itch.", [NEGATED, NEGATED]),
        ("It has been itchy. Today there is no redness.", [PRESENT, NEGATED]),
        ("The shampoo got rid of the scale, but not the itch.", [NEGATED, PRESENT]),
        ("Neg: itch, scale, crust.", [NEGATED, NEGATED, NEGATED]),
        ("Can stress cause itching?", [UNCERTAIN, UNCERTAIN]),
        ("Can you help with itching?", [PRESENT]),
        ("Will my itching go?", [PRESENT]),
        ("Will it spread to the creases of the elbows?", [UNCERTAIN]),
        ("It leaves me in peace as far as itching goes.", [NEGATED]),
        ("It left me alone with the itch.", [PRESENT]),
        ("I have never known an itch like it.", [PRESENT]),
        ("It does not blister - no dryness.", [NEGATED, NEGATED]),
        ("Duration: 7 months - no itching, itching - no", [PRESENT, NEGATED, NEGATED]),
        ("to no avail, dry skin", [PRESENT]),
        ("itching, three antihistamines, none helped", [PRESENT]),
        ("She asked whether it was dry and it isn't.", [NEGATED]),  # an answer
        ("Does it flake? Not that I've seen.", [NEGATED]),
        ("Does it itch? Constantly.", [PRESENT]),
        ("They asked about itching and crusts: no to both.", [NEGATED, NEGATED]),
        ("It is dry and it isn't my fault.", [PRESENT]),  # not an answer
        ("If the itch comes back", [UNCERTAIN]),
        ("If the itch gets worse", [PRESENT]),
        ("Not only has the redness gone, it is smooth.", [NEGATED]),
        ("It has gone red.", [PRESENT]),
        ("It has gone from red to scaly.", [NEGATED, PRESENT]),
        ("It doesn't go red.", [NEGATED]),
        # creases that were affected once count, unless they have cleared
        ("The creases of the elbows have cleared.", [NEGATED]),
        ("It used to be in the creases of the elbows.", [PRESENT]),
        ("The itch has gone and so has the redness.", [NEGATED, NEGATED]),
        ("Erythema, crust, scale: all absent.", [NEGATED, NEGATED, NEGATED]),
        ("Erythema, crust, scale: all of them.", [PRESENT, PRESENT, PRESENT]),
        ("The cream took the edge off the itch.", [PRESENT]),
        ("The itch was bad with it last winter, not any more.", [NEGATED]),
        ("The itching because of the dryness has gone.", [NEGATED, NEGATED]),
        ("far from dry", [NEGATED]),
        ("Not only is it itchy, it is red.", [PRESENT, PRESENT]),
        ("I wonder if the soap is to blame.", [UNCERTAIN, UNCERTAIN]),
        ("Stress has nothing to do with it.", [NEGATED]),
        ("We changed the soap and it made no difference.", [NEGATED]),
        ("The cream made no difference.", []),
        ("The redness went but not the scaling.", [NEGATED, PRESENT]),
        ("The redness went, but not the scaling.", [NEGATED, PRESENT]),
        ("The redness has gone but not the scaling.", [NEGATED, PRESENT]),
        ("The redness is gone, but not the scaling.", [NEGATED, PRESENT]),
        ("I saw three doctors about the itching and none could help.", [PRESENT]),
        ("I asked three doctors about the itching, none could help.", [PRESENT]),
        ("No oozing → dry skin", [NEGATED, PRESENT]),
        ("no itch | dry skin", [NEGATED, PRESENT]),
        ("I saw three doctors about the itching and none of them could help.", [PRESENT]),
        ("I saw three doctors about the itching and none was able to help.", [PRESENT]),
        ("I asked three doctors about the itching and none knew.", [PRESENT]),
        ("The itching is bad and nobody could help.", [PRESENT]),
        ("They asked about hay fever in the family; nobody has.", [NEGATED]),
        ("They asked about hay fever in the family; nobody does.", [NEGATED]),
        ("They asked about hay fever in the family; no one does.", [NEGATED]),
        ("They asked about hay fever in the family. Nobody has.", [NEGATED]),
        ("wet wraps", []),
    ],
)
def test_relief_time_and_mood_decide_whether_a_symptom_is_present(text, statuses):
    assert [cue.status for cue in find_cues(text)] == statuses


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("She wakes up three times a night because of the rash.", "sleep_loss"),
        ("None of us has had a proper night.", "sleep_loss"),
        ("It comes up after cat contact.", "trigger"),
        ("whenever he has been near the dog", "trigger"),
        ("He claws at it.", "itch"),
    ],
)
def test_symptoms_are_found_without_their_noun(text, category):
    assert [cue.category for cue in find_cues(text)] == [category]


@pytest.mark.parametrize(
    ("text", "subjects"),
    [
        ("my mother has asthma", [FAMILY]),
        ("My mother has asthma and I itch.", [FAMILY, PATIENT]),
        ("I have hay fever, my father asthma", [PATIENT, FAMILY]),
        ("Asthma and hay fever run in the family; my skin is dry.", [FAMILY, FAMILY, PATIENT]),
        ("family history of eczema", [FAMILY]),
        ("My mother says my skin is dry.", [PATIENT]),
        ("My family doctor saw red skin", [PATIENT]),
        ("my daughter has asthma", [PATIENT]),
        ("nobody in my family has it", [FAMILY]),
        ("Neither of my parents has asthma.", [FAMILY]),
        ("Unlike my husband, I itch.", [PATIENT]),
        ("My sister, unlike me, is dry.", [FAMILY]),
        ("Dad: asthma. Me: hay fever.", [FAMILY, PATIENT]),
        ("I am the only one in the family with asthma.", [PATIENT]),
        ("My father has dry skin. It itches. What is it?", [PATIENT, PATIENT]),  # he is the patient
        ("I itch. My father has dry skin. What is it?", [PATIENT, FAMILY]),
        ("My father has asthma. I itch.", [FAMILY, PATIENT]),
        ("I have asthma, my brother doesn't.", [PATIENT, FAMILY]),  # "asthma" is implied
        ("My brother doesn't like it.", []),
        ("I have asthma, my brother doesn't smoke.", [PATIENT]),
        ("My cousins have hay fever; I have neither.", [FAMILY, PATIENT]),
        ("FHx: eczema (mother), asthma (father)", [FAMILY, FAMILY]),
        ("Asthma (my father), hay fever (me)", [FAMILY, PATIENT]),
        ("My husband does not itch but I do.", [FAMILY, PATIENT]),
        ("Her mum has dry, cracked hands.", [FAMILY, FAMILY]),
        (
            "My father is itchy but not red and has asthma, but I am dry.",
            [FAMILY, FAMILY, FAMILY, PATIENT],
        ),
    ],
)
def test_family_illness_is_not_attributed_to_the_patient(text, subjects):
    assert [cue.subject for cue in find_cues(text)] == subjects


PIECES = [
    "itchy",
    "no",
    "é",
    "😖",
    "doesn’t",
    "but",
    "\n",
    ", ",
    "(",
    "３",
    "ﬁ",
    "ß",
    "dry",
    "e\u0301",
    "my mother",
    "?",
]


@settings(max_examples=200)
@given(st.lists(st.sampled_from(PIECES)))
def test_cue_offsets_match_the_text(pieces):
    text = " ".join(pieces)
    found = find_cues(text)
    assert all(cue.text == text[cue.start : cue.end] for cue in found)
    # "my mother doesn't" is a cue too
    named = [cue.text for cue in found if "mother" not in cue.text]
    assert sorted(named) == sorted(piece for piece in pieces if piece in ("itchy", "dry"))
    assert all(before.end <= after.start for before, after in pairwise(found))


def test_offsets_count_characters_in_text_with_emoji_and_accents():
    text = "Élodie 😖: it doesn’t ＩＴＣＨ, très drý"
    assert [(text[cue.start : cue.end], cue.status) for cue in find_cues(text)] == [
        ("ＩＴＣＨ", NEGATED),
        ("drý", PRESENT),
    ]


def test_sentence_reads_the_same_with_other_apostrophes_case_and_spaces():
    for text, _ in read_table("negation_sentences.csv"):
        plain = read_sentence(text)
        for changed in (
            text.replace("'", "’"),
            text.replace("’", ""),
            text.replace("'", ""),
            text.upper(),
            f"  {text}\n\n{text.lower()}",
        ):
            assert read_sentence(changed) == plain, changed


def test_hyphens_within_words_are_read_like_spaces():
    changed = {}
    for text, _ in read_table("symptom_sentences_voices.csv"):
        changed[text] = re.sub("(?<=[a-z])-(?=[a-z])", " ", text, flags=re.IGNORECASE)
        assert read_sentence(changed[text]) == read_sentence(text), text
    assert sum(text != apart for text, apart in changed.items()) > 40


HOSTILE = [
    "a",
    "no ",
    "not not ",
    "(",
    "(-",
    "'a",
    "1,",
    "1",
    "1-",
    "- ",
    ", ",
    ",",
    "\n",
    "\u0301",
    "a\u200d",
    "<my> ",
    "of the ",
    "in my mothers ",
    "no itch, ",
    "the past two or three or ",
    "my my both the ",
    "# ",
    "one two ",
    "no itching or dryness, ",
    "ﷺ",
    "痒",
    "\x00",
    "\ud83d",
    "at age 9",
    "worse with ",
    "for the past ",
    "itchy ",
    "do not know if it is ",
    "no longer not seen ",
    "not been able to ",
    "after i was in the ",
    "whenever the ",
    "last week , it was ",
    ", but now it ",
    "+",
    " ?a",
    "0/",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_cost_of_hostile_texts_is_proportional_to_their_length(piece):
    find_cues(piece)
    short, long = (count_instructions((piece * size)[:size]) for size in (500, 1_000))
    assert long <= 2.3 * short + 500
    assert all(cue.end <= 20_000 for cue in find_cues((piece * 20_000)[:20_000]))


def count_instructions(text: str) -> int:
    """Counts the bytecode instructions that `find_cues` executes: its cost, without a clock."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        find_cues(text)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("onset 5/12", "infancy"),
        ("onset 30/12", "later"),
        ("onset 60/52", "infancy"),
        ("onset 110/52", "later"),
        ("began at 10 weeks", "infancy"),
        ("since he was about six months old", "infancy"),
        ("since he was six", "later"),
        ("since he was 6 weeks old", "infancy"),
        ("at the age of 20 days", "infancy"),
        ("from the age of 5 months", "infancy"),
        ("since I was 12, weeks after school", "later"),
        ("he was about six months old when it first came up", "infancy"),
        ("he was six months old when it broke out", "infancy"),
        ("he was about six when it first showed up", "later"),
    ],
)
def test_onset_is_infancy_below_two_years_and_later_otherwise(text: str, kind: str):
    assert [(cue.category, cue.kind) for cue in find_cues(text)] == [("onset", kind)]


def test_age_of_five_thousand_digits_is_not_an_error():
    assert find_cues("at age " + "9" * 5_000)[0].kind == "later"


@pytest.mark.parametrize("text", ["", " \n ", "\x00", "😖", "..."])
def test_text_without_words_has_no_cues(text):
    assert find_cues(text) == []


def test_attribution_of_a_cue_is_the_sum_of_the_scores_of_its_words():
    [itch, creases] = find_cues("itchy elbow creases")
    spans = [
        (0, 5, 0.5),
        (6, 11, 0.25),
        (12, 15, -1.0),
        (15, 19, 0.125),
        (0, 0, 9.0),
    ]  # "creases" consists of two pieces; the last span is padding
    assert [cue.attribution for cue in (itch, creases)] == [None, None]
    assert [cue.attribution for cue in attribute_cues([itch, creases], spans)] == [0.5, -0.625]


def test_partly_overlapping_span_contributes_its_share():
    cue = Cue(2, 6, "itch", "itch", PRESENT, PATIENT, None)
    assert attribute_cues([cue], [(0, 4, 1.0), (4, 12, 0.8)])[0].attribution == pytest.approx(
        0.5 + 0.2
    )
    assert attribute_cues([cue], [(6, 9, 1.0)]) == [replace(cue, attribution=0.0)]
    assert attribute_cues([cue], []) == [replace(cue, attribution=0.0)]
    assert attribute_cues([], [(0, 4, 1.0)]) == []


def test_scores_are_conserved_when_cues_cover_the_text():
    text = "itchy dry red"
    spans = [(0, 3, 0.3), (3, 8, -0.7), (8, 13, 1.1)]
    covering = [
        replace(cue, start=start, end=end)
        for cue, (start, end) in zip(find_cues(text), [(0, 6), (6, 10), (10, 13)], strict=True)
    ]
    assert sum(cue.attribution for cue in attribute_cues(covering, spans)) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("text", "statuses"),
    [
        ("", {}),
        (
            "Itchy since I was a baby, behind the knees, skin dry, has asthma.",
            {
                "itchy_skin": MENTIONED,
                "early_onset": MENTIONED,
                "flexures": MENTIONED,
                "dry_skin": MENTIONED,
                "atopy": MENTIONED,
            },
        ),
        (
            "Not itchy, not dry, no asthma. It started at age 30.",
            {"itchy_skin": DENIED, "dry_skin": DENIED, "atopy": DENIED, "early_onset": DENIED},
        ),
        ("It began at the age of 18 months.", {"early_onset": MENTIONED}),
        ("It began at the age of 24 months.", {"early_onset": DENIED}),
        ("It began when I was one.", {"early_onset": MENTIONED}),
        ("Since childhood.", {}),  # may be before two years or after
        ("My mother has asthma.", {}),
        ("My sister itches.", {}),
        ("Not in the elbow folds but behind the knees.", {"flexures": MENTIONED}),
        ("It might be itchy.", {}),
        ("I have had eczema, the heels are cracked.", {}),
    ],
)
def test_criteria_are_mentioned_denied_or_open(text, statuses):
    read = {criterion.name: criterion.status for criterion in read_criteria(find_cues(text))}
    assert read == dict.fromkeys(VOCABULARY["criteria"], OPEN) | statuses


def test_criterion_lists_the_cues_that_support_it():
    text = "I itch, my mother has asthma, it might be dry."
    criteria = {criterion.name: criterion for criterion in read_criteria(find_cues(text))}
    assert [cue.text for cue in criteria["itchy_skin"].cues] == ["itch"]
    assert [(cue.text, cue.subject) for cue in criteria["atopy"].cues] == [("asthma", FAMILY)]
    assert criteria["atopy"].status == OPEN
    assert [cue.status for cue in criteria["dry_skin"].cues] == [UNCERTAIN]
    assert criteria["visible_flexural_eczema"].cues == ()
    assert "not a diagnosis" in cues_module.CRITERIA_NOTICE


def test_every_category_has_a_description():
    assert {category: describe_category(category) for category in VOCABULARY["categories"]} == {
        category: entry["describe"] for category, entry in VOCABULARY["categories"].items()
    }
    assert describe_category("onset") == "age at onset"
    with pytest.raises(KeyError):
        describe_category("appetite")


def test_no_phrase_belongs_to_two_categories():
    owners: dict[str, set[str]] = {}
    for category, entry in VOCABULARY["categories"].items():
        for phrase in chain(*entry["phrases"].values(), entry.get("denials", [])):
            owners.setdefault(phrase, set()).add(category)
    for phrase in VOCABULARY["ignored"]:
        owners.setdefault(phrase, set()).add("ignored")
    assert not {phrase: names for phrase, names in owners.items() if len(names) > 1}


def test_misspellings_are_unique_and_are_no_corrections_or_words_of_phrases():
    wrongs = [wrong for words in VOCABULARY["misspellings"].values() for wrong in words]
    assert len(wrongs) == len(set(wrongs))
    assert not set(wrongs) & set(VOCABULARY["misspellings"])
    rest = [entry for key, entry in VOCABULARY.items() if key != "misspellings"]
    used = {word.form for word in split_words(yaml.safe_dump([rest, CONTEXT]))}
    assert {"itch", "without"} <= used
    assert not set(wrongs) & used  # once corrected, such a phrase would never be found


def test_unknown_vocabulary_key_is_refused():
    category = {"describe": "itching", "phrases": {}, "dropped_bye": "activity"}
    with pytest.raises(ValidationError, match="dropped_bye"):
        Vocabulary.model_validate(VOCABULARY | {"categories": {"itch": category}})


@pytest.mark.parametrize(
    ("phrases", "slots"),
    [
        ([True], {}),
        ([""], {}),
        (["<a>"], {"a": ["", "x"]}),
        (["b <c>"], {}),
        (["x"], {"a": ["<a>"]}),
    ],
)
def test_invalid_phrase_table_is_refused(phrases, slots):
    with pytest.raises(ValueError, match=r"phrase"):
        PhraseTable([(phrase, 1) for phrase in phrases], slots)


def test_longest_phrase_wins_and_slots_may_be_left_out():
    table = PhraseTable(
        [("no", "no"), ("no longer", "longer"), ("behind <my> knees", "knees")],
        {"my": ["", "my", "the", "the back of my"]},
    )
    forms = [
        word.form
        for word in split_words(
            "No, no longer behind knees; behind the back of my knees behind the KNEES"
        )
    ]
    assert [(found.start, found.end, found.meanings) for found in table.find(forms)] == [
        (0, 1, ("no",)),
        (2, 4, ("longer",)),
        (4, 6, ("knees",)),
        (7, 13, ("knees",)),
        (13, 16, ("knees",)),
    ]


def test_meanings_of_all_ways_to_the_same_words_are_combined():
    table = PhraseTable(
        [("<is> gone", "slot"), ("gone", "plain"), ("gone", "again")], {"is": ["", "is"]}
    )
    assert [set(found.meanings) for found in table.find(["gone", "is", "gone"])] == [
        {"slot", "plain", "again"},
        {"slot"},
    ]


# findings of the built-in complaints, or their values, that both vocabularies know
KNOWN = {
    "itch": "itch",
    "dryness": "dryness",
    "scale": "scale",
    "oozing": "weeping",
    "look:thickened": "thickening",
    "look:fine_scale": "scale",
    "look:weeping": "weeping",
    "look:inflamed": "redness",
    "sleep": "sleep_loss",
    "site:flexures": "flexures",
    "history:own_atopy": "atopy",
    "onset:childhood": "onset",
    "onset:infancy": "onset",
    "duration:years": "duration",
    "duration:months": "duration",
    "duration:weeks": "duration",
    "duration:days": "duration",
}


def test_most_findings_of_built_in_complaints_are_read_as_meant():
    """Most findings are found, and nearly all of them correctly.

    The general words of the complaints are in `cues.yaml`.
    """
    rows = []
    for case in (draw_case(20, index) for index in range(600)):
        cues = find_cues(case.text)
        for phrase in case.phrases:
            category = KNOWN.get(phrase.category) or KNOWN.get(f"{phrase.category}:{phrase.value}")
            found = [
                cue
                for cue in cues
                if cue.category == category and cue.start < phrase.end and cue.end > phrase.start
            ]
            wrong = PRESENT if phrase.negated else NEGATED  # "not particularly dry" is a doubt
            if category:
                agree = all(cue.status != wrong for cue in found)
                rows.append((category, phrase.negated, bool(found), agree))
    table = pd.DataFrame(rows, columns=["category", "negated", "found", "agree"])
    assert len(table) > 900
    assert table["negated"].mean() > 0.2
    assert table["found"].mean() >= 0.82  # "I sneeze every spring" names no symptom
    assert table.loc[table["category"].isin(["itch", "scale"]), "found"].mean() >= 0.97
    assert table.loc[table["found"], "agree"].mean() >= 0.97
    assert table.loc[table["found"] & table["negated"], "agree"].mean() >= 0.97


def test_real_questions_contain_cues_of_most_categories(shared):
    questions = pd.read_csv(shared / "data/dermavqa/encounters.csv")["query_en"].dropna()
    found = [
        cue
        for text in questions
        for cue in find_cues(text)
        if text[cue.start : cue.end] == cue.text
    ]
    counts = pd.Series([cue.category for cue in found]).value_counts()
    assert set(counts.index) >= {
        "itch",
        "dryness",
        "redness",
        "scale",
        "weeping",
        "thickening",
        "atopy",
        "onset",
        "trigger",
        "duration",
        "flexures",
    }
    assert len(found) > 2 * len(questions)


def test_cues_do_not_import_tensorflow():
    code = (
        "import sys, eczema_tf.symptoms.cues as c; c.find_cues('itchy');"
        " sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "digits", "kind"),
    [
        ("one", 1, "infancy"),
        ("two", 2, "later"),
        ("twelve", 12, "later"),
        ("fifteen", 15, "later"),
        ("twenty one", 21, "later"),
        ("fifty", 50, "later"),
    ],
)
def test_ages_in_words_and_digits_are_understood(words: str, digits: int, kind: str):
    for age in (words, digits):
        found = find_cues(f"It began when I was {age}.")
        assert [cue.kind for cue in found if cue.category == "onset"] == [kind]


def test_every_number_word_in_the_digit_slot_is_known():
    slots = yaml.safe_load(Path(cues_module.__file__).with_name("cues.yaml").read_text())["slots"]
    assert cues_module._NUMBERS.keys() >= {*slots["digit"]} - {"#"}
