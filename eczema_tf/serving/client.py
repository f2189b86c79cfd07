"""A client for servers that speak TensorFlow Serving's REST protocol, as ours does."""

import base64
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from eczema_tf.errors import EczemaError, cut_lines, shorten
from eczema_tf.evaluation.predictions import FLAGS
from eczema_tf.schema import CONSISTENCY, DECISIONS, ECZEMA_HEADS, SEVERITY
from eczema_tf.serving.cases import Said
from eczema_tf.serving.graph.signature import SERVE, WITH_CLINICAL

TIMEOUT_S = 30.0
MAX_BODY_MB = 20  # the largest request that a server accepts by default
SMALL_BYTES = 1_000_000  # a request that any server accepts
HUNG_UP = (BrokenPipeError, ConnectionResetError)
# raised by reading something that is not an answer of such a model
NONSENSE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
# what a row of an answer contains: probabilities, here with their shapes; flags; strings
SHAPES: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(ECZEMA_HEADS.values(), ()),
    "consistency": (len(CONSISTENCY),),
    "severity": (len(SEVERITY),),
}
STRINGS = ("decision", "status")
ROUNDING = 1e-6  # of float32


def predict_remotely(
    url: str, images: Sequence[bytes], text: str, clinical: str = ""
) -> dict[str, np.ndarray]:
    """Asks a server about photos, one row for each.

    Args:
        url: Of the model, for instance `http://127.0.0.1:8501/v1/models/eczema`.
        images: Upright JPEGs or PNGs; b"" for none.
        text: Of all rows; "" for none.
        clinical: Of all rows, from `data.clinical.lines.join_fields`, for models that take any.

    Returns:
        The outputs of the signature; strings are bytes.

    Raises:
        EczemaError: If the server cannot be reached, or answers with an error or with nonsense.
    """
    if "/v1/models/" not in url:
        example = "http://127.0.0.1:8501/v1/models/eczema"
        raise EczemaError(f"--url {url}: must be a model's address, such as {example}")
    encoded = [base64.b64encode(image).decode() for image in images]
    text = text.encode("utf-8", "replace").decode()  # JSON has no half surrogate pairs
    told = {"clinical": clinical} if clinical else {}
    rows = [{"image": {"b64": image}, "text": text, **told} for image in encoded]
    named = {"signature_name": WITH_CLINICAL[SERVE]} if clinical else {}
    asked = {**named, "instances": rows}
    with _blaming(url):
        try:
            answers = _fetch(f"{url.rstrip('/')}:predict", asked)["predictions"]
        except urllib.error.HTTPError as error:
            said = error.read(500).decode(errors="replace")
            raise EczemaError(f"{url}: answered {error.code}: {said}") from error
        if len(answers) != len(rows):
            raise ValueError(f"{len(answers)} rows for {len(rows)}")
        names = (*SHAPES, *FLAGS, *STRINGS)
        return {name: _read_column(name, [row[name] for row in answers]) for name in names}


def fetch_metadata(url: str) -> Said:
    """Asks a server for the export's metadata.

    Args:
        url: Of the model.

    Returns:
        From the server of `python -m eczema_tf.serve`, what the export says; from TensorFlow
        Serving, which knows only the graph, only the general notice.

    Raises:
        EczemaError: If the server cannot be reached, or answers with nonsense.
    """
    with _blaming(f"{url}/metadata"):
        try:
            metadata = _fetch(f"{url.rstrip('/')}/metadata")["metadata"].get("eczema_tf")
        except urllib.error.HTTPError as error:
            if error.code not in (404, 405, 501):  # some servers of this protocol have no metadata
                raise
            metadata = None
        return Said() if metadata is None else _read_said(metadata)


@contextmanager
def _blaming(url: str) -> Iterator[None]:
    """Turns errors of asking, and of reading nonsense, into one line."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise EczemaError(f"{url}: no usable answer: {error}; is the server running?") from error
    except NONSENSE as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else shorten(str(error))
        advice = "is this the address of a model of eczema_tf, and of this version?"
        raise EczemaError(f"{url}: no usable answer: {what}; {advice}") from error


def _read_said(metadata: Mapping[str, Any]) -> Said:
    undecided, clinical = metadata.get("undecided"), metadata.get("clinical") or {}
    bounds = undecided and {kind: _read_bounds(undecided[kind]) for kind in ECZEMA_HEADS}
    return Said(
        {kind: _read_probability(metadata["thresholds"][kind]) for kind in ECZEMA_HEADS},
        bounds or None,
        cut_lines(str(metadata["notice"])),
        {name: tuple(map(str, values)) for name, values in clinical.items()},
    )


def _read_bounds(given: Sequence[object]) -> tuple[float, float]:
    low, high = map(_read_probability, given)
    return low, high


def _read_probability(given: object) -> float:
    return float(_read_column("threshold", [given])[0])


def _read_column(name: str, values: Sequence[Any]) -> np.ndarray:
    """Reads one value per row, and checks that a model may return it under this name."""
    if name in STRINGS:
        return _read_strings(name, values)
    column = np.array(values)
    if name in FLAGS:
        allowed, is_right = "true or false", column.dtype == bool
    else:
        allowed, is_right = "numbers from 0 to 1", column.dtype.kind in "if"
        is_right = is_right and bool((abs(column - 0.5) <= 0.5 + ROUNDING).all())
    shape = (len(values), *SHAPES.get(name, ()))
    if not is_right or column.shape != shape:
        raise ValueError(f"{name}: must be {allowed}, of shape {shape}; received {values}")
    return column


def _read_strings(name: str, values: Sequence[Any]) -> np.ndarray:
    if name == "decision" and not all(value in DECISIONS for value in values):
        raise ValueError(f"decision: must be {' or '.join(DECISIONS)}; received {values}")
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name}: must be a string; received {values}")
    return np.array([cut_lines(value).encode() for value in values], object)


def _fetch(url: str, question: object = None) -> Any:
    if not url.startswith(("http://", "https://")):
        raise EczemaError(f"--url {url}: must begin with http:// or https://")
    body = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return json.load(response)
    except OSError as error:
        # a server that refuses a request for its size does not read it
        is_hung_up = isinstance(getattr(error, "reason", error), HUNG_UP)
        if body and len(body) > SMALL_BYTES and is_hung_up:
            raise EczemaError(
                f"{url}: the server hung up on a request of {len(body) / 1e6:.1f} MB; allowed: its"
                f" --max-body-mb, {MAX_BODY_MB} by default; send fewer or smaller photos, or raise"
                " the limit"
            ) from error
        raise
