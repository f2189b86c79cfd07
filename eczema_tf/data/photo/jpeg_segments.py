"""JPEG files as marker segments (ITU-T T.81, annex B): removes metadata and keeps every pixel."""

import itertools
import re
from collections.abc import Iterator

from eczema_tf.data.photo.bare import EXIF
from eczema_tf.data.photo.limits import MAX_SEGMENTS
from eczema_tf.errors import DataError

# ITU-T T.871, 10.1: version 1.1, square pixels, no thumbnail
JFIF = bytes.fromhex("ffe0 0010 4a46494600 0101 00 0001 0001 0000")
# length of an APP14 segment with the colour transform (T.872, 6.5.3) and nothing more
ADOBE_BYTES = 16
BASELINE_FRAMES = (0xC0, 0xC1)
TABLES = (0xC4, 0xDB, 0xDD)  # Huffman tables, quantization tables, restart interval
APP0, APP1, APP14, COMMENT, START_OF_SCAN = 0xE0, 0xE1, 0xEE, 0xFE, 0xDA
METADATA = (*range(APP0, 0xF0), COMMENT)
# after a scan's data; in it, FF00 is a stuffed byte and FFD0 to FFD7 are restarts
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")


def bare_jpeg(data: bytes) -> tuple[bytes, bytes]:
    """Removes from a JPEG's header what decoding does not need.

    That is EXIF, XMP, profile, comments and thumbnail: no later reader then has to parse them.

    Args:
        data: A JPEG file.

    Returns:
        The bare file, and its EXIF (b"" for none).

    Raises:
        DataError: If the header has too many segments, or is unusual.
    """
    kept, exif = [b"\xff\xd8"], b""
    for marker, segment, end in itertools.islice(walk_header(data), MAX_SEGMENTS):
        if marker == APP1 and segment[4:].startswith(EXIF):
            exif = exif or segment[4:]
        kept.append(_bare_application(marker, segment) if marker in METADATA else segment)
        if marker == START_OF_SCAN:
            return b"".join(kept) + data[end:], exif
    raise DataError(
        "photo cannot be read: truncated or damaged, or a JPEG with an unusual header; save it"
        " again"
    )


def keep_baseline(bare: bytes) -> bytes | None:
    """Cuts off what follows the pixels of a baseline JPEG.

    Args:
        bare: From `bare_jpeg`.

    Returns:
        The file with exactly the same pixels and nothing else; None if it is not baseline with all
        components in one scan.
    """
    components = 0
    for marker, segment, end in walk_header(bare):
        if marker == START_OF_SCAN:
            last = _NEXT_MARKER.search(bare, end)  # the end of the image, if there is one scan
            is_whole = segment[4] == components and last and last.group() == b"\xff\xd9"
            return bare[: last.end()] if last and is_whole else None
        if marker in BASELINE_FRAMES:
            components = segment[9]
        elif marker not in TABLES and marker not in METADATA:
            return None
    return None


def walk_header(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Walks the segments of a header.

    Args:
        data: A JPEG file.

    Yields:
        Marker, whole segment and where it ends, up to the first scan's header; fewer if the file is
        malformed.
    """
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:
        marker = data[start + 1]
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if marker < 0xC0 or 0xD0 <= marker <= 0xD9 or end < start + 4 or end > len(data):
            return
        yield marker, data[start:end], end
        if marker == START_OF_SCAN:
            return
        start = end


def _bare_application(marker: int, segment: bytes) -> bytes:
    """Returns what decoding needs of an APP or COM segment: how the colours are coded, if given."""
    if marker == APP0 and segment[4:9] == b"JFIF\0":
        return JFIF
    if marker == APP14 and segment[4:9] == b"Adobe" and len(segment) >= ADOBE_BYTES:
        return segment[:2] + (ADOBE_BYTES - 2).to_bytes(2, "big") + segment[4:ADOBE_BYTES]
    return b""
