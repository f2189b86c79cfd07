"""Runs an application with uvicorn: time limits on requests, graceful shutdown, quiet logs."""

import signal
import socket
import time
from collections.abc import Callable, Iterator

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from eczema_tf.errors import EczemaError

# for the headers, for the body (including a slow phone's upload of 10 MB), and for each step of an
# answer
REQUEST_TIMEOUT_S = 60.0
ANSWER_STEP_BYTES = 1_000_000
KEEP_ALIVE_S = 15  # how long a connection may be idle
MAX_CONNECTIONS = 512  # beyond it uvicorn itself answers 503; far more than can wait for the model


class PromptServer(uvicorn.Server):
    """uvicorn, but a client has to make progress within `REQUEST_TIMEOUT_S`.

    Within that time it must send its headers or its body, or read `ANSWER_STEP_BYTES` of its
    answer, or what is left of the answer.

    uvicorn has no time limit on what has begun: a client that sends one byte a minute would keep
    its connection forever ("Slowloris"), as would one that never reads its answer. hypercorn 0.18
    and granian 2.8 limit only the headers: a body that trickles in keeps the connection just as
    long, and neither answers 503 to too many clients.
    """

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]):
        """Takes uvicorn's configuration, and a function to call once requests are accepted."""
        super().__init__(config)
        self._on_started = on_started
        self._waiting_since: dict[tuple[H11Protocol, object], float] = {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn."""
        await super().startup(sockets)
        self._on_started()

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second: disconnects clients that make no progress."""
        now = time.monotonic()
        clients = (c for c in self.server_state.connections if isinstance(c, H11Protocol))
        waiting = [wait for client in clients for wait in _list_waits(client)]
        self._waiting_since = {wait: self._waiting_since.get(wait, now) for wait in waiting}
        for (client, _), since in self._waiting_since.items():
            if now - since > REQUEST_TIMEOUT_S:
                client.transport.abort()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn, which after a second SIGINT would cut the shutdown short."""
        await super().shutdown(sockets)
        if self.force_exit:
            await self.lifespan.shutdown()


def _list_waits(client: H11Protocol) -> Iterator[tuple[H11Protocol, object]]:
    """Lists what a client has to do next; this changes as soon as the client makes progress."""
    cycle = client.cycle  # a new one begins with each request's headers
    if client.conn.their_state in (h11.IDLE, h11.SEND_BODY):
        yield client, cycle
    if left_bytes := client.transport.get_write_buffer_size():
        yield client, (cycle, left_bytes // ANSWER_STEP_BYTES)


def bind(host: str, port: int) -> socket.socket:
    """Reserves an address; one that is taken is noticed before the model is loaded.

    `run_app` accepts the connections.

    Args:
        host: A name or an address.
        port: 0 for any free one.

    Raises:
        EczemaError: If the address cannot be listened on.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        raise EczemaError(
            f"{host}:{port}: cannot be listened on: {error}; choose another --host or --port"
        ) from error
    return listener


def run_app(
    app: ASGIApp, listener: socket.socket, on_started: Callable[[], None], stop_timeout_s: int
) -> None:
    """Serves until SIGINT or SIGTERM, then finishes the requests in progress.

    Args:
        app: The application.
        listener: From `bind`.
        on_started: Called once requests are accepted.
        stop_timeout_s: How long unfinished requests have at the end; a second SIGINT ends them at
            once.
    """
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        log_config=None,  # uvicorn's messages go where the command's go
        # /metrics counts requests; a path or a query may contain what does not belong in a log
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=stop_timeout_s,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn raises the signal again after a graceful shutdown, which is not a failure
        signal.signal(number, signal.SIG_IGN)
    PromptServer(config, on_started).run([listener])
