"""Limits on one request, and on all requests together, checked before any work is done."""

from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

RETRY_AFTER = {"Retry-After": "1"}  # seconds
STOPPING = "the server is stopping"


@dataclass(frozen=True)
class Limits:
    """Limits of the server.

    Attributes:
        max_body_bytes: Per request. A photo of the largest size that the model takes (10 MB) is
            13.4 MB of base64.
        max_held_bytes: For the bodies of all requests that are being read or answered; beyond it,
            requests are refused with 503.
        max_rows: Per request.
        max_waiting_rows: For all requests that the model has not started on; beyond it, requests
            are refused with 503.
        batch_rows: How many rows of several requests are given to the model at once.
        answer_timeout_s: How long a request may wait for its answer (TensorFlow Serving's default).
    """

    max_body_bytes: int = 20_000_000
    max_held_bytes: int = 200_000_000
    max_rows: int = 64
    max_waiting_rows: int = 256
    batch_rows: int = 16
    answer_timeout_s: float = 30.0


class BodyLimits:
    """ASGI middleware that counts bodies while they stream in, whatever Content-Length says."""

    def __init__(self, app: ASGIApp, limits: Limits):
        self._app = app
        self._limits = limits
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request.

        Reading too much of its body raises an HTTPException: 413, or 503 if all requests together
        are too large.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # the HTTP parser has checked that it is a number
        declared_bytes = int(Headers(scope=scope).get("content-length", 0))
        taken_bytes = 0

        async def receive_counted() -> Message:
            nonlocal taken_bytes
            self._check(declared_bytes, 0)
            message = await receive()
            chunk_bytes = len(message.get("body", b""))
            taken_bytes += chunk_bytes
            self._held_bytes += chunk_bytes
            if chunk_bytes:  # not when a client disconnects, which is not an error
                self._check(taken_bytes, self._held_bytes)
            return message

        try:
            await self._app(scope, receive_counted, send)
        finally:
            self._held_bytes -= taken_bytes

    def _check(self, body_bytes: int, held_bytes: int) -> None:
        if body_bytes > self._limits.max_body_bytes:
            raise HTTPException(413, f"the body is larger than {self._limits.max_body_bytes} bytes")
        if held_bytes > self._limits.max_held_bytes:
            raise HTTPException(
                503, "too many large requests at once; try again in a second", RETRY_AFTER
            )
