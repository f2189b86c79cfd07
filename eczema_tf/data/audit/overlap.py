"""What a run has seen, as salted hashes, so that `evaluate` notices if it is tested on that again.

No photo or text can be recovered from the hashes, but anyone who has the hashes can find out
whether a photo or text of their own is among them. Each run has its own salt, so its hashes cannot
be compared with those of another run, or with a list made beforehand.
"""

import secrets
from hashlib import blake2b

import numpy as np

from eczema_tf.data.audit.duplicates import build_phrase_model, identify_photos, list_words
from eczema_tf.data.dataset import Dataset
from eczema_tf.files import Record

HASH_BYTES = 8  # among 10^5 seen and 10^5 evaluated, a false match once in 2 * 10^9 times


class Seen(Record):
    """The photos and texts of training and validation: BLAKE2b keyed with the salt, sorted.

    A photo is its file (SHA-256) or its embedding; a text is its words, whatever their case,
    punctuation and spacing. Only texts that two people would hardly write by chance are included.
    """

    salt: str
    photos: list[str]
    texts: list[str]


def note_seen(dataset: Dataset, rows: np.ndarray) -> Seen:
    """Hashes the photos and texts of some rows.

    Args:
        dataset: The data set of the rows.
        rows: bool (rows,), which rows.
    """
    salt = secrets.token_hex(16)
    photos, words = identify_photos(dataset), list_words(dataset.table)
    model = build_phrase_model(dataset.table, words)
    written = {words[row] for row in np.flatnonzero(rows)} - {()}
    telling = {text for text in written if model.is_copy(text)}
    of_rows = {photos[row] for row in np.flatnonzero(rows)} - {""}
    return Seen(
        salt=salt,
        photos=sorted(_hash(salt, photo) for photo in of_rows),
        texts=sorted(_hash(salt, " ".join(text)) for text in telling),
    )


def find_overlap(seen: Seen, dataset: Dataset, rows: np.ndarray) -> list[str]:
    """Finds the rows whose photo or text a run has seen.

    Args:
        seen: What the run has seen.
        dataset: The data set of the rows.
        rows: int64, which rows.

    Returns:
        One line per finding, with the row's id and no content.
    """
    words = list_words(dataset.table)
    keys = {"photo": identify_photos(dataset), "text": [" ".join(text) for text in words]}
    known = {"photo": set(seen.photos), "text": set(seen.texts)}
    ids = list(dataset.table["example_id"])
    return [
        f"{ids[row]!r}: its {kind} was in training or validation"
        for kind, of_row in keys.items()
        for row in rows
        if of_row[row] and _hash(seen.salt, of_row[row]) in known[kind]
    ]


def _hash(salt: str, key: str) -> str:
    return blake2b(key.encode(), key=salt.encode(), digest_size=HASH_BYTES).hexdigest()
