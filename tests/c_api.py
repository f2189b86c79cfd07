"""Runs a SavedModel through TensorFlow's C API, without TensorFlow's Python.

TensorFlow Serving uses the same C++ loader and session.

    python tests/c_api.py < question.json > answer.json

The question is {"folder": DIR, "text_ops": true, "runs": [{"inputs": {TENSOR: {"b64": [...]}},
"outputs": {NAME: TENSOR}}]}, where TENSOR is a name from the signature, such as
"serving_default_image:0". The answer is {"runs": [{NAME: {"dtype", "shape", "values" or "b64"}}]}
or {"error": ...}. Sources: tensorflow/c/c_api.h and tf_tstring.h of the installed wheel.
"""

import base64
import ctypes
import importlib.util
import json
import math
import sys
from pathlib import Path

FLOAT, STRING, BOOL, INT32 = 1, 7, 10, 3  # TF_DataType, tensorflow/c/tf_datatype.h
NUMBERS = {
    FLOAT: ("float32", ctypes.c_float),
    INT32: ("int32", ctypes.c_int32),
    BOOL: ("bool", ctypes.c_bool),
}
TSTRING_BYTES = 24  # sizeof(TF_TString), tsl/platform/ctstring_internal.h


class Output(ctypes.Structure):
    """TF_Output: an operation and the index of one of its outputs."""

    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


def load_library() -> ctypes.CDLL:
    """Loads the C API from the installed wheel, and declares its arguments and results."""
    folder = find_package("tensorflow")
    ctypes.CDLL(str(folder / "libtensorflow_framework.so.2"), ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"), ctypes.RTLD_GLOBAL)
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    for name, result, arguments in (
        ("TF_Version", text, []),
        ("TF_NewStatus", pointer, []),
        ("TF_GetCode", ctypes.c_int, [pointer]),
        ("TF_Message", text, [pointer]),
        ("TF_NewGraph", pointer, []),
        ("TF_NewSessionOptions", pointer, []),
        ("TF_LoadLibrary", pointer, [text, pointer]),
        (
            "TF_LoadSessionFromSavedModel",
            pointer,
            [pointer, pointer, text, ctypes.POINTER(text), ctypes.c_int, pointer, pointer, pointer],
        ),
        ("TF_GraphOperationByName", pointer, [pointer, text]),
        (
            "TF_AllocateTensor",
            pointer,
            [ctypes.c_int, ctypes.POINTER(ctypes.c_int64), ctypes.c_int, size],
        ),
        ("TF_TensorData", pointer, [pointer]),
        ("TF_TensorType", ctypes.c_int, [pointer]),
        ("TF_NumDims", ctypes.c_int, [pointer]),
        ("TF_Dim", ctypes.c_int64, [pointer, ctypes.c_int]),
        ("TF_DeleteTensor", None, [pointer]),
        ("TF_StringInit", None, [pointer]),
        ("TF_StringCopy", None, [pointer, text, size]),
        ("TF_StringGetDataPointer", pointer, [pointer]),
        ("TF_StringGetSize", size, [pointer]),
        (
            "TF_SessionRun",
            None,
            [
                *(pointer, pointer),
                *(ctypes.POINTER(Output), ctypes.POINTER(pointer), ctypes.c_int),
                *(ctypes.POINTER(Output), ctypes.POINTER(pointer), ctypes.c_int),
                *(pointer, ctypes.c_int, pointer, pointer),
            ],
        ),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def find_package(name: str) -> Path:
    """Returns the folder of a package without importing it."""
    return Path(importlib.util.find_spec(name).origin).parent


class Session:
    """A loaded SavedModel."""

    def __init__(self, folder: str, text_ops: bool):
        self._library = load_library()
        self._status = self._library.TF_NewStatus()
        if text_ops:
            for path in sorted((find_package("tensorflow_text") / "python" / "ops").glob("*.so")):
                self._library.TF_LoadLibrary(str(path).encode(), self._status)
                self._check()
        self._graph = self._library.TF_NewGraph()
        tags = (ctypes.c_char_p * 1)(b"serve")
        options = self._library.TF_NewSessionOptions()
        self._session = self._library.TF_LoadSessionFromSavedModel(
            options, None, folder.encode(), tags, len(tags), self._graph, None, self._status
        )
        self._check()

    def run(self, inputs: dict[str, dict], outputs: dict[str, str]) -> dict[str, dict]:
        """Feeds strings and fetches outputs, which may be strings or numbers."""
        feeds, fetches = self._find(inputs), self._find(outputs.values())
        given = (ctypes.c_void_p * len(inputs))(
            *(
                self._to_tensor([base64.b64decode(row) for row in rows["b64"]])
                for rows in inputs.values()
            )
        )
        got = (ctypes.c_void_p * len(outputs))()
        self._library.TF_SessionRun(
            self._session,
            None,
            feeds,
            given,
            len(feeds),
            fetches,
            got,
            len(fetches),
            None,
            0,
            None,
            self._status,
        )
        self._check()
        answer = {
            name: self._from_tensor(tensor) for name, tensor in zip(outputs, got, strict=True)
        }
        for tensor in (*given, *got):
            self._library.TF_DeleteTensor(tensor)
        return answer

    def _find(self, names: object) -> ctypes.Array:
        places = []
        for name in names:
            operation, index = name.rsplit(":", 1)
            places.append(
                Output(
                    self._library.TF_GraphOperationByName(self._graph, operation.encode()),
                    int(index),
                )
            )
        return (Output * len(places))(*places)

    def _to_tensor(self, rows: list[bytes]) -> int:
        shape = (ctypes.c_int64 * 1)(len(rows))
        tensor = self._library.TF_AllocateTensor(STRING, shape, 1, TSTRING_BYTES * len(rows))
        for place, row in enumerate(rows):
            at = self._library.TF_TensorData(tensor) + TSTRING_BYTES * place
            self._library.TF_StringInit(at)
            self._library.TF_StringCopy(at, row, len(row))
        return tensor

    def _from_tensor(self, tensor: int) -> dict:
        shape = [
            self._library.TF_Dim(tensor, axis) for axis in range(self._library.TF_NumDims(tensor))
        ]
        kind, data, count = (
            self._library.TF_TensorType(tensor),
            self._library.TF_TensorData(tensor),
            math.prod(shape),
        )
        if kind == STRING:
            return {
                "dtype": "string",
                "shape": shape,
                "b64": [self._read_string(data + TSTRING_BYTES * place) for place in range(count)],
            }
        name, c_type = NUMBERS[kind]
        return {
            "dtype": name,
            "shape": shape,
            "values": list((c_type * count).from_address(data)) if count else [],
        }

    def _read_string(self, at: int) -> str:
        size = self._library.TF_StringGetSize(at)
        return base64.b64encode(
            ctypes.string_at(self._library.TF_StringGetDataPointer(at), size)
        ).decode()

    def _check(self) -> None:
        if self._library.TF_GetCode(self._status):
            raise RuntimeError(self._library.TF_Message(self._status).decode(errors="replace"))


def main() -> None:
    """Answers the question on standard input."""
    question = json.load(sys.stdin)
    try:
        session = Session(question["folder"], question["text_ops"])
        answer = {"runs": [session.run(**run) for run in question["runs"]]}
    except RuntimeError as error:
        answer = {"error": str(error)}
    if "tensorflow" in sys.modules:
        raise SystemExit("TensorFlow's Python was imported: this proves nothing")
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
