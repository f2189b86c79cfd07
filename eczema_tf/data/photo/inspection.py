"""Inspection before training: decodes every photo once and keeps a small version for the audit.

A photo that cannot be used is thus found before training and not in the middle of it.
"""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from eczema_tf.data.photo.files import read_photo
from eczema_tf.data.photo.upright import shrink_upright
from eczema_tf.data.progress import track
from eczema_tf.errors import DataError

GRAY_PX = 64  # side of the gray version: ImageHash's own size for 16 x 16 frequencies
WORKERS = 2  # threads; each has a whole photo in memory


class _Photo(NamedTuple):
    """A row of `inspect_photos`."""

    sha256: str = ""
    gray: np.ndarray | None = None
    error: str = ""


def inspect_photos(files: Iterable[str]) -> pd.DataFrame:
    """Decodes every distinct photo file once, reports faults and keeps a small version.

    The small version serves to find duplicates. (The encoder's pixels are not made here: they must
    equal those of the served graph bit for bit, so TensorFlow has to decode them.)

    Args:
        files: Paths; "" (no photo) is skipped.

    Returns:
        One row per distinct file, indexed by `file`: `sha256` of its bytes, `gray` (uint8 (64, 64),
        upright, stretched to a square), `error` ("" if the photo is good).
    """
    distinct = list(dict.fromkeys(file for file in files if file))
    with ThreadPoolExecutor(WORKERS) as pool:
        rows = list(track(pool.map(_inspect_photo, distinct), "photos", len(distinct)))
    index = pd.Index(distinct, name="file", dtype=str)
    return pd.DataFrame(rows, index=index, columns=list(_Photo._fields))


def _inspect_photo(file: str) -> _Photo:
    try:
        data = read_photo(Path(file))
        gray = shrink_upright(data, GRAY_PX)
    except DataError as error:
        return _Photo(error=str(error))
    return _Photo(hashlib.sha256(data).hexdigest(), gray)
