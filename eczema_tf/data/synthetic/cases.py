"""One made-up case: its hidden state, what its photos show, what its text says, the posteriors.

Case `i` of a seed is always the same, however many cases there are and whichever process makes it.
"""

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np
from PIL import Image

from eczema_tf.data.manifest.reading import clean_cell
from eczema_tf.data.synthetic.complaint import Phrase, write_complaint
from eczema_tf.data.synthetic.grammar import Sex, Wordings
from eczema_tf.data.synthetic.photo import encode_photo, render_photo
from eczema_tf.data.synthetic.skin import SITES, TONES
from eczema_tf.data.synthetic.tables import (
    AGE,
    NO_SEVERITY,
    Posterior,
    compute_log_likelihood,
    compute_posterior,
    draw_attributes,
    draw_facts,
    draw_state,
    load_tables,
)

PHOTO_FOLDER, MASK_FOLDER = "photos", "masks"  # folders
# the age that a text says -> its group
AGE_GROUPS = {"baby": "0-1", "child": "2-12", "teen": "13-17", "adult": "18-59", "older": "60+"}
SEXES: tuple[Sex, ...] = ("female", "male")
NO_PHOTO, NO_TEXT = 0.10, 0.10  # shares of cases; never both
UNCLEAR = 0.08  # share of texts that say nothing
NEW = 0.075  # share of texts in new wordings: half of the test split
PHOTO_COUNTS = (0.80, 0.12, 0.08)  # of cases with a photo: shares with one, two and three


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        case_id: Random, like `example_ids`, which also name the photos.
        example_ids: One for each photo, or one if there is none.
        photos: Number of photos, 0 to 3.
        condition: The truth.
        severity: "mild", "moderate" or "severe"; "" where healthy.
        attributes: Value of each attribute drawn, also where there is no photo.
        facts: Value of each fact that the text states.
        text: The complaint, "" for none.
        phrases: Where each fact is in the text.
        wordings: Which wordings it is written in; "" if there is no text.
        split: "train" if it must be in that split; else "".
        posterior: Given the "image", given the "text" (each if present) and given both ("fusion").
        age_group: One of `AGE_GROUPS`, if the text says the age; else "".
        skin_tone: Fitzpatrick type; like all that follows, independent of the condition.
        sex: One of `SEXES`.
        body_site: One of `skin.SITES`: where the photo was taken.
    """

    case_id: str
    example_ids: tuple[str, ...]
    photos: int
    condition: str
    severity: str
    attributes: dict[str, str]
    facts: dict[str, str]
    text: str
    phrases: list[Phrase]
    wordings: Wordings | Literal[""]
    split: Literal["train", ""]
    posterior: dict[str, Posterior]
    age_group: str
    skin_tone: str
    sex: str
    body_site: str


def draw_case(seed: int, index: int, *, text_alone: bool = False) -> Case:
    """Draws a case and writes its text; it does not render its photos.

    Args:
        seed: Seed of the data set.
        index: Index of the case.
        text_alone: Whether it never has a photo, and its text has only wordings for training.
    """
    rng, tables = Random(f"{seed} {index} draw"), load_tables()
    state = draw_state(tables, rng)
    attributes, facts = draw_attributes(tables, state, rng), draw_facts(tables, state, rng)
    missing, unclear, sex = rng.random(), rng.random() < UNCLEAR, rng.choice(SEXES)
    has_photo = missing >= NO_PHOTO and not text_alone
    has_text = text_alone or not NO_PHOTO <= missing < NO_PHOTO + NO_TEXT
    photos = rng.choices((1, 2, 3), PHOTO_COUNTS)[0] if has_photo else 0
    facts = {} if unclear or not has_text else facts
    text, phrases = "", list[Phrase]()
    wordings: Wordings = "new" if rng.random() < NEW and not text_alone else "known"
    if has_text:
        text, phrases = write_complaint(facts, sex, Random(f"{seed} {index} write"), wordings)
        text += "" if clean_cell("text", text) else "."  # "None" would be read as empty
    image = compute_log_likelihood(tables.attributes, attributes if has_photo else {})
    said = compute_log_likelihood(tables.facts, facts)
    condition, severity = tables.states[state]
    return Case(
        case_id=rng.randbytes(8).hex(),
        example_ids=tuple(rng.randbytes(8).hex() for _ in range(max(1, photos))),
        photos=photos,
        condition=condition,
        severity="" if severity == NO_SEVERITY else severity,
        attributes=attributes,
        facts=facts,
        text=text,
        phrases=phrases,
        wordings=wordings if has_text else "",
        split="train" if text_alone else "",
        posterior={
            **({"image": compute_posterior(tables, image)} if has_photo else {}),
            **({"text": compute_posterior(tables, said)} if has_text else {}),
            "fusion": compute_posterior(tables, image, said),
        },
        age_group=AGE_GROUPS.get(facts.get(AGE, ""), ""),
        skin_tone=rng.choice(TONES),
        sex=sex,
        body_site=rng.choice(SITES),
    )


def render_case(folder: Path, seed: int, index: int, case: Case) -> None:
    """Renders the photos of a case and their lesion masks.

    Args:
        folder: Has the folders `PHOTO_FOLDER` and `MASK_FOLDER`.
        seed: Seed of the data set.
        index: Index of the case.
        case: As drawn by `draw_case(seed, index)`.
    """
    for photo, example_id in enumerate(case.example_ids[: case.photos]):
        rng = np.random.default_rng([seed, index, photo])
        pixels, mask = render_photo(case.attributes, case.skin_tone, case.body_site, rng)
        (folder / PHOTO_FOLDER / f"{example_id}.jpg").write_bytes(encode_photo(pixels, rng))
        Image.fromarray(mask).save(folder / MASK_FOLDER / f"{example_id}.png")
