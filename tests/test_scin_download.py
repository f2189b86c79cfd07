"""The SCIN download against a server on this machine that does everything wrong: no half file is ever taken for a whole one."""

import base64
import csv
import fcntl
import functools
import hashlib
import io
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import google_crc32c
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eczema_tf import prepare
from eczema_tf.data.manifest.table import load_manifest
from eczema_tf.data.sources import scin_download
from eczema_tf.data.sources.downloads import Patience, compute_pause_s, open_session
from eczema_tf.data.sources.scin import CASE_COLUMNS, LABEL_COLUMNS
from eczema_tf.data.sources.scin_download import (
    CASES_PATH,
    LABELS_PATH,
    DownloadSummary,
    download_scin,
    list_photos,
)
from eczema_tf.errors import DataError, EczemaError

QUICK = Patience(attempts=4, timeout_s=20, pause_s=0.001, longest_pause_s=0.05)
HASTY = QUICK._replace(timeout_s=0.7)


def photo(name: str) -> str:
    return f"dataset/images/{name}.png"


FIRST = photo("-11")
CASES = {
    "-1": ["-11", "-12"],
    "-2": ["-21", "-11"],
    "-3": ["-31"],
    "-4": ["-41"],
    "-5": ["-51", "-52"],
}
VOTES = {
    "-1": "{'Eczema': 0.4, 'Acne': 0.6}",
    "-2": "{'Acne': 1.0}",
    "-3": "{}",
    "-4": "{'Eczema': 1.0}",
    "-5": "{'Acne': 1.0}",
}
PHOTOS = [
    photo(name) for name in ("-11", "-12", "-21", "-41", "-51", "-52")
]  # of the labelled cases, each once


def draw_photo(seed: int, side_px: int = 64) -> bytes:
    """Noise, so that a PNG is about three bytes a pixel."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side_px, side_px, 3)).astype("uint8")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_csv(rows: list[dict[str, str]]) -> bytes:
    return pd.DataFrame(rows).to_csv(index=False).encode()


def build_objects(cases: dict[str, list[str]] = CASES) -> dict[str, bytes]:
    rows = []
    for case_id, names in cases.items():
        paths = {
            f"image_{place}_path": name if "/" in name else photo(name)
            for place, name in enumerate(names, 1)
        }
        rows.append(
            dict.fromkeys(CASE_COLUMNS, "") | {"case_id": case_id, "textures_flat": "YES"} | paths
        )
    votes = [
        dict.fromkeys(LABEL_COLUMNS, "")
        | {
            "case_id": case_id,
            "weighted_skin_condition_label": VOTES[case_id],
        }
        for case_id in cases
    ]
    photos = {path: draw_photo(seed) for seed, path in enumerate([*PHOTOS, photo("-31")])}
    return {CASES_PATH: write_csv(rows), LABELS_PATH: write_csv(votes), **photos}


class Handler(BaseHTTPRequestHandler):
    """Answers as Google Cloud Storage does, unless a fault is due."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        bucket, path = self.server.bucket, self.path.removeprefix("/bucket/")
        with bucket.lock:
            bucket.asked.append((path, self.headers.get("Range")))
            due = bucket.faults[path].pop(0) if bucket.faults[path] else None
        if due is not None:
            due(self, path)
        elif path in bucket.objects:
            self.serve(path)
        else:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def serve(self, path: str, *, ranges: bool = True) -> None:
        body = self.server.bucket.objects[path]
        asked = self.headers.get("Range")
        if not (asked and ranges):
            self.answer(200, body, hash_header(body))
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            self.answer(416, b"")
            return
        self.answer(
            206,
            body[start:],
            hash_header(body) | {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"},
        )

    def answer(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        length: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (
            {"Content-Length": str(len(body) if length is None else length)} | (headers or {})
        ).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def hash_header(
    body: bytes, *, md5: bytes | None = None, crc32c: bytes | None = None
) -> dict[str, str]:
    md5 = hashlib.md5(body).digest() if md5 is None else md5
    crc32c = google_crc32c.Checksum(body).digest() if crc32c is None else crc32c
    return {
        "x-goog-hash": (
            f"crc32c={base64.b64encode(crc32c).decode()},md5={base64.b64encode(md5).decode()}"
        )
    }


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *arguments: object) -> None:
        """Clients that leave in the middle are what is tested."""


class Bucket:
    """A server thread, what it holds, what it does wrong next, and what it was asked."""

    def __init__(self) -> None:
        self.objects = build_objects()
        self.faults: dict[str, list[Callable[[Handler, str], None]]] = defaultdict(list)
        self.asked: list[tuple[str, str | None]] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.bucket = self
        self.url = f"http://127.0.0.1:{self.server.server_port}/bucket/"
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self.thread.start()

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def count(self, path: str) -> int:
        return sum(asked == path for asked, _ in self.asked)

    def download(self, folder: Path, **options: object) -> DownloadSummary:
        return download_scin(
            folder, **{"base_url": self.url, "patience": QUICK, "progress": False} | options
        )

    def holds_what(self, folder: Path, paths: list[str]) -> bool:
        """Whether the folder has these files as the server has them, and no other ones."""
        found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
        same = all((folder / path).read_bytes() == self.objects[path] for path in paths)
        return same and found == {*paths, "download.csv", ".download.lock"}


def read_missing(folder: Path) -> dict[str, str]:
    with (folder / "missing.csv").open() as file:
        return dict(csv.reader(file))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    bucket = Bucket()
    yield bucket
    bucket.close()


EVERYTHING = [CASES_PATH, LABELS_PATH, *PHOTOS]


# What the server may do wrong once, before it does it right.


def send_status(
    status: int, headers: dict[str, str] | None = None
) -> Callable[[Handler, str], None]:
    return lambda handler, path: handler.answer(status, b"<Error>busy</Error>", headers)


def hang_up(handler: Handler, path: str) -> None:
    handler.close_connection = True


def cut_in_half(handler: Handler, path: str) -> None:
    body = handler.server.bucket.objects[path]
    handler.answer(200, body[: len(body) // 2], hash_header(body), length=len(body))
    handler.close_connection = True


def cut_in_half_in_chunks(handler: Handler, path: str) -> None:
    body = handler.server.bucket.objects[path]
    half = body[: len(body) // 2]
    handler.answer(
        200,
        b"%x\r\n%s\r\n" % (len(half), half),
        {"Transfer-Encoding": "chunked", "Content-Length": ""},
    )
    handler.close_connection = True


def cut_in_half_and_say_so(handler: Handler, path: str) -> None:
    body = handler.server.bucket.objects[path]
    handler.answer(200, body[: len(body) // 2], hash_header(body))


def cut_in_half_without_checksum(handler: Handler, path: str) -> None:
    body = handler.server.bucket.objects[path]
    handler.answer(200, body[: len(body) // 2])


def cut_in_half_without_length_or_checksum(handler: Handler, path: str) -> None:
    body = handler.server.bucket.objects[path]
    handler.answer(200, body[: len(body) // 2], {"Content-Length": ""})
    handler.close_connection = True


def promise_too_much(handler: Handler, path: str) -> None:
    body = handler.server.bucket.objects[path]
    handler.answer(200, body, hash_header(body), length=len(body) + 1000)
    handler.close_connection = True


def promise_too_little(handler: Handler, path: str) -> None:
    body = handler.server.bucket.objects[path]
    handler.answer(200, body, hash_header(body), length=len(body) - 10)


def send_wrong_bytes(handler: Handler, path: str) -> None:
    body = handler.server.bucket.objects[path]
    handler.answer(200, body[:-1] + bytes([body[-1] ^ 1]), hash_header(body))


def send_wrong_md5(handler: Handler, path: str) -> None:
    body = handler.server.bucket.objects[path]
    handler.answer(200, body, hash_header(body, md5=bytes(16)))


def send_wrong_crc32c(handler: Handler, path: str) -> None:
    body = handler.server.bucket.objects[path]
    handler.answer(200, body, hash_header(body, crc32c=bytes(4)))


def send_a_web_page(handler: Handler, path: str) -> None:
    handler.answer(200, b"<html>Please log in to this network</html>")


def send_nonsense(handler: Handler, path: str) -> None:
    handler.wfile.write(b"\x00\x01 this is not HTTP\r\n\r\n")
    handler.close_connection = True


PASSING = {
    "503": send_status(503),
    "503, Retry-After in seconds": send_status(503, {"Retry-After": "3600"}),
    "503, Retry-After as a date": send_status(
        503, {"Retry-After": formatdate(time.time() + 3600, usegmt=True)}
    ),
    "503, Retry-After that is neither": send_status(503, {"Retry-After": "soon"}),
    "429": send_status(429),
    "500": send_status(500),
    "hangs up": hang_up,
    "drops in the middle": cut_in_half,
    "drops in the middle of chunks": cut_in_half_in_chunks,
    "half, with a length to match": cut_in_half_and_say_so,
    "half, with a length to match, no checksum": cut_in_half_without_checksum,
    "half, with neither length nor checksum": cut_in_half_without_length_or_checksum,
    "length too long": promise_too_much,
    "length too short": promise_too_little,
    "wrong bytes": send_wrong_bytes,
    "wrong md5": send_wrong_md5,
    "wrong crc32c": send_wrong_crc32c,
    "a web page": send_a_web_page,
    "no HTTP": send_nonsense,
}


def test_everything_comes_and_a_second_run_asks_for_nothing(bucket: Bucket, tmp_path: Path):
    summary = bucket.download(tmp_path / "d")
    size = sum(len(bucket.objects[path]) for path in EVERYTHING)
    assert summary == DownloadSummary(
        tmp_path / "d", wanted=8, already_there=0, downloaded=8, missing=0, bytes=size
    )
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)
    assert sorted(path for path, _ in bucket.asked) == sorted(
        EVERYTHING
    )  # each once; case -3 has no label
    again = bucket.download(tmp_path / "d")
    assert (again.already_there, again.downloaded, again.missing, again.bytes) == (8, 0, 0, 0)
    assert len(bucket.asked) == 8
    assert "8 were there, 0 downloaded" in again.describe()


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again(bucket: Bucket, tmp_path: Path, fault: str):
    for path in (FIRST, CASES_PATH):
        if (
            path == FIRST or fault != "half, with a length to match, no checksum"
        ):  # a table has no end to know it by
            bucket.faults[path] = [PASSING[fault]]
    summary = bucket.download(tmp_path / "d")
    assert (summary.downloaded, summary.missing) == (8, 0)
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)
    assert bucket.count(FIRST) == (
        3 if fault == "length too long" else 2
    )  # all bytes are here: there is no rest to ask for
    assert bucket.count(photo("-12")) == 1


@pytest.mark.parametrize("fault", PASSING)
def test_what_does_not_pass_is_missing_and_has_no_file(bucket: Bucket, tmp_path: Path, fault: str):
    bucket.faults[FIRST] = [PASSING[fault]] * 100
    summary = bucket.download(tmp_path / "d")
    assert (summary.downloaded, summary.missing) == (7, 1)
    assert bucket.count(FIRST) == QUICK.attempts
    assert not (tmp_path / "d" / FIRST).exists()
    missing = read_missing(tmp_path / "d")
    assert list(missing) == ["path", FIRST]
    assert "tried 4 times" in missing[FIRST]
    bucket.faults.clear()
    assert bucket.download(tmp_path / "d").downloaded == 1
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)  # missing.csv is gone too


@pytest.mark.parametrize("status", [404, 403, 410])
def test_what_is_not_there_is_missing_at_once(bucket: Bucket, tmp_path: Path, status: int):
    bucket.faults[FIRST] = [send_status(status)]
    summary = bucket.download(tmp_path / "d")
    assert (summary.downloaded, summary.missing) == (7, 1)
    assert bucket.count(FIRST) == 1
    assert f"{FIRST},{status} " in (tmp_path / "d" / "missing.csv").read_text()
    with pytest.raises(DataError, match=r"1 of 8 files .*missing\.csv.* it resumes"):
        summary.check_complete()


def test_a_file_that_is_no_photo_in_the_bucket_is_missing_at_once(bucket: Bucket, tmp_path: Path):
    bucket.objects[FIRST] = b"GIF89a"
    assert bucket.download(tmp_path / "d").missing == 1
    assert bucket.count(FIRST) == 1
    assert "is not a PNG or JPEG file" in (tmp_path / "d" / "missing.csv").read_text()


def test_without_a_checksum_a_photo_is_known_by_its_end(bucket: Bucket, tmp_path: Path):
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8)).save(jpeg, "JPEG")
    bucket.objects[photo("-12")] = jpeg.getvalue()
    for path in EVERYTHING:
        bucket.faults[path] = [
            lambda handler, path: handler.answer(200, handler.server.bucket.objects[path])
        ]
    assert bucket.download(tmp_path / "d").missing == 0
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)
    assert len(bucket.asked) == 8


def test_a_table_unpacked_on_its_way_is_not_held_against_the_packed_checksum(
    bucket: Bucket, tmp_path: Path
):
    def unpack(handler: Handler, path: str) -> None:
        body = handler.server.bucket.objects[path]
        packed = hash_header(b"packed") | {"x-goog-stored-content-encoding": "gzip"}
        chunked = {"Transfer-Encoding": "chunked", "Content-Length": ""}
        handler.answer(200, b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body), packed | chunked)

    bucket.faults[CASES_PATH] = [unpack] * 100
    assert bucket.download(tmp_path / "d").missing == 0
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)


def test_a_cut_connection_costs_only_what_had_not_come(bucket: Bucket, tmp_path: Path):
    bucket.faults[FIRST] = [cut_in_half]
    bucket.download(tmp_path / "d")
    half = len(bucket.objects[FIRST]) // 2
    assert [asked for path, asked in bucket.asked if path == FIRST] == [None, f"bytes={half}-"]


def ignore_range(handler: Handler, path: str) -> None:
    handler.serve(path, ranges=False)


def answer_another_range(handler: Handler, path: str) -> None:
    body = handler.server.bucket.objects[path]
    handler.answer(
        206,
        body[10:],
        hash_header(body) | {"Content-Range": f"bytes 10-{len(body) - 1}/{len(body)}"},
    )


def answer_range_without_checksum(handler: Handler, path: str) -> None:
    """Nothing says that the file was changed meanwhile."""
    body = handler.server.bucket.objects[path]
    body = handler.server.bucket.objects[path] = body[:100] + bytes([body[100] ^ 1]) + body[101:]
    half = len(body) // 2
    handler.answer(206, body[half:], {"Content-Range": f"bytes {half}-{len(body) - 1}/{len(body)}"})


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        (ignore_range, 2),
        (answer_another_range, 3),
        (answer_range_without_checksum, 3),
        (send_status(416), 3),
    ],
)
def test_a_range_that_is_not_honoured_starts_over(
    bucket: Bucket, tmp_path: Path, answer: Callable, asked: int
):
    bucket.faults[FIRST] = [cut_in_half, answer]
    assert bucket.download(tmp_path / "d").missing == 0
    assert bucket.count(FIRST) == asked
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)


def test_a_part_of_the_range_is_built_on_too(bucket: Bucket, tmp_path: Path):
    half = len(bucket.objects[FIRST]) // 2

    def answer_a_hundred_bytes(handler: Handler, path: str) -> None:
        body = handler.server.bucket.objects[path]
        headers = hash_header(body) | {"Content-Range": f"bytes {half}-{half + 99}/{len(body)}"}
        handler.answer(206, body[half : half + 100], headers)

    bucket.faults[FIRST] = [cut_in_half, answer_a_hundred_bytes]
    assert bucket.download(tmp_path / "d").missing == 0
    assert [asked for path, asked in bucket.asked if path == FIRST] == [
        None,
        f"bytes={half}-",
        f"bytes={half + 100}-",
    ]
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)


@pytest.mark.parametrize("length", ["as long as", "longer than", "half"])
def test_a_leftover_of_another_file_is_thrown_away(bucket: Bucket, tmp_path: Path, length: str):
    size = {"as long as": 1.0, "longer than": 1.5, "half": 0.5}[length] * len(bucket.objects[FIRST])
    part = tmp_path / "d" / f"{FIRST}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * int(size))
    assert bucket.download(tmp_path / "d").missing == 0
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)


def test_a_file_that_changes_while_it_comes_is_fetched_anew(bucket: Bucket, tmp_path: Path):
    def cut_and_change(handler: Handler, path: str) -> None:
        cut_in_half(handler, path)
        handler.server.bucket.objects[path] = draw_photo(99)

    bucket.faults[FIRST] = [cut_and_change]
    assert bucket.download(tmp_path / "d").missing == 0
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)


def trickle(handler: Handler, path: str) -> None:
    """Each byte comes well within the timeout; all of them would take for ever."""
    body = handler.server.bucket.objects[path]
    handler.answer(200, b"", hash_header(body), length=len(body))
    for place in range(len(body)):
        handler.wfile.write(body[place : place + 1])
        if handler.server.bucket.closing.wait(0.05):
            break


def say_nothing(handler: Handler, path: str) -> None:
    handler.server.bucket.closing.wait(60)


def stall(handler: Handler, path: str) -> None:
    body = handler.server.bucket.objects[path]
    handler.answer(200, body[:1000], hash_header(body), length=len(body))
    handler.server.bucket.closing.wait(60)


@pytest.mark.parametrize("fault", [trickle, say_nothing, stall])
def test_a_dead_or_creeping_connection_is_cut(bucket: Bucket, tmp_path: Path, fault: Callable):
    bucket.download(tmp_path / "d")
    (tmp_path / "d" / FIRST).unlink()
    bucket.faults[FIRST] = [fault]
    assert bucket.download(tmp_path / "d", patience=HASTY).downloaded == 1
    assert bucket.count(FIRST) >= 3
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)


def redirect_to(address: str) -> Callable[[Handler, str], None]:
    return lambda handler, path: handler.answer(302, b"", {"Location": address})


def test_redirects_are_followed_to_safe_places_only(bucket: Bucket, tmp_path: Path):
    bucket.objects["moved.png"] = bucket.objects[FIRST]
    bucket.faults[FIRST] = [redirect_to(f"{bucket.url}moved.png")]
    unsafe = (
        "http://192.0.2.1/x.png",
        "http://127.0.0.1:80@192.0.2.1/x.png",
        "ftp://127.0.0.1/x.png",
        "file:///etc/passwd",
    )
    for path, address in zip(PHOTOS[1:5], unsafe, strict=True):
        bucket.faults[path] = [redirect_to(address)] * 100
    bucket.faults[PHOTOS[5]] = [redirect_to(f"{bucket.url}{PHOTOS[5]}")] * 100
    assert bucket.download(tmp_path / "d").missing == 5
    assert (tmp_path / "d" / FIRST).read_bytes() == bucket.objects[FIRST]
    reasons = read_missing(tmp_path / "d")
    assert "not https" in reasons[PHOTOS[1]]
    assert "not https" in reasons[PHOTOS[2]]
    assert "redirects" in reasons[PHOTOS[5]]


@pytest.mark.parametrize(
    "address",
    [
        "http://example.org/",
        "http://127.0.0.1.example.org/",
        "http://127.0.0.1@example.org/",
        "ftp://x/",
        "",
    ],
)
def test_only_https_is_asked(address: str, tmp_path: Path):
    with pytest.raises(EczemaError, match="https://"):
        download_scin(tmp_path / "d", base_url=address)
    assert not (tmp_path / "d").exists()


def test_an_https_server_cannot_send_us_back_to_this_machine(bucket: Bucket):
    with (
        open_session("https://example.org/", connections=1) as session,
        pytest.raises(Exception, match="not https"),
    ):
        session.get(bucket.url + FIRST)
    assert bucket.asked == []


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_file_is_fetched_again(bucket: Bucket, tmp_path: Path, damage: bytes | None):
    bucket.download(tmp_path / "d")
    file = tmp_path / "d" / FIRST
    file.write_bytes(
        bytes(len(bucket.objects[FIRST])) if damage is None else damage
    )  # None: the size is right, the contents are not
    assert bucket.download(tmp_path / "d").downloaded == 1
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)


def test_files_that_were_there_before_are_kept_if_the_server_has_the_same(
    bucket: Bucket, tmp_path: Path
):
    bucket.download(tmp_path / "d")
    (tmp_path / "d" / "download.csv").write_bytes(b"\xff\xfe nonsense\n" + FIRST.encode() + b",12")
    (tmp_path / "d" / FIRST).write_bytes(b"half")
    before = (tmp_path / "d" / PHOTOS[1]).stat().st_ino
    summary = bucket.download(tmp_path / "d")
    assert (summary.already_there, summary.downloaded) == (7, 1)
    assert (tmp_path / "d" / PHOTOS[1]).stat().st_ino == before
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)
    asked = len(bucket.asked)
    assert bucket.download(tmp_path / "d").already_there == 8
    assert len(bucket.asked) == asked


def test_a_line_cut_by_a_kill_costs_only_that_line(bucket: Bucket, tmp_path: Path):
    bucket.download(tmp_path / "d")
    ledger = tmp_path / "d" / "download.csv"
    ledger.write_bytes(ledger.read_bytes()[:-9])
    bucket.asked.clear()
    assert bucket.download(tmp_path / "d").already_there == 8
    assert len(bucket.asked) == 1
    assert len(ledger.read_text().splitlines()) == 9


@pytest.mark.parametrize(
    ("limit", "photos"), [(1, PHOTOS[:2]), (2, PHOTOS[:3]), (3, PHOTOS[:4]), (99, PHOTOS)]
)
def test_limit_counts_labelled_cases_in_the_order_of_the_file(
    bucket: Bucket, tmp_path: Path, limit: int, photos: list[str]
):
    assert bucket.download(tmp_path / "d", limit=limit).wanted == len(photos) + 2
    assert bucket.holds_what(tmp_path / "d", [CASES_PATH, LABELS_PATH, *photos])


@pytest.mark.parametrize(
    "path",
    [
        "../../x/y.png",
        "/tmp/y.png",
        "dataset/images/../../../y.png",
        "dataset/images/y.png.part",
        "https://x/y.png",
        "a\\..\\/y.png",
    ],
)
def test_a_table_cannot_say_where_to_write(bucket: Bucket, tmp_path: Path, path: str):
    bucket.objects |= build_objects({"-1": [path, "-12"]}) | {path: draw_photo(0)}
    summary = bucket.download(tmp_path / "deep" / "down" / "d")
    assert (summary.downloaded, summary.missing) == (3, 1)
    assert "refused" in read_missing(summary.folder)[path]
    assert len(bucket.asked) == 3
    assert not list(tmp_path.rglob("*y.png*"))


def test_a_table_that_cannot_be_had_or_read_ends_it(bucket: Bucket, tmp_path: Path):
    bucket.faults[LABELS_PATH] = [send_status(404)]
    with pytest.raises(DataError, match=r"scin_labels\.csv: cannot be had: 404"):
        bucket.download(tmp_path / "d")
    bucket.objects[LABELS_PATH] = b"case_id,other\n-1,x\n"
    with pytest.raises(DataError, match="is not the official SCIN file"):
        bucket.download(tmp_path / "d")
    assert not (tmp_path / "d" / "dataset" / "images").exists()


def test_files_come_side_by_side(bucket: Bucket, tmp_path: Path):
    meeting = threading.Barrier(3, timeout=20)

    def wait_for_the_others(handler: Handler, path: str) -> None:
        meeting.wait()
        handler.serve(path)

    for path in PHOTOS:
        bucket.faults[path] = [wait_for_the_others]
    assert bucket.download(tmp_path / "d", jobs=3).downloaded == 8
    assert len(bucket.asked) == 8


def test_a_network_that_is_gone_is_not_asked_for_ever(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scin_download, "GIVE_UP_AFTER", 2)
    for path in PHOTOS:
        bucket.faults[path] = [send_status(503)] * 100
    assert bucket.download(tmp_path / "d", jobs=1).missing == 6
    assert "not tried" in read_missing(tmp_path / "d")[PHOTOS[5]]
    assert bucket.count(PHOTOS[5]) == 0


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="needs /dev/full, a device whose disk is always full"
)
@pytest.mark.parametrize(("jobs", "most_asked"), [(1, [1, 0]), (2, [1, 1])])
def test_a_full_disk_ends_it_at_once(
    bucket: Bucket, tmp_path: Path, jobs: int, most_asked: list[int]
):
    """With two jobs, the other one may be waiting to try again; it does not wait to the end."""
    part = tmp_path / "d" / f"{FIRST}.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    bucket.faults[PHOTOS[1]] = [send_status(503, {"Retry-After": "3600"})] * 100
    with pytest.raises(EczemaError, match=r"-11\.png: cannot be written: No space left"):
        bucket.download(tmp_path / "d", jobs=jobs, patience=QUICK._replace(longest_pause_s=30))
    assert [bucket.count(path) for path in PHOTOS[:2]] <= most_asked
    assert not (tmp_path / "d" / FIRST).exists()


def test_a_folder_that_cannot_be_written_is_a_clear_error(bucket: Bucket, tmp_path: Path):
    (tmp_path / "d").write_text("a file")
    with pytest.raises(EczemaError, match="cannot be written"):
        bucket.download(tmp_path / "d")


def test_two_downloads_do_not_share_a_folder(bucket: Bucket, tmp_path: Path):
    (tmp_path / "d").mkdir()
    with (tmp_path / "d" / ".download.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(EczemaError, match="another download"):
            bucket.download(tmp_path / "d")
    assert bucket.download(tmp_path / "d").downloaded == 8


CHILD = """
import signal, sys
from eczema_tf.data.sources.downloads import Patience
from eczema_tf.data.sources.scin_download import download_scin
signal.signal(signal.SIGINT, signal.default_int_handler)
download_scin(sys.argv[1], base_url=sys.argv[2], patience=Patience(timeout_s=2, pause_s=0.1))
"""


def send_half_and_wait(handler: Handler, path: str) -> None:
    body = handler.server.bucket.objects[path]
    handler.answer(200, body[: len(body) // 2], hash_header(body), length=len(body))
    handler.server.bucket.closing.wait(60)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_kill_in_the_middle_leaves_no_half_file_and_the_next_run_goes_on(
    bucket: Bucket, tmp_path: Path, how: signal.Signals
):
    folder, whole, cut = tmp_path / "d", PHOTOS[:3], PHOTOS[3:]
    for path in cut:
        bucket.objects[path] = draw_photo(7, side_px=200)
        bucket.faults[path] = [send_half_and_wait] * 100
    awaited = [folder / path for path in whole] + [folder / f"{path}.part" for path in cut]
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), bucket.url], stderr=subprocess.DEVNULL
    ) as process:
        while not all(file.is_file() and file.stat().st_size for file in awaited):
            assert process.poll() is None
            time.sleep(0.02)
        asked = len(bucket.asked)
        process.send_signal(how)
        assert process.wait(60) != 0
    assert len(bucket.asked) <= asked + len(
        cut
    )  # what was just being asked for; nothing is tried again
    assert not any((folder / path).exists() for path in cut)
    bucket.faults.clear()
    bucket.asked.clear()
    summary = bucket.download(folder)
    assert (summary.already_there, summary.downloaded, summary.missing) == (5, 3, 0)
    assert bucket.holds_what(folder, EVERYTHING)
    assert sorted(path for path, _ in bucket.asked) == cut
    assert all(
        asked and asked.startswith("bytes=") for _, asked in bucket.asked
    )  # only the rest of each


def test_pauses_grow_up_to_a_bound_and_heed_the_server():
    patience = Patience(pause_s=1, longest_pause_s=60)
    for attempt, most_s in [(1, 1), (2, 2), (5, 16), (50, 60)]:
        pauses_s = [compute_pause_s(attempt, None, patience) for _ in range(200)]
        assert 0 <= min(pauses_s) < 0.5 * most_s < max(pauses_s) <= most_s
    assert 30 <= compute_pause_s(1, "30", patience) <= 31
    assert compute_pause_s(1, "3600", patience) == 60
    assert compute_pause_s(1, formatdate(time.time() + 3600, usegmt=True), patience) == 60
    assert compute_pause_s(1, formatdate(0, usegmt=True), patience) <= 1
    assert compute_pause_s(1, "soon", patience) <= 1


def test_the_real_paths(shared: Path, bucket: Bucket, tmp_path: Path):
    scin = shared / "data" / "scin"
    cases, labels = scin / "scin_cases.csv", scin / "scin_labels.csv"
    paths = list_photos(cases, labels)
    assert len(list_photos(cases, labels, 1)) <= 3
    assert paths[:20] == list_photos(cases, labels, 20)[:20]
    assert all(scin_download.PHOTO_PATH.fullmatch(path) for path in paths)
    bucket.objects = {CASES_PATH: cases.read_bytes(), LABELS_PATH: labels.read_bytes()}
    wanted = list_photos(cases, labels, 30)
    bucket.objects |= {path: draw_photo(seed, 8) for seed, path in enumerate(wanted)}
    for fault, path in zip(PASSING.values(), wanted, strict=False):
        bucket.faults[path] = [fault]
    assert bucket.download(tmp_path / "d", limit=30).missing == 0
    assert bucket.holds_what(tmp_path / "d", [CASES_PATH, LABELS_PATH, *wanted])


@pytest.fixture
def command(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[object]], int]:
    """The command, with this machine for the official address."""
    here = functools.partial(download_scin, base_url=bucket.url, patience=QUICK)
    monkeypatch.setattr(scin_download, "download_scin", here)
    return lambda arguments: prepare.main(["scin", *map(str, arguments)])


def test_the_command_downloads_and_prepares(
    bucket: Bucket, command: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert (
        command(
            ["--download", tmp_path / "d", "--limit", 2, "--jobs", 2, "--out", tmp_path / "out"]
        )
        == 0
    )
    assert "5 files wanted: 0 were there, 5 downloaded" in capsys.readouterr().out
    table = load_manifest(tmp_path / "out" / "manifest.csv").table
    rows = table.groupby("case_id")["image_path"].apply(list).to_dict()
    assert rows == {
        "-1": [FIRST, photo("-12")],
        "-2": [photo("-21"), FIRST],
        "-4": [""],
        "-5": [""],
    }


def test_the_command_says_what_is_missing_in_one_line(
    bucket: Bucket, command: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
):
    bucket.faults[FIRST] = [send_status(404)]
    arguments = ["--download", tmp_path / "d", "--out", tmp_path / "out"]
    assert command(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: 1 of 8 files could not be had")
    assert "it resumes" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert command(arguments) == 0
    assert bucket.count(PHOTOS[1]) == 1


@pytest.mark.parametrize("out", ["d", "."])
def test_out_must_not_hold_the_download(
    bucket: Bucket, command: Callable, tmp_path: Path, out: str
):
    with pytest.raises(SystemExit) as ended:
        command(["--download", tmp_path / "d", "--out", tmp_path / out, "--overwrite"])
    assert ended.value.code == 2
    assert bucket.asked == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--cases", "c"],
        ["--cases", "c", "--labels", "l", "--limit", "3"],
        ["--download", "d", "--jobs", "0"],
    ],
)
def test_bad_usage_exits_with_2(arguments: list[str], tmp_path: Path):
    with pytest.raises(SystemExit) as ended:
        prepare.main(["scin", *arguments, "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
