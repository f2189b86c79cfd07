"""Asking a server that speaks TensorFlow Serving's REST protocol, as ours does."""

import base64
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import numpy as np

from eczema_tf.errors import EczemaError
from eczema_tf.serving.cases import Said
from eczema_tf.serving.graph.signature import SERVE, WITH_CLINICAL

TIMEOUT_S = 30.0
# of asking, and of reading nonsense
NO_ANSWER = (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError)


def predict_remotely(
    url: str, images: Sequence[bytes], text: str, clinical: str = ""
) -> dict[str, np.ndarray]:
    """Asks for a row for each photo.

    Args:
        url: Of the model, for instance `http://127.0.0.1:8501/v1/models/eczema`.
        images: Upright JPEGs or PNGs; b"" for none.
        text: Of all rows; "" for none.
        clinical: Likewise, from `data.clinical.lines.join_fields`, for models that are told any.

    Returns:
        The outputs of the signature; strings are bytes.

    Raises:
        EczemaError: If the server cannot be reached or answers with an error.
    """
    if "/v1/models/" not in url:
        example = "http://127.0.0.1:8501/v1/models/eczema"
        raise EczemaError(f"--url {url}: must be a model's address, such as {example}")
    encoded = [base64.b64encode(image).decode() for image in images]
    told = {"clinical": clinical} if clinical else {}
    rows = [{"image": {"b64": image}, "text": text, **told} for image in encoded]
    named = {"signature_name": WITH_CLINICAL[SERVE]} if clinical else {}
    try:
        answers = _fetch(f"{url.rstrip('/')}:predict", {**named, "instances": rows})["predictions"]
        if len(answers) != len(rows):
            raise ValueError(f"{len(answers)} rows for {len(rows)}")
        return {name: _read_column([row[name] for row in answers]) for name in answers[0]}
    except urllib.error.HTTPError as error:
        raise EczemaError(
            f"{url}: answered {error.code}: {error.read(500).decode(errors='replace')}"
        ) from error
    except NO_ANSWER as error:
        raise EczemaError(f"{url}: no usable answer: {error}; is the server running?") from error


def fetch_metadata(url: str) -> Said:
    """Asks for what the export was given beside its graph.

    Args:
        url: Of the model.

    Returns:
        From the server of `python -m eczema_tf.serve`, what the export says; from TensorFlow
        Serving, which knows the graph alone, only the general notice.

    Raises:
        EczemaError: If the server cannot be reached.
    """
    try:
        metadata = _fetch(f"{url.rstrip('/')}/metadata")["metadata"].get("eczema_tf")
        if metadata is None:
            return Said()
        undecided = metadata.get("undecided") or {}
        bounds = {kind: (float(low), float(high)) for kind, (low, high) in undecided.items()}
        thresholds, notice = dict(metadata["thresholds"]), str(metadata["notice"])
        return Said(thresholds, bounds or None, notice, dict(metadata.get("clinical", {})))
    except urllib.error.HTTPError:  # some servers of this protocol have no metadata
        return Said()
    except NO_ANSWER as error:
        raise EczemaError(
            f"{url}/metadata: no usable answer: {error}; is the server running?"
        ) from error


def _read_column(values: list[Any]) -> np.ndarray:
    if isinstance(values[0], str):
        return np.array([value.encode() for value in values], object)
    return np.array(values)


def _fetch(url: str, question: object = None) -> Any:
    if not url.startswith(("http://", "https://")):
        raise EczemaError(f"--url {url}: must begin with http:// or https://")
    body = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        return json.load(response)
