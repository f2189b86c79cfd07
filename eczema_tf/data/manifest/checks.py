"""What can be wrong with the rows of a manifest. Each check goes over all rows and yields every fault it finds."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import numpy as np
import pandas as pd

from eczema_tf.errors import DataError
from eczema_tf.schema import CONSISTENCY, SEVERITY, SPLITS

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)


class Fault(NamedTuple):
    """Something wrong with one row."""

    row: int  # place in the table, from 0
    column: str
    message: str  # what is wrong; what is allowed; what was received


def is_label(value: str) -> bool:
    """Whether a value is a number in 0..1; literal `nan` and `inf` are not."""
    return bool(_NUMBER.fullmatch(value.strip())) and 0 <= float(value) <= 1


def find_faults(
    table: pd.DataFrame,
    lines: np.ndarray,
    folder: Path,
    *,
    check_photos: bool,
    with_embeddings: bool,
    allow_leaks: bool = False,
) -> Iterator[Fault]:
    """Yields every fault of every row.

    Args:
        table: Rows of strings with all manifest columns and `image_file`, index 0..n-1.
        lines: int64 (rows,), the line of each row, to point at other rows.
        folder: Of the manifest, which photos must not leave.
        check_photos: Whether each photo must be there.
        with_embeddings: Whether `image_path` is the key of an embedding and no path.
        allow_leaks: Whether a group may straddle splits.
    """
    yield from _check_ids(table, lines)
    yield from _check_values(table)
    yield from _check_contents(table, with_embeddings)
    if not with_embeddings:
        yield from _check_paths(table, folder, check_photos)
    yield from _check_cases_and_groups(table, lines, allow_leaks)


def resolve_photo(image_path: str, folder: Path) -> str:
    """Returns a photo's absolute path with symbolic links followed; "" for none and for what is no path at all."""
    try:
        return str((folder / image_path).resolve()) if image_path else ""
    except (OSError, ValueError, RuntimeError):  # too long, a NUL byte, a loop of links
        return ""


def find_photo(image_path: str, root: Path) -> Path:
    """Finds the photo of one row.

    Args:
        image_path: As in the manifest, not empty.
        root: The manifest's folder, resolved, which photos must not leave.

    Raises:
        DataError: If it is not there, or not a path inside the folder.
    """
    image_file = resolve_photo(image_path, root)
    fault = _describe_path(image_path, image_file, root, check_photos=True)
    if fault:
        raise DataError(fault)
    return Path(image_file)


def _check_ids(table: pd.DataFrame, lines: np.ndarray) -> Iterator[Fault]:
    first_line: dict[str, int] = {}
    for row, example_id in enumerate(table["example_id"]):
        if not example_id:
            yield Fault(row, "example_id", "is empty; allowed: an id of its own for every row")
        elif example_id in first_line:
            yield Fault(
                row,
                "example_id",
                f"is there twice; allowed: an id of its own; received {example_id!r}, as on line"
                f" {first_line[example_id]}",
            )
        else:
            first_line[example_id] = lines[row]


def _check_values(table: pd.DataFrame) -> Iterator[Fault]:
    for column, allowed in (
        ("consistency", CONSISTENCY),
        ("severity", SEVERITY),
        ("split", SPLITS),
    ):
        for row in np.flatnonzero(~table[column].isin(("", *allowed))):
            yield Fault(
                int(row),
                column,
                f"unknown value; allowed: {', '.join(allowed)} or empty; received"
                f" {table[column].iloc[row]!r}",
            )
    for row, value in enumerate(table["eczema"]):
        if value.strip() and not is_label(value):
            what = "is out of range" if _NUMBER.fullmatch(value.strip()) else "is not a number"
            yield Fault(
                row, "eczema", f"{what}; allowed: 0 to 1, or empty for no label; received {value!r}"
            )


def _check_contents(table: pd.DataFrame, with_embeddings: bool) -> Iterator[Fault]:
    photo = "embedding for the photo" if with_embeddings else "photo"
    for row in np.flatnonzero((table["image_path"] == "") & (table["text"] == "")):
        yield Fault(
            int(row),
            "image_path, text",
            f"neither {photo} nor text; allowed: at least one of them; received both empty",
        )


def _check_paths(table: pd.DataFrame, folder: Path, check_photos: bool) -> Iterator[Fault]:
    root = folder.resolve()
    known: dict[str, str] = {"": ""}
    for row, (image_path, image_file) in enumerate(
        zip(table["image_path"], table["image_file"], strict=True)
    ):
        if image_path not in known:
            known[image_path] = _describe_path(image_path, image_file, root, check_photos)
        if known[image_path]:
            yield Fault(row, "image_path", f"{known[image_path]}; received {image_path!r}")


def _describe_path(image_path: str, image_file: str, root: Path, check_photos: bool) -> str:
    """Says what is wrong with a photo's path, "" if nothing."""
    if PurePosixPath(image_path).is_absolute() or PureWindowsPath(image_path).drive:
        return "is absolute; allowed: a path relative to the manifest's folder"
    if not image_file:
        return "is not a path; allowed: a path relative to the manifest's folder"
    if not Path(image_file).is_relative_to(root):
        return "leaves the manifest's folder; allowed: a path inside it (links are followed)"
    return _describe_absence(Path(image_file)) if check_photos else ""


def _describe_absence(file: Path) -> str:
    try:
        if file.is_file():
            return ""
        return (
            "is not a file; allowed: a JPEG or PNG file"
            if file.exists()
            else "no such photo; allowed: a JPEG or PNG file that is there"
        )
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _check_cases_and_groups(
    table: pd.DataFrame, lines: np.ndarray, allow_leaks: bool
) -> Iterator[Fault]:
    labels = pd.to_numeric(
        table["eczema"].where(table["eczema"].map(is_label), ""), errors="coerce"
    )
    known = table.assign(split=table["split"].where(table["split"].isin(SPLITS)), eczema=labels)
    yield from _check_agreement(
        known, "case_id", "group_id", lines, "all rows of a case belong to one group"
    )
    yield from _check_agreement(
        known, "case_id", "eczema", lines, "all rows of a case have one label"
    )
    torn_cases = list(
        _check_agreement(known, "case_id", "split", lines, "all rows of a case are in one split")
    )
    yield from torn_cases
    if allow_leaks:
        return
    rows = {fault.row for fault in torn_cases}  # their group is torn too: once is enough
    torn_groups = _check_agreement(
        known,
        "group_id",
        "split",
        lines,
        "all rows of a group are in one split, or the figures are too good",
    )
    yield from (fault for fault in torn_groups if fault.row not in rows)


def _check_agreement(
    table: pd.DataFrame, within: str, column: str, lines: np.ndarray, allowed: str
) -> Iterator[Fault]:
    """Yields a fault for each row whose value is not that of the first row of its case or group."""
    given = table.loc[table[column].notna() & (table[within] != ""), [within, column]]
    first = given.groupby(within)[column].transform("first")
    first_row = given.assign(row=given.index).groupby(within)["row"].transform("first")
    for row in given.index[given[column] != first]:
        name = within.removesuffix("_id")
        other = (
            f"{name} {given[within][row]!r} has {_show(first[row])} on line {lines[first_row[row]]}"
        )
        yield Fault(
            int(row),
            column,
            f"differs within a {name}; allowed: {allowed}; received {_show(given[column][row])},"
            f" but {other}",
        )


def _show(value: str | float) -> str:
    return repr(value) if isinstance(value, str) else f"{value:g}"
