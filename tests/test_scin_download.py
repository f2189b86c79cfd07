"""The SCIN download copes with a local server that speaks the JSON API and fails at times."""

import base64
import csv
import gzip
import hashlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest

from eczema_tf import prepare
from eczema_tf.data.manifest.table import load_manifest
from eczema_tf.data.sources.scin import CASE_COLUMNS, VOTE_COLUMNS
from eczema_tf.errors import DataError, EczemaError

pytest.importorskip("google.cloud.storage", reason="needs requirements-scin.txt")
import google_crc32c

from eczema_tf.data.sources import scin_download
from eczema_tf.data.sources.scin_download import (
    BUCKET,
    CASES_PATH,
    LABELS_PATH,
    Download,
    download_scin,
    list_photos,
)

# the client leaves the connections of failed requests to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


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
# the photos of the labelled cases, each once
PHOTOS = [photo(name) for name in ("-11", "-12", "-21", "-41", "-51", "-52")]
EVERYTHING = [CASES_PATH, LABELS_PATH, *PHOTOS]


def draw_photo(seed: int) -> bytes:
    """Returns a small PNG with bytes appended until it is as large as a photo."""
    pixel = (
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
        "rkJggg=="
    )
    return base64.b64decode(pixel) + hashlib.sha256(b"%d" % seed).digest() * 5000


def build_objects(cases: dict[str, list[str]] = CASES) -> dict[str, bytes]:
    rows, votes = [], []
    for case_id, names in cases.items():
        paths = {
            f"image_{number}_path": name if "/" in name or "\\" in name else photo(name)
            for number, name in enumerate(names, 1)
        }
        blank = dict.fromkeys(CASE_COLUMNS, "")
        rows.append(blank | {"case_id": case_id, "textures_flat": "YES"} | paths)
        vote = {"case_id": case_id, "weighted_skin_condition_label": VOTES[case_id]}
        votes.append(dict.fromkeys(VOTE_COLUMNS, "") | vote)
    tables = {CASES_PATH: rows, LABELS_PATH: votes}
    photos = {path: draw_photo(seed) for seed, path in enumerate([*PHOTOS, photo("-31")])}
    return {
        path: pd.DataFrame(table).to_csv(index=False).encode() for path, table in tables.items()
    } | photos


class Handler(BaseHTTPRequestHandler):
    """Answers as Google Cloud Storage does, unless a fault is planned for the file."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        bucket, url = self.server.bucket, urlsplit(self.path)
        prefix, path = url.path.split("/o/")
        path, media = unquote(path), prefix.startswith("/download")
        assert prefix.endswith(f"/storage/v1/b/{BUCKET}")
        assert "Authorization" not in self.headers
        with bucket.lock:
            bucket.asked.append((path, media))
            due = bucket.faults[path].pop(0) if media and bucket.faults[path] else None
        if due is not None:
            due(self, path)
        elif path not in bucket.objects:
            self.answer(404, b"No such object")
        elif media:
            self.send(path)
        else:
            body = bucket.objects[path]
            facts = {"name": path, "size": str(len(body)), "crc32c": crc32c(body)}
            self.answer(200, json.dumps(facts).encode(), {"Content-Type": "application/json"})

    def send(self, path: str, *, share: float = 1.0) -> None:
        """Sends the requested bytes, or only a share of them."""
        body = self.server.bucket.objects[path]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        rest = body[start:]
        headers = {"x-goog-hash": f"crc32c={crc32c(body)}", "Content-Length": str(len(rest))}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.answer(206 if start else 200, rest[: int(share * len(rest))], headers)
        self.close_connection = share < 1

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def crc32c(body: bytes) -> str:
    return base64.b64encode(google_crc32c.Checksum(body).digest()).decode()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *arguments: object) -> None:
        """Ignores clients that disconnect midway: the tests cause that on purpose."""


class Bucket:
    """A server thread with its objects, its planned faults and the requests it has received."""

    def __init__(self) -> None:
        self.objects = build_objects()
        self.faults: dict[str, list[Callable[[Handler, str], None]]] = defaultdict(list)
        self.asked: list[tuple[str, bool]] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.bucket = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self.thread.start()

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def fetched(self) -> list[str]:
        return sorted(path for path, media in self.asked if media)

    def holds_what(self, folder: Path, paths: list[str]) -> bool:
        """Whether the folder contains exactly these files, identical to the server's."""
        found = {file.relative_to(folder).as_posix() for file in folder.rglob("*.*")}
        same = all((folder / path).read_bytes() == self.objects[path] for path in paths)
        return same and found == set(paths)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    quick = scin_download.RETRY.with_delay(initial=0.01, maximum=0.05)
    monkeypatch.setattr(scin_download, "RETRY", quick)
    bucket = Bucket()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
    yield bucket
    bucket.close()


def read_missing(folder: Path) -> dict[str, str]:
    with (folder / "missing.csv").open() as file:
        return dict(csv.reader(file))


# Faults of the server before it answers correctly


def send_status(status: int) -> Callable[[Handler, str], None]:
    return lambda handler, path: handler.answer(status, b"busy")


def hang_up(handler: Handler, path: str) -> None:
    handler.close_connection = True


def cut_in_half(handler: Handler, path: str) -> None:
    handler.send(path, share=0.5)


def send_nonsense(handler: Handler, path: str) -> None:
    handler.wfile.write(b"\x00\x01 this is not HTTP\r\n\r\n")
    handler.close_connection = True


PASSING = {
    "503": send_status(503),
    "429": send_status(429),
    "500": send_status(500),
    "hangs up": hang_up,
    "drops in the middle": cut_in_half,
    "no HTTP": send_nonsense,
}


def test_download_is_complete_and_a_second_run_fetches_nothing(bucket: Bucket, tmp_path: Path):
    first = download_scin(tmp_path / "d")
    size = sum(len(bucket.objects[path]) for path in EVERYTHING)
    assert first == Download(tmp_path / "d", wanted=8, downloaded=8, bytes=size, missing={})
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)
    assert bucket.fetched() == sorted(EVERYTHING)  # each file once; case -3 has no label
    second = download_scin(tmp_path / "d")
    assert (second.wanted, second.downloaded, second.bytes, second.missing) == (8, 0, 0, {})
    assert bucket.fetched() == sorted(EVERYTHING)
    assert "8 were already there, 0 downloaded (0.0 MB), 0 missing" in second.describe()


@pytest.mark.parametrize("fault", PASSING)
def test_temporary_fault_is_retried(bucket: Bucket, tmp_path: Path, fault: str):
    for path in (FIRST, CASES_PATH):
        bucket.faults[path] = [PASSING[fault]] * 2
    assert download_scin(tmp_path / "d").downloaded == 8
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)
    assert bucket.fetched().count(FIRST) == 3
    assert bucket.fetched().count(photo("-12")) == 1


@pytest.mark.parametrize("status", [404, 403])
def test_unavailable_file_is_listed_and_the_rest_is_downloaded(
    bucket: Bucket, tmp_path: Path, status: int
):
    bucket.faults[FIRST] = [send_status(status)] * 10
    summary = download_scin(tmp_path / "d")
    assert (summary.wanted, summary.downloaded) == (8, 7)
    assert bucket.fetched().count(FIRST) == 1
    assert f"{status} " in summary.missing[FIRST]
    assert read_missing(tmp_path / "d") == {"path": "reason", **summary.missing}
    assert "0 were already there, 7 downloaded" in summary.describe()
    assert f"1 missing ({tmp_path / 'd' / 'missing.csv'} says why)" in summary.describe()
    bucket.faults.clear()
    assert download_scin(tmp_path / "d").downloaded == 1
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)  # missing.csv is gone too


def test_file_with_a_wrong_checksum_is_not_kept(bucket: Bucket, tmp_path: Path):
    def send_wrong_bytes(handler: Handler, path: str) -> None:
        body = bucket.objects[path]
        hashes = {"x-goog-hash": f"crc32c={crc32c(body)}"}
        handler.answer(200, body[:-1] + bytes([body[-1] ^ 1]), hashes)

    bucket.faults[FIRST] = [send_wrong_bytes]
    assert list(download_scin(tmp_path / "d").missing) == [FIRST]
    assert "checksum" in read_missing(tmp_path / "d")[FIRST]
    assert not (tmp_path / "d" / FIRST).exists()
    assert download_scin(tmp_path / "d").downloaded == 1
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)


def test_file_that_changes_during_its_download_is_not_kept(bucket: Bucket, tmp_path: Path):
    def cut_and_change(handler: Handler, path: str) -> None:
        cut_in_half(handler, path)
        bucket.objects[path] = draw_photo(99)

    bucket.faults[FIRST] = [cut_and_change]
    assert list(download_scin(tmp_path / "d").missing) == [FIRST]
    assert not (tmp_path / "d" / FIRST).exists()
    assert download_scin(tmp_path / "d").downloaded == 1
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)


def test_gzipped_table_is_decompressed(bucket: Bucket, tmp_path: Path):
    def send_packed(handler: Handler, path: str) -> None:
        packed = gzip.compress(bucket.objects[path])
        hashes = {"x-goog-hash": f"crc32c={crc32c(packed)}", "Content-Encoding": "gzip"}
        handler.answer(200, packed, hashes)

    bucket.faults[CASES_PATH] = [send_packed]
    assert download_scin(tmp_path / "d").downloaded == 8
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_damaged_file_is_downloaded_again(bucket: Bucket, tmp_path: Path, damage: bytes | None):
    download_scin(tmp_path / "d")
    same_size = bytes(len(bucket.objects[FIRST]))
    (tmp_path / "d" / FIRST).write_bytes(same_size if damage is None else damage)
    bucket.asked.clear()
    assert download_scin(tmp_path / "d").downloaded == 1
    assert bucket.fetched() == [FIRST]
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)


def test_file_that_changed_in_the_bucket_is_downloaded_again(bucket: Bucket, tmp_path: Path):
    download_scin(tmp_path / "d")
    bucket.objects[FIRST] = draw_photo(99)
    assert download_scin(tmp_path / "d").downloaded == 1
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)


@pytest.mark.parametrize(
    ("limit", "photos"), [(1, PHOTOS[:2]), (2, PHOTOS[:3]), (3, PHOTOS[:4]), (99, PHOTOS)]
)
def test_limit_counts_labelled_cases_in_file_order(
    bucket: Bucket, tmp_path: Path, limit: int, photos: list[str]
):
    assert download_scin(tmp_path / "d", limit=limit).wanted == len(photos) + 2
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
def test_unsafe_photo_path_in_the_table_is_refused(bucket: Bucket, tmp_path: Path, path: str):
    bucket.objects |= build_objects({"-1": [path, "-12"]}) | {path: draw_photo(0)}
    summary = download_scin(tmp_path / "deep" / "down" / "d")
    assert (summary.wanted, summary.downloaded) == (4, 3)
    assert "refused" in read_missing(summary.folder)[path]
    assert len(bucket.asked) == 3
    assert not list(tmp_path.rglob("*y.png*"))


def test_missing_or_wrong_table_stops_the_download(bucket: Bucket, tmp_path: Path):
    bucket.faults[LABELS_PATH] = [send_status(404)]
    with pytest.raises(DataError, match=r"scin_labels\.csv: cannot be downloaded: 404"):
        download_scin(tmp_path / "d")
    bucket.objects[LABELS_PATH] = b"case_id,other\n-1,x\n"
    with pytest.raises(DataError, match="weighted_skin_condition_label: is missing"):
        download_scin(tmp_path / "d")
    assert not (tmp_path / "d" / "dataset" / "images").exists()


def test_files_are_downloaded_in_parallel(bucket: Bucket, tmp_path: Path):
    meeting = threading.Barrier(3, timeout=20)

    def wait_for_the_others(handler: Handler, path: str) -> None:
        meeting.wait()
        handler.send(path)

    for path in PHOTOS:
        bucket.faults[path] = [wait_for_the_others]
    assert download_scin(tmp_path / "d", jobs=3).downloaded == 8
    assert len(bucket.asked) == 8


def test_lost_network_stops_the_download_and_the_next_run_resumes_it(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scin_download, "RETRY", scin_download.RETRY.with_timeout(0.2))
    for path in PHOTOS[1:]:
        bucket.faults[path] = [hang_up] * 1000
    with pytest.raises(EczemaError, match=f"gs://{BUCKET}: cannot be reached .* it resumes"):
        download_scin(tmp_path / "d", jobs=1)
    assert not any(path in PHOTOS[3:] for path in bucket.fetched())  # it did not try all photos
    bucket.faults.clear()
    assert download_scin(tmp_path / "d").downloaded == 5
    assert bucket.holds_what(tmp_path / "d", EVERYTHING)


def test_missing_network_is_a_one_line_error(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(scin_download, "RETRY", scin_download.RETRY.with_timeout(0.2))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    assert run("--download", tmp_path / "d", "--out", tmp_path / "out") == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: gs://{BUCKET}: cannot be reached")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_error_for_the_missing_package_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setitem(sys.modules, scin_download.__name__, None)
    assert run("--download", tmp_path / "d", "--out", tmp_path / "out") == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "pip install -r requirements-scin.txt" in err
    assert err.count("\n") == 1


def test_full_disk_stops_the_download(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("eczema_tf.files.os.fsync", refuse)
    with pytest.raises(EczemaError, match=r"cannot be written: No space left"):
        download_scin(tmp_path / "d", jobs=1)
    assert not list((tmp_path / "d").rglob("*.*"))


CHILD = """
import sys
from eczema_tf.data.sources.scin_download import download_scin
download_scin(sys.argv[1])
"""


def test_killed_download_leaves_no_partial_photo(bucket: Bucket, tmp_path: Path):
    sending = threading.Event()

    def send_half_and_wait(handler: Handler, path: str) -> None:
        cut_in_half(handler, path)
        handler.wfile.flush()
        sending.set()
        bucket.closing.wait(60)

    folder, cut = tmp_path / "d", PHOTOS[1]
    bucket.faults[cut] = [send_half_and_wait]
    arguments = [sys.executable, "-c", CHILD, str(folder)]
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:
        others = [folder / path for path in EVERYTHING if path != cut]
        while not (sending.is_set() and all(file.exists() for file in others)):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) != 0
    assert not (folder / cut).exists()
    assert download_scin(folder).downloaded == 1
    assert bucket.holds_what(folder, EVERYTHING)


def test_photo_paths_of_the_real_tables_are_allowed(shared: Path):
    cases, labels = (shared / "data" / "scin" / f"scin_{name}.csv" for name in ("cases", "labels"))
    paths = list_photos(cases, labels)
    assert 1 <= len(list_photos(cases, labels, 1)) <= 3
    assert paths[:20] == list_photos(cases, labels, 20)[:20]
    assert all(scin_download.PHOTO_PATH.fullmatch(path) for path in paths)


def run(*arguments: object) -> int:
    return prepare.main(["scin", *map(str, arguments)])


def test_command_downloads_and_prepares(
    bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture
):
    options = ["--download", tmp_path / "d", "--limit", 2, "--jobs", 2, "--out", tmp_path / "out"]
    assert run(*options) == 0
    assert "5 files wanted: 0 were already there, 5 downloaded" in capsys.readouterr().out
    table = load_manifest(tmp_path / "out" / "manifest.csv").table
    rows = table.groupby("case_id")["image_path"].apply(list).to_dict()
    assert rows == {
        "-1": [FIRST, photo("-12")],
        "-2": [photo("-21"), FIRST],
        "-4": [""],
        "-5": [""],
    }


def test_command_continues_without_a_photo_that_the_bucket_lacks(
    bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture
):
    del bucket.objects[FIRST]
    assert run("--download", tmp_path / "d", "--out", tmp_path / "out") == 0
    assert "1 missing" in capsys.readouterr().out
    table = load_manifest(tmp_path / "out" / "manifest.csv").table
    assert set(table["image_path"]) == set(PHOTOS) - {FIRST}


@pytest.mark.parametrize("out", ["d", "."])
def test_out_must_not_contain_the_download(bucket: Bucket, tmp_path: Path, out: str):
    with pytest.raises(SystemExit) as ended:
        run("--download", tmp_path / "d", "--out", tmp_path / out, "--overwrite")
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
        run(*arguments, "--out", tmp_path / "out")
    assert ended.value.code == 2
