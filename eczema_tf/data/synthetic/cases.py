"""One made-up case: its hidden state, what its photos show, what its text says, the posteriors.

Case `i` of a seed is always the same, however many cases there are and whoever makes it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from eczema_tf.data.synthetic.complaint import Phrase, write_complaint
from eczema_tf.data.synthetic.photo import encode_photo, render_photo
from eczema_tf.data.synthetic.skin import SITES, TONES
from eczema_tf.data.synthetic.tables import (
    NO_SEVERITY,
    UNSEEN,
    Slot,
    compute_eczema_posterior,
    compute_log_likelihood,
    draw_attributes,
    draw_facts,
    draw_states,
    load_tables,
)

PHOTOS, MASKS = "photos", "masks"  # folders
AGE_GROUPS = ("13-17", "18-29", "30-44", "45-59", "60+")
SEXES = ("female", "male")
NO_PHOTO, NO_TEXT = 0.10, 0.10  # shares of cases; never both
UNCLEAR = 0.15  # share of texts that mention no fact
PHOTO_COUNTS = (0.80, 0.12, 0.08)  # of cases with a photo: shares with one, two and three
_DRAW, _WRITE, _PHOTO = range(3)  # streams of random numbers of a case


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
        facts: Value of each fact mentioned.
        text: The complaint, "" for none.
        phrases: Where each fact stands in the text.
        posterior: P(eczema) given the "image", the "text" and both ("fusion"); `None` where the
            photo or the text is missing.
        skin_tone: Fitzpatrick type; like all that follows, independent of the condition.
        age_group: One of `AGE_GROUPS`.
        sex: One of `SEXES`.
        body_site: One of `skin.SITES`.
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
    posterior: dict[str, float | None]
    skin_tone: str
    age_group: str
    sex: str
    body_site: str


def draw_case(seed: int, index: int) -> Case:
    """Draws a case and writes its text; it does not render its photos."""
    rng, tables = np.random.default_rng([seed, index, _DRAW]), load_tables()
    state = draw_states(tables, 1, rng)
    attributes, facts = draw_attributes(tables, state, rng), draw_facts(tables, state, rng)
    missing, unclear = rng.random(), rng.random() < UNCLEAR
    has_photo, has_text = missing >= NO_PHOTO, not NO_PHOTO <= missing < NO_PHOTO + NO_TEXT
    photos = int(rng.choice(3, p=PHOTO_COUNTS)) + 1 if has_photo else 0
    if unclear or not has_text:
        facts[:] = UNSEEN
    log_image = compute_log_likelihood(tables.attributes, attributes) * has_photo
    log_text = compute_log_likelihood(tables.facts, facts)
    named_facts = _name(tables.facts, facts[0])
    text, phrases = "", list[Phrase]()
    if has_text:
        text, phrases = write_complaint(named_facts, np.random.default_rng([seed, index, _WRITE]))
    condition, severity = tables.states[state[0]]
    return Case(
        case_id=rng.bytes(8).hex(),
        example_ids=tuple(rng.bytes(8).hex() for _ in range(max(1, photos))),
        photos=photos,
        condition=condition,
        severity="" if severity == NO_SEVERITY else severity,
        attributes=_name(tables.attributes, attributes[0]),
        facts=named_facts,
        text=text,
        phrases=phrases,
        posterior={
            "image": float(compute_eczema_posterior(tables, log_image)[0]) if has_photo else None,
            "text": float(compute_eczema_posterior(tables, log_text)[0]) if has_text else None,
            "fusion": float(compute_eczema_posterior(tables, log_image, log_text)[0]),
        },
        skin_tone=str(rng.choice(TONES)),
        age_group=str(rng.choice(AGE_GROUPS)),
        sex=str(rng.choice(SEXES)),
        body_site=str(rng.choice(SITES)),
    )


def render_case(folder: Path, seed: int, index: int, case: Case) -> None:
    """Renders the photos of a case and their lesion masks.

    Args:
        folder: Has the folders `PHOTOS` and `MASKS`.
        seed: Of the data set.
        index: Of the case.
        case: As drawn by `draw_case(seed, index)`.
    """
    for photo, example_id in enumerate(case.example_ids[: case.photos]):
        rng = np.random.default_rng([seed, index, _PHOTO + photo])
        pixels, mask = render_photo(case.attributes, case.skin_tone, case.body_site, rng)
        (folder / PHOTOS / f"{example_id}.jpg").write_bytes(encode_photo(pixels, rng))
        Image.fromarray(mask).save(folder / MASKS / f"{example_id}.png")


def _name(slots: tuple[Slot, ...], codes: np.ndarray) -> dict[str, str]:
    return {
        slot.name: slot.values[code]
        for slot, code in zip(slots, codes, strict=True)
        if code != UNSEEN
    }
