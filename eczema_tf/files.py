"""Writing files so that nothing good is ever replaced by something half-written.

Everything is written aside, flushed to the disk, and renamed into place: a reader sees the old file
or the new one, never a mixture.
"""

import contextlib
import csv
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from eczema_tf.errors import EczemaError, RunError

if TYPE_CHECKING:
    import pandas as pd

# A spreadsheet runs a cell that begins with one of these (OWASP, "CSV Injection"; NUL: OWASP ASVS
# 5.0, 1.2.10), and an apostrophe before it makes it text. A cell that begins so already gets one
# more, so that taking one away always gives back what was written.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\0]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r\n\0]")
# numbers, and ids such as -1000600354148496558-1: arithmetic at worst, and others look them up
_HARMLESS = re.compile(r"[-+.0-9]+")


@contextlib.contextmanager
def replacing_file(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path to write to, renamed to `path` only if the block ends well.

    The path aside ends like `path` does, for writers that look at the suffix (`.weights.h5`,
    `.npz`).

    Args:
        path: Where the finished file goes. Its folder is made if need be.

    Raises:
        EczemaError: If the disk is full, read-only or otherwise refuses. What stood at `path` is
            untouched.
    """
    path = Path(path)
    aside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".writing-", suffix=f"-{path.name}", dir=path.parent)
        os.close(handle)
        aside = Path(name)
        yield aside
        with aside.open("rb+") as written:
            os.fsync(written.fileno())
        aside.chmod(0o666 & ~_umask())
        aside.replace(path)
    except OSError as error:
        raise EczemaError(
            f"{path}: cannot be written: {error.strerror or error}; free some space or choose"
            " another folder"
        ) from error
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary folder to fill, renamed to `path` only if the block ends well.

    Args:
        path: Where the finished folder goes.
        overwrite: Whether a folder already there may be replaced (after the new one is whole).

    Raises:
        EczemaError: If `path` exists and is not empty without `overwrite`, or the disk refuses.
    """
    path = Path(path)
    occupied = path.exists() and (not path.is_dir() or any(path.iterdir()))
    if occupied and not overwrite:
        raise EczemaError(f"{path}: exists and is not empty; delete it or choose another folder")
    aside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".writing-{path.name}-", dir=path.parent))
        aside.chmod(0o777 & ~_umask())
        yield aside
        if path.exists():  # renamed first, so that it is never half-deleted
            doomed = Path(tempfile.mkdtemp(prefix=f".deleting-{path.name}-", dir=path.parent))
            path.replace(doomed / path.name)
            shutil.rmtree(doomed, ignore_errors=True)
        aside.replace(path)
    except OSError as error:
        raise EczemaError(
            f"{path}: cannot be written: {error.strerror or error}; free some space or choose"
            " another folder"
        ) from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path | str, text: str) -> None:
    """Writes UTF-8 text whole or not at all."""
    with replacing_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: object) -> None:
    """Writes JSON whole or not at all. NaN and infinity are refused: they are not JSON.

    Records among the values are written as `Record.write` does.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False, default=_to_json) + "\n")


def _to_json(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


class Record(BaseModel):
    """A typed value that is kept as JSON; fields with a default that were never set are left out."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads what `write` wrote.

        Raises:
            RunError: If the file is missing or holds something else.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise RunError(
                f"{path}: missing; is {path.parent} the folder of a finished run?"
            ) from error
        except (OSError, ValidationError) as error:
            cause = str(error).splitlines()
            raise RunError(f"{path}: not readable as JSON: {'; '.join(cause[:3])}") from error

    def write(self, path: Path) -> None:
        """Writes the value as JSON, whole or not at all."""
        write_json(path, self)


def write_csv(path: Path | str, table: "pd.DataFrame") -> None:
    """Writes a table as UTF-8 CSV, whole or not at all, and so that no spreadsheet runs its cells.

    Cells and column names that are text go through `escape_formula`; numbers are written as they
    are, to the last bit.

    Args:
        path: Of the CSV file.
        table: Its index is not written.
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


def digest_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_folder(folder: Path, *, ignored: Collection[str] = ()) -> str:
    """Returns a SHA-256 over the names and contents of all files in a folder, 64 hex digits.

    Args:
        folder: With whatever is below it.
        ignored: Names of files that are left out, wherever they are.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name not in ignored:
            name = json.dumps(path.relative_to(folder).as_posix()).encode()
            # lengths go first, so that ("ab", "c") and ("a", "bc") differ
            digest.update(len(name).to_bytes(8, "big") + name)
            digest.update(path.stat().st_size.to_bytes(8, "big"))
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def _escape_text(cell: object) -> object:
    return escape_formula(cell) if isinstance(cell, str) else cell


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
