"""Makes hostile JPEG files: bombs, and files that lie about themselves.

A bomb is a small file that takes a long time, or much memory, to decode.

All files are made by hand, according to ITU-T T.81. `hostile_photos.py` combines them with others.
"""

import io
import itertools
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

BIG_PX = (5000, 5000)  # 25 megapixels: as much as the guard lets through
STRIP_PX = (16_384, 1525)
BIG_BYTES = 9_500_000
QUANTIZATION = b"\xff\xdb\x00\x43\x00" + b"\x01" * 64
RUN_TO_THE_END = (
    0xE0  # Huffman symbol EOB14: this band is zero in the next 16384 + (a 14-bit number) blocks
)


def segment(marker: int, body: bytes = b"") -> bytes:
    """Makes a JPEG marker segment."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def frame(
    size_px: tuple[int, int],
    marker: int = 0xC0,
    components: int = 3,
    sampling: int = 0x11,
    precision: int = 8,
) -> bytes:
    """Makes a JPEG frame header; `sampling` is that of the first component."""
    parts = b"".join(
        bytes([place + 1, sampling if place == 0 else 0x11, 0]) for place in range(components)
    )
    return segment(
        marker, struct.pack(">BHHB", precision, size_px[1], size_px[0], components) + parts
    )


def scan(
    components: int | list[int], first: int = 0, last: int = 63, approximation: int = 0
) -> bytes:
    """Makes a JPEG scan header."""
    chosen = list(range(1, components + 1)) if isinstance(components, int) else components
    return segment(
        0xDA,
        bytes([len(chosen)])
        + b"".join(bytes([place, 0]) for place in chosen)
        + bytes([first, last, approximation]),
    )


def huffman(symbols: list[int], kind: int) -> bytes:
    """Makes a Huffman table with the codes 0, 10, 110, ...; kind 0 is for DC and 1 for AC."""
    return segment(
        0xC4,
        bytes([kind << 4]) + bytes([1] * len(symbols) + [0] * (16 - len(symbols))) + bytes(symbols),
    )


def pack_bits(bits: str, times: int = 1) -> bytes:
    """Packs bits as entropy-coded bytes."""
    repeated = np.tile(np.frombuffer(bits.encode(), np.uint8) - ord("0"), times)
    return (
        np.packbits(np.pad(repeated, (0, -len(repeated) % 8), constant_values=1))
        .tobytes()
        .replace(b"\xff", b"\xff\x00")
    )


def count_blocks(size_px: tuple[int, int]) -> int:
    """Counts blocks of 8 x 8 pixels."""
    return -(-size_px[0] // 8) * -(-size_px[1] // 8)


def flat_jpeg(
    size_px: tuple[int, int], marker: int = 0xC0, components: int = 3, **options: int
) -> bytes:
    """Makes a baseline JPEG of that size in as few bytes as possible: two bits per block."""
    tables = (
        QUANTIZATION
        + frame(size_px, marker, components, **options)
        + huffman([0], 0)
        + huffman([0], 1)
    )
    return (
        b"\xff\xd8"
        + tables
        + scan(components)
        + pack_bits("00" * components, count_blocks(size_px))
        + b"\xff\xd9"
    )


def scan_bomb(
    size_px: tuple[int, int], scans: int, *, components: int = 3, dense: bool = False
) -> bytes:
    """Makes a progressive JPEG whose scans refine nothing over and over.

    Each takes a few bytes or, if dense, five bits per block.
    """
    runs = -(-count_blocks(size_px) // 32_767)
    data = pack_bits("00010", count_blocks(size_px)) if dense else pack_bits("0" + "1" * 14, runs)
    tables = (
        frame(size_px, 0xC2, components)
        + huffman([0], 0)
        + huffman([0xF0, 0] if dense else [RUN_TO_THE_END], 1)
    )
    coarse = scan(components, 0, 0, 0x01) + pack_bits("0" * components, count_blocks(size_px))
    refining = b"".join(
        scan([1 + number % components], 1, 63, 0x10) + data for number in range(scans)
    )
    return b"\xff\xd8" + QUANTIZATION + tables + coarse + refining + b"\xff\xd9"


def arithmetic_jpeg(size_px: tuple[int, int], marker: int, byte: int) -> bytes:
    """Makes a JPEG with arithmetic coding, whose data are one byte over and over."""
    scans = (
        [scan(3)]
        if marker == 0xC9
        else [scan(3, 0, 0), *(scan([1 + number % 3], 1, 63) for number in range(9))]
    )
    data = bytes([byte]) * 500_000
    return (
        b"\xff\xd8"
        + QUANTIZATION
        + frame(size_px, marker)
        + b"".join(part + data for part in scans)
        + b"\xff\xd9"
    )


def noisy_jpeg(size_px: tuple[int, int], quality: int, **options: bool | str) -> bytes:
    """Makes a JPEG full of detail."""
    pixels = (
        np.random.default_rng(0)
        .integers(0, 256, (size_px[1] // 2, size_px[0] // 2, 3))
        .astype("uint8")
    )
    return encode(
        Image.fromarray(pixels).resize(size_px), "JPEG", quality=quality, subsampling=0, **options
    )


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encodes an image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


FLOODS = {
    "COM": segment(0xFE),
    "APP1": segment(0xE1),
    "DHT": segment(0xC4, bytes(17)),
    "DQT": segment(0xDB, bytes(65)),
    "DRI": segment(0xDD, b"\0\1"),
    "fill": b"\xff",
    "RST": b"\xff\xd0",
    "JPG0": segment(0xF0),
    "TEM": b"\xff\x01",
    "no length": b"\xff\xe1\x00\x00",
    "garbage": b"\x00",
}


def draw_jpegs() -> Iterator[tuple[str, bytes]]:
    """Yields names and files, in a fixed order."""
    yield from _draw_bombs()
    yield from _draw_floods()
    yield from draw_small_jpegs()
    yield from _draw_combinations()


def _draw_bombs() -> Iterator[tuple[str, bytes]]:
    for size_px in (BIG_PX, STRIP_PX, (4000, 3000), (8, 8)):
        for scans in (1, 8, 16, 40, 99, 3000):
            yield f"jpeg {size_px} scans {scans}", scan_bomb(size_px, scans)
    for side, scans in itertools.product((1000, 3000, 7000, 10_000), (2, 10, 25, 45, 100)):
        yield f"jpeg {side} x {side} scans {scans}", scan_bomb((side, side), scans)
    for scans in (5, 12, 30):
        yield f"jpeg dense scans {scans}", scan_bomb(BIG_PX, scans, dense=True)
        yield f"jpeg gray dense scans {scans}", scan_bomb(BIG_PX, scans, components=1, dense=True)
        yield f"jpeg cmyk scans {scans}", scan_bomb(BIG_PX, scans, components=4)
    for marker, byte in itertools.product((0xC9, 0xCA), (0x00, 0x55, 0xFE)):
        yield f"jpeg arithmetic {marker:x} {byte:x}", arithmetic_jpeg(BIG_PX, marker, byte)
    for size_px in (
        BIG_PX,
        STRIP_PX,
        STRIP_PX[::-1],
        (65_500, 381),
        (381, 65_500),
        (65_500, 1),
        (1, 65_500),
        (1, 1),
    ):
        yield f"jpeg flat {size_px}", flat_jpeg(size_px)
    for size_px in ((65_535, 65_535), (0, 0), (1, 0)):
        yield (
            f"jpeg claims {size_px}",
            flat_jpeg((8, 8)).replace(struct.pack(">HH", 8, 8), struct.pack(">HH", *size_px)),
        )
    yield "jpeg cmyk flat", flat_jpeg(BIG_PX, components=4)
    yield "jpeg noise baseline", noisy_jpeg(BIG_PX, 30)
    yield "jpeg noise progressive", noisy_jpeg((4000, 3000), 50, progressive=True)
    yield "jpeg noise progressive, large", noisy_jpeg((4800, 4800), 20, progressive=True)


def draw_small_jpegs() -> Iterator[tuple[str, bytes]]:
    """Yields names and files that are quickly made: structures that no encoder writes."""
    good = flat_jpeg((64, 64))
    for components in (0, 1, 2, 4, 5, 10, 255):
        yield (
            f"jpeg of {components} components",
            good.replace(frame((64, 64)), frame((64, 64), components=components)),
        )
    for marker in (*range(0xC1, 0xD0), 0xDE, 0xDF):
        yield f"jpeg frame {marker:x}", good.replace(b"\xff\xc0", bytes([0xFF, marker]))
    for sampling in (0x00, 0x22, 0x44, 0x14, 0x41, 0xFF):
        yield f"jpeg sampling {sampling:x}", flat_jpeg((64, 64), sampling=sampling)


def _draw_floods() -> Iterator[tuple[str, bytes]]:
    good = flat_jpeg((64, 64))
    for name, filler in FLOODS.items():
        yield f"jpeg flood of {name}", good[:2] + filler * (BIG_BYTES // len(filler)) + good[2:]
        yield (
            f"jpeg late flood of {name}",
            good[:-2] + filler * (BIG_BYTES // len(filler)) + good[-2:],
        )


def _draw_combinations() -> Iterator[tuple[str, bytes]]:
    good = flat_jpeg((64, 64))
    at_scan = good.index(b"\xff\xda")
    for sampling in (0x22, 0x44, 0x14, 0x41):
        yield f"jpeg large sampling {sampling:x}", flat_jpeg((5000, 5000), sampling=sampling)
    yield "jpeg 12 bits", flat_jpeg((64, 64), precision=12)
    yield (
        "jpeg 16 bits of progression",
        scan_bomb((64, 64), 9).replace(b"\xff\xc2\x00\x11\x08", b"\xff\xc2\x00\x11\x10"),
    )
    yield "jpeg of no height", flat_jpeg((64, 0))
    yield "jpeg two frames", good[:2] + frame(BIG_PX) + good[2:]
    yield "jpeg frame after frame", good[:at_scan] + frame(BIG_PX) + good[at_scan:]
    yield "jpeg without frame", good.replace(frame((64, 64)), b"")
    yield "jpeg without tables", b"\xff\xd8" + frame(BIG_PX) + scan(3) + bytes(1000) + b"\xff\xd9"
    yield (
        "jpeg restarts",
        good[:at_scan]
        + segment(0xDD, b"\0\1")
        + good[at_scan:-2]
        + b"\xff\xd3\xff\xd7\xff\xd0" * 1000
        + b"\xff\xd9",
    )
    yield (
        "jpeg large without restarts",
        flat_jpeg(BIG_PX).replace(scan(3), segment(0xDD, b"\0\1") + scan(3)),
    )
    yield (
        "jpeg thumbnail hides arithmetic",
        b"\xff\xd8" + segment(0xE1, good) + arithmetic_jpeg(BIG_PX, 0xC9, 0)[2:],
    )
    yield (
        "jpeg RST hides arithmetic",
        b"\xff\xd8\xff\xd0" + segment(0xE1, good)[:1] + arithmetic_jpeg(BIG_PX, 0xC9, 0)[2:],
    )
    yield "jpeg of header only", good[:at_scan]
    yield "jpeg of magic only", b"\xff\xd8\xff" + bytes(60)
    yield "jpeg endless segment", b"\xff\xd8\xff\xe1\xff\xff" + bytes(500)
    yield "jpeg end first", b"\xff\xd8\xff\xd9" + good[2:]
    yield "jpeg 300 in one", good * 300
    yield "jpeg then zeros", good + bytes(BIG_BYTES)
    lab = encode(
        Image.new("RGB", (64, 64), "red"),
        "JPEG",
        icc_profile=b"\0" * 16 + b"Lab XYZ " + bytes(60_000),
    )
    yield "jpeg claims Lab", lab
    yield "jpeg cmyk", encode(Image.new("CMYK", (64, 64), (0, 200, 100, 0)), "JPEG")
