"""Tests of the page in a real browser: on phones and desktops, by keyboard, and with axe-core."""

import base64
import contextlib
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import uvicorn
from PIL import Image
from test_answer import THRESHOLDS

from eczema_tf.data.photo.upright import upright_jpeg
from eczema_tf.reporting.html import format_percent
from eczema_tf.schema import NOTICE
from eczema_tf.serving.exported import ExportedModel
from eczema_tf.serving.rest.app import build_app
from eczema_tf.serving.rest.limits import Limits
from eczema_tf.serving.rest.server import bind
from eczema_tf.workflows.serve import mount_answers

playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright (pip install -r requirements-browser.txt)"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)"
)

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
PATIENCE_S = 60
TEXT = "My skin is itchy and dry. No fever. My mother has asthma."
MAX_FILE_BYTES = 700_000
ELSEWHERE = "192.0.2.1"  # an address reserved for documentation (RFC 5737)
LOOPBACK = ("127.0.0.1", "::1", "localhost")

connected: list[Any] = []  # hosts that this process, which runs the server, connected to


def _note_connection(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        connected.append(arguments[1][0])


@pytest.fixture(scope="module")
def model(small_export: Path) -> ExportedModel:
    return ExportedModel(small_export)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for the server's temporary files; it must be empty once the server has stopped."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def address(model: ExportedModel, scratch: Path) -> Iterator[str]:
    sys.addaudithook(_note_connection)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(scratch))
        with serving(model) as address:
            yield address
    assert list(scratch.rglob("*")) == []


@contextlib.contextmanager
def serving(model: ExportedModel) -> Iterator[str]:
    limits = Limits(max_body_bytes=1_000_000)
    app = build_app(model, limits, mount=partial(mount_answers, model, limits))
    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, ws="none", log_config=None))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def clinical_model(told_export: Path) -> ExportedModel:
    return ExportedModel(told_export)


@pytest.fixture(scope="module")
def clinical_address(clinical_model: ExportedModel, address: str) -> Iterator[str]:
    with serving(clinical_model) as own:
        yield own


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def requested() -> list[str]:
    """The URLs that any page has requested."""
    return []


def note_violation(message: Any, faults: list[str]) -> None:
    """Records a violation of the page's Content-Security-Policy, unless a test provokes it."""
    if "Content Security Policy" in message.text and ELSEWHERE not in message.text:
        faults.append(message.text)


@pytest.fixture
def visit(browser: Any, address: str, requested: list[str]) -> Iterator[Callable[..., Any]]:
    """Returns a function that opens the page in a fresh browser context."""
    with contextlib.ExitStack() as stack:

        def go(viewport: dict[str, int] = DESKTOP, to: str = address, **options: Any) -> Any:
            context = browser.new_context(viewport=viewport, reduced_motion="reduce", **options)
            stack.callback(context.close)
            context.set_default_timeout(PATIENCE_S * 1000)
            context.on("request", lambda request: requested.append(request.url))
            page = context.new_page()
            faults: list[str] = []
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda message: note_violation(message, faults))
            # Playwright intercepts the file chooser from the start: if interception is turned on
            # just before a key press, it can come too late (one time in six on a busy machine).
            page.on("filechooser", lambda chooser: None)
            stack.callback(lambda: pytest.fail(f"errors in the page: {faults}") if faults else None)
            page.goto(to)
            page.get_by_role("button", name="Ask").wait_for()
            return page

        yield go


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "arm.png"
    pixels = np.random.default_rng(3).integers(60, 200, (90, 120, 3)).astype("uint8")
    pixels[20:60, 30:80] = (200, 60, 60)
    Image.fromarray(pixels).save(path)
    return path


def choose(page: Any, path: Path) -> None:
    page.locator("#file").set_input_files(path)
    wait_for_photo(page)


def wait_for_photo(page: Any) -> None:
    page.locator("#preview[src^='blob:']").wait_for()


def write(page: Any, text: str) -> None:
    page.get_by_label("Symptoms, in your own words").fill(text)


def ask(page: Any) -> Any:
    """Asks, and returns the answer once it has the focus."""
    page.get_by_role("button", name="Ask", exact=True).click()
    return wait_for_answer(page)


def wait_for_answer(page: Any) -> Any:
    page.locator(".answer:not(.empty) > #answer-title:focus").wait_for()
    return page.locator(".answer")


def wait_until(page: Any, expression: str) -> None:
    """Waits until a JavaScript expression is true (`wait_for_function` needs `unsafe-eval`)."""
    for _ in range(PATIENCE_S * 20):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"not true within {PATIENCE_S} s: {expression}")


# The dialog's "close" event, which turns the camera off, fires after the focus has moved.
CAMERA_IS_OFF = "document.querySelector('video').srcObject === null"


def has_no_overflow(page: Any) -> bool:
    return page.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )


def shown_percents(answer: Any) -> list[str]:
    """Returns the percentages shown for the photo, the text and both."""
    cells = answer.locator("section:has(#eczema-title) tr > :last-child").all()
    return [re.match(r"\D*\d+%|none used", cell.inner_text())[0] for cell in cells]


def read_shown_text(answer: Any) -> str:
    """Returns the text shown in the answer, without the parts for screen readers only."""
    return answer.locator(".told").evaluate(
        "e => { const copy = e.cloneNode(true); copy.querySelectorAll('.sr').forEach(said =>"
        " said.remove()); return copy.textContent; }"
    )


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["390", "1280"])
def test_photo_and_text_are_answered_and_explained(
    visit, model: ExportedModel, photo: Path, viewport: dict[str, int]
):
    page = visit(viewport)
    choose(page, photo)
    write(page, TEXT)
    answer = ask(page)

    row = model.run([upright_jpeg(photo.read_bytes())], [TEXT])
    assert shown_percents(answer) == [
        format_percent(float(row[head][0])) for head in ("eczema_image", "eczema_text", "eczema")
    ]
    side = "above" if row["eczema"][0] >= THRESHOLDS["fusion"] else "below"
    decision = row["decision"][0].decode()
    assert answer.locator(".lead").inner_text().startswith(decision.capitalize())
    assert f"{side} the threshold of 60%" in answer.locator(".lead + p").inner_text()
    for words in (
        "mild",
        "moderate",
        "severe",
        "unclear",
        "Starting point",
        "The photo",
        "The text",
        "Together",
    ):
        assert answer.get_by_role("rowheader", name=words, exact=True).count() == 1, words

    assert read_shown_text(answer) == TEXT
    assert answer.locator(".told mark").count() > 0
    for mark in answer.locator(".told mark").all():
        assert mark.locator(".sr").text_content() == f" ({mark.get_attribute('class')})"

    chips = [chip.inner_text() for chip in answer.locator(".chip").all()]
    assert "✓ itchy mentioned" in chips
    assert "✓ asthma mentioned, in the family" in chips
    assert page.get_by_text(NOTICE).count() == 3  # in the header, above the answer, in the footer
    assert NOTICE in answer.locator(".notice").inner_text()
    assert has_no_overflow(page)


def test_columns_are_side_by_side_on_a_desktop_and_stacked_on_a_phone(visit):
    for viewport, side_by_side in ((DESKTOP, True), (PHONE, False)):
        question, result = (
            visit(viewport).locator(name).bounding_box() for name in ("#question", "#result")
        )
        assert (result["x"] >= question["x"] + question["width"]) == side_by_side
        assert (result["y"] >= question["y"] + question["height"]) != side_by_side


def test_heatmap_covers_the_photo_and_its_opacity_can_be_changed(visit, photo: Path):
    page = visit()
    choose(page, photo)
    answer = ask(page)
    below, above = (image.bounding_box() for image in answer.locator(".heat img").all())
    assert below == above
    assert below["width"] / below["height"] == pytest.approx(120 / 90, abs=0.02)
    heat, slider = answer.locator(".heat .map"), answer.get_by_label("Opacity of the heatmap")
    assert heat.evaluate("e => e.naturalWidth") > 0
    assert heat.evaluate("e => getComputedStyle(e).opacity") == "0.6"
    slider.fill("0")
    assert heat.evaluate("e => getComputedStyle(e).opacity") == "0"
    assert answer.locator("output").inner_text() == "0%"
    where = answer.locator("figcaption").inner_text()
    assert re.search(r"strongest at the|No evidence", where)
    assert answer.locator(".heat img").first.get_attribute("alt") in f"The photo, upright. {where}"


def test_answer_to_a_photo_without_text(visit, photo: Path):
    page = visit()
    choose(page, photo)
    answer = ask(page)
    assert "from the photo alone" in answer.inner_text()
    assert shown_percents(answer)[1] == "none used"
    assert answer.locator(".heat").count() == 1
    assert answer.locator(".told").count() == 0


def test_answer_to_a_text_without_photo(visit):
    page = visit(PHONE)
    write(page, TEXT)
    answer = ask(page)
    assert "There was no photo, so this answer comes from the text alone" in answer.inner_text()
    assert shown_percents(answer)[0] == "none used"
    assert answer.locator(".heat").count() == 0
    assert answer.locator(".told mark").count() > 0


def test_unreadable_photo_is_reported_and_the_text_is_still_answered(
    visit, photo: Path, tmp_path: Path
):
    bad = tmp_path / "broken.jpg"
    bad.write_bytes(b"\xff\xd8\xff" + b"not a photo" * 50)
    page = visit()
    page.locator("#file").set_input_files(bad)
    page.locator("#fault [role=alert]", has_text="Photo cannot be read").wait_for()
    assert page.locator("#status").text_content() == ""  # no longer reading
    write(page, TEXT)
    answer = ask(page)
    refused = "The photo could not be used, so this answer comes from the text alone"
    assert refused in answer.inner_text()
    assert answer.locator(".told mark").count() > 0
    choose(page, photo)  # a good photo removes the message
    assert page.locator("#fault .fault").count() == 0
    assert "alone" not in ask(page).inner_text()


def test_oversized_photo_is_refused_with_the_limit(visit, tmp_path: Path):
    large = tmp_path / "large.jpg"
    large.write_bytes(b"\xff\xd8\xff" + bytes(MAX_FILE_BYTES))
    page = visit()
    page.locator("#file").set_input_files(large)
    page.get_by_text("Photo is larger than 0.7 MB: choose a smaller one.").wait_for()
    assert "Give a photo, a text, or both." in ask(page).inner_text()


def test_file_deleted_after_it_was_chosen_is_reported(visit, photo: Path, tmp_path: Path):
    gone = tmp_path / "gone.png"
    gone.write_bytes(photo.read_bytes())
    page = visit()

    def delete_other(route: Any) -> None:
        gone.unlink(missing_ok=True)
        route.continue_()

    page.route("**/page/preview", delete_other)  # while the first file is being read
    page.locator("#file").set_input_files([photo, gone])
    page.get_by_text("The file can no longer be read; is it still there?", exact=True).wait_for()
    assert page.locator("#status").text_content() == ""
    assert page.locator("#preview").is_visible()


def test_asking_without_photo_or_text_shows_a_message(visit):
    answer = ask(visit())
    assert "Give a photo, a text, or both." in answer.inner_text()
    assert NOTICE in answer.inner_text()


def test_desktop_camera_takes_a_photo_and_is_turned_off(visit):
    page = visit(permissions=["camera"])
    page.get_by_role("button", name="Camera").click()
    dialog = page.get_by_role("dialog", name="Take a photo")
    dialog.get_by_role("button", name="Take photo").click()  # waits until the camera is on
    wait_for_photo(page)
    assert dialog.count() == 0
    wait_until(page, CAMERA_IS_OFF)
    assert "from the photo alone" in ask(page).inner_text()


def test_camera_dialog_can_be_closed_without_taking_a_photo(visit):
    page = visit(permissions=["camera"])
    page.get_by_role("button", name="Camera").click()
    page.locator("#shoot:focus").wait_for()
    page.keyboard.press("Escape")
    page.locator("#camera:focus").wait_for()
    wait_until(page, CAMERA_IS_OFF)
    assert page.locator("#preview").is_hidden()


SLOW_CAMERA = """() => {
  window.streams = [];
  const open = () => {
    const stream = document.createElement("canvas").captureStream();
    streams.push(stream);
    return stream;
  };
  navigator.mediaDevices.getUserMedia = () => new Promise((done) => {
    setTimeout(() => done(open()), 300);
  });
}"""


def test_every_camera_stream_ends_if_the_dialog_is_reopened_too_soon(visit):
    page = visit()
    page.evaluate(SLOW_CAMERA)
    page.get_by_role("button", name="Camera").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Camera").click()
    wait_until(page, "streams.length === 2")
    page.keyboard.press("Escape")
    page.locator("#camera:focus").wait_for()
    tracks = "streams.flatMap((stream) => stream.getTracks())"
    wait_until(page, f"{tracks}.filter((track) => track.readyState === 'ended').length === 2")


def test_removing_the_photo_ends_the_wait_for_its_answer(visit, photo: Path):
    page = visit()
    page.locator("#file").set_input_files(photo)
    wait_for_photo(page)
    held = hold(page, "**/page/answer?*")
    page.get_by_role("button", name="Ask", exact=True).click()
    wait_for_held(page, held, 1)
    with page.expect_event("requestfailed", lambda request: request == held[0].request):
        page.get_by_role("button", name="Remove the photo").click()
    assert page.locator("#result").get_attribute("aria-busy") == "false"
    assert page.locator("#status").inner_text() == ""


def test_going_back_in_the_browser_does_not_restore_the_text(visit):
    page = visit()
    write(page, TEXT)
    home = page.url
    page.goto("about:blank")
    page.goto(home)
    page.go_back()
    page.go_back()
    assert page.url == home
    assert page.locator("#text").input_value() == ""


def test_camera_button_on_a_phone_asks_for_the_rear_camera(visit, photo: Path):
    page = visit(PHONE, is_mobile=True, has_touch=True)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Camera").tap()
    assert chooser.value.element.get_attribute("capture") == "environment"
    chooser.value.set_files(photo)
    wait_for_photo(page)


def test_denied_camera_access_is_reported(visit):
    page = visit()
    page.evaluate("() => { navigator.mediaDevices.getUserMedia = async () => { throw Error(); } }")
    page.get_by_role("button", name="Camera").click()
    page.locator("#fault [role=alert]", has_text="The camera cannot be used").wait_for()
    write(page, TEXT)
    assert "There was no photo" in ask(page).inner_text()


COPY = """async () => {
  const canvas = Object.assign(document.createElement('canvas'), {width: 64, height: 64});
  canvas.getContext('2d').fillRect(8, 8, 40, 40);
  const blob = await new Promise(resolve => canvas.toBlob(resolve, 'image/png'));
  await navigator.clipboard.write([new ClipboardItem({'image/png': blob})]);
}"""


@pytest.mark.parametrize("way", ["button", "keys"])
def test_photo_can_be_pasted(visit, way: str):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    page.evaluate(COPY)
    if way == "button":
        page.get_by_role("button", name="Paste").click()
    else:
        page.keyboard.press("Control+V")
    wait_for_photo(page)
    assert "from the photo alone" in ask(page).inner_text()


def test_pasted_text_is_not_taken_for_a_photo(visit):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    page.evaluate("navigator.clipboard.writeText('itchy')")
    page.get_by_role("button", name="Paste").click()
    page.locator("#fault [role=alert]", has_text="No photo could be pasted").wait_for()
    page.get_by_label("Symptoms, in your own words").focus()
    page.keyboard.press("Control+V")
    page.locator("#preview").wait_for(state="hidden")
    assert page.get_by_label("Symptoms, in your own words").input_value() == "itchy"


DROP = """([selector, encoded]) => {
  const bytes = Uint8Array.from(atob(encoded), character => character.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], 'arm.png', {type: 'image/png'}));
  const event = new DragEvent('drop', {dataTransfer, bubbles: true, cancelable: true});
  return !document.querySelector(selector).dispatchEvent(event);
}"""


@pytest.mark.parametrize("selector", ["#drop", "footer"])
def test_photo_can_be_dropped_anywhere_on_the_page(visit, photo: Path, selector: str):
    page = visit()
    encoded = base64.b64encode(photo.read_bytes()).decode()
    assert page.evaluate(DROP, [selector, encoded])  # the browser must not open the file itself
    wait_for_photo(page)
    assert "from the photo alone" in ask(page).inner_text()


def test_photo_can_be_removed_and_chosen_again(visit, photo: Path):
    page = visit()
    choose(page, photo)
    assert page.locator("#drop").is_hidden()
    page.get_by_role("button", name="Remove the photo").click()
    page.locator("#drop:focus").wait_for()
    assert page.locator("#preview").is_hidden()
    choose(page, photo)  # the same photo can be chosen again


def test_three_photos_are_one_case_and_each_has_a_heatmap(visit, photo: Path, tmp_path: Path):
    page = visit(PHONE)
    choose(page, photo)
    another = tmp_path / "leg.png"
    Image.open(photo).rotate(180).save(another)
    page.locator("#file").set_input_files([another, photo])  # the first photo is kept
    page.locator("#preview-3[src^='blob:']").wait_for()
    assert page.get_by_role("button", name="Upload").is_disabled()
    encoded = base64.b64encode(photo.read_bytes()).decode()
    page.evaluate(DROP, ["footer", encoded])
    page.locator("#fault [role=alert]", has_text="At most 3 photos are allowed").wait_for()
    page.get_by_role("button", name="Remove the third photo").click()
    page.locator("#preview-3").wait_for(state="hidden")
    assert page.locator("#fault").inner_text() == ""
    page.locator("#file").set_input_files(another)
    page.locator("#preview-3[src^='blob:']").wait_for()
    assert has_no_overflow(page)
    write(page, TEXT)
    answer = ask(page)
    assert answer.locator(".heat").count() == 3
    assert "From the photos" in answer.inner_text()
    assert "Photo 3: " in answer.locator("figcaption").last.inner_text()
    answer.get_by_label("Opacity of the heatmaps").fill("0")
    for heat in answer.locator(".heat .map").all():
        assert heat.evaluate("e => getComputedStyle(e).opacity") == "0"
    assert has_no_overflow(page)
    assert find_faults(page) == []


def hold(page: Any, address: str) -> list[Any]:
    """Holds requests back, and returns the list that collects them; each has `continue_`."""
    held: list[Any] = []
    page.route(address, lambda route: held.append(route))
    return held


def wait_for_held(page: Any, held: list[Any], count: int) -> None:
    for _ in range(PATIENCE_S * 50):
        if len(held) == count:
            return
        page.wait_for_timeout(20)  # meanwhile Playwright calls the handler
    pytest.fail(f"{len(held)} requests instead of {count}")


def test_question_waits_until_its_photo_has_been_read(visit, photo: Path):
    page = visit()
    held = hold(page, "**/page/preview")
    page.locator("#file").set_input_files(photo)
    wait_for_held(page, held, 1)
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator("#result[aria-busy=true]").wait_for()
    held[0].continue_()
    assert "from the photo alone" in wait_for_answer(page).inner_text()


def test_photo_that_is_still_being_read_does_not_delay_the_next(visit, photo: Path, tmp_path: Path):
    page = visit()
    held = hold(page, "**/page/preview")
    (tmp_path / "bad.jpg").write_bytes(b"x" * 100)
    page.locator("#file").set_input_files(tmp_path / "bad.jpg")
    wait_for_held(page, held, 1)
    page.locator("#file").set_input_files(photo)
    wait_for_held(page, held, 2)
    held[1].continue_()
    wait_for_photo(page)
    assert page.locator("#fault").inner_text() == ""


def test_starting_over_cancels_the_pending_request(visit):
    page = visit()
    held = hold(page, "**/page/answer?*")
    write(page, TEXT)
    page.get_by_role("button", name="Ask", exact=True).click()
    wait_for_held(page, held, 1)
    with page.expect_event("requestfailed", lambda request: request == held[0].request):
        page.get_by_role("button", name="Start over").click()
    page.locator(".answer.empty").wait_for()
    assert page.locator("#result[aria-busy=true]").count() == 0


def test_network_and_server_errors_are_shown(visit):
    page = visit()
    write(page, TEXT)
    page.route("**/page/answer?*", lambda route: route.abort())
    answer = ask(page)
    assert answer.get_by_role("heading").inner_text() == "No answer"
    said = answer.get_by_role("alert").inner_text()
    assert "The server cannot be reached; is it still running?" in said
    assert "?." not in said
    assert NOTICE in answer.inner_text()
    page.route("**/page/answer?*", lambda route: route.fulfill(status=500, json={"error": "x y z"}))
    answer = ask(page)
    assert "Something went wrong on the server" in answer.get_by_role("alert").inner_text()
    assert "x y z" not in answer.inner_text()


def test_page_says_that_it_needs_javascript(visit):
    page = visit(java_script_enabled=False)
    assert "needs JavaScript" in page.locator("noscript .fault:visible").inner_text()


def test_example_is_answered_and_starting_over_clears_the_form(visit):
    page = visit()
    page.get_by_role("button", name="Photo + text").click()
    answer = wait_for_answer(page)
    assert answer.locator(".heat").count() == answer.locator(".told").count() == 1
    page.get_by_role("button", name="Start over").click()
    page.locator(".answer.empty").wait_for()
    assert page.get_by_label("Symptoms, in your own words").input_value() == ""
    assert page.locator("#preview").is_hidden()


def test_markup_in_the_text_is_shown_and_not_executed(visit):
    hostile = (
        "<img src=x onerror='window.ran=1'> {{value}} ${window.ran=2} <script>window.ran=3</script>"
        " itchy"
    )
    page = visit()
    write(page, hostile)
    answer = ask(page)
    assert page.evaluate("window.ran") is None
    assert answer.locator(".told img, .told script").count() == 0
    assert "<script>" in answer.locator(".told").inner_text()


def press_until(page: Any, key: str, wanted: str, limit: int = 25) -> None:
    """Presses a key until a JavaScript expression is true of the focused element `e`."""
    for _ in range(limit):
        page.keyboard.press(key)
        if page.evaluate(f"(e => {wanted})(document.activeElement)"):
            return
    pytest.fail(f"not reached by {limit} times {key}: {wanted}")


def test_page_can_be_used_with_the_keyboard_only(visit, photo: Path):
    page = visit()
    press_until(page, "Tab", "e.id === 'drop'")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(photo)
    wait_for_photo(page)
    press_until(page, "Tab", "e.tagName === 'TEXTAREA'")
    page.keyboard.type(TEXT)
    press_until(page, "Tab", "e.id === 'ask'")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    answer = wait_for_answer(page)
    press_until(page, "Tab", "e.id === 'opacity'")
    page.keyboard.press("ArrowLeft")
    assert answer.locator("output").inner_text() == "55%"
    press_until(page, "Tab", "e.tagName === 'SUMMARY'")
    page.keyboard.press("Enter")
    assert answer.locator("details[open] th[scope=row]").count() > 0


def find_faults(page: Any) -> list[str]:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright",
        reason="needs axe-playwright-python (requirements-browser.txt)",
    )
    violations = axe.Axe().run(page).response["violations"]
    return [
        f"{fault['impact']}: {fault['id']} ({fault['help']}): {node['target']}"
        for fault in violations
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


@pytest.mark.parametrize(
    ("viewport", "colours"),
    [(PHONE, "light"), (DESKTOP, "dark"), (DESKTOP, "light")],
    ids=["390", "dark", "1280"],
)
def test_axe_finds_no_serious_accessibility_fault(
    visit, photo: Path, tmp_path: Path, viewport: dict[str, int], colours: str
):
    page = visit(viewport, color_scheme=colours)
    assert find_faults(page) == []
    (tmp_path / "bad.jpg").write_bytes(b"x" * 100)
    page.locator("#file").set_input_files(tmp_path / "bad.jpg")
    page.locator("#fault [role=alert]").wait_for()
    assert find_faults(page) == []
    choose(page, photo)
    write(page, TEXT)
    for summary in ask(page).locator("summary").all():
        summary.click()
    assert find_faults(page) == []


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["390", "1280"])
def test_clinical_fields_are_offered_and_change_the_answer(
    visit, clinical_model: ExportedModel, clinical_address: str, viewport: dict[str, int]
):
    page = visit(viewport, clinical_address)
    write(page, "the rash is red")
    silent = ask(page)
    lines = ["", "age=44.5; sex=female"]
    rows = clinical_model.run([b""] * 2, ["the rash is red"] * 2, "clinical", lines)
    without, given = (format_percent(float(probability)) for probability in rows["eczema"])
    assert given != without == shown_percents(silent)[2]
    assert silent.get_by_role("rowheader", name="The clinical fields").count() == 0
    age, sex = page.get_by_label("Age"), page.get_by_label("Sex")
    assert sex.locator("option").all_inner_texts() == ["not known", "female", "male"]
    assert sex.input_value() == ""
    age.fill("44.5")
    sex.select_option("female")
    age.press("Enter")  # Enter asks too
    answer = wait_for_answer(page)
    assert shown_percents(answer)[2] == given
    share = answer.get_by_role("row", name="The clinical fields").locator(".number")
    assert share.inner_text() == "+1.45"  # 0.45 for the age, 4 x (1 - 0.75) for the sex
    assert find_faults(page) == []
    assert has_no_overflow(page)
    page.get_by_role("button", name="Start over").click()
    assert (age.input_value(), sex.input_value()) == ("", "")


def test_malformed_number_is_not_submitted_as_an_unknown_value(visit, clinical_address: str):
    page = visit(to=clinical_address)
    write(page, TEXT)
    age = page.get_by_label("Age")
    age.press_sequentially("4e")
    page.get_by_role("button", name="Ask", exact=True).click()
    assert age.evaluate("e => [e.validity.badInput, e.value, document.activeElement === e]") == [
        True,
        "",
        True,
    ]
    assert page.locator(".answer.empty").count() == 1
    age.fill("4")
    ask(page)


def test_page_has_no_clinical_fields_if_the_model_takes_none(visit):
    assert visit().locator("form, select, input[type=number]").count() == 0


def test_browser_refuses_to_load_an_image_from_another_host(visit):
    refused = """address => new Promise(resolve => {
      const tell = event => resolve(event.violatedDirective);
      document.addEventListener('securitypolicyviolation', tell);
      new Image().src = address;
    })"""
    page = visit()
    assert page.evaluate(refused, f"http://{ELSEWHERE}/photo.png") == "img-src"


def test_page_contacts_no_other_host_and_leaves_no_files(
    visit, requested: list[str], scratch: Path, photo: Path
):
    page = visit()
    choose(page, photo)
    ask(page)
    hosts = {
        urlsplit(url).hostname
        for url in requested
        if not url.startswith(("data:", "blob:")) and ELSEWHERE not in url
    }
    assert hosts == {"127.0.0.1"}
    assert not [host for host in connected if host not in LOOPBACK]
    assert [path for path in scratch.rglob("*") if path.is_file()] == []
