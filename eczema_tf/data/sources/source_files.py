"""What the sources share: reading others' tables as text, finding photos that others name, writing the folder of a manifest, telling so.

Names that come out of a data set are never trusted: a photo is taken only from inside the folder
that the user gave, and lands only inside the folder written.
"""

import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas as pd

from eczema_tf.data.manifest.reading import describe_length, read_records
from eczema_tf.errors import DataError, join_faults
from eczema_tf.files import replacing_folder, write_csv, write_json
from eczema_tf.schema import MANIFEST_COLUMNS

PHOTOS = "photos"  # subfolder of a manifest's folder


@dataclass(frozen=True)
class Summary:
    """What became of a data set; each source adds what it counts, and how it tells it.

    Attributes:
        manifest: The file written.
    """

    manifest: Path

    def count(self) -> dict[str, int]:
        """Returns the counts by name."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, int)}

    def describe(self) -> str:
        """Returns the counts as a few lines for people."""
        raise NotImplementedError


def read_table(path: Path, columns: Collection[str]) -> pd.DataFrame:
    """Reads a CSV or (if it ends in `.parquet`) a Parquet file as text.

    Args:
        path: UTF-8 CSV (a byte order mark is allowed) or Parquet.
        columns: Those needed; others are left out.

    Returns:
        Strings, "" for empty. The index, `line`, is the line that each row begins on (Parquet: the
        number of the row, from 1).

    Raises:
        DataError: If the file cannot be read, lacks columns (all are named), repeats one, or has no
            rows.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: {'is a folder; give the file in it' if path.is_dir() else 'no such file'}"
        )
    table = (
        _read_parquet(path, columns)
        if path.suffix.lower() == ".parquet"
        else _read_csv(path, columns)
    )
    if table.empty:
        raise DataError(f"{path}: has a header but no rows")
    return table


def _read_csv(path: Path, columns: Collection[str]) -> pd.DataFrame:
    if not path.read_bytes().strip(b"\xef\xbb\xbf \r\n\t"):
        raise DataError(
            f"{path}: is empty; allowed: a CSV file with the columns {', '.join(columns)}"
        )
    lines, records = zip(*read_records(path), strict=True)
    (_, *lines), (header, *records) = lines, records
    _check_columns(path, header, columns)
    described = (
        (line, describe_length(record, header)) for line, record in zip(lines, records, strict=True)
    )
    faults = [f"{path.name}:{line}: {fault}" for line, fault in described if fault]
    if faults:
        raise DataError(join_faults(f"{path}: rows do not fit the header", faults))
    return pd.DataFrame(records, columns=header, index=pd.Index(lines, name="line"), dtype=str)[
        [*columns]
    ]


def _read_parquet(path: Path, columns: Collection[str]) -> pd.DataFrame:
    from pyarrow import parquet

    try:
        _check_columns(path, parquet.read_schema(path).names, columns)
        table = pd.read_parquet(
            path, columns=[*columns], dtype_backend="numpy_nullable"
        )  # so that an integer stays one
    except (OSError, ValueError, ImportError) as error:  # pyarrow's own errors are among these
        raise DataError(
            f"{path}: is not readable as Parquet: {' '.join(str(error).split())}"
        ) from error
    lines = pd.RangeIndex(1, len(table) + 1, name="line")
    return table.astype("string").fillna("").astype(str).set_index(lines)


def _check_columns(path: Path, header: list[str], columns: Collection[str]) -> None:
    missing = [f"{column}: is missing" for column in columns if column not in header]
    twice = [
        f"{column}: is there {header.count(column)} times"
        for column in columns
        if header.count(column) > 1
    ]
    if missing or twice:
        raise DataError(
            join_faults(
                f"{path}: not the expected columns; it has: {', '.join(header)[:500]}",
                [*missing, *twice],
            )
        )


def check_folder(folder: Path | str) -> Path:
    """Returns the folder as a path.

    Raises:
        DataError: If it is not there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of photos")
    return folder


def refuse_overlap(out: Path, inputs: Iterable[Path | str | None]) -> None:
    """Refuses to write over what is read.

    Raises:
        DataError: If an input is `out` or in it: with `--overwrite` it would be lost.
    """
    for given in filter(None, inputs):
        if Path(given).resolve().is_relative_to(out.resolve()):
            raise DataError(
                f"{out}: holds {given}, which would be lost; choose another folder to write"
            )


def is_inner(name: str) -> bool:
    """Returns whether a path that a data set names stays inside the folder it is relative to (links in it aside)."""
    path = PurePosixPath(name)
    return (
        bool(path.name)
        and not path.is_absolute()
        and not PureWindowsPath(name).drive
        and ".." not in path.parts
    )


def find_photo(folder: Path, name: str) -> Path | None:
    """Finds a photo by the relative path that a data set names it by; None if it is not there or not inside the folder."""
    if not is_inner(name):
        return None
    try:
        file = (folder / name).resolve()
        return file if file.is_file() and file.is_relative_to(folder.resolve()) else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL byte, a loop of links
        return None


def write_dataset(
    out: Path,
    rows: Iterable[Mapping[str, object]],
    facts: Mapping[str, object],
    files: Mapping[str, Path],
    *,
    overwrite: bool,
) -> None:
    """Writes a manifest folder whole or not at all.

    Args:
        out: The folder.
        rows: Of the manifest, with all of its columns; further ones follow them.
        facts: For `dataset.json`: source, counts, attribution, licence, how the columns were made.
        files: Path in the folder (of a photo: its `image_path` in the manifest) -> the file, which
            is linked there, or copied.
        overwrite: Whether a folder already there may be replaced.

    Raises:
        EczemaError: If `out` exists and is not empty without `overwrite`, or cannot be written.
    """
    table = pd.DataFrame(rows)
    extra = [column for column in table if column not in MANIFEST_COLUMNS]
    with replacing_folder(out, overwrite=overwrite) as aside:
        write_csv(aside / "manifest.csv", table[[*MANIFEST_COLUMNS, *extra]])
        write_json(aside / "dataset.json", facts)
        for place, file in files.items():
            _place_file(file, aside / place)


def _place_file(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(file, target)
