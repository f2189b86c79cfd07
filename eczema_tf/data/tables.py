"""CSV, Parquet and JSON lines as rows of text: the one reader of other people's tables.

Rows come one at a time, with the line that each begins on, so a table need not fit into memory;
`Table.collect` gathers them. Everything is read as text, so that ids such as `NA` or
`-1000600354148496558` survive.
"""

import codecs
import csv
import json
import re
import shlex
from collections.abc import Collection, Iterator
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TextIO

import pandas as pd
import pyarrow as pa
from pyarrow import compute, parquet

from eczema_tf.errors import DataError, shorten
from eczema_tf.files import unescape_formula

MAX_COLUMNS = 10_000
_MAX_LINE = 1 << 24  # characters, so that a file without line ends is not read into memory
_BATCH_ROWS = 1024  # of Parquet, decoded together
_PARQUET, _JSON_LINES = (".parquet", ".pq"), (".jsonl", ".ndjson")
_NOT_READ = (".xls", ".xlsx", ".ods", ".json", ".feather", ".arrow", ".zip", ".gz", ".bz2", ".xz")
# Excel's own first line where commas are decimal: it names the separator
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?,*\r?\n', re.IGNORECASE)
# what "surrogateescape" makes of a byte that is not UTF-8 (PEP 383)
_UNDECODED = re.compile("[\udc80-\udcff]")


class TableRow(NamedTuple):
    """One row of a table."""

    line: int  # line that it begins on; in Parquet the number of the row, from 1
    values: tuple[str, ...]  # one for each column asked for; "" where there is none
    fault: str  # what is wrong with the number of its fields, "" if nothing


class Table(NamedTuple):
    """An opened table: its header is read, its rows are yet to come."""

    header: list[str]  # all columns of the file, without the blanks around their names
    columns: list[str]  # those asked for that can be read as text, in the order of the file
    rows: Iterator[TableRow]  # raises `DataError` where the file turns out to be damaged

    def collect(self) -> tuple[pd.DataFrame, list[str]]:
        """Reads all rows.

        Returns:
            A table of strings, whose index `line` is that of `TableRow`, and the fault of each row.
        """
        rows = list(self.rows)
        index = pd.Index([row.line for row in rows], "int64", name="line")
        values = pd.DataFrame([row.values for row in rows], index, self.columns, dtype=str)
        return values, [row.fault for row in rows]


def open_table(
    path: Path, columns: Collection[str] | None = None, *, escaped: bool = False
) -> Table:
    """Opens a CSV file or, by its ending, Parquet (`.pq` too) or JSON lines (`.jsonl`, `.ndjson`).

    Args:
        path: The file. A CSV file is UTF-8 or UTF-16, with or without a byte order mark. Its
            separator is what a first line `sep=;` says, or else whichever of comma, semicolon, tab
            and bar is most frequent in its first line; blank lines are skipped. In JSON lines, each
            line is an object. Columns with lists or structures in Parquet and JSON are skipped.
        columns: The columns wanted, as far as the file has them; None for all.
        escaped: Whether the cells of a CSV file went through `escape_formula`, as ours do.

    Raises:
        DataError: If there is no such file, if it is of another kind or empty, if it has more than
            `MAX_COLUMNS` columns, or if its header cannot be read.
    """
    if not path.is_file():
        there = "is a pipe or a device; give a file" if path.exists() else "no such file"
        reason = "is a folder; give the file in it" if path.is_dir() else there
        raise DataError(f"{path}: {reason}")
    kind = path.suffix.lower()
    if kind in _NOT_READ:
        raise DataError(
            f"{path}: {kind} files are not read; allowed: CSV, Parquet (.parquet) and JSON lines"
            " (.jsonl); save it as 'CSV UTF-8'"
        )
    if kind in _PARQUET:
        opened = _open_parquet(path, columns)
    elif kind in _JSON_LINES:
        opened = _open_json_lines(path, columns)
    else:
        opened = _open_csv(path, columns, escaped)
    if len(opened.header) > MAX_COLUMNS:
        raise DataError(
            f"{path}: has {len(opened.header):,} columns; allowed: {MAX_COLUMNS:,}; are rows and"
            " columns swapped?"
        )
    return opened


def _open_csv(path: Path, columns: Collection[str] | None, escaped: bool) -> Table:
    records = _read_records(path, escaped)
    _, names = next(records, (0, []))
    header = [name.strip() for name in names]
    while header and not header[-1]:  # a spreadsheet's empty columns
        header.pop()
    width = len(header)
    if not any(header):
        allowed = f"with the columns {', '.join(columns)}" if columns else "with a header"
        raise DataError(f"{path}: is empty; allowed: a CSV file {allowed} in its first line")
    wanted = [place for place, name in enumerate(header) if columns is None or name in columns]

    def rows() -> Iterator[TableRow]:
        for line, record in records:
            fault = ""
            if not any(map(str.strip, record[width:])):
                record = record[:width]
            if len(record) != width:
                nameless = width < len(record) <= len(names)
                fault = _describe_misfit(len(record), width, nameless)
                record += [""] * (width - len(record))
            yield TableRow(line, tuple(record[place] for place in wanted), fault)

    return Table(header, [header[place] for place in wanted], rows())


@lru_cache(maxsize=64)  # a million short rows share one text
def _describe_misfit(fields: int, allowed: int, nameless: bool) -> str:
    hint = "does a column have no name?" if nameless else "is a separator in a text not quoted?"
    return f"has {fields} fields; allowed: {allowed}, as in the header; {hint}"


def _read_records(path: Path, escaped: bool) -> Iterator[tuple[int, list[str]]]:
    """Yields the line that a record begins on and its fields; blank lines are skipped."""
    lines = _check_lines(path)
    first, above = next(lines, ""), 0
    while first.isspace():
        first, above = next(lines, ""), above + 1
    if told := _SEPARATOR_LINE.fullmatch(first):
        first, above = next(lines, ""), above + 1
    bare = re.sub('"[^"]*"', "", first)
    reader = csv.reader(
        chain([first], lines),
        delimiter=told[1] if told else max(",;\t|", key=bare.count),
        # `a, "b"` means no blank, and no quote in the middle of a field
        skipinitialspace=re.search(r"[,;|] ", bare) is not None,
        strict=True,
    )
    begins = 1 + above
    try:
        for record in reader:
            if len(record) > 1 or (record and record[0].strip()):
                yield begins, [unescape_formula(cell) for cell in record] if escaped else record
            begins = reader.line_num + above + 1
    except csv.Error as error:
        raise DataError(
            f"{path}:{begins}: is not valid CSV: {error}; is a quote never closed, or one in a text"
            " not doubled?"
        ) from error


def _open_text(path: Path) -> TextIO:
    """Opens UTF-8, or UTF-16 (Excel's "Unicode text"): half of its first letter's bytes are 0."""
    with path.open("rb") as file:
        first = file.read(2)
    wide = first in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    if wide or first.count(0) == 1:
        order = "" if wide else "-be" if first[0] == 0 else "-le"
        return path.open(encoding=f"utf-16{order}", newline="")
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _check_lines(path: Path) -> Iterator[str]:
    """Reads lines of text that has no NUL bytes and, if it is not UTF-16, is UTF-8."""
    number = 0
    try:
        with _open_text(path) as file:
            for number, line in enumerate(iter(partial(file.readline, _MAX_LINE), ""), 1):
                _check_line(path, number, line)
                yield line
    except UnicodeError as error:
        place = f"{path}:{number + 1}"
        raise DataError(f"{place}: is not UTF-16, as its first bytes claim: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _check_line(path: Path, number: int, line: str) -> None:
    place = f"{path}:{number}"
    if len(line) == _MAX_LINE:
        raise DataError(f"{place}: the line has {_MAX_LINE:,} characters or more")
    if not line.isascii() and (bad := _UNDECODED.search(line)):
        raise DataError(
            f"{place}: is not UTF-8; received the byte 0x{ord(bad[0]) - 0xDC00:02x} after"
            f" {bad.start()} characters; save it as 'CSV UTF-8' or convert it, for instance: iconv"
            f" -f WINDOWS-1252 -t UTF-8 {shlex.quote(str(path))} > new.csv"
        )
    if "\0" in line:
        raise DataError(
            f"{place}: contains a NUL byte; allowed: UTF-8 text; is it a spreadsheet or a damaged"
            " file?"
        )


def _open_json_lines(path: Path, columns: Collection[str] | None) -> Table:
    def records() -> Iterator[tuple[int, dict[str, object]]]:
        for number, line in enumerate(_check_lines(path), 1):
            if line.strip():
                yield number, _read_object(line, f"{path}:{number}")

    # a line may lack a column that others have, so all lines are read first
    plain: dict[str, bool] = {}
    for _, record in records():
        for name, value in record.items():
            plain[name] = plain.get(name, True) and not isinstance(value, list | dict)
    if not plain:
        raise DataError(f"{path}: is empty; allowed: a JSON object on each line")
    wanted = [name for name in plain if plain[name] and (columns is None or name in columns)]

    def rows() -> Iterator[TableRow]:
        for line, record in records():
            values = (record.get(name) for name in wanted)
            yield TableRow(line, tuple("" if value is None else str(value) for value in values), "")

    return Table([*plain], wanted, rows())


def _read_object(line: str, place: str) -> dict[str, object]:
    """Returns a JSON object, without the blanks around its names."""
    try:
        record = json.loads(line)
        if "\\u" in line:  # half a surrogate pair is not a character and cannot be written
            json.dumps(record, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: is not JSON: {shorten(str(error))}") from error
    if not isinstance(record, dict):
        raise DataError(f"{place}: allowed: a JSON object; received {shorten(line)}")
    return {name.strip(): value for name, value in record.items()}


def _open_parquet(path: Path, columns: Collection[str] | None) -> Table:
    def damage(error: Exception) -> DataError:
        return DataError(f"{path}: is not readable as Parquet: {shorten(str(error))}")

    try:
        fields = list(parquet.read_schema(path))
        # a text that occurs a million times is stored once
        named = [field.name for field in fields if field.type in (pa.string(), pa.large_string())]
        file = parquet.ParquetFile(path, read_dictionary=named)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damage(error) from error
    wanted = [
        field.name
        for field in fields
        if (columns is None or field.name.strip() in columns) and _is_plain(field.type)
    ]

    def rows() -> Iterator[TableRow]:
        number = 0
        try:
            for batch in file.iter_batches(_BATCH_ROWS, columns=wanted):
                for name, cells in zip(wanted, batch, strict=True):
                    _check_lengths(path, number, name, cells)
                texts = [cells.cast(pa.string()).fill_null("").to_pylist() for cells in batch]
                for values in zip(*texts, strict=True):
                    number += 1
                    yield TableRow(number, values, "")
        except (OSError, ValueError, pa.ArrowException) as error:
            raise damage(error) from error

    return Table(
        [field.name.strip() for field in fields], [name.strip() for name in wanted], rows()
    )


def _check_lengths(path: Path, before: int, column: str, cells: pa.Array) -> None:
    """Checks that no cell is longer than a CSV cell may be, before any is expanded.

    A dictionary of cells stores one that occurs a million times only once.
    """
    limit, repeats = csv.field_size_limit(), isinstance(cells, pa.DictionaryArray)
    held = cells.dictionary if repeats else cells
    lengths = compute.binary_length(held.cast(pa.string()))
    lengths = lengths.take(cells.indices) if repeats else lengths
    place = compute.index(compute.greater(lengths, limit), True).as_py()
    if place >= 0:
        raise DataError(
            f"{path}: row {before + place + 1}: {shorten(column)}: a cell of"
            f" {lengths[place].as_py():,} bytes; allowed: {limit:,}"
        )


def _is_plain(kind: pa.DataType) -> bool:
    """Whether values of a type can be written as text: lists, structures and bytes cannot."""
    return not (
        pa.types.is_nested(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_interval(kind)
    )
