"""The web server's application: TensorFlow Serving's REST contract, health and metrics, and a seam for a page at `/`.

| address | what |
|---|---|
| POST `/v1/models/eczema[/versions/N]:predict` | rows in, answers out (`contract.py`) |
| GET `/v1/models/eczema[/versions/N]` | which version is there |
| GET `/v1/models/eczema[/versions/N]/metadata` | signatures; labels, thresholds and notice |
| GET `/healthz`, `/readyz` | the process lives; it takes requests |
| GET `/metrics` | for Prometheus |

Every error is `{"error": "..."}`: 400 bad request, 404 no such model, version or path, 405 wrong
method, 413 body too large, 415 compressed body, 422 unusable photo or text (of the page), 500 the
model failed, 503 busy (with Retry-After), 504 took too long.
"""

import asyncio
import contextlib
import html
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from eczema_tf.errors import DataError
from eczema_tf.serving.exported import ExportedModel
from eczema_tf.serving.graph.signature import MODEL_NAME
from eczema_tf.serving.rest.batching import Batcher, Busy
from eczema_tf.serving.rest.contract import (
    BadRequest,
    ModelFault,
    describe_metadata,
    describe_status,
    encode_answer,
    parse_question,
)
from eczema_tf.serving.rest.limits import RETRY_AFTER, BodyLimits, Limits
from eczema_tf.serving.rest.metrics import Measured, Metrics

MODEL_PATH = f"/models/{MODEL_NAME}"
NO_TELEMETRY = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}  # whatever the environment says
CODES = {BadRequest: 400, DataError: 422, ModelFault: 500, Busy: 503, TimeoutError: 504}

_T = TypeVar("_T")


def build_app(
    model: ExportedModel,
    limits: Limits | None = None,
    *,
    mount: Callable[[FastAPI], None] | None = None,
) -> FastAPI:
    """Builds the application.

    Args:
        model: What answers.
        limits: The defaults if None.
        mount: Puts a page at `/`, after all other routes; a plain page that says what this is if
            None. `app.state.batcher` is there for it to ask the model with, under the same limits.

    Returns:
        An ASGI application; the model is asked between its lifespan's start and end.
    """
    limits, metrics = limits or Limits(), Metrics()
    batcher = Batcher(model.run, limits, metrics)

    @contextlib.asynccontextmanager
    async def run_batcher(_: FastAPI) -> AsyncIterator[None]:
        async with batcher:
            yield

    app = FastAPI(
        lifespan=run_batcher,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    app.state.batcher = batcher
    app.add_middleware(BodyLimits, limits=limits)
    app.add_middleware(Measured, metrics=metrics)  # the last one added is the outermost
    for error in (HTTPException, *CODES):
        app.add_exception_handler(error, _answer_error)
    _add_probes(app, batcher, metrics)
    app.mount(
        "/v1", _ModelRoutes(model, batcher, limits, metrics).build_router()
    )  # mounted: a page at / must not swallow its 404 and 405
    if mount is None:
        _add_plain_page(app, model)
    else:
        mount(app)
    return app


async def _answer_error(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    code = CODES[type(error)]
    return JSONResponse({"error": str(error)}, code, RETRY_AFTER if code == 503 else None)


def _add_probes(app: FastAPI, batcher: Batcher, metrics: Metrics) -> None:
    @app.get("/healthz")
    async def live() -> Response:
        return JSONResponse({"status": "live"})

    @app.get("/readyz")
    async def ready() -> Response:
        return (
            JSONResponse({"status": "ready"})
            if batcher.is_running
            else JSONResponse({"error": "not ready"}, 503, RETRY_AFTER)
        )

    @app.get("/metrics")
    async def measure() -> Response:
        return Response(metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _ModelRoutes:
    """What is under `/v1`."""

    def __init__(self, model: ExportedModel, batcher: Batcher, limits: Limits, metrics: Metrics):
        self._version = model.version
        self._metadata = describe_metadata(model.folder, model.version, model.metadata)
        self._batcher = batcher
        self._limits = limits
        self._metrics = metrics

    def build_router(self) -> APIRouter:
        router = APIRouter(redirect_slashes=False)
        for path in (MODEL_PATH, f"{MODEL_PATH}/versions/{{version}}"):
            router.add_api_route(f"{path}:predict", self.predict, methods=["POST"])
            router.add_api_route(f"{path}/metadata", self.get_metadata, methods=["GET"])
            router.add_api_route(path, self.get_status, methods=["GET"])
        return router

    async def predict(self, request: Request) -> Response:
        self._check_version(request)
        if request.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "compressed bodies are not taken")
        question = parse_question(await request.body(), self._limits.max_rows)
        asking = self._batcher.ask(question.images, question.texts, question.signature)
        outputs = await await_unless_gone(request, asking, self._limits.answer_timeout_s)
        self._metrics.count_rows(question.signature, outputs["status"])
        answer = encode_answer(outputs, question.by_row)
        return Response(
            answer, media_type="application/json", headers={"Cache-Control": "no-store"}
        )

    async def get_status(self, request: Request) -> Response:
        self._check_version(request)
        return JSONResponse(describe_status(self._version))

    async def get_metadata(self, request: Request) -> Response:
        self._check_version(request)
        return JSONResponse(self._metadata)

    def _check_version(self, request: Request) -> None:
        if request.path_params.get("version", str(self._version)) != str(self._version):
            raise HTTPException(404, f"no such version of {MODEL_NAME}; there is {self._version}")


async def await_unless_gone(
    request: Request, asking: Coroutine[Any, Any, _T], timeout_s: float
) -> _T:
    """Awaits an answer, and gives up as soon as the client does: its rows are not worth the model's time any more.

    Raises:
        ClientDisconnect: If the client has gone.
        TimeoutError: If it takes too long.
    """
    answer = asyncio.ensure_future(asking)
    gone = asyncio.ensure_future(
        request.receive()
    )  # the body is read: the next message says that the client has gone
    try:
        await asyncio.wait((answer, gone), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if gone.done():
            raise ClientDisconnect
        raise TimeoutError(f"no answer within {timeout_s:g} s")
    finally:
        answer.cancel()
        gone.cancel()


def _add_plain_page(app: FastAPI, model: ExportedModel) -> None:
    page = PLAIN_PAGE.format(
        version=model.version, notice=html.escape(model.metadata.notice), path=f"/v1{MODEL_PATH}"
    )

    @app.get("/")
    async def show() -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": "default-src 'none'"})


PLAIN_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>eczema_tf</title></head>
<body>
<h1>eczema_tf, model version {version}</h1>
<p><strong>{notice}</strong></p>
<ul>
<li>POST {path}:predict</li>
<li><a href="{path}">GET {path}</a></li>
<li><a href="{path}/metadata">GET {path}/metadata</a></li>
<li><a href="/healthz">GET /healthz</a>, <a href="/readyz">/readyz</a>, <a href="/metrics">/metrics</a></li>
</ul>
</body>
</html>
"""
