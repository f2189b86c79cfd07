"""The web server's application: TensorFlow Serving's REST contract, health, metrics, and a page.

| address | what |
|---|---|
| POST `/v1/models/eczema[/versions/N]:predict` | rows in, answers out (`contract.py`); the image of
a row may be a list: photos of one case |
| GET `/v1/models/eczema[/versions/N]` | which version is served |
| GET `/v1/models/eczema[/versions/N]/metadata` | signatures; labels, thresholds and notice |
| GET or HEAD `/healthz`, `/readyz` | the process is alive; it accepts requests |
| GET `/metrics` | for Prometheus |

Every error is `{"error": "..."}`: 400 bad request, 404 no such model, version or path, 405 wrong
method, 413 body too large, 415 body not JSON or compressed, 422 a photo or text that cannot be
used, 500 the model failed, 503 busy (with Retry-After), 504 took too long. Only errors before all
this are answered in plain text: Starlette answers a request for a host that is not served; uvicorn
answers what is not HTTP, and more connections than the server accepts.
"""

import asyncio
import contextlib
import html
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from eczema_tf.errors import DataError
from eczema_tf.serving.cases import Outputs
from eczema_tf.serving.exported import ExportedModel
from eczema_tf.serving.graph.signature import MODEL_NAME
from eczema_tf.serving.reading import PhotoReader, join_statuses
from eczema_tf.serving.rest.batching import Batcher, Busy
from eczema_tf.serving.rest.contract import (
    BadRequest,
    ModelFault,
    PredictRequest,
    describe_metadata,
    describe_status,
    encode_answer,
    parse_request,
    pool_photos,
)
from eczema_tf.serving.rest.limits import RETRY_AFTER, BodyLimits, Limits
from eczema_tf.serving.rest.metrics import Measured, Metrics

JSON = "application/json"
PROBED = ["GET", "HEAD"]  # load balancers use either
MODEL_PATH = f"/models/{MODEL_NAME}"
CODES = {BadRequest: 400, DataError: 422, ModelFault: 500, Busy: 503, TimeoutError: 504}
PLAIN_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>eczema_tf</title>
</head>
<body>
<h1>eczema_tf, model version {version}</h1>
<p><strong>{notice}</strong></p>
<ul>
<li>POST {path}:predict</li>
<li><a href="{path}">GET {path}</a></li>
<li><a href="{path}/metadata">GET {path}/metadata</a></li>
<li>GET <a href="/healthz">/healthz</a>, <a href="/readyz">/readyz</a>,
<a href="/metrics">/metrics</a></li>
</ul>
</body>
</html>
"""

_T = TypeVar("_T")


def build_app(
    model: ExportedModel,
    limits: Limits | None = None,
    *,
    mount: Callable[[FastAPI], None] | None = None,
    hosts: Sequence[str] | None = None,
) -> FastAPI:
    """Builds the application.

    Args:
        model: The model that answers.
        limits: The defaults if None.
        mount: Puts a page at `/`, after all other routes. If None, that is a plain page that says
            what this server is. A page asks the model through `app.state.batcher`, under the same
            limits, and reads photos through `app.state.reader`.
        hosts: Values that the `Host` header may have; None for any. At a loopback address, no other
            name may stand for the server: a site could point its own name there (DNS rebinding),
            and its page could then read the answers.

    Returns:
        An ASGI application; the model can be asked between its lifespan's start and end.
    """
    limits, metrics = limits or Limits(), Metrics()
    batcher, reader = Batcher(model.run, limits, metrics, model.metadata.signatures), PhotoReader()

    @contextlib.asynccontextmanager
    async def run_batcher(_: FastAPI) -> AsyncIterator[None]:
        async with batcher:
            yield

    app = FastAPI(
        lifespan=run_batcher,
        openapi_url=None,  # and so no /docs
        redirect_slashes=False,
        # whatever the environment variables say
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.batcher, app.state.reader = batcher, reader
    app.add_middleware(BodyLimits, limits=limits)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    app.add_middleware(Measured, metrics=metrics)  # the last one added is the outermost
    for error in (HTTPException, *CODES):
        app.add_exception_handler(error, _answer_error)

    @app.api_route("/healthz", methods=PROBED)
    async def live() -> Response:
        return JSONResponse({"status": "live"})

    @app.api_route("/readyz", methods=PROBED)
    async def ready() -> Response:
        if batcher.is_running:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"error": "not ready"}, 503, RETRY_AFTER)

    @app.get("/metrics")
    async def measure() -> Response:
        text = generate_latest(metrics.registry)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    # mounted, so that a page at / does not hide its 404 and 405
    app.mount("/v1", _build_model_routes(model, batcher, reader, limits, metrics))
    (mount or partial(mount_plain_page, model))(app)
    return app


def mount_plain_page(model: ExportedModel, app: FastAPI) -> None:
    """Puts a page at `/` that says what this server is, for those who do not want the real page."""
    notice = html.escape(model.metadata.notice)
    page = PLAIN_PAGE.format(version=model.version, notice=notice, path=f"/v1{MODEL_PATH}")

    @app.get("/")
    async def show() -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": "default-src 'none'"})


async def _answer_error(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    code = CODES[type(error)]
    return JSONResponse({"error": str(error)}, code, RETRY_AFTER if code == 503 else None)


def _build_model_routes(
    model: ExportedModel, batcher: Batcher, reader: PhotoReader, limits: Limits, metrics: Metrics
) -> APIRouter:
    """Builds the routes under `/v1`."""
    own, status = str(model.version), describe_status(model.version)
    metadata = describe_metadata(model.folder, model.version, model.metadata)

    async def check_version(request: Request) -> None:
        version = request.path_params.get("version", own)
        if version.endswith(":predict"):  # with another method, it matches the path of a version
            raise HTTPException(405, "Method Not Allowed", {"Allow": "POST"})
        if version != own:
            raise HTTPException(404, f"no such version of {MODEL_NAME}; available: {own}")

    async def answer(asked: PredictRequest) -> Outputs:
        photos, faults = await reader.read_rows(asked.images)
        outputs = await batcher.ask(photos, asked.texts, asked.signature, asked.clinical)
        outputs = {**outputs, "status": join_statuses(outputs["status"], faults)}
        undecided = model.metadata.undecided
        return await asyncio.to_thread(pool_photos, asked, outputs, undecided)

    async def predict(request: Request) -> Response:
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise HTTPException(415, "compressed bodies are not accepted")
        body = await request.body()
        asked = parse_request(body, limits.max_rows, model.metadata.signatures)
        outputs = await await_unless_gone(request, answer(asked), limits.answer_timeout_s)
        metrics.count_rows(asked.signature, outputs["status"])
        answered = encode_answer(outputs, asked.by_row)
        return Response(answered, headers={"Cache-Control": "no-store"}, media_type=JSON)

    async def get_metadata() -> Response:
        return JSONResponse(metadata)

    async def get_status() -> Response:
        return JSONResponse(status)

    router = APIRouter(redirect_slashes=False, dependencies=[Depends(check_version)])
    for path in (MODEL_PATH, f"{MODEL_PATH}/versions/{{version}}"):
        router.add_api_route(
            f"{path}:predict", predict, methods=["POST"], dependencies=[accept_only(JSON)]
        )
        router.add_api_route(f"{path}/metadata", get_metadata)
        router.add_api_route(path, get_status)
    return router


def accept_only(media_type: str) -> Any:
    """Makes a dependency that answers 415 to bodies whose Content-Type is not `media_type`.

    Another site's page could send `text/plain` without asking first, but not this type (Fetch
    standard, CORS-safelisted request headers), and this server allows no site to send it.
    """

    async def check_type(request: Request) -> None:
        given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given != media_type:
            raise HTTPException(415, f"Content-Type: must be {media_type}")

    return Depends(check_type)


async def await_unless_gone(
    request: Request, asking: Coroutine[Any, Any, _T], timeout_s: float
) -> _T:
    """Awaits an answer, unless the client disconnects: then the model need not spend time on it.

    Args:
        request: Its body has been read.
        asking: Computes the answer.
        timeout_s: How long the answer may take.

    Raises:
        ClientDisconnect: If the client has disconnected.
        TimeoutError: If the answer takes too long.
    """
    answer = asyncio.ensure_future(asking)
    gone = asyncio.ensure_future(request.receive())  # the next message can only be a disconnect
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
