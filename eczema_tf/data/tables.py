"""CSV and Parquet files as rows of text: the one reader of other people's tables.

Rows come one at a time, with the line that each begins on, so that a table need not fit into
memory; `Table.collect` gathers them. Everything is read as text, so that ids such as `NA` or
`-1000600354148496558` survive.
"""

import csv
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from eczema_tf.errors import DataError
from eczema_tf.files import unescape_formula

# what "surrogateescape" makes of a byte that is not UTF-8 (PEP 383)
_UNDECODED = re.compile("[\udc80-\udcff]")
# with which a 7 beside a null stays 7 and does not become 7.0
_NULLABLE = {
    pa.from_numpy_dtype(name.lower()): pd.api.types.pandas_dtype(name)
    for name in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
}


class TableRow(NamedTuple):
    """One row of a table."""

    line: int  # that it begins on; in Parquet the number of the row, from 1
    values: tuple[str, ...]  # one for each column asked for; "" where there is none
    fault: str  # what is wrong with the number of its fields, "" if nothing


class Table(NamedTuple):
    """An opened table: its header is read, its rows are yet to come."""

    header: list[str]  # all columns of the file, as they are named there
    columns: list[str]  # those asked for, in the order of the file
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
    """Opens a CSV or, if its name ends in `.parquet`, a Parquet file.

    Args:
        path: UTF-8 CSV (a byte order mark is allowed) or Parquet.
        columns: Those wanted, as far as the file has them; None for all.
        escaped: Whether the cells of a CSV file went through `escape_formula`, as ours do.

    Raises:
        DataError: If there is no such file, it is empty, or its header cannot be read.
    """
    if not path.is_file():
        reason = "is a folder; give the file in it" if path.is_dir() else "no such file"
        raise DataError(f"{path}: {reason}")
    if path.suffix.lower() == ".parquet":
        return _open_parquet(path, columns)
    return _open_csv(path, columns, escaped)


def _open_csv(path: Path, columns: Collection[str] | None, escaped: bool) -> Table:
    records = _read_records(path, escaped)
    _, header = next(records, (0, []))
    if not any(name.strip() for name in header):
        names = f"with the columns {', '.join(columns)}" if columns else "with a header"
        raise DataError(f"{path}: is empty; allowed: a CSV file {names}")
    wanted = [place for place, name in enumerate(header) if columns is None or name in columns]

    def rows() -> Iterator[TableRow]:
        for line, record in records:
            fault = ""
            if len(record) != len(header):
                fault = (
                    f"has {len(record)} fields; allowed: {len(header)}, as in the header; is a"
                    " comma inside a text not quoted?"
                )
                record += [""] * (len(header) - len(record))
            yield TableRow(line, tuple(record[place] for place in wanted), fault)

    return Table(header, [header[place] for place in wanted], rows())


def _read_records(path: Path, escaped: bool) -> Iterator[tuple[int, list[str]]]:
    """Yields the line that a record begins on and its fields; blank lines are passed over."""
    begins = 1
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(_check_lines(path, file), strict=True)
        try:
            for record in reader:
                if record:
                    yield begins, [unescape_formula(cell) for cell in record] if escaped else record
                begins = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{path}:{begins}: is not valid CSV: {error}; is a quote never closed?"
            ) from error


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


def _open_parquet(path: Path, columns: Collection[str] | None) -> Table:
    def damage(error: Exception) -> DataError:
        return DataError(f"{path}: is not readable as Parquet: {' '.join(str(error).split())}")

    try:
        file = parquet.ParquetFile(path)
        header = [str(name) for name in file.schema_arrow.names]
    except (OSError, ValueError) as error:  # pyarrow's own errors are among these
        raise damage(error) from error
    wanted = [name for name in header if columns is None or name in columns]

    def rows() -> Iterator[TableRow]:
        number = 0
        try:
            for batch in file.iter_batches(columns=wanted):
                table = batch.to_pandas(types_mapper=_NULLABLE.get, ignore_metadata=True)
                texts = table.astype("string").fillna("").astype(str)
                for values in texts.itertuples(index=False, name=None):
                    number += 1
                    yield TableRow(number, values, "")
        except (OSError, ValueError) as error:
            raise damage(error) from error

    return Table(header, wanted, rows())
