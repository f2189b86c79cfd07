"""Manifest files to rows of strings: CSV and Parquet, with the true line of every row and faults of the file as a whole.

Everything is read as text, so that ids such as `NA` or `-1000600354148496558` survive.
"""

import csv
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from eczema_tf.data.manifest.checks import Fault
from eczema_tf.errors import DataError, join_faults
from eczema_tf.files import unescape_formula
from eczema_tf.schema import MANIFEST_COLUMNS, REQUIRED_COLUMNS

_UNDECODED = re.compile(
    "[\udc80-\udcff]"
)  # what "surrogateescape" makes of a byte that is not UTF-8 (PEP 383)


class Rows(NamedTuple):
    """What a manifest file holds."""

    table: pd.DataFrame  # the known columns are strings, "" for empty
    lines: np.ndarray  # int64 (rows,), the line each row begins on
    faults: list[Fault]  # of rows that do not fit the header


def read_rows(path: Path) -> Rows:
    """Reads a manifest file.

    Raises:
        DataError: When the file as a whole cannot be used: absent, empty, not UTF-8, no rows, a
            wrong header.
    """
    check_file(path)
    rows = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    if rows.table.empty:
        raise DataError(f"{path}: has a header but no rows")
    return rows


def check_file(path: Path) -> None:
    """Checks that there is a manifest file.

    Raises:
        DataError: If there is none, or a folder.
    """
    if path.is_dir():
        raise DataError(
            f"{path}: is a folder; give the manifest file in it, for instance"
            f" {path / 'manifest.csv'}"
        )
    if not path.is_file():
        raise DataError(
            f"{path}: no such manifest; `python -m eczema_tf.prepare --help` says how to make one"
        )


def read_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Reads a CSV file record by record, holding one at a time.

    Yields:
        The line a record begins on, and its fields; header first. Blank lines are passed over.

    Raises:
        DataError: If the file is empty, not UTF-8 (a byte order mark is allowed), holds a NUL byte,
            or is not valid CSV.
    """
    begins = 1
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(_check_lines(path, file), strict=True)
        try:
            for record in reader:
                if record:
                    yield begins, record
                begins = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{path}:{begins}: is not valid CSV: {error}; is a quote never closed?"
            ) from error


def describe_length(record: Sequence[str], header: Sequence[str]) -> str:
    """Says what is wrong with the number of a record's fields, "" if nothing."""
    if len(record) == len(header):
        return ""
    return (
        f"has {len(record)} fields; allowed: {len(header)}, as in the header; is a comma inside a"
        " text not quoted?"
    )


def _read_csv(path: Path) -> Rows:
    (_, header), *records = read_manifest_records(path)
    lines = np.array([line for line, _ in records], "int64")
    faults = [
        Fault(row, "row", fault)
        for row, (_, record) in enumerate(records)
        if (fault := describe_length(record, header))
    ]
    padded = [[*record, *[""] * len(header)][: len(header)] for _, record in records]
    return Rows(pd.DataFrame(padded, columns=header, dtype=str), lines, faults)


def read_manifest_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Reads a manifest as `read_records` does, checks its header, and undoes `escape_formula`, by which `prepare` writes every cell.

    Raises:
        DataError: As `read_records`, or if the header is not that of a manifest.
    """
    records = (
        (line, [unescape_formula(cell) for cell in record]) for line, record in read_records(path)
    )
    first = next(records, None)
    if first is None or not any(cell.strip() for cell in first[1]):
        raise DataError(
            f"{path}: is empty; allowed: a CSV file with a header that names at least"
            f" {', '.join(REQUIRED_COLUMNS)}"
        )
    check_header(path, first[1])
    yield first
    yield from records


def _check_lines(path: Path, lines: Iterable[str]) -> Iterator[str]:
    """Passes on what is UTF-8 without NUL bytes."""
    for number, line in enumerate(lines, 1):
        if not line.isascii() and (bad := _UNDECODED.search(line)):
            raise DataError(
                f"{path}:{number}: is not UTF-8; received the byte 0x{ord(bad[0]) - 0xDC00:02x}"
                f" after {bad.start()} characters; save it as 'CSV UTF-8' or convert it, for"
                f" instance: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > new.csv"
            )
        if "\0" in line:
            raise DataError(
                f"{path}:{number}: holds a NUL byte; allowed: UTF-8 text; is it UTF-16, a"
                " spreadsheet or a damaged file?"
            )
        yield line


def _read_parquet(path: Path) -> Rows:
    try:
        table = pd.read_parquet(path)
        check_header(path, [str(column) for column in table.columns])
        known = [column for column in MANIFEST_COLUMNS if column in table]
        texts = as_text(
            pd.read_parquet(path, columns=known, dtype_backend="numpy_nullable")
        )  # so that an integer id stays one
    except (OSError, ValueError, ImportError) as error:  # pyarrow's own errors are among these
        raise DataError(
            f"{path}: is not readable as Parquet: {' '.join(str(error).split())}"
        ) from error
    table = table.reset_index(drop=True)
    table[known] = texts.reset_index(drop=True)
    return Rows(table, np.arange(1, len(table) + 1), [])


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Turns every value into a string, "" for null."""
    return table.astype("string").fillna("").astype(str)


def check_header(path: Path, header: list[str]) -> None:
    """Checks the columns of a manifest.

    Raises:
        DataError: With every missing, nameless, repeated or misspelt column.
    """
    faults = [
        f"column {place} has no name" for place, name in enumerate(header, 1) if not name.strip()
    ]
    faults += [
        f"{name}: column is there {header.count(name)} times"
        for name in dict.fromkeys(header)
        if name and header.count(name) > 1
    ]
    by_letters = {_letters(column): column for column in MANIFEST_COLUMNS}
    for name in dict.fromkeys(header):
        meant = by_letters.get(_letters(name))
        if meant and meant != name:
            faults.append(
                f"{name!r}: looks like {meant!r}; rename it, or give it quite another name to have"
                " it ignored"
            )
    faults += [
        _describe_missing(column, header) for column in REQUIRED_COLUMNS if column not in header
    ]
    if not {"image_path", "text"} & set(header):
        faults.append("image_path, text: at least one of the two columns must be there")
    if faults:
        raise DataError(join_faults(f"{path}: the header is not valid", faults))


def _describe_missing(column: str, header: list[str]) -> str:
    close = difflib.get_close_matches(column, header, n=1)
    hint = f"; did you mean it by {close[0]!r}?" if close else ""
    if len(header) == 1 and re.search(r"[;\t|]", header[0]):
        hint = "; fields must be separated by commas"
    return f"{column}: required column is missing; received: {', '.join(map(repr, header))}{hint}"


def _letters(name: str) -> str:
    """`Image Path`, `image-path` and `imagepath` are all meant to be `image_path`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
