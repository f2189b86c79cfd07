"""Makes files that someone might submit as photos to do harm, for tests and `benchmark_guard.py`.

for name, data in draw_crafted(): ...           # 700 bombs and lies, some of 10 MB
for name, data in draw_damaged(1000, seed=0): ...  # good files, damaged at random
"""

import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from hostile_jpeg import BIG_BYTES, draw_jpegs, encode, flat_jpeg
from hostile_others import draw_others
from hostile_png import chunk, draw_pngs, flat_png
from PIL import Image

Named = tuple[str, bytes]


def draw_crafted() -> Iterator[Named]:
    """Yields bombs and lies, in a fixed order."""
    yield from draw_jpegs()
    yield from draw_pngs()
    yield from draw_others()
    yield from _draw_strangers()


def _draw_strangers() -> Iterator[Named]:
    film = [Image.new("L", (1500, 1500), shade) for shade in range(20)]
    yield "gif film", encode(film[0], "GIF", save_all=True, append_images=film[1:])
    yield (
        "gif claims 65535 x 65535",
        b"GIF89a\xff\xff\xff\xff\x80\0\0"
        + bytes(6)
        + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x44\x01\0;"
        + bytes(9),
    )
    for kind in ("BMP", "TIFF", "WEBP"):
        yield kind.lower(), encode(Image.new("RGB", (64, 64), "red"), kind)
    yield (
        "bmp claims 60000 x 60000",
        b"BM"
        + struct.pack("<IIIIiiHHIIiiII", 1000, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
        + bytes(900),
    )
    yield "heic of nothing", b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(200)
    yield "jpeg then png", flat_jpeg((64, 64)) + flat_png((64, 64))
    yield "html", b"<html>" + b"x" * 100
    yield "svg", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
    yield (
        "postscript",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9000 9000\n(x) run\n" + b" " * 200,
    )
    yield "zeros", bytes(BIG_BYTES)
    yield "too large", b"\xff\xd8\xff" + bytes(10_000_000)
    yield "one byte", b"\xff"


def draw_damaged(count: int, seed: int = 0) -> Iterator[Named]:
    """Yields good files of many kinds, damaged at random: changed, cut, repeated, spliced."""
    rng = random.Random(seed)
    good = list(_draw_good())
    for number in range(count):
        name, data = good[number % len(good)]
        damage = rng.choice((_flip, _overwrite, _cut, _repeat, _insert, _splice))
        for _ in range(rng.choice((1, 1, 2, 5))):
            data = damage(rng, data, rng.choice(good)[1])
        yield f"damaged {number} {name} {damage.__name__.strip('_')}", data


def _draw_good() -> Iterator[Named]:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype("uint8")
    image = Image.fromarray(pixels).resize((160, 120))
    for mode, options in (
        ("RGB", {}),
        ("RGB", {"progressive": True}),
        ("L", {}),
        ("CMYK", {}),
        ("RGB", {"restart_marker_blocks": 2}),
    ):
        yield f"jpeg {mode}", encode(image.convert(mode), "JPEG", **options)
    for mode in ("RGB", "RGBA", "P", "L", "1", "I;16"):
        yield (
            f"png {mode}",
            encode(
                (
                    image.convert("L").convert("I").convert(mode)
                    if mode == "I;16"
                    else image.convert(mode)
                ),
                "PNG",
            ),
        )
    yield "png interlaced", flat_png((61, 47), 16, 6, 1, filtered=4)
    for kind, options in (("WEBP", {}), ("WEBP", {"lossless": True}), ("GIF", {}), ("BMP", {})):
        yield f"{kind.lower()} {options}", encode(image, kind, **options)
    for compression in ("raw", "tiff_lzw", "tiff_deflate"):
        yield f"tiff {compression}", encode(image, "TIFF", compression=compression)
    yield (
        "png with notes",
        flat_png(
            (61, 47),
            extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(9000))) + chunk(b"tRNS", bytes(6)),
        ),
    )


def _flip(rng: random.Random, data: bytes, _: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 20))):
        changed[rng.randrange(min(len(changed), rng.choice((64, 700, len(changed)))))] = (
            rng.randrange(256)
        )
    return bytes(changed)


def _overwrite(rng: random.Random, data: bytes, _: bytes) -> bytes:
    place, value = (
        rng.randrange(len(data)),
        rng.choice(
            (
                b"\xff\xff",
                b"\0\0",
                b"\xff\xff\xff\xff",
                b"\x7f\xff\xff\xff",
                b"\xff\xd8",
                b"\xff\xda",
            )
        ),
    )
    return data[:place] + value + data[place + len(value) :]


def _cut(rng: random.Random, data: bytes, _: bytes) -> bytes:
    first, last = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    return data[:last] if rng.random() < 0.5 else data[:first] + data[last:] or b"\xff"


def _repeat(rng: random.Random, data: bytes, _: bytes) -> bytes:
    first = rng.randrange(len(data))
    last = min(len(data), first + rng.randrange(1, 300))
    return data[:last] + data[first:last] * rng.choice((1, 10, 1000)) + data[last:]


def _insert(rng: random.Random, data: bytes, _: bytes) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + rng.randbytes(rng.choice((1, 2, 50, 5000))) + data[place:]


def _splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(1, len(data))] + other[rng.randrange(len(other)) :]
