"""What the sources share: readers of tables and photos, and the one writer of a manifest's folder.

Each other module here reads one data set and maps its rows. Names from a data set are never
trusted: a photo is read only from inside the folder that the user gave, and written only inside the
output folder.
"""

import contextlib
import csv
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas as pd

from eczema_tf.data.photo.files import compose, find_alike, find_photo
from eczema_tf.data.tables import open_table
from eczema_tf.errors import DataError, raise_if_any, shorten
from eczema_tf.files import replacing_folder, write_csv, write_json
from eczema_tf.schema import MANIFEST_COLUMNS, PREPARED

PHOTOS = "photos"  # subfolder of a manifest's folder
# what a manifest may hold (`data.photo.upright`)
JPEG_SUFFIXES, HEIC_SUFFIXES = (".jpg", ".jpeg", ".jfif"), (".heic", ".heif")
PHOTO_SUFFIXES = (*JPEG_SUFFIXES, ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", *HEIC_SUFFIXES)
FEW = 3  # how many missing photos are named
NUL = "\0"


@dataclass(frozen=True)
class Summary:
    """What became of a data set.

    Attributes:
        manifest: The file written.
        counts: Counts by name.
        description: The counts as a few lines for people.
    """

    manifest: Path
    counts: dict[str, int]
    description: str


def write_source(
    out: Path | str,
    *,
    name: str,
    rows: pd.DataFrame,
    counts: dict[str, int],
    description: str,
    facts: Mapping[str, object],
    left_out: Mapping[str, str] | None = None,
    inputs: Iterable[Path | str | None] = (),
    files: Mapping[str, Path] | None = None,
    make_files: Callable[[Path], None] | None = None,
    overwrite: bool = False,
) -> Summary:
    """Writes a manifest folder whole or not at all: `manifest.csv`, `dataset.json` and the photos.

    Args:
        out: The folder.
        name: Name of the data set.
        rows: Rows of the manifest. Missing columns stay empty; further ones follow the others.
        counts: What became of the data set, by name.
        description: The counts as a few lines for people.
        facts: For `dataset.json`, after name and counts: attribution, licence, how the columns
            were made.
        left_out: By name of a count, why these cases were left out, for reports.
        inputs: Files and folders that were read, and must not be overwritten.
        files: Path in the folder (of a photo: its `image_path` in the manifest) -> the file, which
            is linked there, or copied.
        make_files: Called with the folder, to write further files into it.
        overwrite: Whether a folder already there may be replaced.

    Raises:
        DataError: If `out` contains one of the inputs (with `overwrite` it would be lost), or a
            cell cannot be written to a CSV file.
        EczemaError: If `out` exists and is not empty without `overwrite`, or cannot be written.
    """
    out = Path(out)
    check_kept(out, inputs)
    further = [column for column in rows if column not in MANIFEST_COLUMNS]
    table = rows.reindex(columns=[*MANIFEST_COLUMNS, *further], fill_value="")
    _check_cells(table, out)
    not_kept = {reason: counts[fate] for fate, reason in (left_out or {}).items()}
    about = {"source": name, "counts": counts, "not_kept": not_kept, **facts}
    with replacing_folder(out, overwrite=overwrite) as aside:
        write_csv(aside / "manifest.csv", table)
        write_json(aside / PREPARED, about)
        for path, file in (files or {}).items():
            target = aside / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():  # the same photo, written `a.jpg` and `./a.jpg`
                continue
            try:
                os.link(file, target)
            except OSError:  # another disk, or a file system without links
                shutil.copyfile(file, target)
        if make_files is not None:
            make_files(aside)
    return Summary(out / "manifest.csv", counts, description)


def _check_cells(table: pd.DataFrame, out: Path) -> None:
    """Raises for cells (of JSON lines or Parquet) that a CSV file cannot contain."""
    limit = csv.field_size_limit()
    raise_if_any(
        f"{out}: cannot be written",
        (
            f"{shorten(example_id)}: {column}: {len(cell):,} characters, {cell.count(NUL)} of them"
            f" NUL; allowed: {limit:,}, none of them NUL"
            for column in table
            for example_id, cell in zip(table["example_id"], table[column].map(str), strict=True)
            if len(cell) > limit or NUL in cell
        ),
    )


def check_kept(out: Path, inputs: Iterable[Path | str | None]) -> None:
    """Raises a DataError if the output folder contains an input."""
    for given in inputs:
        if given and Path(given).resolve().is_relative_to(out.resolve()):
            raise DataError(
                f"{out}: contains {given}, which would be lost; choose another output folder"
            )


def read_table(
    path: Path, columns: Collection[str], optional: Collection[str] = ()
) -> pd.DataFrame:
    """Reads a CSV or (if it ends in `.parquet`) a Parquet file as text.

    Args:
        path: UTF-8 CSV (a byte order mark is allowed) or Parquet.
        columns: Required columns; others are left out.
        optional: Columns that are kept if they are there.

    Returns:
        Strings, "" for empty. The index, `line`, is the line that each row begins on (Parquet: the
        number of the row, from 1).

    Raises:
        DataError: If the file cannot be read, lacks columns (all are named), repeats one, or has no
            rows.
    """
    wanted = dict.fromkeys([*columns, *optional])
    opened = open_table(path, wanted)
    header = opened.header
    title = f"{path}: not the expected columns; it has: {', '.join(header)[:500]}"
    missing = [f"{column}: is missing" for column in columns if column not in header]
    repeated = [name for name in wanted if header.count(name) > 1]
    several = [f"{name}: appears {header.count(name)} times" for name in repeated]
    raise_if_any(title, [*missing, *several])
    table, faults = opened.collect()
    if table.empty:
        raise DataError(f"{path}: has a header but no rows")
    lines = zip(table.index, faults, strict=True)
    misfits = [f"{path.name}:{line}: {fault}" for line, fault in lines if fault]
    raise_if_any(f"{path}: rows do not fit the header", misfits)
    return table[[name for name in wanted if name in header]]


def check_folder(folder: Path | str) -> Path:
    """Returns the folder as a path.

    Raises:
        DataError: If there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of photos")
    return folder


def is_inner(name: str) -> bool:
    """Whether a path that a data set names stays inside its folder (links in it aside)."""
    path = PurePosixPath(name)
    return (
        bool(path.name)
        and not path.is_absolute()
        and not PureWindowsPath(name).drive
        and ".." not in path.parts
    )


def find_photos(
    images: Path | str | None, names: Iterable[str], *, side_by_side: bool = False
) -> dict[str, Path]:
    """Finds photos by the relative paths that a data set names them by.

    Args:
        images: The folder, None for no photos at all.
        names: Names of photos; "" for none.
        side_by_side: Whether photos may also be in the folder itself, without the folders of their
            path.

    Returns:
        Name -> file, for photos that exist inside the folder. The ending of a file may differ in
        the case of its letters, if no other file does.

    Raises:
        DataError: If there is no such folder, or it has none of the photos.
    """
    found: dict[str, Path] = {}
    if images is None:
        return found
    folder, names = check_folder(images).resolve(), [*filter(None, names)]
    for name in filter(is_inner, names):
        for path in (PurePosixPath(name).name, name) if side_by_side else (name,):
            with contextlib.suppress(DataError):
                found.setdefault(name, _find_photo(path, folder))
    if not found:
        asked = describe_missing(names) or "; no row names one"
        raise DataError(f"{images}: none of the data set's photos is there{asked}")
    return found


def _find_photo(name: str, folder: Path) -> Path:
    """Finds a photo, or the only one whose ending differs in the case of its letters."""
    try:
        return find_photo(name, folder)
    except DataError:
        parent, asked = PurePosixPath(name).parent.as_posix(), compose(PurePosixPath(name).name)
        with contextlib.suppress(OSError, ValueError):  # no such folder, or not a path
            near = find_alike(parent, folder)
            there = _list_endings((folder / near, (folder / near).stat().st_mtime_ns))
            (spelt,) = there.get(lower_ending(asked), [])
            if compose(near) == compose(parent):
                return find_photo(f"{near}/{spelt}", folder)
        raise


@lru_cache(maxsize=64)
def _list_endings(state: tuple[Path, int]) -> dict[str, list[str]]:
    """Lists names in a folder by `lower_ending`; `state` is the folder and its change time (ns)."""
    names: dict[str, list[str]] = {}
    for path in state[0].iterdir():
        names.setdefault(lower_ending(compose(path.name)), []).append(path.name)
    return names


def lower_ending(name: str) -> str:
    """Writes the ending of a path in lower case."""
    ending = PurePosixPath(name).suffix
    return name.removesuffix(ending) + ending.lower()


def describe_missing(names: Iterable[str]) -> str:
    """Names the first few missing photos, to follow their number; "" for none."""
    first = [repr(name) for name in dict.fromkeys(names)][:FEW]
    return f", such as {shorten(', '.join(first))}" if first else ""


def count_photos(rows: pd.DataFrame) -> dict[str, int]:
    """Counts rows of the manifest: `photo_rows` with a photo, `text_rows` with only text."""
    photo_rows = int((rows["image_path"] != "").sum())
    return {"photo_rows": photo_rows, "text_rows": len(rows) - photo_rows}


def build_rows(case: Mapping[str, object], image_paths: Sequence[str]) -> list[dict[str, object]]:
    """Makes the rows of a case: one per photo, or one with only text, or none if it has neither.

    Args:
        case: What all of its rows share, including `case_id` and `text`.
        image_paths: Paths of its photos.
    """
    paths = image_paths or ([""] if case["text"] else [])
    return [
        {"example_id": f"{case['case_id']}-{number}", "image_path": path, **case}
        for number, path in enumerate(paths, 1)
    ]
