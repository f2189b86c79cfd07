"""Makes the README's pictures: the page with an answer to a built-in case.

    python scripts/make_pictures.py --model saved_models/eczema --photo data/.../photos/1.jpg

It needs requirements-browser.txt and Chromium. Only built-in photos belong in docs/.
"""

import argparse
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from playwright.sync_api import sync_playwright

TEXT = (
    "Good morning. My daughter is two and has scratched the creases of her elbows raw since she was"
    " a baby; her dad has hay fever. It does not burn."
)
START_S, ANSWER_MS, WIDTH_PX, HEIGHT_PX = 120, 60_000, 1280, 1320


def find_free_port() -> int:
    """Asks the system for a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until_served(url: str) -> None:
    """Waits for the page.

    Raises:
        TimeoutError: If it is not there in time.
    """
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            with urlopen(url, timeout=5):
                return
        except URLError:
            time.sleep(0.5)
    raise TimeoutError(f"{url}: not served within {START_S} s")


def photograph_page(url: str, photo: Path, text: str, out: Path) -> None:
    """Asks the page about a photo and a text, and takes a screenshot of its answer."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": WIDTH_PX, "height": HEIGHT_PX})
        page.goto(url)
        page.set_input_files("#file", photo)
        page.fill("#text", text)
        page.click("#ask")
        # the page moves the focus to the answer when it is there
        page.wait_for_selector("#answer-title:focus", timeout=ANSWER_MS)
        page.mouse.wheel(0, -100_000)  # the focus scrolled the page
        page.screenshot(path=out, quality=80)
        browser.close()


def main() -> None:
    """Serves a model while the pictures are taken."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="an export")
    parser.add_argument(
        "--photo", type=Path, required=True, metavar="FILE", help="a built-in photo"
    )
    parser.add_argument("--text", default=TEXT, help="the description (default: a parent's)")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), metavar="DIR")
    arguments = parser.parse_args()
    port = find_free_port()
    command = [sys.executable, "-m", "eczema_tf.serve", "--model", str(arguments.model)]
    server = subprocess.Popen([*command, "--port", str(port)])
    try:
        url = f"http://127.0.0.1:{port}/"
        wait_until_served(url)
        photograph_page(url, arguments.photo, arguments.text, arguments.out / "page.jpg")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
