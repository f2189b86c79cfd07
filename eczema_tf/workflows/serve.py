"""Serves an exported model over HTTP on this machine, with a web page: what `serve` runs."""

import ipaddress
import logging
import os
import sys
from functools import partial
from pathlib import Path

from fastapi import FastAPI

from eczema_tf.errors import EczemaError
from eczema_tf.serving.exported import ExportedModel
from eczema_tf.serving.graph.signature import MODEL_NAME
from eczema_tf.serving.rest.app import build_app
from eczema_tf.serving.rest.limits import Limits
from eczema_tf.serving.rest.server import bind, run_app

LOOPBACK = ["localhost", "127.0.0.1", "[::1]"]
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def serve(
    folder: Path,
    host: str,
    port: int,
    *,
    batch_rows: int,
    max_rows: int,
    max_waiting_rows: int,
    max_body_mb: int,
    stop_timeout_s: int,
    with_page: bool,
) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
        folder: Folder of an export: a version's, or that of all versions (the newest is taken).
        host: Address to listen on. A warning is printed if other machines can reach it.
        port: Port to listen on; 0 for any free one.
        batch_rows: As in `Limits`, like the next two.
        max_rows: Limit for one request.
        max_waiting_rows: Limit for all requests.
        max_body_mb: Limit for one request, in MB; ten times as much for all together.
        stop_timeout_s: How long unfinished requests have when the server stops.
        with_page: Whether there is a web page at `/`.

    Raises:
        EczemaError: If it cannot listen on the address, or there is no model in the folder.
    """
    logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
    if max_waiting_rows < max_rows:
        raise EczemaError(f"--max-waiting-rows: must be at least --max-rows, {max_rows}")
    limits = Limits(
        max_body_bytes=max_body_mb * 1_000_000,
        max_held_bytes=10 * max_body_mb * 1_000_000,
        max_rows=max_rows,
        max_waiting_rows=max_waiting_rows,
        batch_rows=batch_rows,
    )
    with bind(host, port) as listener:
        host, port = listener.getsockname()[:2]
        hosts = name_hosts(host)
        print(f"loading {folder} ...", flush=True)
        model = ExportedModel(folder)
        model.warm_up()
        mount = partial(mount_answers, model, limits) if with_page else None
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        ready = (
            f"version {model.version} is at {address}/ and {address}/v1/models/{MODEL_NAME}"
            f" (press Ctrl+C to stop)\n{model.metadata.notice}"
        )
        app = build_app(model, limits, mount=mount, hosts=hosts)
        run_app(app, listener, lambda: print(ready, flush=True), stop_timeout_s)
    print("stopped", flush=True)
    if app.state.batcher.is_at_work:  # Python would wait for it, maybe for minutes, and nobody else
        sys.stderr.flush()
        os._exit(0)


def name_hosts(host: str) -> list[str] | None:
    """Lists the names by which clients may call the server; None if other machines can reach it.

    Args:
        host: The address that it listens on; a warning is printed if it is not this machine's own.
    """
    if ipaddress.ip_address(host).is_loopback:
        return [host, *LOOPBACK]
    print(
        f"warning: {host} can be reached from other machines, and this server has no login"
        " and no encryption; put a proxy with both in front of it, or use 127.0.0.1",
        file=sys.stderr,
    )
    return None


def mount_answers(model: ExportedModel, limits: Limits, app: FastAPI) -> None:
    """Mounts the web page, which uses the model in the same batches and under the same limits.

    Args:
        model: What answers.
        limits: As given to the application.
        app: From `build_app`.
    """
    # imported here, since the server starts sooner without the page
    from eczema_tf.serving.answering import ExportBackend, answer_case
    from eczema_tf.serving.page.page import mount_page
    from eczema_tf.symptoms.cues import find_cues

    find_cues("")  # loads its rules now, so that the first user need not wait for it
    backend = ExportBackend(app.state.batcher.ask, model.metadata.said)
    mount_page(app, partial(answer_case, backend), limits, backend.said)
