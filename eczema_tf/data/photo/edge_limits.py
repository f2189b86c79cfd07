"""What the edge refuses to decode, and how much it reduces the rest: before Pillow sees a photo, and from what its header says."""

import itertools
import math

from PIL import Image

from eczema_tf.data.photo.decoding_cost import (
    MAX_SCANS,
    PNG_CHANNELS,
    SCAN,
    estimate_jpeg_ns,
    estimate_png_ns,
)
from eczema_tf.data.photo.jpeg_segments import START_OF_SCAN, walk_header
from eczema_tf.errors import DataError

JPEG_FORMATS = ("JPEG", "MPO")  # MPO: a JPEG with more pictures behind it, as many phones write
JPEG_MAX_PIXELS = 100_000_000  # decoded at 1/2, 1/4 or 1/8 of the size
OTHER_MAX_PIXELS = 50_000_000  # decoded at full size: up to 8 bytes a pixel
MAX_SIDE_PX = 65_535  # of JPEG, GIF and WebP anyway; Pillow keeps 8 bytes a row
MAX_SEGMENTS = (
    300  # of a JPEG's header; Pillow reads each in Python, and 10 MB can hold two million
)
MAX_CHUNKS = 20_000  # of a PNG, for the same reason; 50 MB in chunks of 4 KB are 12,000
MAX_DECODE_NS = 2_000_000_000  # as `decoding_cost` estimates it
# a 12-megapixel photo passes as it is, one of 48 at half its sides; far more than any encoder sees
SENT_MAX_PIXELS = 12_500_000
SENT_MAX_SIDE_PX = 16_384  # as the served graph's guard has it (`serving/guard.py`)


def check_header(data: bytes) -> None:
    """Refuses a JPEG or PNG whose header alone takes long to read.

    Args:
        data: The photo file.

    Raises:
        DataError: If there are too many segments or chunks, or a JPEG's header is not of the
            ordinary kind.
    """
    if data.startswith(b"\xff\xd8"):
        markers = [marker for marker, _, _ in itertools.islice(walk_header(data), MAX_SEGMENTS)]
        if START_OF_SCAN not in markers:
            raise DataError(
                "photo cannot be read: a JPEG with a damaged or unusual header; save it anew"
            )
    elif data.startswith(b"\x89PNG") and _has_too_many_chunks(data):
        raise DataError(
            f"photo cannot be read: a PNG of more than {MAX_CHUNKS} chunks; save it anew"
        )


def _has_too_many_chunks(data: bytes) -> bool:
    start = 8
    for _ in range(MAX_CHUNKS):
        if start >= len(data):
            return False
        start += 12 + int.from_bytes(data[start : start + 4], "big")
    return True


def check_decoding(image: Image.Image, data: bytes) -> None:
    """Refuses a photo that would take too much time or memory.

    Args:
        image: Opened, not yet decoded.
        data: Its file.

    Raises:
        DataError: If there are too many pixels or passes over them.
    """
    most = JPEG_MAX_PIXELS if image.format in JPEG_FORMATS else OTHER_MAX_PIXELS
    if image.width * image.height > most or max(image.size) > MAX_SIDE_PX:
        raise DataError(
            f"photo has {image.width} x {image.height} pixels; allowed: at most {most // 1_000_000}"
            f" megapixels, {MAX_SIDE_PX} a side"
        )
    if _estimate_ns(image, data) > MAX_DECODE_NS:
        raise DataError("photo would take too long to decode; save it as a plain (baseline) JPEG")


def _estimate_ns(image: Image.Image, data: bytes) -> float:
    pixels = image.width * image.height
    if (
        image.format in JPEG_FORMATS and (scans := data.count(SCAN)) > 1
    ):  # one is soon done, at a fraction of the size
        return estimate_jpeg_ns(len(data), pixels, scans) if scans <= MAX_SCANS else math.inf
    if (
        image.format == "PNG"
        # depth, colour type and interlacing are in its first chunk; of compressed notes, Pillow
        # inflates 64 MB at most
    ):
        return estimate_png_ns(
            len(data), pixels, data[24] * PNG_CHANNELS[min(data[25], 6)], data[28], 0, 0
        )
    return 0


def compute_reduction(width: int, height: int) -> int:
    """The smallest whole number that, dividing the sides, brings a photo into what may be sent.

    Args:
        width: In pixels.
        height: In pixels.

    Returns:
        1 for a photo that is small enough.
    """
    return max(
        math.ceil(math.sqrt(width * height / SENT_MAX_PIXELS)),
        math.ceil(max(width, height) / SENT_MAX_SIDE_PX),
    )
