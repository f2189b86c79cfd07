"""Writing files so that nothing good is ever replaced by something half-written.

Everything is written aside, flushed to the disk, and renamed into place: a reader sees the old file
or the new one, never a mixture.
"""

import contextlib
import csv
import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from eczema_tf.errors import EczemaError, RunError

if TYPE_CHECKING:
    import pandas as pd

# A spreadsheet runs a cell that begins with one of these (OWASP, "CSV Injection"; NUL: OWASP ASVS
# 5.0, 1.2.10); an apostrophe before it makes the cell text. A cell that already begins with
# apostrophes and one of these gets one more, so removing one always restores what was written.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\0]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r\n\0]")
ASIDE = ".writing-"  # how the names of temporary folders begin
SETTLED_S = 60.0  # younger leftovers may belong to a writer that has not locked them yet
# numbers, and ids such as -1000600354148496558-1: at worst arithmetic, and other programs look
# them up
_HARMLESS = re.compile(r"[-+.0-9]+")
Kind = TypeVar("Kind")


@contextlib.contextmanager
def replacing_file(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path to write to, renamed to `path` only if the block ends well.

    The temporary path ends as `path` does, for writers that look at the suffix (`.weights.h5`,
    `.npz`).

    Args:
        path: Where the finished file goes. Its folder is created if necessary.

    Raises:
        EczemaError: If the disk is full, read-only or otherwise refuses. Whatever was at `path` is
            untouched.
    """
    path = Path(path)
    with refusing(path), _folder_aside(path.parent, path.name) as folder:
        aside = folder / path.name
        yield aside
        with aside.open("rb+") as written:
            os.fsync(written.fileno())
        aside.chmod(0o666 & ~_umask())
        aside.replace(path)


@contextlib.contextmanager
def replacing_folder(path: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary folder to fill, renamed to `path` only if the block ends well.

    Args:
        path: Where the finished folder goes.
        overwrite: Whether a folder that is already there may be replaced (once the new one is
            complete).

    Raises:
        EczemaError: If `path` exists and is not empty without `overwrite`, or the disk refuses.
    """
    path = Path(path)
    if path.is_symlink():  # the link stays, and the folder that it points to is filled
        path = path.resolve()
    if path.exists() and not path.is_dir():
        raise EczemaError(f"{path}: is a file; choose another name for the folder")
    if path.is_mount():
        raise EczemaError(f"{path}: is a mount point and cannot be replaced; name a folder in it")
    if path.exists() and any(path.iterdir()) and not overwrite:
        raise EczemaError(f"{path}: exists and is not empty; delete it or choose another folder")
    with refusing(path), _folder_aside(path.parent, path.name) as folder:
        aside = folder / path.name
        aside.mkdir()
        with _naming(path, aside):
            yield aside
        if overwrite and path.exists():  # renamed first, so that it is never half-deleted
            path.replace(folder / f"old-{path.name}")
        aside.rename(path)  # fails if somebody else has put something there meanwhile


@contextlib.contextmanager
def replacing_files(folder: Path, last: str) -> Iterator[Path]:
    """Yields a temporary folder, whose files move to `folder` only if the block ends well.

    Files there with other names stay.

    Args:
        folder: Where the finished files go.
        last: The file whose presence means that all of them are there.

    Raises:
        EczemaError: If the disk refuses.
    """
    with refusing(folder), _folder_aside(folder, "files") as aside:
        with _naming(folder, aside):
            yield aside
        for file in sorted(aside.iterdir(), key=lambda file: file.name == last):
            file.replace(folder / file.name)


@contextlib.contextmanager
def _naming(path: Path, aside: Path) -> Iterator[None]:
    """Makes errors about temporary files, which will be gone, name their destination instead."""
    try:
        yield
    except EczemaError as error:
        raise type(error)(str(error).replace(str(aside), str(path))) from error


def is_version(name: str) -> bool:
    """Whether a folder's name is the number of a version, as TensorFlow Serving reads it."""
    return name.isascii() and name.isdigit()


@dataclass
class Version:
    """A folder that is being filled, and the number that it gets in the end."""

    folder: Path
    number: int = 0


@contextlib.contextmanager
def adding_version(parent: Path) -> Iterator[Version]:
    """Yields a temporary folder to fill, renamed to the next number under `parent` at the end.

    Two that finish at once get a number each, and neither replaces anything: a rename claims a
    number, and fails if it is taken. A version is therefore complete from the start, and no reader
    finds it empty.

    Raises:
        EczemaError: If the disk refuses.
    """
    with refusing(parent), _folder_aside(parent, "version") as folder:
        version = Version(folder / "version")
        version.folder.mkdir()
        yield version
        made = [int(version.name) for version in parent.iterdir() if is_version(version.name)]
        version.number = 1 + max(made, default=0)
        while True:
            try:
                version.folder.rename(parent / str(version.number))
                break
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # taken: Linux and others
                    raise
            version.number += 1


@contextlib.contextmanager
def _folder_aside(parent: Path, name: str) -> Iterator[Path]:
    """Yields a locked temporary folder; first removes those of writers that died."""
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{ASIDE}*"):
        with contextlib.suppress(OSError):  # held by its writer, or gone meanwhile
            if time.time() - left.stat().st_mtime > SETTLED_S:
                with holding(left):
                    shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{ASIDE}{name}-", dir=parent))
    try:
        folder.chmod(0o777 & ~_umask())
        with holding(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Locks a folder until the block ends, or until the process does, however it ends.

    Raises:
        BlockingIOError: If another process has locked it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


# the system's messages when there is no room: on the disk, for this user, or in one file
FULL = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]


def check_writable(folder: Path) -> None:
    """Refuses a folder that cannot be created or written to, before any work is done.

    Raises:
        EczemaError: If it cannot be.
    """
    there = next(path for path in [folder, *folder.resolve().parents] if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):  # or the disk is read-only
        raise EczemaError(f"{folder}: cannot be written: no file can be created in {there}")


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turns errors of the disk into one clear line.

    Raises:
        EczemaError: If the disk is full, read-only, or otherwise refuses what the block writes; or
            if another file cannot be opened, which the message then names.
    """
    try:
        yield
    except EczemaError:
        raise
    except Exception as error:
        # TensorFlow and Arrow report a full disk in their own words
        cause = next((full for full in FULL if full in str(error)), "")
        if isinstance(error, OSError):
            cause = error.strerror or cause or str(error)
            if cause not in FULL and not _is_written(error, path):
                raise EczemaError(f"{error.filename}: cannot be opened: {cause}") from error
        elif not cause:
            raise
        advice = "free some space or choose" if cause in FULL else "choose"
        raise EczemaError(f"{path}: cannot be written: {cause}; {advice} another folder") from error


def _is_written(error: OSError, path: Path) -> bool:
    """Whether an error names what is being written, a folder above it, or a temporary file."""
    if not isinstance(error.filename, str | bytes):
        return True  # names nothing
    file, target = (Path(os.path.realpath(os.fsdecode(one))) for one in (error.filename, path))
    aside = any(part.startswith(ASIDE) for part in file.parts)
    return aside or file.is_relative_to(target) or target.is_relative_to(file)


def write_text(path: Path | str, text: str) -> None:
    """Writes UTF-8 text, whole or not at all."""
    with replacing_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: object) -> None:
    """Writes JSON, whole or not at all. NaN and infinity are refused: they are not JSON.

    Records among the values are written as `Record.write` does.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False, default=_to_json) + "\n")


def _to_json(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def read_json(path: Path, kind: type[Kind]) -> Kind:
    """Reads a JSON file of a run as a value of a kind that pydantic knows.

    Raises:
        RunError: If the file is missing or contains something else.
    """
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise RunError(
            f"{path}: missing; is {path.parent} the folder of a finished run?"
        ) from error
    except (OSError, ValidationError) as error:
        cause = str(error).splitlines()
        raise RunError(f"{path}: not readable as JSON: {'; '.join(cause[:3])}") from error


class Record(BaseModel):
    """A typed value that is stored as JSON; optional fields that were never set are left out."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads what `write` wrote.

        Raises:
            RunError: If the file is missing or contains something else.
        """
        return read_json(path, cls)

    def write(self, path: Path) -> None:
        """Writes the value as JSON, whole or not at all."""
        write_json(path, self)


def write_csv(path: Path | str, table: "pd.DataFrame") -> None:
    """Writes a table as UTF-8 CSV, whole or not at all, such that no spreadsheet runs its cells.

    Cells and column names that are text go through `escape_formula`; numbers are written exactly,
    to the last bit.

    Args:
        path: Path of the CSV file.
        table: The table; its index is not written.
    """
    safe = table.rename(columns=_escape_text)
    for column in safe.select_dtypes(exclude=["number", "bool"]):
        safe[column] = safe[column].map(_escape_text)
    text = safe.to_csv(index=False, lineterminator="\n")
    # Python up to 3.11.8 and 3.12.2 leaves "\r" unquoted (gh-67044): readers end the line there
    if "\r" in text:
        text = safe.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    write_text(path, text)


def escape_formula(text: str) -> str:
    """Puts an apostrophe before a text that a spreadsheet would run as a formula."""
    return f"'{text}" if _FORMULA.match(text) and not _HARMLESS.fullmatch(text) else text


def unescape_formula(cell: str) -> str:
    """Undoes `escape_formula`, exactly."""
    return cell[1:] if _ESCAPED.match(cell) else cell


def _escape_text(cell: object) -> object:
    return escape_formula(cell) if isinstance(cell, str) else cell


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
