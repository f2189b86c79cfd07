"""Makes hostile PNG files: bombs, and files that lie about themselves.

A bomb is a small file that takes a long time, or much memory, to decode.

All files are made by hand, according to the PNG specification, third edition. `hostile_photos.py`
combines them with others.
"""

import itertools
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from hostile_jpeg import BIG_BYTES, BIG_PX, STRIP_PX, flat_jpeg

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, body: bytes = b"") -> bytes:
    """Makes a PNG chunk."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_header(
    size_px: tuple[int, int], depth: int = 8, color: int = 2, interlace: int = 0
) -> bytes:
    """Makes a PNG's signature and first chunk."""
    return SIGNATURE + chunk(
        b"IHDR", struct.pack(">IIBBBBB", *size_px, depth, color, 0, 0, interlace)
    )


def flat_png(
    size_px: tuple[int, int],
    depth: int = 8,
    color: int = 2,
    interlace: int = 0,
    *,
    filtered: int = 0,
    extra: bytes = b"",
    empty_blocks: int = 0,
) -> bytes:
    """Makes a PNG of one value, with chunks before its pixels and empty deflate blocks in them."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    passes = [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]  # Adam7
    packer, checksum, packed = zlib.compressobj(9, zlib.DEFLATED, -15), 1, []
    for left, top, across, down in passes if interlace else [(0, 0, 1, 1)]:
        width, height = len(range(left, size_px[0], across)), len(range(top, size_px[1], down))
        row = bytes([filtered]) + bytes([1]) * -(-width * channels * depth // 8)
        for _ in range(height if width else 0):
            packed.append(packer.compress(row))
            checksum = zlib.adler32(row, checksum)
    pixels = (
        b"\x78\x9c"
        + empty_deflate(empty_blocks)
        + b"".join([*packed, packer.flush()])
        + struct.pack(">I", checksum)
    )
    palette = chunk(b"PLTE", bytes(range(256)) * 3) if color == 3 else b""
    return (
        png_header(size_px, depth, color, interlace)
        + extra
        + palette
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND")
    )


def surplus_png(size_px: tuple[int, int], megabytes: int) -> bytes:
    """Makes a PNG in whose stream zeros follow the pixels.

    libpng inflates them to the end, a megabyte for each kilobyte of the file.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    pixels = [packer.compress(bytes(1 + 3 * size_px[0])) for _ in range(size_px[1])] + [
        packer.flush(zlib.Z_FULL_FLUSH)
    ]
    megabyte = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    stream = b"\x78\x9c" + b"".join(pixels) + megabyte * megabytes + packer.flush() + bytes(4)
    return png_header(size_px) + chunk(b"IDAT", stream) + chunk(b"IEND")


def empty_deflate(blocks: int) -> bytes:
    """Makes empty deflate blocks, each with Huffman tables to be built (RFC 1951, 3.2.7).

    Their number is rounded down so that they fill whole bytes.
    """
    fields = [(0, 1), (2, 2), (0, 5), (0, 5), (14, 4)]
    fields += [
        (int(symbol in (18, 1)), 3)
        for symbol in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1)
    ]
    fields += [
        (1, 1),
        (127, 7),
        (1, 1),
        (107, 7),
        (0, 1),
        (0, 1),
        (0, 1),
    ]  # 256 zeros, a one, a one, the end
    bits = [(value >> place) & 1 for value, count in fields for place in range(count)]
    return np.packbits(np.tile(np.array(bits, np.uint8), 8), bitorder="little").tobytes() * (
        blocks // 8
    )


def draw_pngs() -> Iterator[tuple[str, bytes]]:
    """Yields names and files, in a fixed order."""
    yield from _draw_bombs()
    yield from _draw_tails()
    yield from _draw_lies()


def _draw_bombs() -> Iterator[tuple[str, bytes]]:
    for size_px in (BIG_PX, STRIP_PX, STRIP_PX[::-1]):
        for depth, color, interlace in itertools.product((8, 16), (2, 6), (0, 1)):
            yield (
                f"png {size_px} {depth} bits, type {color}, interlace {interlace}",
                flat_png(size_px, depth, color, interlace, filtered=4),
            )
    for size_px, depth, color in (  # as many pixels as the edge allows, and more
        ((8000, 6000), 8, 2),
        ((8333, 6000), 8, 6),
        ((6000, 6000), 16, 0),
        ((5400, 5000), 8, 6),
        ((4200, 4200), 16, 6),
        ((5300, 5300), 16, 2),
    ):
        yield f"png {size_px} {depth} bits, {color}", flat_png(size_px, depth, color, filtered=4)
    for depth, color in ((1, 0), (1, 3), (8, 3), (16, 0), (16, 4)):
        yield f"png {depth} bits, type {color}", flat_png(BIG_PX, depth, color)
        yield f"png {depth} bits, type {color}, interlaced", flat_png(BIG_PX, depth, color, 1)
    for size_px in (
        (1_000_000, 1),
        (1, 1_000_000),
        (1_000_000, 25),
        (100_000, 250),
        (250, 100_000),
        (16_384, 1),
        (1, 16_384),
    ):
        yield f"png {size_px}", flat_png(size_px)
    for size_px in (
        (12_000, 12_000),
        (2**31 - 1, 2**31 - 1),
        (2**31, 2**31 + 1),
        (2**32 - 1, 1),
        (0, 0),
        (0, 5),
        (1, 25_000_001),
    ):
        yield (
            f"png claims {size_px}",
            png_header(size_px) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND"),
        )
    for name, body in {
        b"zTXt": b"a\0\0" + zlib.compress(bytes(7_900_000), 9),
        b"iTXt": b"a\0\1\0\0\0" + zlib.compress(bytes(7_900_000), 9),
        b"iCCP": b"a\0\0" + zlib.compress(bytes(7_900_000), 9),
    }.items():
        for count in (1, 9, 1000):
            yield (
                f"png {count} {name.decode()}",
                flat_png((64, 64), extra=chunk(name, body) * count),
            )
    yield (
        "png one large zTXt",
        flat_png((64, 64), extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(500_000_000), 9))),
    )
    yield "png empty blocks", flat_png((64, 64), empty_blocks=840_000)
    yield "png large with empty blocks", flat_png(BIG_PX, empty_blocks=560_000)
    yield (
        "png zTXt of empty blocks",
        flat_png((64, 64), extra=chunk(b"zTXt", b"a\0\0\x78\x9c" + empty_deflate(800_000))),
    )


def _draw_tails() -> Iterator[tuple[str, bytes]]:
    sides, megabytes = (1, 64, 500, 2000), (1, 10, 100, 500, 1000, 9000)
    for side, tail in itertools.product(sides, megabytes):
        yield f"png {tail} MB behind {side} x {side}", surplus_png((side, side), tail)


def _draw_lies() -> Iterator[tuple[str, bytes]]:
    good = flat_png((64, 64))
    at_pixels = good.index(b"IDAT") - 4
    for name, body in (
        (b"tEXt", b"a\0"),
        (b"abCd", b""),
        (b"sPLT", b"a\0\x08" + bytes(6000)),
        (b"eXIf", bytes(60_000)),
        (b"IDAT", b""),
    ):
        flood = chunk(name, body)
        yield (
            f"png flood of {name.decode()}",
            good[:at_pixels] + flood * (BIG_BYTES // len(flood)) + good[at_pixels:],
        )
    for depth, color, interlace in (
        (3, 2, 0),
        (0, 2, 0),
        (255, 2, 0),
        (8, 1, 0),
        (8, 7, 0),
        (8, 255, 0),
        (16, 3, 0),
        (8, 2, 2),
        (8, 2, 255),
    ):
        yield (
            f"png depth {depth}, type {color}, interlace {interlace}",
            png_header((64, 64), depth, color, interlace) + good[33:],
        )
    yield (
        "png pixels one byte a chunk",
        png_header((64, 64))
        + b"".join(
            chunk(b"IDAT", bytes([byte]))
            for byte in zlib.compress((b"\0" + bytes(range(192))) * 64)
        )
        + chunk(b"IEND"),
    )
    yield (
        "png too few pixels",
        png_header(BIG_PX) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND"),
    )
    yield "png without pixels", png_header((64, 64)) + chunk(b"IEND")
    yield "png without end", good[:-12]
    yield "png without palette", png_header((64, 64), 8, 3) + good[33:]
    yield "png two headers", good[:33] + png_header(BIG_PX)[8:] + good[33:]
    yield "png header late", SIGNATURE + chunk(b"tEXt", b"a\0" + good[16:29]) + good[8:]
    yield (
        "png wrong checksum",
        good.replace(chunk(b"IEND"), b"") + chunk(b"IDAT", b"abc")[:-1] + b"\0",
    )
    yield "png endless chunk", good[:33] + b"\x7f\xff\xff\xffIDAT" + bytes(500)
    yield "png 300 in one", good * 300
    yield "png then jpeg", good + flat_jpeg((64, 64))
