"""`python -m eczema_tf.serve`: an exported model over HTTP, with a web page, on one machine."""

import argparse
import sys

from eczema_tf.cli import MODEL, argument, command, number, start_tensorflow
from eczema_tf.errors import EczemaError

EXAMPLES = """examples:
  python -m eczema_tf.serve --model saved_models/eczema     (then open http://127.0.0.1:8501/)
  python -m eczema_tf.predict --url http://127.0.0.1:8501/v1/models/eczema --text "it itches"
  curl -H 'Content-Type: application/json' \\
    -d '{"instances": [{"image": "", "text": "it itches"}]}' \\
    http://127.0.0.1:8501/v1/models/eczema:predict
  curl http://127.0.0.1:8501/v1/models/eczema/metadata      (signatures, labels, thresholds)
  curl http://127.0.0.1:8501/metrics                        (also /healthz and /readyz)

Requests and answers have the format of TensorFlow Serving
(https://www.tensorflow.org/tfx/serving/api_rest): a photo is {"b64": "..."}, or "" for none, and
"signature_name": "explain" adds the heatmap and the word scores. Requests that arrive together are
answered together. Nothing that is sent is stored or logged. Ctrl+C or SIGTERM stops the server once
it has answered the requests under way."""


def _serve(arguments: argparse.Namespace) -> None:
    start_tensorflow(with_keras=False)
    try:
        from eczema_tf.workflows.serve import serve
    except ModuleNotFoundError as missing:
        raise EczemaError(
            f"serve needs {missing.name}: pip install -r requirements-serve.txt"
        ) from missing

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


main = command(
    "serve",
    _serve,
    MODEL,
    argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; any other than the default may let other machines in",
    ),
    number("--port", 8501, "port to listen on; 0 for any free one", 0, 65_535),
    number("--batch-rows", 16, "number of rows at which a batch of the model is full", 1, 256),
    number("--max-rows", 64, "maximum rows per request", 1, 1024),
    number("--max-waiting-rows", 256, "maximum rows waiting; further requests get 503", 3, 99_999),
    number("--max-body-mb", 20, "maximum size of a request in MB, base64 included", 1, 1000),
    number("--stop-timeout-s", 10, "seconds to finish open requests when stopped", 1, 3600),
    argument(
        "--no-page",
        action="store_true",
        help="serve only a plain page without a form at /; the server then starts sooner",
    ),
    examples=EXAMPLES,
)

if __name__ == "__main__":
    sys.exit(main())
