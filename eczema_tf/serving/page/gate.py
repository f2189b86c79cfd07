"""What stands before Gradio: only the paths that the page needs, headers that keep the browser to this server, and a folder for uploads.

Gradio serves far more than a page (an API, proxies, histories, links that store what was entered).
None of it is needed, so none is there.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

UPLOAD = "/gradio_api/upload"
READ = ("/", "/theme.css", "/favicon.ico", "/gradio_api/queue/data", "/gradio_api/upload_progress")
READ_BELOW = ("/assets/", "/static/", "/svelte/")
PREVIEW = "/gradio_api/file="
WRITE = (UPLOAD, "/gradio_api/queue/join")
MAX_AGE_S = 60.0  # of an upload that was never asked about: its preview deletes it within a second
SWEEP_EVERY_S = 20.0
MAX_UPLOADS_BYTES = 500_000_000  # of all uploads that are there at one time
# A clear pixel (GIF89a), for the browser that asks for an upload while its preview is being made:
# files that came in never go out.
CLEAR_PIXEL = bytes.fromhex(
    "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b"
)

# Gradio's own scripts are inline and build functions from strings; nothing may come from or go to
# anywhere else.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self'"
        " 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; base-uri 'self';"
        " form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
}


class Gate:
    """ASGI middleware around Gradio's application."""

    def __init__(self, app: ASGIApp, uploads: Path):
        """Takes the application and the folder of its uploads."""
        self._app = app
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"].startswith(PREVIEW):
            await Response(
                CLEAR_PIXEL, media_type="image/gif", headers={"Cache-Control": "no-store"}
            )(scope, receive, send)
        elif not _is_needed(scope["method"], scope["path"]):
            await JSONResponse({"error": "Not Found"}, 404)(scope, receive, send)
        elif scope["path"] == UPLOAD and _count_bytes(self._uploads) > MAX_UPLOADS_BYTES:
            await JSONResponse({"error": "too many uploads at once; try again in a minute"}, 503)(
                scope, receive, send
            )
        else:
            await self._app(scope, receive, _adding_headers(send))


def _is_needed(method: str, path: str) -> bool:
    if method == "POST":
        return path in WRITE
    return method in ("GET", "HEAD") and (path in READ or path.startswith(READ_BELOW))


def _adding_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await send(message)

    return send_with_headers


@contextlib.asynccontextmanager
async def keeping_empty(folder: TemporaryDirectory) -> AsyncIterator[None]:
    """Deletes what lies in a folder for more than `MAX_AGE_S`, and in the end the folder."""
    sweeping = asyncio.create_task(_sweep_for_ever(Path(folder.name)))
    try:
        yield
    finally:
        sweeping.cancel()
        folder.cleanup()


async def _sweep_for_ever(folder: Path) -> None:
    while True:
        await asyncio.sleep(SWEEP_EVERY_S)
        await asyncio.to_thread(sweep, folder, MAX_AGE_S)


def sweep(folder: Path, max_age_s: float) -> None:
    """Deletes what is in a folder and was written longer ago than that; folders only once they are empty."""
    oldest = time.time() - max_age_s
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before it
        with contextlib.suppress(OSError):  # gone meanwhile, or not empty
            if path.stat().st_mtime < oldest:
                path.rmdir() if path.is_dir() else path.unlink()


def _count_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total
