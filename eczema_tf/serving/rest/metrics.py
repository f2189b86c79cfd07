"""What the server counts, for Prometheus; nothing of what was asked."""

import contextlib
import logging
import time
import traceback
from collections.abc import Iterable, Iterator
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLIENT_GONE = 499  # nginx's code for a client that closed the connection before the answer
SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)

_log = logging.getLogger(__name__)


class Metrics:
    """The server's metrics, in a registry of their own."""

    def __init__(self) -> None:
        """Registers them; those of the process (memory, CPU time, open files) too."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        counter = partial(Counter, registry=self._registry)
        histogram = partial(Histogram, registry=self._registry)
        self._requests = counter("eczema_requests", "HTTP requests", ["route", "code"])
        self._seconds = histogram(
            "eczema_request_seconds", "First byte to answer", ["route"], buckets=SECONDS
        )
        self._batch_rows = histogram(
            "eczema_batch_rows", "Rows given to the model at once", ["signature"], buckets=ROWS
        )
        self._batch_seconds = histogram(
            "eczema_batch_seconds", "Model time of a batch", ["signature"], buckets=SECONDS
        )
        self._rows = counter(
            "eczema_rows", "Rows answered, by what was wrong with them", ["signature", "status"]
        )
        self.waiting_rows = Gauge(
            "eczema_waiting_rows", "Rows that wait for the model", registry=self._registry
        )

    def render(self) -> bytes:
        """Returns all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def count_request(self, route: str, code: int, seconds: float) -> None:
        """Counts a request: HTTP code, time, and the route's pattern, never a client's path."""
        self._requests.labels(route, str(code)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_rows(self, signature: str, statuses: Iterable[bytes]) -> None:
        """Counts rows by the kind of their status."""
        for status in statuses:
            self._rows.labels(signature, name_status(status.decode("utf-8", "replace"))).inc()

    @contextlib.contextmanager
    def time_batch(self, signature: str, rows: int) -> Iterator[None]:
        """Counts a batch and times it."""
        self._batch_rows.labels(signature).observe(rows)
        with self._batch_seconds.labels(signature).time():
            yield


def name_status(status: str) -> str:
    """Returns what a row's status is about: "ok", "photo", "text", "photo and text" or "other"."""
    if status == "ok":
        return status
    parts = {part.partition(":")[0] for part in status.split("; ")}
    return " and ".join(name for name in ("photo", "text") if name in parts) or "other"


class Measured:
    """ASGI middleware, the outermost: counts requests, and turns unforeseen errors into a 500.

    The log gets the error's type and place; its message may hold what was asked, so it is left out.
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
            self._metrics.count_request(_name_route(scope), code, time.perf_counter() - start)


def _name_route(scope: Scope) -> str:
    path = getattr(scope.get("route"), "path", None)
    return "other" if path is None else f"{scope.get('root_path', '')}{path}"
