"""Manifest files to rows of strings: CSV and Parquet, with the true line of every row and faults of the file as a whole.

Everything is read as text, so that ids such as `NA` or `-1000600354148496558` survive.
"""

import csv
import difflib
import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from eczema_tf.data.manifest_checks import Fault
from eczema_tf.errors import DataError, join_faults
from eczema_tf.schema import MANIFEST_COLUMNS, REQUIRED_COLUMNS


class Rows(NamedTuple):
    """What a manifest file holds."""

    table: pd.DataFrame  # the known columns are strings, "" for empty
    lines: np.ndarray  # int64 (rows,), the line each row begins on
    faults: list[Fault]  # of rows that do not fit the header


def read_rows(path: Path) -> Rows:
    """Reads a manifest file.

    Raises:
        DataError: When the file as a whole cannot be used: absent, empty, not UTF-8, no rows, a wrong header.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give the manifest file in it, for instance {path / 'manifest.csv'}")
    if not path.is_file():
        raise DataError(f"{path}: no such manifest; `python -m eczema_tf.prepare --help` says how to make one")
    rows = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    if rows.table.empty:
        raise DataError(f"{path}: has a header but no rows")
    return rows


def _read_csv(path: Path) -> Rows:
    records, lines = _parse_csv(path, _decode(path))
    header, *records = records
    _check_header(path, header)
    faults = [
        Fault(row, "row", f"has {len(record)} fields; allowed: {len(header)}, as in the header; is a comma inside a text not quoted?")
        for row, record in enumerate(records)
        if len(record) != len(header)
    ]
    padded = [[*record, *[""] * len(header)][: len(header)] for record in records]
    return Rows(pd.DataFrame(padded, columns=header, dtype=str), np.array(lines[1:], "int64"), faults)


def _decode(path: Path) -> str:
    data = path.read_bytes()
    if not data.strip():
        raise DataError(f"{path}: is empty; allowed: a CSV file with a header that names at least {', '.join(REQUIRED_COLUMNS)}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: is not UTF-8; received the byte 0x{data[error.start]:02x} at position {error.start}; save it as 'CSV UTF-8' "
            f"or convert it, for instance: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > new.csv"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}:{line}: holds a NUL byte; allowed: UTF-8 text; is it UTF-16, a spreadsheet or a damaged file?")
    return text


def _parse_csv(path: Path, text: str) -> tuple[list[list[str]], list[int]]:
    """Splits into records. Returns them, header first, and the line each begins on; blank lines are passed over."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    records, lines, begins = [], [], 1
    try:
        for record in reader:
            if record:
                records.append(record)
                lines.append(begins)
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{begins}: is not valid CSV: {error}; is a quote never closed?") from error
    return records, lines


def _read_parquet(path: Path) -> Rows:
    try:
        table = pd.read_parquet(path)
        _check_header(path, [str(column) for column in table.columns])
        known = [column for column in MANIFEST_COLUMNS if column in table]
        nullable = pd.read_parquet(path, columns=known, dtype_backend="numpy_nullable")  # so that an integer id stays one
    except (OSError, ValueError, ImportError) as error:  # pyarrow's own errors are among these
        raise DataError(f"{path}: is not readable as Parquet: {' '.join(str(error).split())}") from error
    table = table.reset_index(drop=True)
    for column in known:
        table[column] = nullable[column].reset_index(drop=True).astype("string").fillna("").astype(str)
    return Rows(table, np.arange(1, len(table) + 1), [])


def _check_header(path: Path, header: list[str]) -> None:
    faults = [f"column {place} has no name" for place, name in enumerate(header, 1) if not name.strip()]
    faults += [f"{name}: column is there {header.count(name)} times" for name in dict.fromkeys(header) if name and header.count(name) > 1]
    by_letters = {_letters(column): column for column in MANIFEST_COLUMNS}
    for name in dict.fromkeys(header):
        meant = by_letters.get(_letters(name))
        if meant and meant != name:
            faults.append(f"{name!r}: looks like {meant!r}; rename it, or give it quite another name to have it ignored")
    faults += [_describe_missing(column, header) for column in REQUIRED_COLUMNS if column not in header]
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
