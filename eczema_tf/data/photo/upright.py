"""The one reader of photos: turns any file that a person hands in into an upright RGB JPEG.

Training, `predict`, `score`, the server and its page all read photos here, so any photo that can be
trained on also gets an answer, from the same pixels. The result has no metadata (EXIF can give the
place where a photo was taken) and is small enough for the served graph's guard.
"""

import contextlib
import io
import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from eczema_tf.data.memory import give_memory_back
from eczema_tf.data.photo.bare import bare_gif, bare_png, bare_tiff, find_orientation
from eczema_tf.data.photo.decoding_cost import estimate_heic_ns
from eczema_tf.data.photo.edge_limits import (
    check_decoding,
    check_estimate,
    check_pixels,
    compute_reduction,
)
from eczema_tf.data.photo.files import check_size, describe_error, encode_image, read_photo
from eczema_tf.data.photo.heic import is_heic, open_heic
from eczema_tf.data.photo.jpeg_segments import bare_jpeg, keep_baseline
from eczema_tf.data.photo.limits import EDGE_ALONE_PIXELS, EDGE_MAX_PIXELS, SERVED_MAX_BYTES
from eczema_tf.errors import DataError

# by first bytes: Pillow's name, and what reduces the file to its pixels (WebP's and BMP's metadata
# are not read before). Pillow's other plugins stay disabled: PostScript runs programs
FORMATS = {
    b"\xff\xd8\xff": ("JPEG", bare_jpeg),
    b"\x89PNG\r\n\x1a\n": ("PNG", bare_png),
    b"RIFF": ("WEBP", None),
    b"GIF8": ("GIF", bare_gif),
    b"BM": ("BMP", None),
    b"II*\0": ("TIFF", bare_tiff),
    b"MM\0*": ("TIFF", bare_tiff),
}
EDGE_FORMATS = (*dict.fromkeys(name for name, _ in FORMATS.values()), "HEIC")
# by EXIF orientation (Exif 2.3): what turns the photo upright
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
REDUCIBLE = ("L", "LA", "RGB", "RGBA", "CMYK")  # modes whose values may be averaged
_ALONE = threading.Lock()  # held while a large photo is decoded: one at a time in a process


class _Photo(NamedTuple):
    """A photo whose header has been read and found harmless.

    Attributes:
        image: Opened by Pillow, with its pixels not yet decoded.
        data: The file, without metadata.
        orientation: EXIF, 1 to 8 (1: upright).
    """

    image: Image.Image
    data: bytes
    orientation: int


def upright_jpeg(data: bytes) -> bytes:
    """Turns a photo into an upright RGB JPEG without metadata.

    A baseline RGB JPEG that is already upright loses its metadata and keeps its pixels bit for bit;
    anything else is encoded again at quality 95 without chroma subsampling. Photos above 12.5
    megapixels are reduced by a whole factor. Transparency is laid on white, as browsers do; an
    animation keeps its first frame; 16-bit values keep their upper 8 bits. Colour profiles are
    dropped and not applied.

    Args:
        data: The photo file: JPEG, PNG, WebP, GIF, BMP or TIFF; HEIC if pillow-heif is installed.

    Returns:
        JPEG bytes, RGB, at most 10 MB, 12.5 megapixels and 16,384 pixels a side.

    Raises:
        DataError: If it cannot be read, or would take too long or too much memory.
    """
    with _open(data) as photo:
        image, factor = photo.image, compute_reduction(*photo.image.size)
        if image.format == "JPEG" and image.mode == "RGB" and photo.orientation == factor == 1:
            kept = keep_baseline(photo.data)
            if kept is not None and len(kept) <= SERVED_MAX_BYTES:
                _decode(photo, (1, 1))  # all of it is read, at an eighth of its size
                return kept
        return _encode(_decode(photo, (image.width // factor, image.height // factor)))


def read_upright(file: Path) -> bytes:
    """Reads a photo file as `upright_jpeg` does, unless it is too large.

    Raises:
        DataError: If it cannot be read, or `upright_jpeg` refuses its content.
    """
    return upright_jpeg(read_photo(file))


def read_case_photos(photos: Sequence[Path | bytes]) -> list[bytes]:
    """Reads the photos of a case: files as `read_upright` does, bytes as `upright_jpeg` does.

    Raises:
        DataError: Listing every photo that cannot be used, by its file's name or its number.
    """
    upright, faults = [], []
    for number, photo in enumerate(photos, 1):
        try:
            upright.append(upright_jpeg(photo) if isinstance(photo, bytes) else read_upright(photo))
        except DataError as error:
            name = f"photo {number}" if isinstance(photo, bytes) else photo
            faults.append(f"{name}: {str(error).removeprefix('photo ')}")
    if faults:
        raise DataError("; ".join(faults))
    return upright


def shrink_upright(data: bytes, side_px: int) -> np.ndarray:
    """Reads a photo as `upright_jpeg` does, but only as a small gray version.

    Args:
        data: As for `upright_jpeg`.
        side_px: Side of the result; the photo is stretched to it.

    Returns:
        Gray levels, uint8 (side_px, side_px), upright.

    Raises:
        DataError: For what `upright_jpeg` refuses.
    """
    with _open(data) as photo:
        gray = _decode(photo, (2 * side_px, 2 * side_px), "L").convert("L")
        return np.asarray(gray.resize((side_px, side_px), Image.Resampling.LANCZOS))


@contextlib.contextmanager
def _open(data: bytes) -> Iterator[_Photo]:
    """Opens a photo, and turns whatever its decoder raises into one error."""
    check_size(len(data))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on what is odd but can be read
            if is_heic(data):
                with _ALONE:
                    image = _decode_heic(data)
                yield _Photo(image, data, 1)
                return
            name, strip = next(
                (kind for magic, kind in FORMATS.items() if data.startswith(magic)), ("", None)
            )
            if not name:
                raise DataError(
                    "photo cannot be read: not an image of a known format; allowed:"
                    f" {', '.join(EDGE_FORMATS)}"
                )
            bare, exif = strip(data) if strip else (data, b"")
            with Image.open(io.BytesIO(bare), formats=[name]) as image:
                check_decoding(image, bare)
                yield _Photo(image, bare, find_orientation(exif or image.info.get("exif", b"")))
    except DataError:
        raise
    except Exception as error:  # Pillow's and libheif's readers raise whatever they like
        raise DataError(describe_error(error)) from error


def _decode_heic(data: bytes) -> Image.Image:
    frame = open_heic(data)
    check_pixels("HEIC", frame.size, EDGE_MAX_PIXELS["HEIC"])
    check_estimate(estimate_heic_ns(len(data), math.prod(frame.size)))
    return Image.frombytes(frame.mode, frame.size, frame.data, "raw", frame.mode, frame.stride)


def _decode(photo: _Photo, least_px: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Decodes the pixels, upright, as RGB (or as L, if asked for and decoded without RGB).

    Args:
        photo: The opened photo.
        least_px: A JPEG is decoded at 1/2, 1/4 or 1/8 of its size, but not below these sides.
        mode: RGB or L.
    """
    image = photo.image
    image.draft(mode, (max(least_px[0], 1), max(least_px[1], 1)))
    large = image.width * image.height > EDGE_ALONE_PIXELS
    with _ALONE if large else contextlib.nullcontext():
        image.load()
        if image.mode.startswith("I"):  # 16 bits; Pillow would clip values above 255
            values, clear = np.array(image), image.info.get("transparency")
            solid = None if clear is None else Image.fromarray(values != clear).convert("L")
            values >>= 8
            image = Image.fromarray(values.astype("uint8"))
            if solid:
                image.putalpha(solid)
        is_clear = image.has_transparency_data
        if is_clear and image.mode not in ("LA", "RGBA"):
            image = image.convert("RGBA")
        elif image.mode not in REDUCIBLE:
            image = image.convert("RGB")
        if (factor := compute_reduction(*image.size)) > 1:
            image = image.reduce(factor)
        if is_clear:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        if image.mode not in ("RGB", mode):
            image = image.convert("RGB")
    if large:
        give_memory_back()
    return image.transpose(TURNS[photo.orientation]) if photo.orientation in TURNS else image


def _encode(image: Image.Image) -> bytes:
    image.info.clear()  # otherwise Pillow writes comment and profile again
    while True:
        jpeg = encode_image(image, "JPEG", quality=95, subsampling=0)
        if len(jpeg) <= SERVED_MAX_BYTES:
            return jpeg
        image = image.reduce(2)  # only noise is that large
