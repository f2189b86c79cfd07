"""Tests the guard inside the served graph: what it refuses, and the status that it gives."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from eczema_tf.config import PreprocessConfig
from eczema_tf.data.photo import decoding_cost as cost
from eczema_tf.data.photo.preprocess import preprocess_photo
from eczema_tf.data.text.tokenizer import clean_text
from eczema_tf.schema import MAX_TEXT_BYTES
from eczema_tf.serving.graph import guard
from eczema_tf.serving.graph.guard import PHOTO_STATUS, check_photo, decode_guarded

ROOT = Path(__file__).parents[1]
SIZE_PX = 64
MAX_MB = 500


@pytest.fixture(scope="module", autouse=True)
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        yield


@pytest.fixture(scope="module")
def check():
    checked = tf.function(check_photo, input_signature=[tf.TensorSpec([], tf.string)])
    return lambda data: PHOTO_STATUS[int(checked(tf.constant(data)))]


class Reader(tf.Module):
    """The guard, followed by the real preprocessing."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def read(self, photos: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels, codes = decode_guarded(
            photos, lambda data: preprocess_photo(data, SIZE_PX, PreprocessConfig()), SIZE_PX
        )
        return {"pixels": pixels, "status": tf.gather(tf.constant(PHOTO_STATUS), codes)}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="image"),
            tf.TensorSpec([None], tf.string, name="text"),
        ]
    )
    def serve(self, image: tf.Tensor, text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"status": self.read(image)["status"], "clean": clean_text(text)}


@pytest.fixture(scope="module")
def read():
    reader = Reader()
    return lambda photos: {
        name: value.numpy() for name, value in reader.read(tf.constant(photos, tf.string)).items()
    }


def encode(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int = 90, height: int = 70) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype("uint8")
    )


COSTLY = (
    "photo: of an unusual kind that may take too long to decode; save it as a plain (baseline) JPEG"
)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        (
            "JPEG",
            {"exif": b"Exif\0\0" + bytes(60_000), "icc_profile": bytes(200_000), "comment": b"x"},
        ),
        ("JPEG", {"restart_marker_blocks": 1}),
        ("PNG", {}),
        ("PNG", {"icc_profile": b"x" * 3000}),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_ordinary_photos_pass(read, kind: str, options: dict, mode: str):
    if kind == "PNG" and mode == "CMYK":
        mode = "P"
    answer = read([encode(noise().convert(mode), kind, **options)])
    assert answer["status"][0] == b"ok"
    assert np.ptp(answer["pixels"][0]) > 20


def test_24_megapixel_photo_and_progressive_one_of_12_pass(check):
    from hostile_jpeg import flat_jpeg

    assert check(flat_jpeg((6000, 4000))) == "ok"
    # phones may append a film to a photo
    assert check(flat_jpeg((6000, 4000)) + bytes(9_000_000)) == "ok"
    assert check(encode(Image.new("RGB", (4000, 3000)), progressive=True)) == "ok"
    assert check(encode(Image.new("RGB", (5000, 5000)), "PNG")) == "ok"


def test_limits_on_bytes_and_pixels_are_exact(check):
    from hostile_jpeg import flat_jpeg
    from hostile_png import flat_png

    small = flat_png((1, 1))
    assert check(small[:31]) == "photo: smaller than 32 bytes"
    assert check(small[:32]) == "ok"  # decoding comes later
    jpeg = flat_jpeg((8, 8))
    assert check(jpeg + bytes(guard.SERVED_MAX_BYTES - len(jpeg))) == "ok"
    assert check(jpeg + bytes(guard.SERVED_MAX_BYTES - len(jpeg) + 1)) == "photo: larger than 10 MB"
    assert check(flat_jpeg((5000, 5000))) == "ok"
    assert check(flat_jpeg((5000, 5001))) == "photo: more than 25 megapixels"
    assert check(flat_png((16_384, 1))) == "ok"
    assert check(flat_png((16_385, 1))) == "photo: longer than 16384 pixels"
    assert check(flat_jpeg((16_385, 8))) == "photo: longer than 16384 pixels"


def test_progressive_jpeg_may_have_at_most_100_scans(check):
    from hostile_jpeg import scan_bomb

    assert check(scan_bomb((8, 8), 99)) == "ok"  # 100 with the coarse scan
    assert check(scan_bomb((8, 8), 100)) == COSTLY
    allowed = (guard.SERVED_MAX_DECODE_NS - 13 * 25_000_000) // (25_000_000 * 3 // 2) - 1
    assert check(scan_bomb((5000, 5000), allowed - 1)) == "ok"
    assert check(scan_bomb((5000, 5000), allowed + 1)) == COSTLY


def test_scans_of_a_baseline_jpeg_are_counted_if_not_interleaved(check):
    from hostile_jpeg import flat_jpeg, scan

    interleaved = flat_jpeg((5000, 5000))
    apart = interleaved.replace(scan(3), scan([1]) + b"\x00" + scan([2]) + b"\x00" + scan([3]))
    assert check(apart) == "ok"
    assert check(apart[:-2] + (scan([1]) + b"\x00") * 101 + apart[-2:]) == COSTLY


@pytest.mark.parametrize("marker", [0xC9, 0xCA])
def test_arithmetic_coding_is_refused_even_behind_a_thumbnail(check, marker: int):
    from hostile_jpeg import arithmetic_jpeg, flat_jpeg, segment

    bad = arithmetic_jpeg((100, 100), marker, 0)
    good = flat_jpeg((8, 8))
    assert check(bad) == COSTLY
    assert check(bad[:2] + segment(0xE1, good) + bad[2:]) == COSTLY  # behind a thumbnail
    assert check(bad[:2] + segment(0xFE, good) * 40 + bad[2:]) == COSTLY


@pytest.mark.parametrize(
    "decoy", [b"\xff\xd0", b"\xff\x01", b"\xff\xff", b"\xff\xe1\0\0", b"\xff\xe1\0\1"]
)
def test_decoy_markers_do_not_hide_arithmetic_coding(read, decoy: bytes):
    from hostile_jpeg import arithmetic_jpeg, flat_jpeg

    bad, good = arithmetic_jpeg((100, 100), 0xC9, 0), flat_jpeg((8, 8))
    for hidden in (
        bad[:2] + decoy + len(good).to_bytes(2, "big") + good + bad[2:],
        bad[:2] + decoy + good[2:] + bad[2:],
    ):
        assert read([hidden])["status"][0] != b"ok"


def test_jpeg_with_too_many_segments_is_refused(check):
    from hostile_jpeg import flat_jpeg, segment

    good = flat_jpeg((8, 8))
    assert check(good[:2] + segment(0xFE) * 200 + good[2:]) == "ok"
    assert check(good[:2] + segment(0xFE) * 400 + good[2:]) == COSTLY


@pytest.mark.parametrize("name", cost.COMPRESSED_CHUNKS)
def test_compressed_chunks_of_a_png_count_towards_its_cost(check, name: bytes):
    from hostile_png import chunk, flat_png

    assert check(flat_png((8, 8), extra=chunk(name, b"a\0\0") * 4)) == "ok"
    assert check(flat_png((8, 8), extra=chunk(name, b"a\0\0") * 1000)) == COSTLY


def test_large_interlaced_png_of_16_bits_or_an_unknown_type_is_refused(check):
    from hostile_png import png_header

    assert check(png_header((5000, 5000), 8, 2) + bytes(9)) == "ok"
    assert check(png_header((5000, 5000), 16, 2, 1) + bytes(9)) == COSTLY
    assert check(png_header((5000, 5000), 8, 2, 1) + bytes(9)) == "ok"
    # any other colour type counts as the one with most channels, RGBA
    assert check(png_header((5000, 5000), 8, 255, 255) + bytes(9)) == COSTLY


def test_data_after_a_pngs_last_pixel_count_towards_its_cost(check):
    from hostile_png import surplus_png

    assert check(surplus_png((500, 500), 100)) == "ok"
    assert check(surplus_png((500, 500), 1000)) == COSTLY
    assert check(surplus_png((2000, 2000), 1000)) == COSTLY


def test_png_with_transparency_is_refused(check):
    """Decoding would drop the transparency, so that colours below it would count."""
    clear = noise().convert("RGBA")
    for image, options in (
        (clear, {}),
        (clear.convert("LA"), {}),
        (noise().convert("P"), {"transparency": 3}),
        (noise(), {"transparency": (1, 2, 3)}),
    ):
        says = check(encode(image, "PNG", **options))
        assert says == "photo: a PNG with transparency; lay it on white and save it as JPEG"


def test_hostile_files_have_a_status_and_do_not_affect_good_photos(read):
    from hostile_photos import draw_damaged

    good = encode(noise())
    alone = read([good])["pixels"][0]
    photos = [data for _, damaged in draw_damaged(200, seed=2) for data in (damaged, good)]
    answer = read(photos)
    assert set(answer["status"]) <= {status.encode() for status in PHOTO_STATUS}
    assert (answer["status"][1::2] == b"ok").all()
    np.testing.assert_array_equal(
        answer["pixels"][1::2], np.broadcast_to(alone, (200, *alone.shape))
    )
    bad = answer["status"] != b"ok"
    assert 20 < bad.sum() < 190
    assert not answer["pixels"][bad].any()


def test_hostile_files_neither_end_the_process_nor_fill_its_memory(tmp_path: Path):
    """Uses the worker of the benchmark, a separate process, on a SavedModel of the guard."""
    import benchmark_guard
    from hostile_jpeg import BIG_PX, draw_small_jpegs, scan_bomb
    from hostile_png import chunk, flat_png

    reader = Reader()
    tf.saved_model.save(reader, str(tmp_path / "1"), signatures={"serving_default": reader.serve})
    bombs = [
        ("scans", scan_bomb(BIG_PX, 10)),
        ("too many scans", scan_bomb(BIG_PX, 3000)),
        ("wide", flat_png((1_000_000, 2))),
        ("flat", flat_png(BIG_PX)),
        ("notes", flat_png((64, 64), extra=chunk(b"zTXt", b"a\0\0") * 1000)),
    ]
    crafted = list(draw_small_jpegs())
    results = list(benchmark_guard.measure("graph", tmp_path, iter(bombs + crafted)))
    assert len(results) == len(bombs) + len(crafted) > 30
    assert not [result for result in results if result["answer"].startswith("process ended")]
    assert max(result["mb"] for result in results) < MAX_MB
    answers = {result["name"]: result["answer"] for result in results}
    assert answers["scans"] == answers["flat"] == "ok"
    assert answers["too many scans"] == answers["notes"] == COSTLY
    assert answers["wide"] == "photo: longer than 16384 pixels"


def test_benchmark_notices_a_process_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import benchmark_guard

    def start_mortal(kind: str, model: Path) -> subprocess.Popen:
        code = "import sys\nprint('ready', flush=True)\nsys.stdin.readline()\nsys.exit(9)"
        worker = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        worker.stdout.readline()
        return worker

    monkeypatch.setattr(benchmark_guard, "start_worker", start_mortal)
    results = list(benchmark_guard.measure("graph", tmp_path, iter([("a", b"x"), ("b", b"y")])))
    assert [benchmark_guard.breaks_limit(result) for result in results] == [True, True]
    assert "2 ended the process" in benchmark_guard.describe("graph", results)


def test_long_texts_are_cut_before_they_are_cleaned():
    cleaned = clean_text(
        tf.constant(["x" * 10_000_000, "\ufdfa" * 100_000, "<a " * 500_000, "x" + "é" * 50_000])
    ).numpy()
    assert len(cleaned[0]) == MAX_TEXT_BYTES
    # NFKC turns one character of three bytes into eighteen of 33 bytes
    assert len(cleaned[1]) <= 12 * MAX_TEXT_BYTES
    # the limit is even, so it falls into the middle of a character of two bytes, which is left out
    assert cleaned[3].decode() == "x" + "é" * (MAX_TEXT_BYTES // 2 - 1)
