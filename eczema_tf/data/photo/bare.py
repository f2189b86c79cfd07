"""Reduces PNG, GIF and TIFF files to what their pixels need, before anything decodes them.

Metadata can cost more than pixels. Pillow reads them in Python: a GIF's comment in quadratic time,
the entries of EXIF and TIFF as often as they point to the same megabytes, and a PNG's notes after
inflating them. So each file is walked in bounded steps, and only what decoding needs is passed on.
Of what is removed, only EXIF is read, to find how the camera was held. (JPEG: `jpeg_segments.py`.)
"""

import struct
import zlib
from collections.abc import Iterator

from eczema_tf.data.photo.limits import MAX_BLOCKS, MAX_CHUNKS, MAX_TIFF_VALUES
from eczema_tf.errors import DataError

EXIF = b"Exif\0\0"
ORIENTATION = 0x0112  # Exif 2.3, of TIFF as well: 1 to 8, 1 is upright
BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}  # TIFF 6.0, section 2, which EXIF follows
NUMBERS = {3: "H", 4: "L"}  # TIFF's SHORT and LONG
# TIFF 6.0, sections 3 to 21: size, layout and coding of the samples, and where the pixels are
LAYOUT_TAGS = (256, 257, 258, 259, 262, 266, 277, 284, 317, 320, 332, 338, 339, 529, 530, 531, 532)
PLACE_TAGS = (273, 278, 279, 322, 323, 324, 325)
PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # PNG specification, 11.2 and 11.3.1
GIF_EXTENSION, GIF_CONTROL, GIF_IMAGE = 0x21, 0xF9, 0x2C  # GIF89a, sections 23, 20


def find_orientation(exif: bytes) -> int:
    """Finds how the camera was held.

    Args:
        exif: EXIF with or without its first six bytes, or a TIFF file.

    Returns:
        1 to 8 (1: upright); 1 for broken EXIF too, which counts as none.
    """
    exif = exif.removeprefix(EXIF)
    try:
        for tag, kind, _, place in _walk_entries(exif):
            if tag == ORIENTATION and kind in NUMBERS:
                order = BYTE_ORDERS[exif[:4]]
                (value,) = struct.unpack_from(order + NUMBERS[kind], exif, place + 8)
                return value if 1 <= value <= 8 else 1
    except (KeyError, struct.error):
        pass
    return 1


def _walk_entries(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yields tag, type, number of values and place of the first directory's entries (TIFF 6.0)."""
    order = BYTE_ORDERS[data[:4]]
    (start,) = struct.unpack_from(order + "L", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        yield *struct.unpack_from(order + "HHL", data, place), place


def bare_tiff(data: bytes) -> tuple[bytes, bytes]:
    """Gives a TIFF one directory, with only what its pixels need.

    Args:
        data: A TIFF file, of the kind with 32-bit offsets.

    Returns:
        The bare file, and its EXIF, which is the original file with its directory.

    Raises:
        DataError: If its pixels are in too many pieces.
        struct.error: If the directory is cut off.
    """
    entries = {}
    for tag, _, values, place in _walk_entries(data):
        if tag in LAYOUT_TAGS or tag in PLACE_TAGS:
            if values > MAX_TIFF_VALUES:
                raise DataError(
                    f"photo cannot be read: a TIFF of more than {MAX_TIFF_VALUES} pieces; save it"
                    " again"
                )
            entries[tag] = data[place : place + 12]
    order = BYTE_ORDERS[data[:4]]
    directory = struct.pack(order + "H", len(entries)) + b"".join(entries.values()) + bytes(4)
    return data[:4] + struct.pack(order + "L", len(data)) + data[8:] + directory, data


def bare_png(data: bytes) -> tuple[bytes, bytes]:
    """Reduces a PNG to its pixels, palette and transparency, and verifies the checksums.

    Args:
        data: A PNG file.

    Returns:
        The bare file, and its EXIF.

    Raises:
        DataError: If a checksum is wrong, the end is missing, or there are too many chunks.
    """
    kept, exif, start = [data[:8]], b"", 8
    for _ in range(MAX_CHUNKS):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        chunk = data[start:end]  # length, name, content, checksum
        name, is_whole = chunk[4:8], end <= len(data)
        is_whole &= zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if not is_whole or (start == 8) != (name == b"IHDR"):  # one header, at the start
            raise DataError("photo cannot be read: truncated or damaged (a PNG's chunks)")
        if name in PNG_KEPT:
            kept.append(chunk)
        elif name == b"eXIf":
            exif = chunk[8:-4]
        if name == b"IEND":
            return b"".join(kept), exif
        start = end
    raise DataError(f"photo cannot be read: a PNG of more than {MAX_CHUNKS} chunks; save it again")


def bare_gif(data: bytes) -> tuple[bytes, bytes]:
    """Cuts out what lies before a GIF's first frame, except what its transparency needs.

    Args:
        data: A GIF file.

    Returns:
        The bare file, and b"", since a GIF has no EXIF.

    Raises:
        DataError: If there is no frame, or it comes too late.
        IndexError: If the file is cut off.
    """
    palette = 3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0
    at, control, blocks = 13 + palette, b"", 0
    while data[at] == GIF_EXTENSION and blocks < MAX_BLOCKS:
        start, at = at, at + 2
        while data[at] and blocks < MAX_BLOCKS:
            at, blocks = at + 1 + data[at], blocks + 1
        at, blocks = at + 1, blocks + 1
        if data[start + 1] == GIF_CONTROL:
            control = data[start:at]
    if data[at] != GIF_IMAGE:
        raise DataError("photo cannot be read: truncated or damaged (a GIF without a frame)")
    return data[: 13 + palette] + control + data[at:], b""
