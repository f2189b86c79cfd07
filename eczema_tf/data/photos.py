"""Photo files: inspection before training, and the edge normaliser for prediction.

`inspect_photos` decodes every photo once, so that a truncated one is found before training and not in the middle of it.
`upright_jpeg` turns whatever a person hands in into an upright RGB JPEG without metadata (EXIF holds the place where it was taken).
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
from PIL import Image, ImageOps
from tqdm import tqdm

from eczema_tf.errors import DataError

MIN_BYTES = 32  # nothing smaller is a photo
MAX_BYTES = 50_000_000
MAX_PIXELS = 100_000_000
PROGRESS_FROM_PHOTOS = 500  # below, it is over before a bar could be read
ORIENTATION = 0x0112  # EXIF tag, 1 to 8 (1: upright)
MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}
END_OF_JPEG = b"\xff\xd9"
END_OF_PNG = b"IEND\xaeB`\x82"  # the last chunk with its checksum
JFIF_BYTES = 14  # an APP0 segment with nothing but the JFIF header: no thumbnail

# What Pillow raises on broken files, besides its own OSError.
_DECODE_ERRORS = (OSError, ValueError, SyntaxError, NotImplementedError, EOFError, struct.error, Image.DecompressionBombError)


class _Photo(NamedTuple):
    """A row of `inspect_photos`."""

    sha256: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    error: str = ""


def inspect_photos(files: Iterable[str], *, workers: int = 2, progress: bool = True) -> pd.DataFrame:
    """Decodes every distinct photo file and says what is wrong with it.

    Args:
        files: Paths; "" (no photo) is passed over.
        workers: Threads.
        progress: Whether to show a bar, if there are many photos.

    Returns:
        One row a distinct file, indexed by `file`: `sha256` of its bytes, `width` and `height` in pixels as stored, `orientation` (EXIF,
        1 to 8), `error` ("" if the photo is good).
    """
    distinct = list(dict.fromkeys(file for file in files if file))
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata and on sizes below our own limit
        results = pool.map(_inspect_photo, distinct)
        hidden = True if not progress or len(distinct) <= PROGRESS_FROM_PHOTOS else None  # None: shown on a terminal only
        bar = tqdm(results, "photos", len(distinct), disable=hidden, mininterval=1)
        rows = list(bar)
    return pd.DataFrame(rows, index=pd.Index(distinct, name="file", dtype=str), columns=list(_Photo._fields))


def upright_jpeg(data: bytes) -> bytes:
    """Turns a photo in any format that Pillow reads into an upright RGB JPEG without metadata.

    A JPEG that is upright already and carries no metadata is passed on as it is; anything else is written anew at quality 95 without
    chroma subsampling. Alpha is laid on white; the first frame stands for an animation.

    Args:
        data: The photo file.

    Returns:
        JPEG bytes, RGB or gray.

    Raises:
        DataError: If it cannot be read.
    """
    _check_size(len(data))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                _check_pixels(image)
                image.load()
                return data if _is_plain_jpeg(image, data) else _write_jpeg(_to_rgb(ImageOps.exif_transpose(image)))
    except _DECODE_ERRORS as error:
        raise DataError(_describe(error)) from error


def _inspect_photo(file: str) -> _Photo:
    try:
        _check_size(Path(file).stat().st_size)
        data = Path(file).read_bytes()
        format_ = next((name for magic, name in MAGIC.items() if data.startswith(magic)), None)
        if format_ is None:
            return _Photo(
                error=f"is not a JPEG or PNG file (begins with {data[:8]!r}); convert it, for instance with Pillow or ImageMagick"
            )
        with Image.open(io.BytesIO(data), formats=["JPEG", "PNG"]) as image:
            _check_pixels(image)
            width, height = image.size
            orientation = _read_orientation(image)
            image.draft("RGB", (1, 1))  # JPEG at an eighth of the size: all data is read, at a fraction of the cost
            image.load()
        if format_ == "PNG":
            _check_png(data)
    except DataError as error:
        return _Photo(error=str(error))
    except _DECODE_ERRORS as error:
        return _Photo(error=_describe(error))
    return _Photo(hashlib.sha256(data).hexdigest(), width, height, orientation)


def _check_size(count: int) -> None:
    if not MIN_BYTES <= count <= MAX_BYTES:
        raise DataError(f"photo has {count} bytes; allowed: {MIN_BYTES} to {MAX_BYTES}")


def _check_pixels(image: Image.Image) -> None:
    """From the header, before anything is decoded."""
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"photo has {image.width} x {image.height} pixels; allowed: at most {MAX_PIXELS // 1_000_000} megapixels")


def _check_png(data: bytes) -> None:
    """Checks every chunk's checksum, and that the last is there: Pillow decodes without them, TensorFlow does not."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        image.verify()
    if END_OF_PNG not in data:
        raise ValueError("its end is missing")


def _describe(error: BaseException) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"photo has too many pixels; allowed: at most {MAX_PIXELS // 1_000_000} megapixels"
    if isinstance(error, Image.UnidentifiedImageError):
        return "photo cannot be read: not a known image format; allowed: JPEG or PNG"
    if isinstance(error, OSError) and error.strerror:
        return f"photo cannot be read: {error.strerror}"
    return f"photo cannot be read: truncated or damaged ({' '.join(str(error).split())})"


def _read_orientation(image: Image.Image) -> int:
    """Broken EXIF counts as none: the photo itself may be good."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except _DECODE_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _is_plain_jpeg(image: Image.Image, data: bytes) -> bool:
    """Whether the file is nothing but pixels: no EXIF, XMP, profile, comment or thumbnail, and nothing after its end."""
    if image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return False
    bare = all(name == "APP14" or (name == "APP0" and len(segment) <= JFIF_BYTES) for name, segment in image.applist)
    return bare and data.find(END_OF_JPEG) == len(data) - len(END_OF_JPEG)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a value; TensorFlow, too, keeps the upper 8
        image = Image.fromarray((np.asarray(image).astype("int64").clip(0, 65535) >> 8).astype("uint8"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _write_jpeg(image: Image.Image) -> bytes:
    image.info.clear()  # or Pillow writes comment and profile again
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()
