"""The edge normaliser turns a photo into an upright RGB JPEG without metadata, or refuses it."""

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from eczema_tf.data.photo import edge_limits, limits, upright
from eczema_tf.data.photo.upright import read_case_photos, upright_jpeg
from eczema_tf.errors import DataError
from eczema_tf.serving.graph import guard

ROOT = Path(__file__).parents[1]
ORIENTATION, GPS = 0x0112, 0x8825
SECRET = b"47N 8E, Dr. Who, 1 May"


@pytest.fixture(scope="module")
def hostile():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        import hostile_photos

        return hostile_photos


def encode(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def corners() -> Image.Image:
    """Draws 48 x 32 upright pixels.

    Red is top left, green top right, blue bottom left and white bottom right.
    """
    pixels = np.zeros((32, 48, 3), "uint8")
    pixels[:16, :24], pixels[:16, 24:], pixels[16:, :24], pixels[16:, 24:] = (
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
    )
    return Image.fromarray(pixels)


def store_rotated(image: Image.Image, orientation: int) -> Image.Image:
    """Returns pixels that a viewer shows as `image` if it follows the orientation."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return image.transpose(undo[orientation]) if orientation in undo else image


def exif(orientation: int = 1) -> Image.Exif:
    """Returns EXIF data with a description and the place where the photo was taken."""
    data = Image.Exif()
    data[ORIENTATION] = orientation
    data[0x010E] = SECRET.decode()
    data.get_ifd(GPS).update({1: "N", 2: (47.0, 22.0, 0.0)})
    return data


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def decode(data: bytes) -> np.ndarray:
    """Returns the pixels of a normalised photo, after checking that it has no metadata."""
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG"
        assert image.mode == "RGB"
        assert {name for name, _ in image.applist} <= {"APP0", "APP14"}
        assert not image.getexif()
        assert not {"exif", "icc_profile", "comment", "xmp", "mp", "progressive"} & set(image.info)
        assert data.endswith(b"\xff\xd9")
        return np.asarray(image).astype(int)


def close(data: bytes, expected: Image.Image | np.ndarray, most: float = 12) -> bool:
    pixels, expected = decode(upright_jpeg(data)), np.asarray(expected).astype(int)
    return pixels.shape == expected.shape and np.abs(pixels - expected).mean() < most


def png(color: int, depth: int, pixels: bytes, extra: bytes = b"") -> bytes:
    """Builds a PNG of 2 x 1 pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, depth, color, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + extra
        + chunk(b"IDAT", zlib.compress(b"\0" + pixels))
        + chunk(b"IEND", b"")
    )


def test_limits_agree_with_those_of_the_served_guard():
    assert limits.SENT_MAX_PIXELS <= limits.SERVED_MAX_PIXELS
    assert edge_limits.SERVED_MAX_SIDE_PX == guard.SERVED_MAX_SIDE_PX
    assert upright.SERVED_MAX_BYTES == guard.SERVED_MAX_BYTES


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_ends_upright(orientation: int, kind: str):
    data = encode(store_rotated(corners(), orientation), kind, exif=exif(orientation), quality=95)
    with Image.open(io.BytesIO(data)) as image:
        assert ImageOps.exif_transpose(image).size == (48, 32)  # the test photo itself is right
    assert close(data, corners())


@pytest.mark.parametrize("orientation", [1, 6])
def test_jpeg_metadata_are_removed(orientation: int):
    stored = store_rotated(corners(), orientation)
    data = encode(
        stored, exif=exif(orientation), comment=SECRET, icc_profile=SECRET * 50, xmp=SECRET
    )
    assert data.count(SECRET) == 53
    clean = upright_jpeg(data)
    assert SECRET not in clean
    assert decode(clean).shape == (32, 48, 3)


@pytest.mark.parametrize("marker", [*range(0xE0, 0xF0), 0xFE])
def test_no_jpeg_segment_can_hide_data(marker: int):
    data = encode(corners())
    for hidden in (
        SECRET,
        b"JFIF\0\1\1\0\0\1\0\1\5\5" + SECRET * 4,
        b"Adobe\0\x64\0\0\0\0\1" + SECRET,
        b"Exif\0\0" + SECRET,
    ):
        clean = upright_jpeg(data[:2] + segment(marker, hidden) + data[2:])
        assert SECRET not in clean
        decode(clean)


def test_data_after_the_pixels_or_the_end_are_removed():
    data = encode(corners())
    for hiding in (
        data + SECRET,
        data[:-2] + segment(0xFE, SECRET) + data[-2:],
        data + data[:2] + segment(0xE1, SECRET) + data[2:],
    ):
        clean = upright_jpeg(hiding)
        assert SECRET not in clean
        assert np.abs(decode(clean) - decode(data)).mean() < 3


def test_upright_jpeg_keeps_its_pixels_bit_by_bit():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 130, 3)).astype("uint8"))
    for options in (
        {},
        {"quality": 60},
        {"subsampling": 0},
        {"restart_marker_blocks": 2},
        {"optimize": True},
        {"keep_rgb": True},
    ):
        data = encode(image, exif=exif(), icc_profile=SECRET * 9, **options)
        with Image.open(io.BytesIO(data)) as stored:
            np.testing.assert_array_equal(
                decode(upright_jpeg(data)), np.asarray(stored).astype(int)
            )
        bare = upright_jpeg(data)
        assert upright_jpeg(bare) == bare


def test_progressive_grey_and_multi_picture_jpegs_become_plain():
    assert b"\xff\xc2" in encode(corners(), progressive=True)
    assert close(encode(corners(), progressive=True, quality=95), corners())
    assert close(
        encode(corners().convert("L"), quality=95), corners().convert("L").convert("RGB"), 4
    )
    several = encode(
        corners(), "MPO", save_all=True, append_images=[Image.new("RGB", (48, 32))], quality=95
    )
    assert several.count(b"\xff\xd8") == 2
    assert upright_jpeg(several).count(b"\xff\xd8") == 1
    assert close(several, corners())


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_metadata_of_other_formats_are_removed(kind: str):
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", SECRET.decode())
    options = {"PNG": {"pnginfo": notes}, "WEBP": {"xmp": SECRET}, "TIFF": {}}[kind]
    data = encode(corners(), kind, exif=exif(), icc_profile=SECRET * 9, **options)
    assert SECRET in data
    assert SECRET not in upright_jpeg(data)
    decode(upright_jpeg(data))


@pytest.mark.parametrize(
    ("inks", "rgb"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 255, 0), (255, 0, 0)),
        ((0, 0, 0, 255), (0, 0, 0)),
    ],
)
def test_photoshop_cmyk_is_not_inverted(inks: tuple[int, ...], rgb: tuple[int, ...]):
    data = encode(Image.new("CMYK", (16, 16), inks), quality=95)
    assert b"Adobe" in data  # such files store the inks inverted
    assert np.abs(decode(upright_jpeg(data)) - rgb).max() <= 4
    assert (
        np.abs(decode(upright_jpeg(encode(Image.new("CMYK", (16, 16), inks), "TIFF"))) - rgb).max()
        <= 4
    )


def test_sixteen_bit_photos_keep_their_upper_eight_bits():
    gray = png(0, 16, struct.pack(">HH", 0x80FF, 0x80FF))
    assert np.abs(decode(upright_jpeg(gray)) - 0x80).max() <= 1
    color = png(2, 16, struct.pack(">HHH", 0xC8FF, 0x6400, 0x1900) * 2)
    assert np.abs(decode(upright_jpeg(color)) - (0xC8, 0x64, 0x19)).max() <= 3
    white = png(0, 16, b"\xff" * 4)
    assert decode(upright_jpeg(white)).min() >= 254
    deep = Image.fromarray(np.full((8, 8), 200 * 256, "uint16"))
    assert np.abs(decode(upright_jpeg(encode(deep, "TIFF"))) - 200).max() <= 2
    clear = encode(deep, "PNG", transparency=200 * 256)
    assert decode(upright_jpeg(clear)).min() >= 254


def test_ycbcr_tiff_is_read_with_its_own_subsampling():
    data = encode(corners().convert("YCbCr"), "TIFF", compression="tiff_lzw")
    assert close(data, corners())


def test_palette_and_one_bit_photos_are_read():
    for kind in ("PNG", "GIF", "TIFF", "BMP"):
        assert close(
            encode(corners().convert("P", palette=Image.Palette.ADAPTIVE), kind), corners()
        )
    assert close(
        encode(corners().convert("L").convert("1"), "PNG"),
        corners().convert("L").convert("1").convert("RGB"),
    )


def test_transparent_photos_are_laid_on_white():
    for mode, clear in (("RGBA", (0, 0, 0, 0)), ("LA", (0, 0))):
        assert decode(upright_jpeg(encode(Image.new(mode, (16, 16), clear), "PNG"))).min() >= 253
    palette = Image.new("P", (16, 16), 0)
    assert decode(upright_jpeg(encode(palette, "PNG", transparency=0))).min() >= 253
    assert (
        decode(
            upright_jpeg(encode(Image.new("RGB", (16, 16)), "PNG", transparency=(0, 0, 0)))
        ).min()
        >= 253
    )
    half = Image.new("RGBA", (16, 16), (200, 0, 0, 128))
    assert (
        np.abs(decode(upright_jpeg(encode(half, "WEBP", lossless=True))) - (227, 127, 127)).max()
        <= 4
    )


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(kind: str):
    rest = [Image.new("RGB", (48, 32), color) for color in ("black", "yellow")]
    assert close(
        encode(corners(), kind, save_all=True, append_images=rest, duration=100, quality=95),
        corners(),
    )


def test_photo_of_48_megapixels_is_reduced_to_12():
    large = corners().resize((8064, 6048), Image.Resampling.NEAREST)
    pixels = decode(upright_jpeg(encode(large, quality=80)))
    assert pixels.shape == (3024, 4032, 3)
    assert np.abs(pixels[::63, ::63] - np.asarray(large)[::126, ::126].astype(int)).mean() < 12


@pytest.mark.parametrize(
    ("size_px", "expected_px"),
    [
        ((4032, 3024), (4032, 3024)),
        ((5000, 2600), (2500, 1300)),
        ((20_000, 10), (10_000, 5)),
        ((9, 16_385), (5, 8193)),
        ((1, 1), (1, 1)),
    ],
)
@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_large_photos_of_other_formats_are_reduced_by_a_whole_factor(
    mode: str, size_px: tuple[int, int], expected_px: tuple[int, int]
):
    with Image.open(io.BytesIO(upright_jpeg(encode(Image.new(mode, size_px), "PNG")))) as image:
        assert image.size == expected_px


def test_photo_of_too_many_bytes_is_halved_until_it_fits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upright, "SERVED_MAX_BYTES", 60_000)
    noise = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (400, 300, 3)).astype("uint8")
    )
    for kind in ("PNG", "JPEG"):
        data = upright_jpeg(encode(noise, kind, quality=100))
        assert len(data) <= 60_000
        assert decode(data).shape == (100, 75, 3) or decode(data).shape == (200, 150, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no photo at all, only some text in a file",
        encode(Image.effect_noise((160, 120), 90))[:4000],
        encode(Image.new("1", (20_000, 10_000)), "PNG"),
        encode(Image.new("1", (8000, 8000)), "PNG"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" + b" " * 99,
        b"P6 3 3 255\n" + bytes(27),
        png(3, 8, b"\0\0"),  # without its palette
        encode(corners())[:2] + b"\xff\xfe\x00\x02" * 400 + encode(corners())[2:],
        png(2, 8, bytes(6), bytes.fromhex("00000000 61624364 ddaf1b4d") * 30_000),
    ],
)
def test_unreadable_or_too_large_photo_is_a_one_line_error(data: bytes):
    with pytest.raises(DataError, match="photo") as caught:
        upright_jpeg(data)
    assert "\n" not in str(caught.value)


def test_postscript_is_refused_without_starting_its_interpreter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "subprocess.Popen", lambda *arguments, **options: pytest.fail("a program was started")
    )
    with pytest.raises(DataError, match="allowed: JPEG, PNG, WEBP, GIF, BMP, TIFF"):
        upright_jpeg(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n" + b" " * 99
        )


def test_photo_with_broken_exif_is_accepted():
    data = encode(corners(), exif=b"Exif\0\0" + b"\xff" * 40)
    assert decode(upright_jpeg(data)).shape == (32, 48, 3)


def test_decompression_bombs_are_refused_before_they_are_decoded(
    hostile, monkeypatch: pytest.MonkeyPatch
):
    from hostile_jpeg import scan_bomb
    from hostile_png import chunk, png_header

    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    deep = png_header((7000, 7000), 16, 6, 1) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    deep += chunk(b"IEND")
    for bomb in (scan_bomb((5000, 5000), 60), scan_bomb((8, 8), 101)):
        with pytest.raises(DataError, match="would take too long"):
            upright_jpeg(bomb)
    with pytest.raises(DataError, match="at most 17 megapixels"):
        upright_jpeg(deep)


@pytest.mark.parametrize(
    ("depth", "color", "extra", "most"),
    # 1.06 s at 5 ns per byte, plus 7 ns per pixel (19 with transparency or 16-bit grey)
    [
        (8, 2, b"", 48),
        (8, 6, b"", 27),
        (16, 6, b"", 17),
        (16, 2, b"", 28),
        (16, 0, b"", 36),
        (8, 2, b"tRNS", 31),
    ],
)
def test_pixel_limit_of_a_png_falls_with_the_cost_per_pixel(hostile, depth, color, extra, most):
    from hostile_png import chunk, png_header

    clear = chunk(extra, bytes(6)) if extra else b""
    size_px = (1000 * most + 1000, 1000)
    png = png_header(size_px, depth, color) + clear + chunk(b"IDAT", b"") + chunk(b"IEND")
    with pytest.raises(DataError, match=f"allowed: at most {most} megapixels"):
        upright_jpeg(png)
    with pytest.raises(DataError, match="truncated or damaged"):  # its size is allowed
        upright_jpeg(png_header((1000 * most, 1000), depth, color) + png[33:])


def error_of(data: bytes) -> str:
    try:
        decode(upright_jpeg(data))
    except DataError as error:
        return str(error)
    return ""


def test_damaged_files_give_a_clean_jpeg_or_a_clear_error(hostile):
    errors = [error_of(data) for _, data in hostile.draw_damaged(400, seed=1)]
    assert all(error == "" or error.startswith("photo") for error in errors)
    assert 20 < errors.count("") < 380


class TestHeic:
    @pytest.fixture
    def heic(self):
        heif = pytest.importorskip("pillow_heif", reason="pip install -r requirements-heic.txt")

        def encode_heic(image: Image.Image, **options) -> bytes:
            buffer = io.BytesIO()
            heif.from_pillow(image).save(buffer, quality=95, chroma=444, **options)
            return buffer.getvalue()

        return encode_heic

    def test_heic_photo_becomes_a_jpeg(self, heic):
        assert close(heic(corners()), corners())
        assert close(heic(corners().convert("L")), corners().convert("L").convert("RGB"))

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_heic_photo_ends_upright_without_metadata(self, heic, orientation: int):
        data = heic(
            store_rotated(corners(), orientation), exif=exif(orientation).tobytes(), xmp=SECRET
        )
        assert SECRET in data
        assert SECRET not in upright_jpeg(data)
        assert close(data, corners())

    def test_truncated_heic_file_is_a_clear_error(self, heic):
        data = heic(corners())
        for cut in (40, len(data) // 2, len(data) - 1):
            with pytest.raises(DataError, match="photo cannot be read"):
                upright_jpeg(data[:cut])

    def test_heic_is_not_registered_with_pillow(self, heic):
        upright_jpeg(heic(corners()))
        assert "HEIF" not in Image.OPEN

    def test_error_without_the_package_says_how_to_install_it(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        with pytest.raises(DataError, match=r"HEIC.*requirements-heic\.txt"):
            upright_jpeg(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50))


def test_all_bad_photos_of_a_case_are_named_by_their_files(tmp_path: Path):
    good, bad, small, none = (tmp_path / name for name in ("good", "bad", "small", "none"))
    good.write_bytes(encode(corners()))
    bad.write_bytes(b"x" * 99)
    small.write_bytes(b"x")
    said = "bad: cannot be read: not an image.*small: has 1 bytes.*none: cannot be read: No such"
    with pytest.raises(DataError, match=said):
        read_case_photos([good, bad, small, none])
    assert read_case_photos([good]) == [upright_jpeg(good.read_bytes())]
    assert read_case_photos([]) == []


def test_too_large_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    with (tmp_path / "disc.iso").open("wb") as file:
        file.truncate(limits.MAX_FILE_BYTES + 1)
    with pytest.raises(DataError, match=r"disc\.iso: has 5"):
        read_case_photos([tmp_path / "disc.iso"])
