"""Tests of the web page without a browser: its files, its two endpoints, and its errors."""

import asyncio
import base64
import io
import os
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient
from test_serving import photo

from eczema_tf.data.photo.upright import upright_jpeg
from eczema_tf.reporting.answer import Answer
from eczema_tf.schema import NOTICE
from eczema_tf.serving import reading
from eczema_tf.serving.cases import Said
from eczema_tf.serving.exported import ExportedModel
from eczema_tf.serving.page.page import (
    MAX_CHARACTERS,
    MAX_PHOTOS,
    PAGE_EXAMPLES,
    draw_example_photo,
    mount_page,
)
from eczema_tf.serving.rest.app import build_app
from eczema_tf.serving.rest.batching import Busy
from eczema_tf.serving.rest.limits import Limits
from eczema_tf.workflows.serve import mount_answers

LIMITS = Limits(max_body_bytes=4_000_000)
PATIENCE_S = 60
BYTES = {"Content-Type": "application/octet-stream"}
JSON = {"Content-Type": "application/json"}
JUNK = {
    "nothing": b"",
    "short": b"\0",
    "text": b"<script>alert(1)</script>" * 9,
    "gif": b"GIF89a" + bytes(99),
    "jpeg": b"\xff\xd8\xff" + b"not a photo" * 50,
    "png": b"\x89PNG\r\n\x1a\n" + bytes(99),
}


@pytest.fixture(scope="module")
def model(small_export: Path) -> ExportedModel:
    return ExportedModel(small_export)


@pytest.fixture(scope="module")
def client(model: ExportedModel) -> Iterator[TestClient]:
    app = build_app(model, LIMITS, mount=partial(mount_answers, model, LIMITS))
    with TestClient(app) as client:
        yield client


def question(image: bytes = b"", text: str = "") -> dict[str, Any]:
    """Builds the body that the page's script sends."""
    encoded = {"b64": base64.b64encode(image).decode()} if image else ""
    return {"instances": [{"image": encoded, "text": text}]}


def ask(client: TestClient, image: bytes = b"", text: str = "", **options: Any) -> Any:
    return client.post("/page/answer", json=question(image, text), **options)


def preview(client: TestClient, data: bytes) -> Any:
    return client.post("/page/preview", content=data, headers=BYTES)


# The page.


class Tags(HTMLParser):
    """Collects a page's tags and attributes, and the inline text of its scripts and styles."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style"):
            self.inline += data.strip()


def test_page_loads_nothing_from_other_sites(client: TestClient):
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    loaded = [
        attributes.get("src") or attributes["href"]
        for tag, attributes in Tags(page.text).tags
        if tag in ("script", "link")
    ]
    assert loaded == ["data:,", "page/answer.css", "page/page.css", "page/page.js"]
    for address in loaded[1:]:
        file = client.get(f"/{address}")
        assert file.status_code == 200
        assert file.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"https?://|url\((?!#)|@import|import ", file.text)


def test_security_policy_has_no_exceptions_and_the_page_needs_none(client: TestClient):
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    tags = Tags(page.text)
    assert tags.inline == ""
    names = {name for _, attributes in tags.tags for name in attributes}
    assert not {name for name in names if name.startswith("on") or name == "style"}
    assert page.headers["referrer-policy"] == "no-referrer"
    allowed = "camera=(self), microphone=(), geolocation=()"
    assert page.headers["permissions-policy"] == allowed
    assert page.headers["cross-origin-resource-policy"] == "same-origin"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["cache-control"] == "no-store"


def test_page_has_the_notice_the_limits_and_a_noscript_message(client: TestClient):
    page = client.get("/").text
    assert page.count(NOTICE) == 3  # in the header, in the footer, and for a missing answer
    assert f'maxlength="{MAX_CHARACTERS}"' in page
    assert f'data-max-photo-bytes="{int(0.7 * LIMITS.max_body_bytes)}"' in page
    assert re.search(r"<noscript>.*needs JavaScript.*</noscript>", page)
    assert client.head("/").status_code == 200


def test_examples_are_listed_and_their_photo_is_small_and_readable(client: TestClient):
    buttons = [attributes for _, attributes in Tags(client.get("/").text).tags]
    filled = [(tag.get("data-photo"), tag["data-text"]) for tag in buttons if "data-text" in tag]
    assert filled == [
        ("page/example.jpg" if example.has_photo else "", example.text) for example in PAGE_EXAMPLES
    ]
    drawn = client.get("/page/example.jpg")
    assert drawn.headers["content-type"] == "image/jpeg"
    assert drawn.content == draw_example_photo()
    assert len(drawn.content) < 100_000
    assert upright_jpeg(drawn.content)


@pytest.mark.parametrize(
    "path",
    [
        "/config",
        "/openapi.json",
        "/docs",
        "/favicon.ico",
        "/nothing",
        "/page",
        "/page/",
        "/page/page.py",
        "/page/templates/page.html.j2",
        "/page/..%2fpage.py",
        "/page/%2fetc%2fpasswd",
    ],
)
def test_paths_that_the_page_does_not_need_are_404(client: TestClient, path: str):
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json() == {"error": "Not Found"}


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/page/example.jpg"])
def test_page_and_its_files_accept_no_post(client: TestClient, path: str):
    assert client.post(path, json={"data": []}).status_code == 405


@pytest.mark.parametrize("path", ["/page/preview", "/page/answer"])
def test_post_endpoints_refuse_other_methods(client: TestClient, path: str):
    assert client.get(path).status_code == 404
    answer = client.delete(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_rest_api_works_with_the_page_mounted(client: TestClient):
    answer = client.post("/v1/models/eczema:predict", json=question(text="itchy"))
    assert answer.json()["predictions"][0]["status"] == "ok"
    assert client.get("/healthz").json() == {"status": "live"}
    assert client.get("/v1/nothing").status_code == 404


# Photos.


def test_preview_is_upright_without_metadata_and_idempotent(client: TestClient):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    exif[0x010E] = "Xanthippe's arm"
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), "salmon").save(buffer, "JPEG", exif=exif)
    shown = preview(client, buffer.getvalue())
    assert shown.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(shown.content)).size == (40, 60)
    assert b"Xanthippe" in buffer.getvalue()
    assert b"Xanthippe" not in shown.content
    assert preview(client, shown.content).content == shown.content


@pytest.mark.parametrize("kind", JUNK)
def test_preview_refuses_a_file_that_is_not_a_photo_with_a_reason(client: TestClient, kind: str):
    answer = preview(client, JUNK[kind])
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("photo ")


def test_photo_too_large_as_sent_or_as_upright_jpeg_is_refused(client: TestClient):
    answer = preview(client, bytes(LIMITS.max_body_bytes + 1))
    assert answer.status_code == 413
    large = photo("JPEG", (2400, 2000))
    assert 0.7 * LIMITS.max_body_bytes < len(large) < LIMITS.max_body_bytes
    answer = preview(client, large)
    assert answer.status_code == 422
    assert "larger than 2.8 MB" in answer.json()["error"]


# Answers.


def test_answer_is_html_with_the_notice_and_without_scripts(client: TestClient):
    answer = ask(client, upright_jpeg(photo()), "itchy <script>alert(1)</script>")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert NOTICE in answer.text
    assert "alone" not in answer.text
    names = {name for _, attributes in Tags(answer.text).tags for name in attributes}
    assert not {name for name in names if name.startswith("on") or name == "style"}
    assert "<script" not in answer.text


def test_unreadable_photo_is_reported_and_the_text_is_still_answered(client: TestClient):
    answer = ask(client, JUNK["jpeg"], "itchy")
    assert answer.status_code == 200
    assert "Photo cannot be read" in answer.text
    body = question(JUNK["jpeg"], "itchy")
    body["instances"][0]["image"] = [body["instances"][0]["image"]] * 2
    several = client.post("/page/answer", json=body)
    assert "Photo 1: cannot be read" in several.text
    assert "hoto 2: cannot be read" in several.text
    refused = "The photo could not be used, so this answer comes from the text alone"
    assert refused in answer.text
    assert refused in ask(client, text="itchy", params={"photo_refused": "true"}).text
    without = ask(client, text="itchy", params={"photo_refused": "false"}).text
    assert "There was no photo, so this answer comes from the text alone" in without


def build_client(
    model: ExportedModel,
    answer: Callable[[bytes, str, str], Awaitable[Answer]],
    limits: Limits = LIMITS,
    **said: Any,
) -> TestClient:
    """Builds a client of a page that gets its answers from a function instead of a model."""
    mount = partial(mount_page, answer=answer, limits=limits, said=Said(**said))
    return TestClient(build_app(model, limits, mount=mount))


@pytest.mark.parametrize(
    ("uses", "hidden", "examples"),
    [(("image", "text"), [], 3), (("text",), ["photo"], 1), (("image",), ["symptoms"], 1)],
)
def test_page_hides_inputs_that_the_model_cannot_use(model, uses, hidden: list[str], examples: int):
    page = build_client(model, None, uses=uses).get("/").text
    assert re.findall(r'<div id="(\w+)"[^>]* hidden>', page) == hidden
    assert page.count("data-photo=") == examples


def test_number_of_photos_decoded_at_once_is_limited(
    model: ExportedModel, room: Any, monkeypatch: pytest.MonkeyPatch
):
    def decode(data: bytes) -> bytes:
        room.visit()
        return data

    async def never(image: bytes, text: str, clinical: str) -> Answer:
        raise AssertionError

    monkeypatch.setattr(reading, "upright_jpeg", decode)
    monkeypatch.setattr(reading, "PHOTOS_AT_ONCE", 2)
    with build_client(model, never) as client, ThreadPoolExecutor(8) as threads:
        post = partial(preview, client, b"photo")
        answers = [threads.submit(post) for _ in range(16)]
    assert [answer.result().content for answer in answers] == [b"photo"] * 16
    assert room.most <= 2


def test_empty_and_overlong_questions_never_reach_the_model(model: ExportedModel):
    async def never(image: bytes, text: str, clinical: str) -> Answer:
        raise AssertionError

    client = build_client(model, never)
    for text in ("", "  \n"):
        answer = ask(client, text=text)
        assert (answer.status_code, answer.json()["error"]) == (
            422,
            "give a photo, a text, or both",
        )
    answer = ask(client, text="x" * (MAX_CHARACTERS + 1))
    assert (answer.status_code, answer.json()["error"]) == (
        422,
        "the text has 5,001 characters; at most 5,000 are read: shorten it",
    )
    answer = ask(client, JUNK["gif"], " ")
    assert answer.status_code == 422
    assert re.fullmatch(r"photo .*; give a photo, a text, or both", answer.json()["error"])


def test_longest_text_and_most_photos_are_answered_but_not_one_more(client: TestClient):
    assert ask(client, text="x" * MAX_CHARACTERS).status_code == 200
    body = question(photo(), "itchy")
    image = body["instances"][0]["image"]
    for photos, code in ((MAX_PHOTOS, 200), (MAX_PHOTOS + 1, 400)):
        body["instances"][0]["image"] = [image] * photos
        assert client.post("/page/answer", json=body).status_code == code


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"instances": []}', b'{"data": 1}'])
def test_malformed_question_is_a_bad_request(client: TestClient, body: bytes):
    assert client.post("/page/answer", content=body, headers=JSON).status_code == 400


def test_question_with_two_rows_is_a_bad_request(client: TestClient):
    rows = {"instances": 2 * question(text="itchy")["instances"]}
    assert client.post("/page/answer", json=rows).status_code == 400


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Busy("256 rows are waiting; try again in a second"), 503, "256 rows are waiting"),
        (TimeoutError("no answer within 30 s"), 504, "no answer within 30 s"),
        (RuntimeError("Xanthippe wrote this"), 500, "internal error"),
    ],
)
def test_failures_become_messages_without_internal_details(
    model: ExportedModel, error: Exception, code: int, said: str, caplog: pytest.LogCaptureFixture
):
    async def fail(image: bytes, text: str, clinical: str) -> Answer:
        raise error

    answer = ask(build_client(model, fail), text="itchy")
    assert answer.status_code == code
    assert said in answer.json()["error"]
    assert "Traceback" not in answer.text
    assert "Xanthippe" not in answer.text + caplog.text


def test_answer_that_takes_too_long_times_out(model: ExportedModel):
    async def wait(image: bytes, text: str, clinical: str) -> Answer:
        await asyncio.sleep(PATIENCE_S)
        raise AssertionError

    answer = ask(build_client(model, wait, Limits(answer_timeout_s=0.2)), text="itchy")
    assert (answer.status_code, answer.json()["error"]) == (504, "no answer within 0.2 s")


# Requests from other sites, and files left behind.

HOST = "assistant.example:8501"
ALLOWED = [
    {},  # not a browser
    {"Sec-Fetch-Site": "same-origin"},
    {"Origin": f"http://{HOST}"},  # a browser over plain HTTP
    {"Origin": "https://proxy.example", "Sec-Fetch-Site": "same-origin"},
]
REFUSED = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": f"http://{HOST}"},
    {"Origin": "http://elsewhere.example"},
    {"Origin": f"http://{HOST}.elsewhere.example"},
    {"Origin": "http://assistant.example:8502"},
    {"Origin": "null"},
    {"Origin": "http://[::1"},
    {"Origin": ""},
]


@pytest.mark.parametrize(("path", "kind"), [("/page/preview", BYTES), ("/page/answer", JSON)])
@pytest.mark.parametrize("headers", [*ALLOWED, *REFUSED], ids=str)
def test_requests_from_pages_of_other_sites_are_refused(
    client: TestClient, path: str, kind: dict[str, str], headers: dict[str, str]
):
    answer = client.post(path, content=b"", headers={"Host": HOST, **kind, **headers})
    if headers in REFUSED:
        assert answer.status_code == 403
        assert answer.json() == {"error": "only this server's own page may send this request"}
    else:
        assert answer.status_code in (400, 422)
    assert not [name for name in answer.headers if name.startswith("access-control")]


written: list[str] = []  # files that this process opened for writing


def note_writing(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        written.append(str(arguments[0]))


def test_nothing_is_written_to_disk(client: TestClient):
    large = photo("PNG", (800, 800))
    assert len(large) > 1_500_000  # more than Starlette's form parser would keep in memory
    sys.addaudithook(note_writing)
    written.clear()
    shown = preview(client, large)
    preview(client, JUNK["jpeg"])
    answer = ask(client, shown.content, "itchy")
    assert (shown.status_code, answer.status_code) == (200, 200)
    assert written == []
