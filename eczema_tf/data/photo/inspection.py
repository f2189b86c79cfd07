"""Photo files: inspection before training, and the edge normaliser for prediction.

`inspect_photos` decodes every photo once, so that a truncated one is found before training and not
in the middle of it. `upright_jpeg` turns whatever a person hands in into an upright RGB JPEG
without metadata (EXIF holds the place where it was taken), small enough for the served graph's
guard.
"""

import hashlib
import io
import struct
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from eczema_tf.data.photo.edge_limits import (
    JPEG_FORMATS,
    check_decoding,
    check_header,
    compute_reduction,
)
from eczema_tf.data.photo.files import check_size, read_photo
from eczema_tf.data.photo.heic import is_heic, open_heic
from eczema_tf.data.photo.jpeg_segments import strip_jpeg
from eczema_tf.errors import DataError

MAX_PIXELS = 100_000_000
PROGRESS_FROM_PHOTOS = 500  # below, it is over before a bar could be read
ORIENTATION = 0x0112  # EXIF tag, 1 to 8 (1: upright)
MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}
END_OF_PNG = b"IEND\xaeB`\x82"  # the last chunk with its checksum
EDGE_FORMATS = [
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
]  # and HEIC; Pillow's other plugins stay shut (PostScript runs programs)
SENT_MAX_BYTES = 10_000_000  # as the served graph's guard has it (`serving/guard.py`)


class _Photo(NamedTuple):
    """A row of `inspect_photos`."""

    sha256: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    error: str = ""


def inspect_photos(
    files: Iterable[str], *, workers: int = 2, progress: bool = True
) -> pd.DataFrame:
    """Decodes every distinct photo file and says what is wrong with it.

    Args:
        files: Paths; "" (no photo) is passed over.
        workers: Threads.
        progress: Whether to show a bar, if there are many photos.

    Returns:
        One row a distinct file, indexed by `file`: `sha256` of its bytes, `width` and `height` in
        pixels as stored, `orientation` (EXIF, 1 to 8), `error` ("" if the photo is good).
    """
    distinct = list(dict.fromkeys(file for file in files if file))
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter(
            "ignore"
        )  # Pillow's remarks on odd metadata and on sizes below our own limit
        results = pool.map(_inspect_photo, distinct)
        hidden = (
            True if not progress or len(distinct) <= PROGRESS_FROM_PHOTOS else None
        )  # None: shown on a terminal only
        bar = tqdm(results, "photos", len(distinct), disable=hidden, mininterval=1)
        rows = list(bar)
    return pd.DataFrame(
        rows, index=pd.Index(distinct, name="file", dtype=str), columns=list(_Photo._fields)
    )


def upright_jpeg(data: bytes) -> bytes:
    """Turns a photo into an upright RGB JPEG without metadata.

    Of a baseline RGB JPEG that is upright already the metadata are cut out and the pixels kept bit
    by bit; anything else is written anew at quality 95 without chroma subsampling. Photos above
    12.5 megapixels are reduced by a whole factor. Alpha is laid on white; the first frame stands
    for an animation; of 16 bits the upper 8 are kept. Colour profiles are dropped and not applied,
    as in training.

    Args:
        data: The photo file: JPEG, PNG, WebP, GIF, BMP or TIFF; HEIC if pillow-heif is installed.

    Returns:
        JPEG bytes, RGB, at most 10 MB, 12.5 megapixels and 16,384 pixels a side.

    Raises:
        DataError: If it cannot be read, or would take too long or too much memory.
    """
    check_size(len(data))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _open_at_edge(data) as image:
                return _to_upright_jpeg(image, data)
    except DataError:
        raise
    except (
        Exception
    ) as error:  # the readers of Pillow and libheif raise whatever they like on broken files
        raise DataError(_describe(error, EDGE_FORMATS)) from error


def _open_at_edge(data: bytes) -> Image.Image:
    check_header(data)
    return open_heic(data) if is_heic(data) else Image.open(io.BytesIO(data), formats=EDGE_FORMATS)


def _to_upright_jpeg(image: Image.Image, data: bytes) -> bytes:
    check_decoding(image, data)
    factor = compute_reduction(*image.size)
    is_jpeg = image.format in JPEG_FORMATS
    if is_jpeg and factor > 1:
        image.draft(
            "RGB", (max(image.width // factor, 1), max(image.height // factor, 1))
        )  # decoded at 1/2, 1/4 or 1/8
    image.load()
    if is_jpeg and factor == 1 and image.mode == "RGB" and _read_orientation(image) == 1:
        stripped = strip_jpeg(data)
        if stripped is not None and len(stripped) <= SENT_MAX_BYTES:
            return stripped
    ImageOps.exif_transpose(image, in_place=True)
    return _write_jpeg(_to_rgb(image))


def _inspect_photo(file: str) -> _Photo:
    try:
        data = read_photo(Path(file))
        format_ = next((name for magic, name in MAGIC.items() if data.startswith(magic)), None)
        if format_ is None:
            return _Photo(
                error=(
                    f"is not a JPEG or PNG file (begins with {data[:8]!r}); convert it, for"
                    " instance with Pillow or ImageMagick"
                )
            )
        with Image.open(io.BytesIO(data), formats=["JPEG", "PNG"]) as image:
            _check_pixels(image)
            width, height = image.size
            orientation = _read_orientation(image)
            image.draft(
                "RGB", (1, 1)
            )  # JPEG at an eighth of the size: all data is read, at a fraction of the cost
            image.load()
        if format_ == "PNG":
            _check_png(data)
    except DataError as error:
        return _Photo(error=str(error))
    except Exception as error:  # as in `upright_jpeg`
        return _Photo(error=_describe(error))
    return _Photo(hashlib.sha256(data).hexdigest(), width, height, orientation)


def _check_pixels(image: Image.Image) -> None:
    """From the header, before anything is decoded."""
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"photo has {image.width} x {image.height} pixels; allowed: at most"
            f" {MAX_PIXELS // 1_000_000} megapixels"
        )


def _check_png(data: bytes) -> None:
    """Checks every chunk's checksum, and that the last is there: Pillow decodes without them, TensorFlow does not."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        image.verify()
    if END_OF_PNG not in data:
        raise ValueError("its end is missing")


def _describe(error: BaseException, formats: Iterable[str] = MAGIC.values()) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"photo has too many pixels; allowed: at most {MAX_PIXELS // 1_000_000} megapixels"
    if isinstance(error, UnidentifiedImageError):
        return (
            f"photo cannot be read: not an image of a known format; allowed: {', '.join(formats)}"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"photo cannot be read: {error.strerror}"
    return (
        "photo cannot be read: truncated or damaged"
        f" ({' '.join(str(error).split()) or type(error).__name__})"
    )


def _read_orientation(image: Image.Image) -> int:
    """Broken EXIF counts as none: the photo itself may be good."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError, NotImplementedError, struct.error):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a value; TensorFlow, too, keeps the upper 8
        values = np.asarray(image)
        image = Image.fromarray((values.clip(0, 65535) >> 8).astype("uint8"))
    if image.has_transparency_data:
        image = _shrink(image.convert("RGBA"))
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return _shrink(image.convert("RGB"))


def _shrink(image: Image.Image) -> Image.Image:
    factor = compute_reduction(*image.size)
    return image.reduce(factor) if factor > 1 else image


def _write_jpeg(image: Image.Image) -> bytes:
    """Halves the sides until the file is small enough: only noise needs it."""
    image.info.clear()  # or Pillow writes comment and profile again
    while True:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=95, subsampling=0)
        if buffer.tell() <= SENT_MAX_BYTES:
            return buffer.getvalue()
        image = image.reduce(2)
