"""What the edge refuses to decode, and how much it reduces the rest, before Pillow decodes it."""

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
from eczema_tf.data.photo.limits import (
    EDGE_MAX_CHUNKS,
    EDGE_MAX_DECODE_NS,
    EDGE_MAX_OTHER_PIXELS,
    EDGE_MAX_SIDE_PX,
    MAX_JPEG_PIXELS,
    MAX_SEGMENTS,
    SENT_MAX_PIXELS,
    SERVED_MAX_SIDE_PX,
)
from eczema_tf.errors import DataError

JPEG_FORMATS = ("JPEG", "MPO")  # MPO: a JPEG with more pictures behind it, as many phones write


def check_header(data: bytes) -> None:
    """Refuses a JPEG or PNG whose header alone takes long to read.

    Pillow reads each segment and chunk in Python, and 10 MB can hold two million of them.

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
    elif data.startswith(b"\x89PNG"):
        start = 8
        for _ in range(EDGE_MAX_CHUNKS):
            if start >= len(data):
                return
            start += 12 + int.from_bytes(data[start : start + 4], "big")
        raise DataError(
            f"photo cannot be read: a PNG of more than {EDGE_MAX_CHUNKS} chunks; save it anew"
        )


def check_decoding(image: Image.Image, data: bytes) -> None:
    """Refuses a photo that would take too much time or memory.

    Args:
        image: Opened, not yet decoded.
        data: Its file.

    Raises:
        DataError: If there are too many pixels or passes over them.
    """
    is_jpeg, pixels = image.format in JPEG_FORMATS, image.width * image.height
    most = MAX_JPEG_PIXELS if is_jpeg else EDGE_MAX_OTHER_PIXELS
    if pixels > most or max(image.size) > EDGE_MAX_SIDE_PX:
        raise DataError(
            f"photo has {image.width} x {image.height} pixels; allowed: at most {most // 1_000_000}"
            f" megapixels, {EDGE_MAX_SIDE_PX} a side"
        )
    estimate_ns: float = 0
    if is_jpeg and (scans := data.count(SCAN)) > 1:  # one is soon done, at a fraction of the size
        few = scans <= MAX_SCANS
        estimate_ns = estimate_jpeg_ns(len(data), pixels, scans) if few else math.inf
    elif image.format == "PNG":
        # depth, colour type and interlacing are in its first chunk; of compressed notes, Pillow
        # inflates 64 MB at most
        bits = data[24] * PNG_CHANNELS[min(data[25], 6)]
        estimate_ns = estimate_png_ns(len(data), pixels, bits, data[28], 0, 0)
    if estimate_ns > EDGE_MAX_DECODE_NS:
        raise DataError("photo would take too long to decode; save it as a plain (baseline) JPEG")


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
        math.ceil(max(width, height) / SERVED_MAX_SIDE_PX),
    )
