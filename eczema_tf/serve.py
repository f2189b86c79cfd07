"""`python -m eczema_tf.serve`: an exported model behind TensorFlow Serving's REST interface and a web page, for one machine."""

import argparse
import ipaddress
import logging
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from eczema_tf.cli import build_parser, run_command, whole_number
from eczema_tf.schema import NOTICE

EXAMPLES = """examples:
  python -m eczema_tf.serve --model saved_models/eczema       (then open http://127.0.0.1:8501/ in a browser)
  python -m eczema_tf.predict --url http://127.0.0.1:8501/v1/models/eczema --image arm.jpg --text "itchy patches in both elbow creases"
  curl -d '{"instances": [{"image": "", "text": "it itches"}]}' http://127.0.0.1:8501/v1/models/eczema:predict
  curl http://127.0.0.1:8501/v1/models/eczema/metadata      (signatures, labels, thresholds; also /healthz, /readyz and /metrics)

Requests and answers are those of TensorFlow Serving (https://www.tensorflow.org/tfx/serving/api_rest): a photo is {"b64": "..."} or ""
for none, and "signature_name": "explain" adds the heatmap and the scores of words. Requests that come together are answered together.
Nothing that is sent is stored or logged. Ctrl+C or SIGTERM stops the server once it has answered what is under way."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see `--help`."""
    parser = build_parser("serve", examples=EXAMPLES)
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        help="saved_models/eczema (the newest version) or one version's folder",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; any but the default may be open to others",
    )
    parser.add_argument(
        "--port",
        type=whole_number(0, 65_535),
        default=8501,
        help="0 for any free one (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-rows",
        type=whole_number(1, 256),
        default=16,
        help="rows given to the model at once (default: %(default)s)",
    )
    parser.add_argument(
        "--max-rows",
        type=whole_number(1, 1024),
        default=64,
        help="rows that one request may have (default: %(default)s)",
    )
    parser.add_argument(
        "--max-waiting-rows",
        type=whole_number(1, 99_999),
        default=256,
        help="beyond it 503 is answered (default: %(default)s)",
    )
    parser.add_argument(
        "--max-body-mb",
        type=whole_number(1, 1000),
        default=20,
        help="MB of one request, base64 (default: %(default)s)",
    )
    parser.add_argument(
        "--stop-timeout-s",
        type=whole_number(1, 3600),
        default=10,
        help="for what is under way at the end (default: %(default)s)",
    )
    parser.add_argument(
        "--no-page",
        action="store_true",
        help="leave out the web page at /; the server starts sooner without",
    )
    return run_command(parser, _serve, argv)


def _serve(arguments: argparse.Namespace) -> None:
    from eczema_tf.serving.rest.server import bind

    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    with bind(arguments.host, arguments.port) as listener:
        _serve_on(listener, arguments)
    print("stopped")


def _serve_on(listener: socket.socket, arguments: argparse.Namespace) -> None:
    from eczema_tf.serving.loaded import LoadedModel
    from eczema_tf.serving.rest.app import build_app
    from eczema_tf.serving.rest.limits import Limits
    from eczema_tf.serving.rest.server import run_app

    host, port = listener.getsockname()[:2]
    _warn_if_open(host)
    print(f"loading {arguments.model} ...", flush=True)
    model = LoadedModel(arguments.model)
    model.warm_up()
    limits = Limits(
        max_body_bytes=arguments.max_body_mb * 1_000_000,
        max_held_bytes=10 * arguments.max_body_mb * 1_000_000,
        max_rows=arguments.max_rows,
        max_waiting_rows=arguments.max_waiting_rows,
        batch_rows=arguments.batch_rows,
    )
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    mount = None if arguments.no_page else partial(mount_answers, model, limits)
    run_app(
        build_app(model, limits, mount=mount),
        listener,
        lambda: _announce(address, model.version),
        arguments.stop_timeout_s,
    )


def mount_answers(model: Any, limits: Any, app: Any) -> None:
    """Mounts the web page, which asks the model as the REST interface does: in the same batches and under the same limits.

    Args:
        model: A `LoadedModel`.
        limits: `Limits`, as given to the application.
        app: From `build_app`.
    """
    from eczema_tf.serving.answering import ExportBackend, answer_case
    from eczema_tf.serving.page.mount import mount_page

    answer = partial(answer_case, ExportBackend(app.state.batcher.ask, model.side["thresholds"]))
    mount_page(app, answer, limits)


def _warn_if_open(host: str) -> None:
    if not ipaddress.ip_address(host).is_loopback:
        print(
            f"warning: {host} can be reached from other machines, and this server has no login and"
            " no encryption; put a proxy with both before it, or keep to 127.0.0.1",
            file=sys.stderr,
        )


def _announce(address: str, version: int) -> None:
    print(
        f"version {version} is at {address}/ and {address}/v1/models/eczema (Ctrl+C"
        f" stops)\n{NOTICE}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
