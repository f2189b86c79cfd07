"""What the web page is made of, without a browser: photos, the gate, and what goes wrong."""

import asyncio
import io
import os
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient
from test_answer import save_small_export
from test_serving import photo

from eczema_tf.errors import DataError
from eczema_tf.reporting.answer import Answer
from eczema_tf.schema import NOTICE
from eczema_tf.serving.exported import ExportedModel
from eczema_tf.serving.page.events import MAX_CHARACTERS, Events, fill
from eczema_tf.serving.page.examples import EXAMPLES, draw_example_photo
from eczema_tf.serving.page.gate import sweep
from eczema_tf.serving.page.photo import forget_file, read_photo, show_photo
from eczema_tf.serving.rest.app import build_app
from eczema_tf.serving.rest.batching import Busy
from eczema_tf.serving.rest.limits import Limits
from eczema_tf.workflows.serve import mount_answers


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    return ExportedModel(save_small_export(tmp_path_factory.mktemp("export") / "1"))


# Photos between browser and server.


def test_an_upload_is_read_turned_upright_and_forgotten(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), "salmon").save(buffer, "JPEG", exif=exif)
    path = tmp_path / "hash" / "arm.jpg"
    path.parent.mkdir()
    path.write_bytes(buffer.getvalue())
    value = {"path": str(path), "url": "http://127.0.0.1/x"}
    jpeg = read_photo(value, tmp_path)
    assert Image.open(io.BytesIO(jpeg)).size == (40, 60)
    forget_file(value, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert read_photo(show_photo(jpeg), tmp_path) == jpeg
    assert read_photo(None, tmp_path) == b""


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "{folder}/../outside.jpg", "{folder}", "http://127.0.0.1/arm.jpg", "\0"]
)
def test_no_other_file_is_read_or_deleted(tmp_path: Path, path: str):
    folder, outside = tmp_path / "uploads", tmp_path / "outside.jpg"
    folder.mkdir()
    outside.write_bytes(photo())
    value = {"path": path.format(folder=folder), "url": None}
    with pytest.raises((DataError, ValueError)):
        read_photo(value, folder)
    if "\0" not in path:
        forget_file(value, folder)
    assert outside.exists()
    assert folder.exists()


@pytest.mark.parametrize(
    "url",
    [
        "data:image/jpeg;base64,???",
        "data:text/html;base64,PGI+",
        "http://127.0.0.1/x.jpg",
        "x" * 1000,
    ],
)
def test_a_data_url_of_something_else_is_refused(tmp_path: Path, url: str):
    with pytest.raises(DataError):
        read_photo({"path": None, "url": url}, tmp_path)


def test_examples_are_small_made_up_and_readable():
    assert len(draw_example_photo()) < 100_000
    for example in EXAMPLES:
        value, fault, text = fill(example)
        assert (value is not None) == example.has_photo
        assert value is None or read_photo(value, Path("/nowhere"))
        assert fault == ""
        assert text == example.text


# What goes wrong.


def events(tmp_path: Path, answer) -> Events:
    return Events(answer, tmp_path, 0.2)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Busy("256 rows are waiting; try again in a second"), "256 rows are waiting"),
        (TimeoutError(), "no answer within 0.2 seconds"),
        (RuntimeError("Xanthippe wrote this"), "Something went wrong on the server"),
    ],
)
def test_failures_become_messages_and_nothing_more(
    tmp_path: Path, error: Exception, said: str, caplog: pytest.LogCaptureFixture
):
    async def fail(image: bytes, text: str) -> Answer:
        raise error

    page = asyncio.run(events(tmp_path, fail).ask(None, "itchy", ""))
    assert said in page
    assert NOTICE in page
    assert "Traceback" not in page
    assert "Xanthippe" not in page + caplog.text


def test_an_answer_that_does_not_come_is_given_up(tmp_path: Path):
    async def wait(image: bytes, text: str) -> Answer:
        await asyncio.sleep(60)

    assert "no answer within" in asyncio.run(events(tmp_path, wait).ask(None, "itchy", ""))


def test_nothing_and_too_much_are_refused_before_the_model_is_asked(tmp_path: Path):
    async def never(image: bytes, text: str) -> Answer:
        raise AssertionError

    ask = events(tmp_path, never).ask
    for text in (None, "", "  \n"):
        assert "Give a photo, a text, or both." in asyncio.run(ask(None, text, ""))
    assert "at most 5,000 are read" in asyncio.run(ask(None, "x" * (MAX_CHARACTERS + 1), ""))
    assert "Photo is not there any more" in asyncio.run(
        ask({"path": str(tmp_path / "gone.jpg")}, "", "")
    )


def test_a_bad_upload_is_refused_and_forgotten(tmp_path: Path):
    path = tmp_path / "hash" / "a.jpg"
    path.parent.mkdir()
    path.write_bytes(b"GIF89a" + bytes(99))
    value, fault = asyncio.run(events(tmp_path, None).preview({"path": str(path)}))
    assert value is None
    assert "Photo cannot be read" in fault
    assert list(tmp_path.iterdir()) == []


# The gate.


@pytest.fixture(scope="module")
def client(model: ExportedModel) -> Iterator[TestClient]:
    limits = Limits(max_body_bytes=1_000_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", "")
        app = build_app(model, limits, mount=partial(mount_answers, model, limits))
        uploads = Path(os.environ["GRADIO_TEMP_DIR"])
        with TestClient(app) as client:
            client.uploads = uploads
            yield client
        assert not uploads.exists()


CLOSED = [
    "/config",
    "/openapi.json",
    "/docs",
    "/login_check",
    "/token",
    "/monitoring",
    "/manifest.json",
    "/nothing",
    "/gradio_api/info",
    "/gradio_api/openapi.json",
    "/gradio_api/deep_link?session_hash=x",
    "/gradio_api/runs",
    "/gradio_api/app_id",
    "/gradio_api/proxy=http://127.0.0.1/",
    "/gradio_api/heartbeat/x",
    "/gradio_api/vibe-code",
    "/gradio_api/file/etc/passwd",
]


@pytest.mark.parametrize("path", CLOSED)
def test_what_the_page_does_not_need_is_not_there(client: TestClient, path: str):
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json() == {"error": "Not Found"}


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/run/ask",
        "/gradio_api/call/ask",
        "/gradio_api/api/ask",
        "/gradio_api/component_server",
        "/",
    ],
)
def test_there_is_no_second_interface(client: TestClient, path: str):
    assert client.post(path, json={"data": []}).status_code == 404


def test_rest_is_as_without_the_page(client: TestClient):
    answer = client.post(
        "/v1/models/eczema:predict", json={"instances": [{"image": "", "text": "itchy"}]}
    )
    assert answer.json()["predictions"][0]["status"] == "ok"
    assert client.get("/healthz").json() == {"status": "live"}
    assert client.get("/v1/nothing").status_code == 404


def test_the_page_may_load_nothing_from_elsewhere(client: TestClient):
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"
    loaded = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=['\"]?([^'\" >]+)", page.text)
    assert loaded
    assert not [address for address in loaded if "://" in address]
    assert NOTICE in page.text


def test_uploads_do_not_come_out_again(client: TestClient):
    stored = client.post(
        "/gradio_api/upload",
        files={"files": ("arm.html", b"<script>alert(1)</script>", "text/html")},
    ).json()[0]
    assert Path(stored).is_relative_to(client.uploads)
    for path in (stored, "/etc/passwd", "http://127.0.0.1/"):
        answer = client.get(f"/gradio_api/file={path}")
        assert answer.headers["content-type"] == "image/gif"
        assert len(answer.content) < 100


def test_a_large_upload_is_refused(client: TestClient):
    answer = client.post(
        "/gradio_api/upload", files={"files": ("arm.jpg", bytes(900_000), "image/jpeg")}
    )
    assert answer.status_code == 413
    answer = client.post(
        "/gradio_api/upload", files={"files": ("arm.jpg", bytes(1_100_000), "image/jpeg")}
    )
    assert answer.status_code == 413


def test_a_full_folder_takes_no_more(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("eczema_tf.serving.page.gate.MAX_UPLOADS_BYTES", 10)
    (client.uploads / "x").write_bytes(bytes(11))
    assert (
        client.post(
            "/gradio_api/upload", files={"files": ("arm.jpg", b"x", "image/jpeg")}
        ).status_code
        == 503
    )


def test_the_folder_is_swept(tmp_path: Path):
    old, new = tmp_path / "a" / "old.jpg", tmp_path / "b" / "new.jpg"
    for path in (old, new):
        path.parent.mkdir()
        path.write_bytes(b"x")
    past = time.time() - 100
    os.utime(old, (past, past))
    sweep(tmp_path, 60)
    assert (old.exists(), new.exists()) == (False, True)
    os.utime(old.parent, (past, past))
    sweep(tmp_path, 60)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
