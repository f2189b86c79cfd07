"""A manifest row by row, for tables that need not fit into memory: what batch scoring reads.

Only ids, photo and text are looked at. Rows are read by the same rules as by `load_manifest`, but a
bad row is handed on with its fault, since here each row gets an answer of its own.
"""

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from eczema_tf.data.manifest.reading import (
    as_text,
    check_file,
    check_header,
    describe_length,
    read_manifest_records,
)
from eczema_tf.errors import DataError, join_faults


class Row(NamedTuple):
    """One row of a manifest; "" stands for what is not there."""

    line: int  # in the file; for Parquet the number of the row, from 1
    example_id: str
    case_id: str
    image_path: str
    text: str
    fault: str  # what keeps the row from being read: then photo and text are ""


class Survey(NamedTuple):
    """A manifest as a whole."""

    rows: int
    has_cases: bool  # whether any row names its case
    sha256: str  # of the file


COLUMNS = ("example_id", "case_id", "image_path", "text")
_INTEGERS = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
_NULLABLE = {
    pa.from_numpy_dtype(name.lower()): pd.api.types.pandas_dtype(name) for name in _INTEGERS
}  # or a 7 beside a null is 7.0


def stream_rows(path: Path) -> Iterator[Row]:
    """Yields the rows in the order of the file, holding few at a time.

    Args:
        path: CSV or, if it ends in `.parquet`, Parquet.

    Raises:
        DataError: If the file as a whole cannot be read, as for `load_manifest`.
    """
    check_file(path)
    return _stream_parquet(path) if path.suffix.lower() == ".parquet" else _stream_csv(path)


def survey_manifest(path: Path) -> Survey:
    """Reads a manifest once through. Takes 8 bytes of memory a row, whatever the ids and texts.

    Raises:
        DataError: If the file cannot be read, has no rows, or an `example_id` is empty or there
            twice; all are named.
    """
    hashes, has_cases = array("q"), False
    for row in stream_rows(path):
        hashes.append(hash(row.example_id))
        has_cases |= row.case_id != ""
    if not hashes:
        raise DataError(f"{path}: has a header but no rows")
    _check_ids(path, np.array(hashes))
    with path.open("rb") as file:
        return Survey(len(hashes), has_cases, hashlib.file_digest(file, "sha256").hexdigest())


def _stream_csv(path: Path) -> Iterator[Row]:
    records = read_manifest_records(path)
    _, header = next(records)
    for line, record in records:
        cells = dict(zip(header, record, strict=False))
        yield _build_row(line, cells, describe_length(record, header))


def _stream_parquet(path: Path) -> Iterator[Row]:
    try:
        file = parquet.ParquetFile(path)
        check_header(path, file.schema_arrow.names)
        known = [column for column in COLUMNS if column in file.schema_arrow.names]
        tables = (
            as_text(batch.to_pandas(types_mapper=_NULLABLE.get))
            for batch in file.iter_batches(columns=known)
        )
        records = (record for table in tables for record in table.to_dict("records"))
        for number, record in enumerate(records, 1):
            yield _build_row(number, record, "")
    except (OSError, ValueError) as error:  # pyarrow's own errors are among these
        raise DataError(
            f"{path}: is not readable as Parquet: {' '.join(str(error).split())}"
        ) from error


def _build_row(line: int, cells: Mapping[str, str], fault: str) -> Row:
    values = {column: cells.get(column, "") for column in COLUMNS}
    values = {column: value if value.strip() else "" for column, value in values.items()}
    if fault:  # which field is which is not sure
        values |= {"image_path": "", "text": ""}
    return Row(line, **values, fault=f"row: {fault}" if fault else "")


def _check_ids(path: Path, hashes: np.ndarray) -> None:
    """Ids that share a hash are suspects; only they are looked up in the file again and compared."""
    values, counts = np.unique(hashes, return_counts=True)
    suspects = {hash(""), *values[counts > 1].tolist()}
    if not np.isin(list(suspects), values).any():
        return
    lines = defaultdict(list)
    for row in stream_rows(path):
        if hash(row.example_id) in suspects:
            lines[row.example_id].append(row.line)
    faults = [
        f"{path.name}:{line}: example_id: is empty; allowed: an id of its own for every row"
        for line in lines.pop("", [])
    ]
    faults += [
        f"{path.name}:{line}: example_id: is there twice; allowed: an id of its own; received"
        f" {example_id!r}, as on line {first}"
        for example_id, (first, *again) in lines.items()
        for line in again
    ]
    if faults:
        raise DataError(join_faults(f"{path} is not valid", faults))
