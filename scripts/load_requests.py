"""Makes bodies of predict requests for `load_test.py`, both ordinary and hostile."""

import base64
import io
import json
from collections.abc import Iterator

import numpy as np
from hostile_photos import draw_crafted, draw_damaged
from hostile_texts import draw_texts
from PIL import Image

DISTINCT = 48  # different valid requests
SIZE_PX = (512, 384)
WORDS = (
    "itchy",
    "red",
    "dry",
    "scaly",
    "patches",
    "on",
    "both",
    "elbows",
    "since",
    "weeks",
    "ring",
    "oozing",
    "worse",
    "at",
    "night",
)


def draw_valid(signature: str) -> Iterator[bytes]:
    """Yields bodies of one row (photo and text, a photo, a text), by row and by column."""
    rng = np.random.default_rng(0)
    for number in range(DISTINCT):
        photo, text = draw_photo(rng), " ".join(rng.choice(WORDS, rng.integers(5, 40)))
        row = {
            "image": {"b64": base64.b64encode(photo).decode() if number % 5 != 3 else ""},
            "text": text if number % 5 != 4 else "",
        }
        rows = (
            {"inputs": {name: [value] for name, value in row.items()}}
            if number % 2
            else {"instances": [row]}
        )
        yield json.dumps({"signature_name": signature, **rows}).encode()


def draw_photo(rng: np.random.Generator) -> bytes:
    """Draws a JPEG of smooth noise."""
    coarse = Image.fromarray(rng.integers(90, 220, (12, 16, 3)).astype("uint8"))
    buffer = io.BytesIO()
    coarse.resize(SIZE_PX, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def draw_hostile(photos: int, texts: int) -> Iterator[tuple[str, bytes]]:
    """Yields names and bodies, with photos and texts mixed.

    Three in four photos are crafted, the rest are damaged at random.
    """
    crafted = list(draw_crafted())
    count = min(len(crafted), photos * 3 // 4)
    chosen = [crafted[place * len(crafted) // count] for place in range(count)]
    rows = [
        (name, b'{"b64":"%s"}' % base64.b64encode(data), b'"itchy"')
        for name, data in (*chosen, *draw_damaged(photos - count))
    ]
    rows += [(name, b'""', literal) for name, literal in draw_texts(texts)]
    rng = np.random.default_rng(0)
    for place in rng.permutation(len(rows)):
        name, image, text = rows[place]
        yield name, b'{"instances":[{"image":%s,"text":%s}]}' % (image, text)
