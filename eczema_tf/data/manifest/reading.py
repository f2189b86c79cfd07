"""A manifest file, opened: its header is that of a manifest, its rows are strings."""

import difflib
import re
from collections.abc import Collection
from pathlib import Path

from eczema_tf.data.tables import Table, open_table
from eczema_tf.errors import DataError, raise_if_any
from eczema_tf.schema import MANIFEST_COLUMNS, REQUIRED_COLUMNS


def open_manifest(path: Path, columns: Collection[str] | None = None) -> Table:
    """Opens a manifest file and checks its header.

    Args:
        path: CSV, with the apostrophes that `write_csv` puts before formulas, or Parquet.
        columns: Those wanted; None for all.

    Raises:
        DataError: If the file as a whole cannot be used: absent, empty, not UTF-8, not the header
            of a manifest (every missing, nameless, repeated or misspelt column is named).
    """
    if not path.exists():
        raise DataError(
            f"{path}: no such manifest; `python -m eczema_tf.prepare --help` says how to make one"
        )
    table = open_table(path, columns, escaped=True)
    raise_if_any(f"{path}: the header is not valid", _find_header_faults(table.header))
    return table


def _find_header_faults(header: list[str]) -> list[str]:
    faults = [
        f"column {place} has no name" for place, name in enumerate(header, 1) if not name.strip()
    ]
    # `Image Path`, `image-path` and `imagepath` are all meant to be `image_path`
    by_letters = {_letters(column): column for column in MANIFEST_COLUMNS}
    misspelt = []
    for name in dict.fromkeys(header):
        if name and header.count(name) > 1:
            faults.append(f"{name}: column is there {header.count(name)} times")
        meant = by_letters.get(_letters(name), name)
        if meant != name:
            misspelt.append(
                f"{name!r}: looks like {meant!r}; rename it, or give it quite another name to have"
                " it ignored"
            )
    faults += misspelt
    for column in REQUIRED_COLUMNS:
        if column not in header:
            close = difflib.get_close_matches(column, header, n=1)
            hint = f"; did you mean it by {close[0]!r}?" if close else ""
            if len(header) == 1 and re.search(r"[;\t|]", header[0]):
                hint = "; fields must be separated by commas"
            received = ", ".join(map(repr, header))
            faults.append(f"{column}: required column is missing; received: {received}{hint}")
    if not {"image_path", "text"} & set(header):
        faults.append("image_path, text: at least one of the two columns must be there")
    return faults


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
