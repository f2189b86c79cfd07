"""Asking a server that speaks TensorFlow Serving's REST protocol, as ours does."""

import base64
import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from eczema_tf.errors import EczemaError
from eczema_tf.schema import NOTICE

TIMEOUT_S = 30.0
# of asking, and of reading nonsense
NO_ANSWER = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError)


def predict_remotely(url: str, image: bytes, text: str) -> dict[str, Any]:
    """Asks for one row.

    Args:
        url: Of the model, for instance `http://127.0.0.1:8501/v1/models/eczema`.
        image: An upright JPEG or PNG; b"" for none.
        text: "" for none.

    Returns:
        The outputs of the signature `serving_default` for the row.

    Raises:
        EczemaError: If the server cannot be reached or answers with an error.
    """
    row = {"image": {"b64": base64.b64encode(image).decode()}, "text": text}
    try:
        return _fetch(f"{url.rstrip('/')}:predict", {"instances": [row]})["predictions"][0]
    except urllib.error.HTTPError as error:
        raise EczemaError(
            f"{url}: answered {error.code}: {error.read(500).decode(errors='replace')}"
        ) from error
    except NO_ANSWER as error:
        raise EczemaError(f"{url}: no usable answer: {error}; is the server running?") from error


def fetch_metadata(url: str) -> tuple[dict[str, float] | None, str]:
    """Asks for the thresholds and the notice that the export was given.

    Args:
        url: Of the model.

    Returns:
        By "image", "text" and "fusion", and the notice, from the server of `python -m
        eczema_tf.serve`; None and the general one from TensorFlow Serving, which knows the graph
        alone.

    Raises:
        EczemaError: If the server cannot be reached.
    """
    try:
        metadata = _fetch(f"{url.rstrip('/')}/metadata")["metadata"].get("eczema_tf")
        if metadata is None:
            return None, NOTICE
        return dict(metadata["thresholds"]), str(metadata["notice"])
    except urllib.error.HTTPError:  # some servers of this protocol have no metadata
        return None, NOTICE
    except NO_ANSWER as error:
        raise EczemaError(
            f"{url}/metadata: no usable answer: {error}; is the server running?"
        ) from error


def _fetch(url: str, question: object = None) -> Any:
    if not url.startswith(("http://", "https://")):
        raise EczemaError(f"--url {url}: must begin with http:// or https://")
    body = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        return json.load(response)
