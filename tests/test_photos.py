"""Photos that cannot be decoded are found before training (orientation: `test_upright.py`)."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eczema_tf.data.photo.files import read_photo
from eczema_tf.data.photo.inspection import inspect_photos
from eczema_tf.data.photo.limits import MAX_FILE_BYTES
from eczema_tf.errors import DataError

ORIENTATION, GPS = 0x0112, 0x8825


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


def exif(orientation: int = 1) -> Image.Exif:
    """Returns EXIF data with the place where the photo was taken."""
    data = Image.Exif()
    data[ORIENTATION] = orientation
    data.get_ifd(GPS).update({1: "N", 2: (47.0, 22.0, 0.0)})
    return data


def error_of(tmp_path: Path, data: bytes) -> str:
    (tmp_path / "photo").write_bytes(data)
    return inspect_photos([str(tmp_path / "photo")])["error"].iloc[0]


def noise(height: int = 120, width: int = 160) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype("uint8")
    )


def test_good_photos_are_hashed_and_shown_upright(tmp_path: Path):
    files = {
        "a.jpg": encode(corners().transpose(Image.Transpose.ROTATE_90), exif=exif(6)),
        "b.png": encode(corners(), "PNG"),
        "c.png": encode(corners(), "PNG"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in ["b.png", "a.jpg", "c.png", "b.png"]]
    photos = inspect_photos([*paths, ""])
    assert list(photos.index) == paths[:3]
    assert photos.index.name == "file"
    assert list(photos["error"]) == ["", "", ""]
    assert photos["sha256"][paths[0]] == photos["sha256"][paths[2]] != photos["sha256"][paths[1]]
    upright, turned = (photos["gray"][path].astype(int) for path in paths[:2])
    assert upright.shape == (64, 64)
    assert np.abs(turned - upright).mean() < 4  # it has been turned upright


def test_inspection_without_photos_keeps_its_columns():
    photos = inspect_photos(["", ""])
    assert len(photos) == 0
    assert list(photos.columns) == ["sha256", "gray", "error"]


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {})]
)
@pytest.mark.parametrize("cut", [1, 3, 20, 200, 0.5, 0.98])
def test_truncated_photo_is_found(tmp_path: Path, kind: str, options: dict, cut: float):
    data = encode(noise(), kind, **options)
    assert error_of(tmp_path, data) == ""
    kept = len(data) - cut if cut >= 1 else int(len(data) * (1 - cut))
    assert "truncated or damaged" in error_of(tmp_path, data[:kept])


def test_flipped_bit_in_a_png_is_found(tmp_path: Path):
    data = bytearray(encode(noise(), "PNG"))
    data[len(data) // 2] ^= 1
    assert "truncated or damaged" in error_of(tmp_path, bytes(data))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "0 bytes"),
        (b"\xff\xd8\xff", "3 bytes"),
        (b"%PDF-1.4" + bytes(100), "not an image of a known format"),
        (b"\xff\xd8\xff" + bytes(100), "cannot be read"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "cannot be read"),
        (
            encode(Image.new("1", (8000, 6300)), "PNG"),
            "8000 x 6300 pixels; allowed: at most 50 megapixels",
        ),
        (encode(Image.new("1", (20000, 10000)), "PNG"), "too many pixels"),
    ],
)
def test_file_that_is_no_usable_photo_is_found(tmp_path: Path, data: bytes, says: str):
    assert says in error_of(tmp_path, data)


def test_missing_photo_or_a_folder_in_its_place_is_found(tmp_path: Path):
    photos = inspect_photos([str(tmp_path / "none.png"), str(tmp_path)])
    assert "No such file" in photos["error"].iloc[0]
    assert photos["error"].iloc[1] != ""


@pytest.mark.parametrize(
    "image", [Image.new("RGB", (1, 1)), Image.new("L", (9, 1)), corners().convert("CMYK")]
)
def test_unusual_but_good_photos_pass(tmp_path: Path, image: Image.Image):
    assert error_of(tmp_path, encode(image)) == ""


def test_photo_with_broken_exif_passes(tmp_path: Path):
    assert error_of(tmp_path, encode(corners(), exif=b"Exif\0\0" + b"\xff" * 40)) == ""


def test_read_photo_refuses_too_large_or_missing_files_and_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "whole").write_bytes(encode(corners()))
    assert read_photo(tmp_path / "whole") == encode(corners())
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    for name, says in (
        ("none", "No such file"),
        (".", r"Is a directory|has \d+ bytes; allowed"),  # a folder may have hardly any bytes
    ):
        with pytest.raises(DataError, match=says):
            read_photo(tmp_path / name)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(DataError, match="has 50000001 bytes; allowed: 32 to 50000000"):
        read_photo(tmp_path / "sparse")
