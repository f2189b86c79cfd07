"""TensorFlow Serving's REST contract as plain functions: bytes to rows, rows to bytes.

This module uses no web framework. It follows https://www.tensorflow.org/tfx/serving/api_rest, and
TensorFlow Serving's `json_tensor.cc` and `http_rest_api_util.cc` for what is refused. Where it
differs, it is stricter: it also refuses invalid UTF-8, batches without rows, duplicate names in an
object, and unknown inputs in column format.
Messages name the place of a mistake and never repeat its content, which may be a patient's words.
"""

import base64
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eczema_tf.errors import EczemaError
from eczema_tf.serving.cases import OF_PHOTOS, Outputs, Undecided, pool_rows
from eczema_tf.serving.exported import ExportMetadata
from eczema_tf.serving.graph.signature import MODEL_NAME, SERVE, SIGNATURES, list_inputs

# "[", "{" and "," in a body: each may become an object of 50 to 200 bytes; texts contain some, too
MAX_MARKS = 200_000
# of a text, or of fields: the model reads 20,000, but counts all words, once for each photo
MAX_TOLD_BYTES = 100_000
SHOWN_NAME_CHARACTERS = 40  # of an unknown name, in a message


class BadRequest(EczemaError):
    """A request that breaks the contract; the message says where and what is allowed."""


class ModelFault(EczemaError):
    """The model failed, or returned something that must not leave the server."""


class PredictRequest(NamedTuple):
    """A predict request.

    Attributes:
        images: Bytes of each photo, b"" for none.
        texts: As long as `images`; "" for none.
        signature: Of the model.
        by_row: Whether the answer is sent by row ("predictions") or by column ("outputs").
        cases: As long as `images`: the row of the request that each belongs to.
        listed: For each row of the request, whether its image is a list: several photos of a case.
        clinical: As long as `images`, in the format of `data.clinical.lines`.
    """

    images: list[bytes]
    texts: list[str]
    signature: str
    by_row: bool
    cases: list[int]
    listed: list[bool]
    clinical: list[str]


def parse_request(
    body: bytes, max_rows: int, signatures: Sequence[str] = SIGNATURES
) -> PredictRequest:
    """Reads the body of a predict request.

    Args:
        body: JSON: `{"signature_name": ..., "instances": [{"image": ..., "text": ...}, ...]}`, or
            `{"inputs": {"image": [...], "text": [...]}}`. A value is a string or `{"b64": "..."}`;
            an image may be a list of them, which TensorFlow Serving does not accept. Like
            TensorFlow Serving, it ignores other keys.
        max_rows: How many rows a request may have; each photo counts as one.
        signatures: Of the model.

    Raises:
        BadRequest: If the body is anything else.
    """
    document = _read_document(body)
    signature = document.get("signature_name", SERVE)
    if not isinstance(signature, str):
        raise BadRequest(f"signature_name: must be a string, not {_name_type(signature)}")
    signature = signature or SERVE
    if signature not in signatures:
        known = ", ".join(signatures)
        raise BadRequest(f"signature_name: {_shorten(signature)} is unknown; there are {known}")
    by_row = "instances" in document
    if by_row == ("inputs" in document):
        raise BadRequest(
            'give either "instances" (a list of rows) or "inputs" (an object of columns), and not'
            " both"
        )
    read, inputs = _read_instances if by_row else _read_inputs, [*list_inputs(signature)]
    columns = read(document["instances" if by_row else "inputs"], inputs)
    place = "instances[{row}].{name}" if by_row else "inputs.{name}[{row}]"
    listed = [isinstance(image, list) for image in columns["image"]]
    images = zip(columns["image"], listed, strict=True)
    photos = [(image or [""]) if is_list else [image] for image, is_list in images]
    rows = sum(map(len, photos))
    if not 0 < rows <= max_rows:
        raise BadRequest(f"{rows} rows; allowed: 1 to {max_rows}, where each photo counts as one")
    asked = PredictRequest([], [], signature, by_row, [], listed, [])
    lines = columns.get("clinical", [""] * len(listed))
    for row, (given, text, line) in enumerate(zip(photos, columns["text"], lines, strict=True)):
        where = place.format(row=row, name="image")
        for number, image in enumerate(given):
            asked.images.append(_read_value(image, f"{where}[{number}]" if listed[row] else where))
        for name, value, to in (("text", text, asked.texts), ("clinical", line, asked.clinical)):
            where = place.format(row=row, name=name)
            words = _read_value(value, where)
            if len(words) > MAX_TOLD_BYTES:
                raise BadRequest(f"{where}: {len(words):,} bytes; allowed: {MAX_TOLD_BYTES:,}")
            to.extend([words.decode("utf-8", "replace")] * len(given))
        asked.cases.extend([row] * len(given))
    return asked


def _read_document(body: bytes) -> dict[str, Any]:
    if sum(body.count(mark) for mark in b"[{,") > MAX_MARKS:
        raise BadRequest(f"more than {MAX_MARKS} brackets and commas")
    try:
        # no input is a number, and Python reads long integers in quadratic time, or not at all
        document = json.loads(
            body.decode("utf-8"), parse_int=float, object_pairs_hook=_refuse_second
        )
    except RecursionError as error:
        raise BadRequest("the JSON is nested too deeply") from error
    except ValueError as error:  # from json and from UTF-8; these name a position, not the content
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadRequest(f"the body must be a JSON object, not {_name_type(document)}")
    return document


def _refuse_second(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object from its members; refuses two of the same name, as either may be meant."""
    document = dict(members)
    if len(document) < len(members):
        (twice, _), *_ = Counter(name for name, _ in members).most_common(1)
        raise BadRequest(f"{_shorten(twice)} is given twice in one object")
    return document


def _read_instances(rows: Any, inputs: Sequence[str]) -> dict[str, list[Any]]:
    """The columns, in the order of `inputs`, from rows."""
    if not isinstance(rows, list):
        raise BadRequest(f"instances: must be a list of rows, not {_name_type(rows)}")
    for number, row in enumerate(rows):
        _check_names(row, f"instances[{number}]", inputs)
    return {name: [row[name] for row in rows] for name in inputs}


def _read_inputs(columns: Any, inputs: Sequence[str]) -> dict[str, list[Any]]:
    """The columns, in the order of `inputs`."""
    _check_names(columns, "inputs", inputs)
    for name, values in columns.items():
        if not isinstance(values, list):
            raise BadRequest(
                f"inputs.{name}: must be a list, one value per row, not {_name_type(values)}"
            )
    lengths = {name: len(columns[name]) for name in inputs}
    if len(set(lengths.values())) > 1:
        raise BadRequest(f"inputs: columns must be equally long, not {lengths}")
    return {name: columns[name] for name in inputs}


def _check_names(values: Any, where: str, inputs: Sequence[str]) -> None:
    if not isinstance(values, dict):
        wanted = " and ".join(f'"{name}"' for name in inputs)
        raise BadRequest(f"{where}: must be an object with {wanted}, not {_name_type(values)}")
    if missing := [name for name in inputs if name not in values]:
        raise BadRequest(f'{where}: has no {" and no ".join(missing)}; give "" for none')
    if unknown := [name for name in values if name not in inputs]:
        raise BadRequest(
            f"{where}: {_shorten(unknown[0])} is not an input; there are {', '.join(inputs)}"
        )


def _read_value(value: Any, where: str) -> bytes:
    """Returns a string's UTF-8, or the bytes that `{"b64": ...}` stands for."""
    try:
        if isinstance(value, str):
            return value.encode("utf-8")
        if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
            encoded = value["b64"]
            try:
                return base64.b64decode(encoded, validate=True)
            except ValueError:  # `absl::Base64Unescape` accepts white space and missing padding
                bare = "".join(encoded.split())
                return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except UnicodeEncodeError as error:
        raise BadRequest(
            f"{where}: contains half a surrogate pair, which is not a character"
        ) from error
    except ValueError as error:
        raise BadRequest(f"{where}: b64 is not base64 (RFC 4648, section 4)") from error
    raise BadRequest(f'{where}: must be a string or {{"b64": "..."}}, not {_name_type(value)}')


def _name_type(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a boolean",
        type(None): "null",
    }
    return names.get(type(value), "a number")


def _shorten(name: str) -> str:
    shown = name if len(name) <= SHOWN_NAME_CHARACTERS else f"{name[:SHOWN_NAME_CHARACTERS]}..."
    return ascii(shown)


def pool_photos(asked: PredictRequest, outputs: Outputs, undecided: Undecided | None) -> Outputs:
    """Turns the model's rows into the request's rows: one answer for each list of photos.

    Args:
        asked: The request.
        outputs: Of its signature, one row for each photo.
        undecided: As for `serving.cases.pool_rows`.

    Returns:
        The outputs. In a row with a list, the `cases.OF_PHOTOS` outputs have one value per photo.
    """
    if not any(asked.listed):
        return outputs
    pooled = pool_rows(outputs, asked.cases, undecided)
    for name in OF_PHOTOS & outputs.keys():
        pooled[name] = np.empty(len(asked.listed), object)
        for row, is_list in enumerate(asked.listed):
            own = outputs[name][np.array(asked.cases) == row]
            pooled[name][row] = own if is_list else own[0]
    return pooled


def encode_answer(outputs: Outputs, by_row: bool) -> bytes:
    """Writes the answer to a predict request.

    Args:
        outputs: Arrays by name; the first axis is the row. Strings are UTF-8 bytes, one per row.
        by_row: As in the `PredictRequest`.

    Returns:
        JSON: `{"predictions": [{name: value, ...}, ...]}` or `{"outputs": {name: [...], ...}}`.
        Float32 values survive the round trip exactly.

    Raises:
        ModelFault: If a value is not finite. (TensorFlow Serving would write `NaN`, which is not
            JSON.)
    """
    columns = {
        name: [
            value.decode("utf-8", "replace") if isinstance(value, bytes) else value.tolist()
            for value in values
        ]
        for name, values in sorted(outputs.items())
    }
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    document = {"predictions": list(rows)} if by_row else {"outputs": columns}
    try:
        return json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
    except ValueError as error:
        raise ModelFault("the model returned a value that is not finite") from error


def describe_status(version: int) -> dict[str, object]:
    """Returns the answer of the model status API: `GetModelStatusResponse` as JSON."""
    status = {
        "version": str(version),
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    return {"model_version_status": [status]}


def describe_metadata(folder: Path, version: int, metadata: ExportMetadata) -> dict[str, object]:
    """Builds the answer of the model metadata API: `GetModelMetadataResponse` as JSON.

    Its `metadata` is a map meant to be extended. Besides TensorFlow Serving's `signature_def`, it
    has `eczema_tf` here: notice, labels, thresholds, where the model is undecided and which
    clinical fields it takes. A client therefore does not need the export. (The package versions
    are left out: they concern no client.)

    Args:
        folder: Of the SavedModel.
        version: Its number.
        metadata: Of the export.
    """
    from google.protobuf.json_format import MessageToDict
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    graph = SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0]
    signatures = {
        name: MessageToDict(
            signature, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for name, signature in graph.signature_def.items()
    }
    said = {"notice", "labels", "thresholds", "undecided"}
    said |= {"clinical"} if metadata.clinical else set()
    own = metadata.model_dump(mode="json", include=said)
    return {
        "model_spec": {"name": MODEL_NAME, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": signatures}, "eczema_tf": own},
    }
