"""Checks cases that come from Python code, in lists or columns of a table, and unifies them."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pandas.api.types import is_list_like, is_scalar

from eczema_tf.data.clinical.lines import join_fields
from eczema_tf.data.photo.upright import read_case_photos
from eczema_tf.errors import DataError, raise_if_any, shorten

# types that may stand for photos and texts; NaN, as tables have it, and "" count as None
Photo = str | Path | bytes
Photos = Photo | Sequence[Photo | None] | None
Fields = Mapping[str, Any] | None
_BYTES = bytes | bytearray | memoryview


class Given(NamedTuple):
    """What is known about some cases; all lists are as long as `index`.

    Attributes:
        photos: Upright, as from `upright_jpeg`; an empty list for none.
        texts: "" for none.
        clinical: From `join_fields`; "" for nothing.
        index: Of the tables or columns that were given; otherwise 0, 1, 2 ...
    """

    photos: list[list[bytes]]
    texts: list[str]
    clinical: list[str]
    index: pd.Index


def read_cases(
    photos: Sequence[Photos] | None,
    texts: Sequence[str | None] | None,
    clinical: Sequence[Fields] | pd.DataFrame | None,
    fields: Collection[str],
) -> Given:
    """Reads cases: a list of each kind, or None if no case has any.

    Args:
        photos: For each case a file or its bytes, or several.
        texts: One for each case.
        clinical: For each case, values by name of the field.
        fields: Names of the fields that the model takes.

    Raises:
        DataError: If the lists are not equally long, or are columns of tables that do not belong
            together; otherwise lists every entry that has the wrong type or cannot be read.
    """
    given = {"photos": photos, "texts": texts, "clinical": clinical}
    index = _find_index(given)
    columns = {name: _list_entries(name, own) for name, own in given.items() if own is not None}
    lengths = [len(column) for column in columns.values()]
    if len({*lengths}) > 1:
        raise DataError(f"{', '.join(columns)}: must be equally long; received {lengths}")
    count, faults = max(lengths, default=0), list[str]()

    def read(name: str, read_one: Callable[[Any], Any]) -> list[Any]:
        known = []
        for number, entry in enumerate(columns.get(name, [None] * count)):
            try:
                known.append(read_one(entry))
            except DataError as error:
                faults.append(f"{name}[{number}]: {error}")
        return known

    cases = (
        read("photos", read_photos),
        read("texts", read_text),
        read("clinical", partial(read_fields, known=fields)),
    )
    raise_if_any("these cases cannot be answered", faults)
    return Given(*cases, pd.RangeIndex(count) if index is None else index)


def read_photos(given: Photos) -> list[bytes]:
    """Reads the photos of a case.

    Raises:
        DataError: For each photo that cannot be read.
    """
    one = bytearray | memoryview | Mapping | set | frozenset  # has a length, but is not a list
    several = is_list_like(given) and not isinstance(given, one)
    listed: list[Any] = list(given) if several else [given]  # type: ignore[arg-type]
    there = [photo for photo in listed if not _is_missing(photo)]
    for photo in there:
        if not isinstance(photo, str | os.PathLike | _BYTES):
            raise DataError(
                f"must be a photo's file or its bytes, or a list of these; received {_name(photo)}"
            )
    return read_case_photos(
        [bytes(photo) if isinstance(photo, _BYTES) else Path(photo) for photo in there]
    )


def read_text(given: str | None) -> str:
    """Reads a text; "" for none.

    Raises:
        DataError: If it is not a string.
    """
    if _is_missing(given):
        return ""
    if not isinstance(given, str):
        raise DataError(f"must be a string, or None for none; received {_name(given)}")
    return given


def read_fields(given: Fields, known: Collection[str]) -> str:
    """Reads clinical fields, and returns them as `join_fields` writes them.

    Raises:
        DataError: If they are not a dictionary, or a field is not known.
    """
    if _is_missing(given):
        return ""
    if not isinstance(given, Mapping):
        raise DataError(f"must be a dictionary by field name; received {_name(given)}")
    for name, value in given.items():
        if not isinstance(name, str):
            raise DataError(f"{shorten(repr(name))}: a field's name must be a string")
        if not is_scalar(value):
            raise DataError(f"{shorten(name)}: must be one value; received {_name(value)}")
    return join_fields(given, known)


def _is_missing(given: object) -> bool:
    """Whether there is nothing: None, "", or the value of an empty cell in a table."""
    return is_scalar(given) and (bool(pd.isna(given)) or given in ("", b""))


def _find_index(given: Mapping[str, object]) -> pd.Index | None:
    """Finds the row labels that the given columns of tables share."""
    tables = {
        name: own.index for name, own in given.items() if isinstance(own, pd.Series | pd.DataFrame)
    }
    first = next(iter(tables.values()), None)
    if first is not None and not all(first.equals(other) for other in tables.values()):
        raise DataError(
            f"{', '.join(tables)}: must have the same index, as columns of one table have; received"
            " different ones"
        )
    return first


def _list_entries(name: str, given: Any) -> list[Any]:
    if isinstance(given, pd.DataFrame) and name == "clinical":
        if not given.columns.is_unique:
            raise DataError("clinical: two columns of the table have the same name")
        return given.to_dict("records")
    if not is_list_like(given) or isinstance(given, Mapping | set | frozenset | pd.DataFrame):
        raise DataError(f"{name}: must be a list, one entry per case; received {_name(given)}")
    return [*given]


def _name(given: object) -> str:
    return type(given).__name__
