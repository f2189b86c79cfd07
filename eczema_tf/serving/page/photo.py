"""The photo between browser and model. It comes as a file of Gradio's upload and goes back as a data URL: the browser keeps it, not we.

A value of Gradio's image component is a dict, here taken and given as it is (`preprocess=False`,
`postprocess=False`): its own conversions would write every photo to disk.
"""

import base64
import contextlib
from pathlib import Path
from typing import Any

from eczema_tf.data.photo.inspection import upright_jpeg
from eczema_tf.errors import DataError

JPEG_URL = "data:image/jpeg;base64,"


def read_photo(value: dict[str, Any] | None, folder: Path) -> bytes:
    """Reads the photo of an image component and makes it an upright JPEG without metadata.

    Args:
        value: Of the component: a file that was uploaded, a data URL from `show_photo`, or None.
        folder: Of the uploads; no other file is read.

    Returns:
        A JPEG; b"" for no photo.

    Raises:
        DataError: If it is not a photo that can be used.
    """
    data = (
        _read_file(Path(value["path"]), folder)
        if value and value.get("path")
        else _read_url((value or {}).get("url") or "")
    )
    return upright_jpeg(data) if data else b""


def forget_file(value: dict[str, Any] | None, folder: Path) -> None:
    """Deletes the uploaded file of an image component, if it has one."""
    if value and value.get("path") and _is_inside(Path(value["path"]), folder):
        path = Path(value["path"])
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: somebody else's upload of the same bytes
            path.parent.rmdir()


def show_photo(jpeg: bytes) -> dict[str, Any]:
    """Returns the value with which an image component shows a photo, and sends it again when the model is asked."""
    return {
        "path": None,
        "url": as_url(jpeg),
        "orig_name": "photo.jpg",
        "mime_type": "image/jpeg",
        "meta": {"_type": "gradio.FileData"},
    }


def as_url(jpeg: bytes) -> str:
    """Returns a JPEG as a data URL."""
    return JPEG_URL + base64.b64encode(jpeg).decode()


def _read_file(path: Path, folder: Path) -> bytes:
    if not _is_inside(path, folder):
        raise DataError("photo cannot be read: it was not uploaded here")
    try:
        return path.read_bytes()
    except OSError as error:  # asked for between the upload and its preview
        raise DataError(
            "photo is not there any more: ask again if you can see it, choose it again if not"
        ) from error


def _is_inside(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents


def _read_url(url: str) -> bytes:
    try:
        return base64.b64decode(url.removeprefix(JPEG_URL), validate=True)
    except ValueError as error:
        raise DataError("photo cannot be read: choose it again") from error
