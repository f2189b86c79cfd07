"""Photo files on disk: where a manifest's photo is, and the one reader of its bytes."""

from pathlib import Path, PurePosixPath, PureWindowsPath

from eczema_tf.errors import DataError

MIN_FILE_BYTES = 32  # nothing smaller is a photo
MAX_FILE_BYTES = 50_000_000


def find_photo(image_path: str, root: Path) -> Path:
    """Finds the photo of one row of a manifest.

    Args:
        image_path: As in the manifest, not empty.
        root: The manifest's folder, resolved, which photos must not leave.

    Returns:
        The file, absolute, with symbolic links followed.

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
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from error
    if is_there:
        raise DataError("is not a file; allowed: a JPEG or PNG file")
    raise DataError("no such photo; allowed: a JPEG or PNG file that is there")


def read_photo(file: Path) -> bytes:
    """Reads a photo file, unless it is too small to be one or too large to be looked at.

    Raises:
        DataError: If it cannot be read, or has less than 32 bytes or more than 50 MB.
    """
    try:
        check_size(file.stat().st_size)  # before it is read
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"photo cannot be read: {error.strerror}") from error


def check_size(count: int) -> None:
    """Refuses a photo file by its number of bytes.

    Raises:
        DataError: If it has less than `MIN_FILE_BYTES` or more than `MAX_FILE_BYTES`.
    """
    if not MIN_FILE_BYTES <= count <= MAX_FILE_BYTES:
        raise DataError(f"photo has {count} bytes; allowed: {MIN_FILE_BYTES} to {MAX_FILE_BYTES}")
