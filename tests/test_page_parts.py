"""What the web page is made of, without a browser: answers and their explanations, HTML, photos, the gate, and what goes wrong."""

import asyncio
import base64
import io
import os
import re
import time
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient
from test_serving import build_parts, photo

from eczema_tf.config import PreprocessConfig
from eczema_tf.data.photo.inspection import upright_jpeg
from eczema_tf.errors import DataError
from eczema_tf.explanation.one_pass import explain_in_one_pass
from eczema_tf.explanation.submodels import Submodels
from eczema_tf.files import write_json
from eczema_tf.schema import NOTICE
from eczema_tf.serve import mount_answers
from eczema_tf.serving.answering import answer_case
from eczema_tf.serving.client import SIDE_FILE
from eczema_tf.serving.graph.served_model import ServedModel, save_served
from eczema_tf.serving.loaded import LoadedModel
from eczema_tf.serving.page.events import MAX_CHARACTERS, Events, fill
from eczema_tf.serving.page.examples import EXAMPLES, draw_example_photo
from eczema_tf.serving.page.gate import sweep
from eczema_tf.serving.page.html import format_percent, format_signed
from eczema_tf.serving.page.photo import forget_file, read_photo, show_photo
from eczema_tf.serving.page.pictures import HEATMAP_SIDE_PX, paint_heatmap, shrink_photo
from eczema_tf.serving.page.sections import format_answer
from eczema_tf.serving.rest.app import build_app
from eczema_tf.serving.rest.batching import Busy
from eczema_tf.serving.rest.limits import Limits

THRESHOLDS = {"image": 0.4, "text": 0.5, "fusion": 0.6}
TEXT = "My skin is itchy and dry. No fever. My mother has asthma."


def save_small_export(folder: Path) -> Path:
    """A small real model with both signatures; the browser's tests use it, too."""
    model, image, tokenizer = build_parts()
    for head in ("eczema", "eczema_image", "eczema_text"):  # so that no probability is 0 or 1
        model.get_layer(head).kernel.assign(model.get_layer(head).kernel / 10)
    explainer = partial(explain_in_one_pass, Submodels(model))
    save_served(
        ServedModel(model, image, tokenizer, PreprocessConfig(), explainer=explainer), folder
    )
    write_json(
        folder / SIDE_FILE,
        {"notice": NOTICE, "labels": {}, "thresholds": THRESHOLDS, "environment": {}},
    )
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return LoadedModel(save_small_export(tmp_path_factory.mktemp("export") / "1"))


def explain(model: LoadedModel, image: bytes, text: str) -> dict[str, Any]:
    async def ask(images, texts, signature):
        return model.run(images, texts, signature)

    return asyncio.run(answer_case(ask, image, text, THRESHOLDS))


# The answer.


def test_the_answer_is_the_models(model: LoadedModel):
    image = upright_jpeg(photo())
    answer, row = explain(model, image, TEXT), model.run([image], [TEXT])
    assert answer["eczema"] == pytest.approx(
        {"image": row["eczema_image"][0], "text": row["eczema_text"][0], "fusion": row["eczema"][0]}
    )
    assert list(answer["severity"].values()) == pytest.approx(row["severity"][0])
    assert answer["notice"] == NOTICE
    assert answer["thresholds"] == THRESHOLDS


def test_contributions_add_up_and_follow_the_rows_with_one_modality_missing(model: LoadedModel):
    image = upright_jpeg(photo())
    split = explain(model, image, TEXT)["contributions"]
    assert split["neither"] + split["image"] + split["text"] == pytest.approx(
        split["logit"], abs=1e-6
    )
    rows = model.run([image, image, b"", b""], [TEXT, "", TEXT, ""])["eczema"].astype("float64")
    both, image_only, text_only, neither = np.log(rows / (1 - rows))
    assert split["image"] == pytest.approx((image_only - neither + both - text_only) / 2, abs=1e-4)
    assert split["without_text"] == pytest.approx(image_only - both, abs=1e-4)


def test_what_is_missing_moves_nothing(model: LoadedModel):
    text_only, image_only = explain(model, b"", TEXT), explain(model, upright_jpeg(photo()), "")
    assert text_only["contributions"]["image"] == pytest.approx(0, abs=1e-5)
    assert image_only["contributions"]["text"] == pytest.approx(0, abs=1e-5)
    assert "heatmap" not in text_only
    assert "text" not in image_only


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "Größe\tİtchy — ½ naïve  café, itchy-dry <b>red</b> 皮膚 rash!",
        "itchiness\n\n\nredder",
    ],
)
def test_words_are_whole_words_of_the_text_as_it_was_written(model: LoadedModel, text: str):
    words = explain(model, b"", text)["text"]["words"]
    assert words
    for word, after in zip(words, [*words[1:], None], strict=True):
        assert word["text"] == text[word["start"] : word["end"]]
        assert word["text"].strip()
        assert after is None or word["end"] <= after["start"]
        if (
            after is not None and word["end"] == after["start"]
        ):  # split within what is written together: only at punctuation or CJK
            assert not (
                text[word["end"] - 1].isascii()
                and text[word["end"] - 1].isalnum()
                and text[word["end"]].isalnum()
            )


def test_scores_of_words_add_up_to_those_of_their_tokens(model: LoadedModel):
    words = explain(model, b"", TEXT)["text"]["words"]
    row = model.run([b""], [TEXT], "explain")
    in_text = row["token_end"][0] > row["token_start"][0]
    assert in_text.sum() > len(words)  # some words are made of pieces
    assert sum(word["score"] for word in words) == pytest.approx(
        float(row["token_score"][0][in_text].sum()), abs=1e-5
    )


def test_cues_say_what_is_present_denied_and_in_the_family(model: LoadedModel):
    cues = explain(model, b"", TEXT)["text"]["cues"]
    assert [(cue["text"].lower(), cue["status"], cue["subject"]) for cue in cues][:2] == [
        ("itchy", "present", "patient"),
        ("dry", "present", "patient"),
    ]
    assert ("asthma", "present", "family") in [
        (cue["text"], cue["status"], cue["subject"]) for cue in cues
    ]
    assert all(isinstance(cue["describes"], str) for cue in cues)


# HTML.


def test_certainty_is_never_claimed_and_nothing_has_no_sign():
    assert [format_percent(value) for value in (0, 0.004, 0.01, 0.5, 0.99, 0.996, 1)] == [
        "under 1%",
        "under 1%",
        "1%",
        "50%",
        "99%",
        "over 99%",
        "over 99%",
    ]
    assert [format_signed(value) for value in (1.234, -0.5, -0.001, 0.0)] == [
        "+1.23",
        "−0.50",
        "0.00",
        "0.00",
    ]


class Tags(HTMLParser):
    """Keeps the tags and the visible text of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


HARMLESS = {
    "div",
    "h2",
    "h3",
    "p",
    "strong",
    "small",
    "section",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "span",
    "b",
    "i",
    "mark",
    "details",
    "summary",
    "dl",
    "dt",
    "dd",
}


@given(st.text(max_size=80), st.text(st.sampled_from("<>&\"'/=itchy drno "), max_size=80))
@settings(max_examples=40, deadline=None)
def test_whatever_is_written_is_shown_and_not_run(model: LoadedModel, any_text: str, markup: str):
    text = f"itchy {any_text} <img src=x onerror=alert(1)><script>alert(2)</script> {markup}"
    page = Tags(format_answer(explain(model, b"", text), b"", text, []))
    assert {tag for tag, _ in page.tags} <= HARMLESS
    assert not [
        name
        for _, attributes in page.tags
        for name in attributes
        if name.startswith("on") or name in ("src", "href")
    ]
    assert "<script>alert(2)</script>" in re.sub(r" \((for|against)\)", "", page.text)


def test_every_answer_has_the_notice_and_says_what_was_missing(model: LoadedModel):
    image = upright_jpeg(photo())
    both = format_answer(explain(model, image, TEXT), image, TEXT, [])
    assert NOTICE in both
    assert "alone" not in both
    assert "from the photo alone" in format_answer(explain(model, image, ""), image, "", [])
    assert "There was no photo: this answer is from the text alone" in format_answer(
        explain(model, b"", TEXT), b"", TEXT, []
    )
    refused = format_answer(explain(model, b"", TEXT), b"", TEXT, ["photo cannot be read"])
    assert "Photo cannot be read." in refused
    assert "The photo could not be used: this answer is from the text alone" in refused


def test_a_status_of_the_model_is_said(model: LoadedModel):
    answer = explain(model, b"\xff\xd8\xff" + bytes(99), TEXT)
    assert "Photo: cannot be decoded." in format_answer(answer, b"", TEXT, [])


def test_a_threshold_is_named_with_its_side(model: LoadedModel):
    answer = {**explain(model, b"", TEXT), "eczema": {"image": None, "text": 0.5, "fusion": 0.59}}
    page = format_answer(answer, b"", TEXT, [])
    assert "59%" in page
    assert "below the threshold of 60%" in page
    assert "above the threshold of 50%" in page
    assert "threshold" not in re.sub(
        r"<p class='soft'>.*?</p>", "", format_answer({**answer, "thresholds": None}, b"", TEXT, [])
    )


# Pictures.


def decode(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_the_heatmap_is_clear_where_there_is_no_evidence_and_lies_where_the_grid_says():
    grid = np.zeros((4, 4))
    grid[0, 3] = 1.0
    pixels = np.asarray(decode(paint_heatmap(grid.tolist())))
    assert pixels.shape == (HEATMAP_SIDE_PX, HEATMAP_SIDE_PX, 4)
    assert pixels[0, -1].tolist() == [253, 231, 36, 255]  # the last colour of viridis, opaque
    assert not pixels[HEATMAP_SIDE_PX // 2 :, :, 3].any()
    assert not np.asarray(decode(paint_heatmap([[0.0]])))[..., 3].any()


def test_large_photos_are_shown_no_larger_than_a_screen():
    buffer = io.BytesIO()
    Image.new("RGB", (4000, 1000), "salmon").save(buffer, "JPEG")
    assert decode(shrink_photo(buffer.getvalue())).size == (1024, 256)
    assert decode(shrink_photo(upright_jpeg(photo()))).size == (60, 44)


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
    return Events(answer, NOTICE, tmp_path, 0.2)


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
    async def fail(image: bytes, text: str) -> dict[str, Any]:
        raise error

    page = asyncio.run(events(tmp_path, fail).ask(None, "itchy", ""))
    assert said in page
    assert NOTICE in page
    assert "Traceback" not in page
    assert "Xanthippe" not in page + caplog.text


def test_an_answer_that_does_not_come_is_given_up(tmp_path: Path):
    async def wait(image: bytes, text: str) -> dict[str, Any]:
        await asyncio.sleep(60)

    assert "no answer within" in asyncio.run(events(tmp_path, wait).ask(None, "itchy", ""))


def test_nothing_and_too_much_are_refused_before_the_model_is_asked(tmp_path: Path):
    async def never(image: bytes, text: str) -> dict[str, Any]:
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
def client(model: LoadedModel) -> Iterator[TestClient]:
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


def test_the_page_asks_in_the_same_batches_and_under_the_same_limits(model: LoadedModel):
    asked = []

    def run(images, texts, signature):
        asked.append((list(texts), signature))
        return model.run(images, texts, signature)

    pretended = SimpleNamespace(
        run=run, folder=model.folder, version=model.version, side=model.side
    )
    limits = Limits(max_waiting_rows=0)
    app = build_app(pretended, limits)
    with TestClient(app) as client, pytest.raises(Busy):
        client.portal.call(answer_case, app.state.batcher.ask, b"", "itchy", THRESHOLDS)
    assert asked == []
    app = build_app(pretended)
    with TestClient(app) as client:
        client.portal.call(answer_case, app.state.batcher.ask, b"", "itchy", THRESHOLDS)
    assert sorted(asked, key=lambda batch: batch[1]) == [
        (["itchy"], "explain"),
        (["", "itchy", ""], "serving_default"),
    ]
