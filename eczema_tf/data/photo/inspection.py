"""Inspection before training: every photo is decoded once, and kept in small for the audit.

A truncated photo is found before training and not in the middle of it.
"""

import hashlib
import io
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from eczema_tf.data.photo.files import describe_error, read_orientation, read_photo, to_8_bits
from eczema_tf.data.photo.limits import MAX_JPEG_PIXELS
from eczema_tf.errors import DataError

GRAY_PX = 64  # side of the gray version: ImageHash's own size for 16 x 16 frequencies
WORKERS = 2  # threads; each holds a whole photo
PROGRESS_FROM_PHOTOS = 500  # below, it is over before a bar could be read
MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}
END_OF_PNG = b"IEND\xaeB`\x82"  # the last chunk with its checksum


class _Photo(NamedTuple):
    """A row of `inspect_photos`."""

    sha256: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    gray: np.ndarray | None = None
    error: str = ""


def inspect_photos(files: Iterable[str]) -> pd.DataFrame:
    """Decodes every distinct photo file once, says what is wrong with it and keeps it in small.

    What is kept is what duplicates are found by. (The encoder's pixels are not made here: they must
    be to the bit those of the served graph, and so have to be decoded by TensorFlow.)

    Args:
        files: Paths; "" (no photo) is passed over.

    Returns:
        One row a distinct file, indexed by `file`: `sha256` of its bytes, `width` and `height` in
        pixels as stored, `orientation` (EXIF, 1 to 8), `gray` (uint8 (64, 64), as stored, stretched
        to a square), `error` ("" if the photo is good).
    """
    distinct = list(dict.fromkeys(file for file in files if file))
    with warnings.catch_warnings(), ThreadPoolExecutor(WORKERS) as pool:
        # Pillow's remarks on odd metadata and on sizes below our own limit
        warnings.simplefilter("ignore")
        hidden = True if len(distinct) <= PROGRESS_FROM_PHOTOS else None  # None: on a terminal only
        results = pool.map(_inspect_photo, distinct)
        rows = list(tqdm(results, "photos", len(distinct), disable=hidden, mininterval=1))
    index = pd.Index(distinct, name="file", dtype=str)
    return pd.DataFrame(rows, index=index, columns=list(_Photo._fields))


def _inspect_photo(file: str) -> _Photo:
    try:
        data = read_photo(Path(file))
        format_ = next((name for magic, name in MAGIC.items() if data.startswith(magic)), None)
        if format_ is None:
            begins = f"is not a JPEG or PNG file (begins with {data[:8]!r})"
            raise DataError(f"{begins}; convert it, for instance with Pillow or ImageMagick")
        with Image.open(io.BytesIO(data), formats=["JPEG", "PNG"]) as image:
            width, height = image.size
            if width * height > MAX_JPEG_PIXELS:  # from the header, before anything is decoded
                raise DataError(
                    f"photo has {width} x {height} pixels; allowed: at most"
                    f" {MAX_JPEG_PIXELS // 1_000_000} megapixels"
                )
            orientation = read_orientation(image)
            # JPEG at a fraction of its size: all data is read, at a fraction of the cost
            image.draft("L", (2 * GRAY_PX, 2 * GRAY_PX))
            small = to_8_bits(image).convert("L")
            gray = small.resize((GRAY_PX, GRAY_PX), Image.Resampling.LANCZOS)
        if format_ == "PNG":  # Pillow decodes without checksums and end, TensorFlow does not
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                image.verify()
            if END_OF_PNG not in data:
                raise ValueError("its end is missing")
    except DataError as error:
        return _Photo(error=str(error))
    except Exception as error:  # Pillow's readers raise whatever they like on broken files
        return _Photo(error=describe_error(error, MAGIC.values()))
    digest = hashlib.sha256(data).hexdigest()
    return _Photo(digest, width, height, orientation, np.asarray(gray))
