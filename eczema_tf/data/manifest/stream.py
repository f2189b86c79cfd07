"""Reads a manifest row by row, for batch inference: a table need not fit into memory.

Only ids, photo, text and clinical fields are read, by the same rules as in `load_manifest`. But a
bad row is passed on with its fault, since here each row gets an answer of its own.
"""

from array import array
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eczema_tf.data.checksums import digest_file
from eczema_tf.data.clinical.lines import join_fields
from eczema_tf.data.manifest.checks import EMPTY_ID, REPEATED_ID, ROUNDED_ID, is_rounded
from eczema_tf.data.manifest.reading import open_manifest
from eczema_tf.errors import DataError, raise_if_any, shorten


class Row(NamedTuple):
    """One row of a manifest; "" stands for what is absent."""

    line: int  # in the file; for Parquet the number of the row, from 1
    example_id: str = ""
    case_id: str = ""
    image_path: str = ""
    text: str = ""
    fault: str = ""  # why the row cannot be read; it then has only its ids
    clinical: str = ""  # as from `join_fields`


class Survey(NamedTuple):
    """A manifest as a whole."""

    rows: int
    has_cases: bool  # whether any row names its case
    sha256: str  # of the file
    columns: Collection[str]  # all, by name


COLUMNS = ("example_id", "case_id", "image_path", "text")


def stream_rows(path: Path, fields: Collection[str] = ()) -> Iterator[Row]:
    """Yields the rows in the order of the file, with few in memory at a time.

    Args:
        path: CSV or, if it ends in `.parquet`, Parquet.
        fields: Columns of clinical fields; a missing one counts as unknown.

    Raises:
        DataError: If the file as a whole cannot be read, as for `load_manifest`.
    """
    table = open_manifest(path, {*COLUMNS, *fields}, fields, numbers=fields)
    for line, values, fault in table.rows:
        cells = dict(zip(table.columns, values, strict=True))
        known = join_fields({name: cells.get(name, "") for name in fields})
        row = Row(line, **{name: cells.get(name, "") for name in COLUMNS}, clinical=known)
        if fault:  # it is not certain which cell belongs to which column
            row = row._replace(image_path="", text="", clinical="", fault=f"row: {fault}")
        yield row


def survey_manifest(path: Path) -> Survey:
    """Reads a manifest once, using 8 bytes of memory per row, whatever the ids and texts.

    Raises:
        DataError: If the file cannot be read or has no rows, if an `example_id` is empty or appears
            twice (all are named), or if an id is a rounded number.
    """
    hashes, has_cases, faults = array("q"), False, list[str]()
    for row in stream_rows(path):
        hashes.append(hash(row.example_id))
        has_cases |= row.case_id != ""
        for column in ("example_id", "case_id"):
            if is_rounded(name := getattr(row, column)):
                place = f"{path.name}:{row.line}: {column}"
                faults.append(f"{place}: {ROUNDED_ID.format(shorten(name))}")
    if not hashes:
        raise DataError(f"{path}: has a header but no rows")
    values, counts = np.unique(np.array(hashes), return_counts=True)
    suspects = {hash(""), *values[counts > 1].tolist()}
    if np.isin(list(suspects), values).any():
        faults += _find_repeated_ids(path, suspects)
    raise_if_any(f"{path} is not valid", faults)
    return Survey(len(hashes), has_cases, digest_file(path), open_manifest(path, ()).header)


def _find_repeated_ids(path: Path, suspects: set[int]) -> list[str]:
    """Reads the ids that share a hash again and compares the ids themselves."""
    lines = defaultdict(list)
    for row in stream_rows(path):
        if hash(row.example_id) in suspects:
            lines[row.example_id].append(row.line)
    faults = [f"{path.name}:{line}: example_id: {EMPTY_ID}" for line in lines.pop("", [])]
    return faults + [
        f"{path.name}:{line}: example_id: {REPEATED_ID.format(shorten(example_id), first)}"
        for example_id, (first, *again) in lines.items()
        for line in again
    ]
