"""Photo files: finding a manifest's photo, the one reader of its bytes, and Pillow's errors."""

import io
import unicodedata
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath

from PIL import Image, UnidentifiedImageError

from eczema_tf.data.photo.limits import MAX_FILE_BYTES, MAX_JPEG_PIXELS, MIN_FILE_BYTES
from eczema_tf.errors import DataError


def find_photo(image_path: str, root: Path) -> Path:
    """Finds the photo of one row of a manifest.

    Args:
        image_path: As in the manifest, not empty.
        root: The manifest's folder, resolved, which photos must not leave.

    Returns:
        The file, absolute, with symbolic links followed. An accent may be part of a character or a
        mark of its own; macOS and archives change one into the other.

    Raises:
        DataError: If it is not there, or not a path inside the folder.
    """
    if PurePosixPath(image_path).is_absolute() or PureWindowsPath(image_path).drive:
        raise DataError("is absolute; allowed: a path relative to the manifest's folder")
    try:
        file = (root / image_path).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL byte, a loop of links
        raise DataError(
            "is not a path; allowed: a path relative to the manifest's folder"
        ) from error
    if not file.is_relative_to(root):
        raise DataError(
            "leaves the manifest's folder; allowed: a path inside it (links are followed)"
        )
    try:
        if file.is_file():
            return file
        is_there = file.exists()
        near = "" if is_there else find_alike(image_path, root)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from error
    if is_there:
        raise DataError("is not a file; allowed: a photo file")
    if (root / near).is_dir():
        near = ""
    if near and compose(near) == compose(image_path):
        return find_photo(near, root)
    hint = f"; did you mean {near!r}?" if near else ""
    raise DataError(f"no such photo; allowed: a photo file that exists{hint}")


def find_alike(path: str, root: Path) -> str:
    """Finds a path that differs in accents' coding, case, blanks or ending only; "" for none."""
    near = PurePosixPath()
    for name in PurePosixPath(path).parts:
        folder = root / near
        if not (folder / name).exists():
            there = _list_alike((folder, folder.stat().st_mtime_ns)) if folder.is_dir() else {}
            name = there.get(compose(name), there.get(_simplify(name), ""))
            if not name:
                return ""
        near /= name
    return near.as_posix()


@lru_cache(maxsize=64)
def _list_alike(state: tuple[Path, int]) -> dict[str, str]:
    """Lists normalised names in a folder; `state` is the folder and its time of change (ns)."""
    names = sorted(path.name for path in state[0].iterdir())
    return {_simplify(name): name for name in names} | {compose(name): name for name in names}


def compose(name: str) -> str:
    """Writes accents in one way (NFC): macOS and archives may take letters and accents apart."""
    return unicodedata.normalize("NFC", name)


def _simplify(name: str) -> str:
    return PurePosixPath(compose(name).strip()).stem.strip().casefold()


def read_photo(file: Path) -> bytes:
    """Reads a photo file, unless it is too small to be one or too large.

    Raises:
        DataError: If it cannot be read, or has fewer than 32 bytes or more than 50 MB.
    """
    try:
        check_size(file.stat().st_size)  # before it is read
        return file.read_bytes()
    except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
        cause = getattr(error, "strerror", error)
        raise DataError(f"photo cannot be read: {cause}") from error


def encode_image(image: Image.Image, kind: str, **options: object) -> bytes:
    """Returns an image as the bytes of a file.

    Args:
        image: An image in a mode that the format supports.
        kind: Pillow's name of the format, such as "JPEG".
        **options: Options of its writer.
    """
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def check_size(count: int) -> None:
    """Refuses a photo file by its number of bytes.

    Raises:
        DataError: If it has fewer than `MIN_FILE_BYTES` or more than `MAX_FILE_BYTES`.
    """
    if not MIN_FILE_BYTES <= count <= MAX_FILE_BYTES:
        raise DataError(f"photo has {count} bytes; allowed: {MIN_FILE_BYTES} to {MAX_FILE_BYTES}")


def describe_error(error: BaseException) -> str:
    """Says what is wrong with a photo, whatever Pillow raised on opening or decoding it."""
    if isinstance(error, Image.DecompressionBombError):
        most = MAX_JPEG_PIXELS // 1_000_000
        return f"photo has too many pixels; allowed: at most {most} megapixels"
    if isinstance(error, UnidentifiedImageError):
        return "photo cannot be read: truncated or damaged (its header)"
    if isinstance(error, OSError) and error.strerror:
        return f"photo cannot be read: {error.strerror}"
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"photo cannot be read: truncated or damaged ({reason})"
