"""Tests of the photo reader: serving gets the same pixels as training, and costs are bounded."""

import io
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image, ImageFile

from eczema_tf.config import DataConfig, PreprocessConfig
from eczema_tf.data.cache import ArrayCache
from eczema_tf.data.dataset import load_dataset
from eczema_tf.data.inputs import load_inputs
from eczema_tf.data.photo import upright
from eczema_tf.data.photo.bare import bare_gif, bare_png, bare_tiff, find_orientation
from eczema_tf.data.photo.inspection import inspect_photos
from eczema_tf.data.photo.jpeg_segments import bare_jpeg
from eczema_tf.data.photo.preprocess import preprocess_photo
from eczema_tf.data.photo.upright import upright_jpeg
from eczema_tf.data.text.tokenizer import learn_tokenizer
from eczema_tf.errors import DataError
from eczema_tf.schema import IMAGE
from eczema_tf.serving.graph.guard import decode_guarded

SIZE_PX = 32


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
        yield


def encode(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def draw_odd_sizes() -> Iterator[tuple[str, bytes]]:
    image = Image.linear_gradient("L").convert("RGB")
    for size_px in ((1, 1), (1, 300), (299, 2), (17, 33), (4100, 3100), (70, 2000)):
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
            yield f"{kind} of {size_px}", encode(image.resize(size_px), kind)
    for mode in ("1", "L", "LA", "P"):
        yield f"PNG of {mode}", encode(image.convert(mode), "PNG")
    yield (
        "PNG of 16 bits",
        encode(Image.fromarray(np.arange(64**2, dtype="uint16").reshape(64, 64) * 16), "PNG"),
    )
    yield "TIFF of YCbCr", encode(image.convert("YCbCr"), "TIFF", compression="tiff_lzw")
    yield "CMYK", encode(image.convert("CMYK"), "TIFF")
    yield "progressive", encode(image, progressive=True)


@pytest.fixture(scope="module")
def odd_photos() -> dict[str, bytes]:
    from hostile_others import draw_orientations, draw_transparent
    from hostile_photos import draw_damaged

    drawn = (draw_odd_sizes(), draw_orientations(), draw_transparent(), draw_damaged(150, seed=3))
    return {name: data for photos in drawn for name, data in photos}


@pytest.fixture(scope="module")
def trained_on(odd_photos: dict[str, bytes], tmp_path_factory) -> dict[str, np.ndarray]:
    """The pixels that training reads from the photos that it accepts, by name."""
    folder, rows = tmp_path_factory.mktemp("odd"), []
    for number, (name, data) in enumerate(odd_photos.items()):
        (folder / f"{number}.photo").write_bytes(data)
        rows.append((name, f"{number}.photo", "it itches", number % 2))
    columns = ["example_id", "image_path", "text", "eczema"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "manifest.csv", index=False)
    dataset = load_dataset(DataConfig(skip_bad_rows=True), folder / "manifest.csv")
    inputs = load_inputs(
        dataset,
        tokenizer=learn_tokenizer(["it itches"], 20, 8),
        size_px=SIZE_PX,
        preprocess=PreprocessConfig(),
        cache=ArrayCache(folder / "cache"),
        clinical=(),
    )
    pixels = inputs.gather(np.arange(len(inputs)))[IMAGE]
    return dict(zip(dataset.table["example_id"], pixels, strict=True))


def test_serving_uses_the_same_pixels_as_training(
    odd_photos: dict[str, bytes], trained_on: dict[str, np.ndarray]
):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(photos: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return decode_guarded(
            photos, lambda data: preprocess_photo(data, SIZE_PX, PreprocessConfig()), SIZE_PX
        )

    sent = {}
    for name, data in odd_photos.items():
        try:
            sent[name] = upright_jpeg(data)
        except DataError:
            assert name not in trained_on
    assert sent.keys() == trained_on.keys()
    assert len(sent) > 250
    pixels, codes = serve(tf.constant(list(sent.values())))
    assert not codes.numpy().any()
    np.testing.assert_array_equal(pixels, np.stack([trained_on[name] for name in sent]))


def test_only_damaged_photos_are_refused(trained_on, odd_photos: dict[str, bytes]):
    refused = odd_photos.keys() - trained_on.keys()
    assert {name.split()[0] for name in refused} == {"damaged"}


def test_transparent_pixels_become_white_in_training(trained_on: dict[str, np.ndarray]):
    clear = [name for name in trained_on if name.startswith("clear") and name.endswith(" 0")]
    seen = [name for name in clear if "palette GIF" not in name]
    assert len(seen) > 10
    assert min(trained_on[name].min() for name in seen) > 250


def test_photos_are_turned_upright_for_training(trained_on: dict[str, np.ndarray]):
    turned = [trained_on[f"turned JPEG RGB {number}"].astype(int) for number in range(10)]
    for number in (0, 1, 9):
        assert np.abs(turned[number] - turned[1]).max() == 0
    # the stored photo is dark at the top and bright at the bottom
    bright = {1: np.s_[16:], 3: np.s_[:16], 6: np.s_[:, :16], 8: np.s_[:, 16:]}
    for number, half in bright.items():
        assert turned[number][half].mean() > turned[number].mean() + 30


# scripts/benchmark_guard.py measures what hostile files cost. These tests show why it is little.


def test_gif_metadata_before_the_first_frame_is_cut_out():
    from hostile_others import blocks, gif

    data = gif(b"!\xfe" + blocks(30_000) + b"!\xff" + blocks(9) + b"!\xf9\4\0\0\0\0\0")
    bare, _ = bare_gif(data)
    assert len(bare) == len(gif()) + 8  # the 8 bytes say how its transparency works
    assert upright_jpeg(data) == upright_jpeg(gif())
    with pytest.raises(DataError, match="GIF without a frame"):
        bare_gif(gif(b"!\xfe" + blocks(300_000, 1)))


def test_png_and_jpeg_metadata_is_cut_out():
    from hostile_jpeg import flat_jpeg, segment
    from hostile_others import exif_bomb
    from hostile_png import chunk, flat_png

    bomb = exif_bomb(4000)[:65_000]
    jpeg = flat_jpeg((64, 64))
    bare, exif = bare_jpeg(jpeg[:2] + segment(0xE1, bomb) + segment(0xFE, b"x") + jpeg[2:])
    assert bare == jpeg
    assert find_orientation(exif) == 6
    notes = chunk(b"zTXt", b"a\0\0") + chunk(b"eXIf", bomb[6:]) + chunk(b"iCCP", b"a\0\0")
    bare, exif = bare_png(flat_png((64, 64), extra=notes))
    assert bare == flat_png((64, 64))
    assert find_orientation(exif) == 6
    with pytest.raises(DataError, match="damaged"):
        bare_png(flat_png((64, 64)).replace(b"IDAT", b"IDAt"))


def test_tiff_keeps_only_what_its_pixels_need():
    from hostile_others import BYTES, plain_entries, tiff

    body = bytes(range(64)) * 64
    many = [(tag, BYTES, 4000, 8) for tag in range(1000, 9000)]
    data = tiff([*plain_entries((64, 64)), (0x0112, 3, 1, 3), *many], body, following=8)
    bare, exif = bare_tiff(data)
    assert len(bare) == len(data) + 2 + 9 * 12 + 4
    assert find_orientation(exif) == 3
    assert find_orientation(bare) == 1
    with Image.open(io.BytesIO(upright_jpeg(data))) as image:
        gray = np.asarray(image.convert("L")).astype(int)
    assert gray[0, 0] > gray[0, -1]  # rotated by 180 degrees


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "code"), [(3, "H"), (4, "L")])
def test_orientation_is_found_in_either_byte_order_and_integer_width(
    order: str, kind: int, code: str
):
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "LH", 8, 1)
    for value, expected in ((6, 6), (0, 1), (9, 1)):
        entry = struct.pack(order + "HHL" + code, 0x0112, kind, 1, value).ljust(12, b"\0")
        assert find_orientation(head + entry) == expected
        assert find_orientation(b"Exif\0\0" + head + entry) == expected
    assert find_orientation(head) == find_orientation(b"") == 1


def draw_costly() -> Iterator[bytes]:
    from hostile_jpeg import scan_bomb
    from hostile_others import bmp, draw_others, plain_entries, tiff

    yield encode(Image.new("RGB", (5001, 5000)), "WEBP", lossless=True, method=0)
    yield scan_bomb((5000, 5000), 300)
    yield scan_bomb((8000, 8000), 3)
    yield bmp((3000, 3000), 8, 1, b"\1\7" * 4_000_000)
    yield encode(Image.new("F", (9, 9)), "TIFF")
    yield encode(Image.new("I", (9, 9), 200), "TIFF")  # would become all black or white
    for compression in (7, 50001, 34925):
        yield tiff(plain_entries((64, 64), compression), bytes(9000))
    wanted = (
        "tiff tile of 2147483648",
        "tiff covered",
        "tiff 60000 strips in",
        "tiff 240,000 values of 273",
    )
    yield from (data for name, data in draw_others() if name.startswith(wanted))


def test_costly_photos_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    photos = list(draw_costly())
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("it was decoded"))
    for number, data in enumerate(photos):
        with pytest.raises(DataError, match="photo"):
            upright_jpeg(data)
        (tmp_path / str(number)).write_bytes(data)
    errors = inspect_photos(str(tmp_path / str(number)) for number in range(len(photos)))["error"]
    assert errors.str.startswith("photo").all()
    assert len(errors) > 10


def test_large_photos_are_decoded_one_at_a_time(room: Any, monkeypatch: pytest.MonkeyPatch):
    load = ImageFile.ImageFile.load

    def load_slowly(image: ImageFile.ImageFile) -> object:
        if image.tile:  # otherwise the photo is already decoded
            room.visit()
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load_slowly)
    for alone_pixels, expected in ((1000, {1}), (10_000, {2, 3, 4})):
        room.most = 0
        monkeypatch.setattr(upright, "EDGE_ALONE_PIXELS", alone_pixels)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(upright_jpeg, [encode(Image.new("RGB", (64, 64)), "PNG")] * 8))
        assert room.most in expected
