"""What the server counts for Prometheus: nothing that was sent in a request."""

import asyncio
import logging
import re
import time
import traceback
from collections.abc import Iterable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eczema_tf.serving.rest.limits import RETRY_AFTER, STOPPING

CLIENT_GONE = 499  # nginx's code for a client that closed the connection before the answer
SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)

_log = logging.getLogger(__name__)


class Metrics:
    """The server's metrics, in a registry of their own.

    Attributes:
        registry: Also contains the metrics of the process: memory, CPU time, open files.
        requests: By the route's pattern (never a path that a client made up) and the HTTP code.
        seconds: From the first byte to the answer, by route.
        batch_rows: Rows given to the model at once, by signature.
        batch_seconds: Time that the model took for a batch, by signature.
        waiting_rows: Rows that wait for the model.
    """

    def __init__(self) -> None:
        """Registers the metrics."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.requests = counter("eczema_requests", "HTTP requests", ["route", "code"])
        self.seconds = histogram(
            "eczema_request_seconds", "First byte to answer", ["route"], buckets=SECONDS
        )
        self.batch_rows = histogram(
            "eczema_batch_rows", "Rows given to the model at once", ["signature"], buckets=ROWS
        )
        self.batch_seconds = histogram(
            "eczema_batch_seconds", "Model time of a batch", ["signature"], buckets=SECONDS
        )
        self.waiting_rows = Gauge(
            "eczema_waiting_rows", "Rows that wait for the model", registry=self.registry
        )
        self._rows = counter(
            "eczema_rows", "Rows answered, by the kind of their status", ["signature", "status"]
        )

    def count_rows(self, signature: str, statuses: Iterable[bytes]) -> None:
        """Counts rows by the kind of their status."""
        for status in statuses:
            self._rows.labels(signature, name_status(status.decode("utf-8", "replace"))).inc()


def name_status(status: str) -> str:
    """Returns what a row's status is about: "ok", "photo", "text", "photo and text" or "other"."""
    if status == "ok":
        return status
    parts = {re.split("[ :]", part)[0] for part in status.split("; ")}  # "photo 2: ..."
    return " and ".join(name for name in ("photo", "text") if name in parts) or "other"


class Measured:
    """The outermost ASGI middleware: counts requests, and turns unexpected errors into a 500.

    A request that is still waiting when the stopping server cancels it gets a 503.

    The log gets the error's type and place. Its message may contain what was asked, so it is left
    out.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, code = time.perf_counter(), CLIENT_GONE

        async def send_noted(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:  # if raised again, it would be a traceback in uvicorn's log
            if code == CLIENT_GONE:
                stopping = JSONResponse({"error": STOPPING}, 503, RETRY_AFTER)
                await stopping(scope, receive, send_noted)
        except Exception as error:
            _log.error(
                "%s: %s\n%s",
                _name_route(scope),
                type(error).__name__,
                "".join(traceback.format_tb(error.__traceback__)),
            )
            if code == CLIENT_GONE:
                await JSONResponse({"error": "internal error"}, 500)(scope, receive, send_noted)
        finally:
            route = _name_route(scope)
            self._metrics.requests.labels(route, str(code)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - start)


def _name_route(scope: Scope) -> str:
    path = getattr(scope.get("route"), "path", None)
    return "other" if path is None else f"{scope.get('root_path', '')}{path}"
