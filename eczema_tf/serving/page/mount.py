"""Mounting the web page at `/` of the server's application."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio as gr
from fastapi import FastAPI
from starlette.middleware import Middleware

from eczema_tf.data.photo.inspection import MAX_BYTES
from eczema_tf.reporting.answer_html import STYLE_SHEET
from eczema_tf.serving.page.events import Ask, Events
from eczema_tf.serving.page.gate import Gate, keeping_empty
from eczema_tf.serving.page.layout import build_page
from eczema_tf.serving.rest.app import NO_TELEMETRY
from eczema_tf.serving.rest.limits import Limits

HERE = Path(__file__).parent
# a photo comes back as base64, 4/3 of its size, with the text: so much of a request's body may a
# file be
BASE64_ROOM = 0.7
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
MONOSPACE = ("ui-monospace", "Menlo", "Consolas", "monospace")
WAITING = 64  # events; more are refused
# of who asked and how long it took: Gradio would keep 10,000 and sum them up after every answer
NO_RECORDS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(2**62),
}


def mount_page(app: FastAPI, answer: Ask, limits: Limits) -> FastAPI:
    """Puts the page at `/`, behind all routes that are there.

    Nothing of Gradio's that calls home, shares or records is on, and uploads lie in a folder of
    their own for no longer than it takes to show them. Sets Gradio's environment variables for the
    process, which is how it is told of that.

    Args:
        app: The server's application.
        answer: Answers an upright JPEG (b"" for none) and a text ("" for none), as
            `answering.answer_case` does.
        limits: Of the server.

    Returns:
        `app`.
    """
    folder = TemporaryDirectory(prefix="eczema-page-", ignore_cleanup_errors=True)
    uploads = Path(folder.name).resolve()
    os.environ.update(NO_RECORDS, GRADIO_TEMP_DIR=str(uploads))
    blocks = build_page(Events(answer, uploads, limits.answer_timeout_s))
    blocks.queue(max_size=WAITING)
    blocks.state_session_capacity = (
        1  # the page has no sessions; Gradio would keep what 10,000 of them entered
    )
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        app_kwargs={
            "middleware": [Middleware(Gate, uploads=uploads)],
            "lifespan": lambda _: keeping_empty(folder),
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
            "telemetry": NO_TELEMETRY,
        },
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=min(MAX_BYTES, int(BASE64_ROOM * limits.max_body_bytes)),
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Base(font=FONT, font_mono=MONOSPACE),
        css_paths=[STYLE_SHEET, HERE / "page.css"],
        head=f"<script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script>",
    )
