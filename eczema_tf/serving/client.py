"""Asking a SavedModel or a server: one request in, one answer out, the same for both."""

import base64
import http.client
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from eczema_tf.errors import EczemaError

SIDE_FILE = (
    Path("assets.extra") / "eczema.json"
)  # thresholds, labels, notice and versions, beside the graph
NO_ANSWER = (
    OSError,
    http.client.HTTPException,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)  # of asking, and of reading nonsense


def predict_locally(folder: Path, image: bytes, text: str) -> dict[str, Any]:
    """Runs one row through the `serving_default` signature of a SavedModel.

    Args:
        folder: A version's folder, or the folder of all versions (the newest is taken).
        image: An upright JPEG or PNG; b"" for none.
        text: "" for none.

    Returns:
        The signature's outputs for the row, as plain Python values.

    Raises:
        EczemaError: If the folder holds no SavedModel.
    """
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  (registers the tokenizer's ops)

    try:
        serve = tf.saved_model.load(str(find_version(folder))).signatures["serving_default"]
    except (OSError, ValueError, KeyError) as error:
        raise EczemaError(
            f"{folder}: cannot be loaded as a SavedModel: {str(error).splitlines()[0]}"
        ) from error
    outputs = serve(image=tf.constant([image]), text=tf.constant([text.encode("utf-8", "replace")]))
    row = {name: value.numpy()[0] for name, value in outputs.items()}
    return {
        name: value.decode() if isinstance(value, bytes) else value.tolist()
        for name, value in row.items()
    }


def predict_remotely(url: str, image: bytes, text: str, timeout_s: float = 30.0) -> dict[str, Any]:
    """Asks a server that speaks TensorFlow Serving's REST protocol.

    Args:
        url: Of the model, for instance `http://127.0.0.1:8501/v1/models/eczema`.
        image: An upright JPEG or PNG; b"" for none.
        text: "" for none.
        timeout_s: How long to wait.

    Returns:
        The outputs for the row.

    Raises:
        EczemaError: If the server cannot be reached or answers with an error.
    """
    body = json.dumps(
        {"instances": [{"image": {"b64": base64.b64encode(image).decode()}, "text": text}]}
    ).encode()
    try:
        return _fetch(f"{url.rstrip('/')}:predict", body, timeout_s)["predictions"][0]
    except urllib.error.HTTPError as error:
        raise EczemaError(
            f"{url}: answered {error.code}: {error.read(500).decode(errors='replace')}"
        ) from error
    except NO_ANSWER as error:
        raise EczemaError(f"{url}: no usable answer: {error}; is the server running?") from error


def read_remote_side(url: str, timeout_s: float = 30.0) -> dict[str, Any] | None:
    """Asks a server for what an export says beside its graph.

    Args:
        url: Of the model.
        timeout_s: How long to wait.

    Returns:
        Notice, labels and thresholds if the server is that of `python -m eczema_tf.serve`; None
        from TensorFlow Serving, which knows the graph alone.

    Raises:
        EczemaError: If the server cannot be reached.
    """
    try:
        return _fetch(f"{url.rstrip('/')}/metadata", None, timeout_s)["metadata"].get("eczema_tf")
    except urllib.error.HTTPError:  # some servers of this protocol have no metadata
        return None
    except NO_ANSWER as error:
        raise EczemaError(
            f"{url}/metadata: no usable answer: {error}; is the server running?"
        ) from error


def _fetch(url: str, body: bytes | None, timeout_s: float) -> Any:
    if not url.startswith(("http://", "https://")):
        raise EczemaError(f"--url {url}: must begin with http:// or https://")
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout_s) as response:
        return json.load(response)


def find_version(folder: Path) -> Path:
    """Returns the newest version's folder.

    Args:
        folder: Of a SavedModel, or of numbered versions.

    Raises:
        EczemaError: If there is neither.
    """
    if (folder / "saved_model.pb").is_file():
        return folder
    versions = (
        [child for child in folder.iterdir() if child.name.isdigit()] if folder.is_dir() else []
    )
    if not versions:
        raise EczemaError(
            f"{folder}: holds no SavedModel and no numbered versions; make one with `python -m"
            " eczema_tf.export`"
        )
    return max(versions, key=lambda child: int(child.name))


def read_side_file(folder: Path) -> dict[str, Any]:
    """Reads thresholds, labels, notice and versions from an export."""
    path = find_version(folder) / SIDE_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EczemaError(f"{path}: missing or damaged; export the model again") from error
