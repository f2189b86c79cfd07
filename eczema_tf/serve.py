"""`python -m eczema_tf.serve`: an exported model over HTTP, with a web page, on one machine."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eczema_tf.cli import build_parser, run_command, whole_number

EXAMPLES = """examples:
  python -m eczema_tf.serve --model saved_models/eczema     (then open http://127.0.0.1:8501/)
  python -m eczema_tf.predict --url http://127.0.0.1:8501/v1/models/eczema --text "it itches"
  curl -d '{"instances": [{"image": "", "text": "it itches"}]}' \\
    http://127.0.0.1:8501/v1/models/eczema:predict
  curl http://127.0.0.1:8501/v1/models/eczema/metadata      (signatures, labels, thresholds)
  curl http://127.0.0.1:8501/metrics                        (also /healthz and /readyz)

Requests and answers are those of TensorFlow Serving
(https://www.tensorflow.org/tfx/serving/api_rest): a photo is {"b64": "..."} or "" for none, and
"signature_name": "explain" adds the heatmap and the scores of words. Requests that come together
are answered together. Nothing that is sent is stored or logged. Ctrl+C or SIGTERM stops the server
once it has answered what is under way."""


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
    from eczema_tf.workflows.serve import serve

    serve(
        arguments.model,
        arguments.host,
        arguments.port,
        batch_rows=arguments.batch_rows,
        max_rows=arguments.max_rows,
        max_waiting_rows=arguments.max_waiting_rows,
        max_body_mb=arguments.max_body_mb,
        stop_timeout_s=arguments.stop_timeout_s,
        with_page=not arguments.no_page,
    )


if __name__ == "__main__":
    sys.exit(main())
