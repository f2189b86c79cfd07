"""Makes hostile GIF, WebP, BMP and TIFF files, and hostile EXIF.

They are made by hand where no encoder writes such a thing (GIF89a; TIFF 6.0; Exif 2.3; WebP
container specification). `hostile_photos.py` combines them with others.
"""

import itertools
import struct
import zlib
from collections.abc import Iterator

from hostile_jpeg import encode, flat_jpeg, segment
from hostile_png import chunk, empty_deflate, flat_png
from PIL import Image

Named = tuple[str, bytes]
Entry = tuple[int, int, int, int]  # tag, type, number of values, value or where they are
SHORT, LONG, BYTES = 3, 4, 7
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS = 256, 257, 258, 259, 262, 273
SAMPLES, ROWS, COUNTS, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS = 277, 278, 279, 322, 323, 324
COMPRESSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32809, 32946, 34676, 34925, 50000, 50001)
SIZES = ((64, 64), (5000, 5000), (7000, 7000), (65_535, 763), (60_000, 60_000), (2**31, 1), (0, 0))


def draw_others() -> Iterator[Named]:
    """Yields names and files, in a fixed order."""
    yield from _draw_gifs()
    yield from _draw_webps()
    yield from _draw_bmps()
    yield from _draw_tiffs()
    yield from _draw_exif()
    yield from draw_orientations()
    yield from draw_transparent()


# GIF.


def gif(before: bytes = b"", size_px: tuple[int, int] = (64, 64)) -> bytes:
    """Makes a GIF with something before its first frame."""
    plain = encode(Image.new("L", size_px), "GIF")
    at = 13 + (3 << (plain[10] & 7) + 1)
    return plain[:at] + before + plain[at:]


def blocks(count: int, size: int = 255) -> bytes:
    """Makes sub-blocks of an extension, with their end."""
    return (bytes([size]) + b"a" * size) * count + b"\0"


def _draw_gifs() -> Iterator[Named]:
    for megabytes in (0.1, 1, 5, 9.5):
        count = int(megabytes * 1e6 / 256)
        yield f"gif comment of {megabytes} MB", gif(b"!\xfe" + blocks(count))
        yield f"gif comments of {megabytes} MB", gif((b"!\xfe" + blocks(1)) * (count - 9))
        yield f"gif application data of {megabytes} MB", gif(b"!\xff" + blocks(count))
        yield f"gif short blocks of {megabytes} MB", gif(b"!\xfe" + blocks(128 * count, 1))
        yield f"gif empty extensions of {megabytes} MB", gif(b"!\xf9\0" * 85 * count)
        yield f"gif comment of {megabytes} MB behind", gif() + b"!\xfe" + blocks(count)
    for size_px in ((5000, 5000), (7000, 7000), (7100, 7100), (65_535, 381)):
        yield f"gif flat {size_px}", gif(size_px=size_px)
    good = gif()
    for size_px in SIZES[:-2]:
        claimed = struct.pack("<HH", *(min(side, 65_535) for side in size_px))
        yield f"gif claims {size_px}", good[:6] + claimed + good[10:]
        yield f"gif frame claims {size_px}", gif().replace(b"@\0@\0\0\x08", claimed + b"\0\x08")
    for size in (0, 1, 11, 12, 255):
        yield (
            f"gif codes of {size} bits",
            good[: good.rindex(b",") + 10] + bytes([size]) + good[-9:],
        )
    yield "gif only clear codes", good[: good.rindex(b",") + 11] + b"\xff" + b"\0\1" * 127 + b"\0;"
    yield "gif without frame", good[: good.rindex(b",")] + b";" + bytes(40)
    yield "gif ends in a comment", gif(b"!\xfe" + blocks(9))[:900]
    film = [Image.new("L", (300, 300), shade % 256) for shade in range(400)]
    yield "gif film of 400", encode(film[0], "GIF", save_all=True, append_images=film[1:])


# WebP and BMP.


def _draw_webps() -> Iterator[Named]:
    for size_px in ((7000, 7000), (5000, 5000), (16_383, 1500), (1500, 16_383)):
        flat = Image.new("RGB", size_px)
        yield f"webp lossless {size_px}", encode(flat, "WEBP", lossless=True, method=0)
        yield f"webp lossy {size_px}", encode(flat, "WEBP", quality=1, method=0)
    clear = Image.new("RGBA", (5000, 5000), (9, 9, 9, 9))
    yield "webp clear", encode(clear, "WEBP", lossless=True, method=0)
    film = [Image.new("RGB", (2000, 2000), (shade, 0, 0)) for shade in range(40)]
    yield "webp film", encode(film[0], "WEBP", save_all=True, append_images=film[1:], method=0)
    noise = Image.effect_noise((1200, 1200), 90).convert("RGB").resize((4900, 4900))
    yield "webp noise", encode(noise, "WEBP", quality=30, method=0)
    good = encode(Image.new("RGB", (64, 64)), "WEBP", lossless=True, exif=exif_bomb(4000)[6:])
    yield "webp exif", good
    for at in (4, 12, 16, 20, 24, 30):
        yield f"webp lies at {at}", good[:at] + b"\xff\xff\xff\x7f" + good[at + 4 :]
    yield "webp cut", good[:60]
    yield "webp then zeros", good + bytes(9_000_000)


def bmp(size_px: tuple[int, int], bits: int, compression: int, body: bytes) -> bytes:
    """Makes a BMP with a header of 40 bytes and, up to 8 bits, a palette."""
    palette = bytes(range(256)) * 4 if bits <= 8 else b""
    start = 54 + len(palette)
    header = struct.pack("<IIIIiiHHIIiiII", start + len(body), 0, start, 40, *size_px, 1, bits,
                         compression, len(body), 0, 0, 256 if palette else 0, 0)  # fmt: skip
    return b"BM" + header + palette + body


def _draw_bmps() -> Iterator[Named]:
    for size_px, bits in itertools.product(((64, 64), (7000, 7000), (7000, -7000)), (1, 8, 24)):
        body = bytes(min(abs(size_px[0] * size_px[1]) * bits // 8 + 40_000, 9_000_000))
        yield f"bmp {size_px} of {bits} bits", bmp(size_px, bits, 0, body)
    for name, run in {
        "short runs": b"\1\7",
        "long runs": b"\xff\7",
        "jumps": b"\0\2\xff\xff",
    }.items():
        for kind in (1, 2):
            yield (
                f"bmp rle {kind} {name}",
                bmp((5000, 5000), 8, kind, run * (9_000_000 // len(run))),
            )
    for compression in (3, 4, 5, 6, 99):
        yield f"bmp compression {compression}", bmp((64, 64), 24, compression, bytes(13_000))
    for size_px in ((0, 0), (60_000, 60_000), (2**31 - 1, 1), (-5, 5)):
        yield f"bmp claims {size_px}", bmp(size_px, 24, 0, bytes(900))


# TIFF.


def tiff(entries: list[Entry], body: bytes = b"", order: str = "<", following: int = 0) -> bytes:
    """Makes a TIFF with one directory after its data, which begin at byte 8."""
    start = 8 + len(body)
    directory = b"".join(struct.pack(order + "HHLL", *entry) for entry in entries)
    return (
        (b"II" if order == "<" else b"MM")
        + struct.pack(order + "HL", 42, start)
        + body
        + struct.pack(order + "H", len(entries) % 65_536)
        + directory
        + struct.pack(order + "L", following)
    )


def plain_entries(size_px: tuple[int, int], compression: int = 1, **changed: int) -> list[Entry]:
    """Describes a grey picture of one strip at byte 8; `changed` has tag names in lower case."""
    values = {"bits": 8, "photometric": 1, "offsets": 8, "samples": 1, "rows": size_px[1]}
    values |= {"counts": 9000} | changed
    names = {"bits": BITS, "photometric": PHOTOMETRIC, "offsets": OFFSETS, "samples": SAMPLES}
    names |= {"rows": ROWS, "counts": COUNTS}
    entries = [(WIDTH, LONG, 1, size_px[0]), (HEIGHT, LONG, 1, size_px[1])]
    entries += [(COMPRESSION, SHORT, 1, compression)]
    return entries + [(names[name], LONG, 1, value) for name, value in values.items()]


def _draw_tiffs() -> Iterator[Named]:
    for compression, size_px in itertools.product(COMPRESSIONS, SIZES[:4]):
        yield (
            f"tiff compression {compression} {size_px}",
            tiff(plain_entries(size_px, compression), bytes(9000)),
        )
    for size_px in SIZES[4:]:
        yield f"tiff claims {size_px}", tiff(plain_entries(size_px), bytes(9000))
    for mode, kind in itertools.product(
        ("1", "L", "RGB", "RGBA", "CMYK", "I;16", "F"),
        ("raw", "tiff_lzw", "tiff_deflate", "packbits"),
    ):
        flat = Image.new(mode, (1600, 1200) if kind == "raw" else (4000, 3000))
        yield f"tiff flat {mode} {kind}", encode(flat, "TIFF", compression=kind)
    large = Image.new("RGB", (7000, 7000))
    yield "tiff flat of 49 megapixels", encode(large, "TIFF", compression="tiff_lzw")
    for name in ("jpeg", "zstd", "lzma", "group4"):  # these need other decoders
        mode = "1" if name == "group4" else "RGB"
        yield f"tiff with {name}", encode(Image.new(mode, (900, 900)), "TIFF", compression=name)
    good = plain_entries((64, 64))
    body = bytes(1_000_000)
    everywhere = [(tag, BYTES, len(body), 8) for tag in range(1000, 65_000, 8)]
    yield "tiff 8,000 entries of the same megabyte", tiff([*good, *everywhere], body)
    yield "tiff 65,535 entries", tiff([*good, *((9, SHORT, 1, 1) for _ in range(65_500))], body)
    for tag in (OFFSETS, COUNTS, BITS, 320, 338, 339, TILE_OFFSETS):
        entry = (tag, LONG, 240_000, 8)
        yield (
            f"tiff 240,000 values of {tag}",
            tiff([*(e for e in good if e[0] != tag), entry], body),
        )
    for rows, strips in ((63, 100_000), (1, 100_000), (64, 90_000)):
        entries = [entry for entry in plain_entries((64, 64), rows=rows) if entry[0] != OFFSETS]
        entries += [(OFFSETS, LONG, strips, 8)]
        yield f"tiff {strips} strips of {rows} rows", tiff(entries, struct.pack("<L", 99) * strips)
    large = [entry for entry in plain_entries((5000, 5000), rows=4999) if entry[0] != OFFSETS]
    yield (
        "tiff covered 90,000 times",
        tiff([*large, (OFFSETS, LONG, 90_000, 8)], bytes(25_000_000))[:26_000_000],
    )
    stream = b"\x78\x9c" + empty_deflate(3000) + zlib.compress(bytes(9))[2:]
    for strips in (1000, 60_000):  # one row each, all at the same place
        places = struct.pack("<L", 8) * strips
        sizes = struct.pack("<L", len(stream)) * strips
        entries = plain_entries((1, strips), 8, rows=1)[:3] + plain_entries((1, strips))[3:5]
        entries += [(ROWS, LONG, 1, 1), (OFFSETS, LONG, strips, 8 + len(stream))]
        entries += [(COUNTS, LONG, strips, 8 + len(stream) + len(places))]
        yield f"tiff {strips} strips in one", tiff(entries, stream + places + sizes)
    blocks_of_nothing = b"\x78\x9c" + empty_deflate(800_000)
    counted = plain_entries((64, 64), 8, counts=len(blocks_of_nothing))
    yield "tiff empty blocks", tiff(counted, blocks_of_nothing)
    for side in (2**16, 2**20, 2**31):
        entries = [*good[:3], (TILE_WIDTH, LONG, 1, side), (TILE_HEIGHT, LONG, 1, side)]
        entries += [(TILE_OFFSETS, LONG, 1, 8), (325, LONG, 1, 9000), *good[3:5]]
        for compression in (1, 5, 8):
            entries[2] = (COMPRESSION, SHORT, 1, compression)
            yield f"tiff tile of {side}, {compression}", tiff(entries, bytes(9000))
    for name, changed in {
        "rows of 2^32": {"rows": 2**32 - 1},
        "no rows": {"rows": 0},
        "offset behind the end": {"offsets": 2**31},
        "negative count": {"counts": 2**32 - 1},
        "64 bits": {"bits": 64},
        "6 samples": {"samples": 6},
        "65,535 samples": {"samples": 65_535},
        "unknown colours": {"photometric": 99},
        "lab": {"photometric": 8},
    }.items():
        yield f"tiff {name}", tiff(plain_entries((64, 64), **changed), bytes(9000))
    yield "tiff next is itself", tiff(good, bytes(9000), following=9008)
    one = tiff(good, b"", following=8)[8:]
    yield "tiff 9,000 directories", tiff(good, one * 9000, following=8)
    yield "tiff big endian", tiff(good, bytes(9000), ">")
    yield "bigtiff", b"II\x2b\0\x08\0\0\0" + struct.pack("<Q", 16) + bytes(500)
    yield "tiff of magic only", b"II*\0" + bytes(60)
    yield "tiff directory behind the end", b"II*\0\xff\xff\xff\x7f" + bytes(60)


# EXIF, orientation, transparency.


def exif_bomb(count: int, size: int = 60_000) -> bytes:
    """Makes EXIF whose entries all point to the same bytes."""
    entries = [(0x0112, SHORT, 1, 6)] + [(tag, BYTES, size, 8) for tag in range(1000, 1000 + count)]
    return (
        b"Exif\0\0"
        + tiff(entries)[: 65_000 if size <= 65_000 else None]
        + bytes(max(size - 14 * count, 0))
    )


def _draw_exif() -> Iterator[Named]:
    jpeg, png = flat_jpeg((64, 64)), flat_png((64, 64))
    bomb = exif_bomb(4000)[:65_000]
    yield "exif of 4,000 entries in jpeg", jpeg[:2] + segment(0xE1, bomb) + jpeg[2:]
    yield "exif ten times in jpeg", jpeg[:2] + segment(0xE1, bomb) * 10 + jpeg[2:]
    large = exif_bomb(60_000, 5_000_000)[6:]
    at = png.index(b"IDAT") - 4
    yield "exif of 5 MB in png", png[:at] + chunk(b"eXIf", large) + png[at:]
    for name, data in {
        "loop": b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHLL", 34665, 4, 1, 8) + b"\x08\0\0\0",
        "cut": b"MM\0*\0\0\0\x08\0\xff",
        "far": b"II*\0\xff\xff\xff\xff",
        "empty": b"",
        "nonsense": b"\xff" * 400,
    }.items():
        yield f"exif {name} in jpeg", jpeg[:2] + segment(0xE1, b"Exif\0\0" + data) + jpeg[2:]
        yield f"exif {name} in png", png[:at] + chunk(b"eXIf", data) + png[at:]


def draw_orientations() -> Iterator[Named]:
    image = Image.linear_gradient("L").resize((61, 47)).convert("RGB")
    kinds = {
        "JPEG": ("RGB", "L", "CMYK"),
        "PNG": ("RGB", "RGBA", "LA", "P"),
        "WEBP": ("RGB", "RGBA"),
    }
    kinds |= {"TIFF": ("RGB", "L", "RGBA")}
    for kind, modes in kinds.items():
        for mode, orientation in itertools.product(modes, (*range(10), 65_535)):
            exif = Image.Exif()
            exif[0x0112] = orientation
            yield (
                f"turned {kind} {mode} {orientation}",
                encode(image.convert(mode), kind, exif=exif),
            )


def draw_transparent() -> Iterator[Named]:
    for alpha, size_px in itertools.product((0, 1, 128, 254, 255), ((33, 21), (1200, 900))):
        clear = Image.new("RGBA", size_px, (200, 30, 90, alpha))
        for kind in ("PNG", "WEBP", "TIFF"):
            yield f"clear {kind} {size_px} {alpha}", encode(clear, kind)
        yield f"clear LA {size_px} {alpha}", encode(clear.convert("LA"), "PNG")
        palette = Image.new("P", size_px, alpha)
        for kind in ("PNG", "GIF"):
            yield (
                f"clear palette {kind} {size_px} {alpha}",
                encode(palette, kind, transparency=alpha),
            )
        color = encode(Image.new("RGB", size_px), "PNG", transparency=(0, 0, alpha))
        yield f"clear colour {size_px} {alpha}", color
