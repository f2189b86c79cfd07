"""The manifest: the one table that every data set becomes (docs/data.md explains its columns).

`load_manifest` reads a CSV or Parquet file, fills in defaults, resolves photo paths and reports
every bad row at once.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from eczema_tf.data.manifest.checks import Fault, find_faults, is_label, resolve_photo
from eczema_tf.data.manifest.reading import Rows, read_rows
from eczema_tf.errors import DataError, join_faults
from eczema_tf.files import write_csv
from eczema_tf.schema import MANIFEST_COLUMNS, TEXT_COLUMNS


@dataclass(frozen=True)
class Manifest:
    """A loaded manifest, all of whose rows are good.

    Attributes:
        path: The file it came from.
        table: One row a photo, or a row without a photo; index 0..n-1. All of
            `schema.MANIFEST_COLUMNS` (text columns are strings, "" for empty; `eczema` is float64,
            NaN for empty), every other column as it was read (from CSV: strings), and `image_file`,
            the absolute path of the photo or "". With embeddings, `image_path` is the key of the
            row's embedding or "".
        lines: int64 (rows,), the line of each row in the file (for Parquet: the row's number, from
            1).
        rejected: The rows left out because of `skip_bad_rows`, with `rejected_line` and
            `rejected_reason`.
    """

    path: Path
    table: pd.DataFrame
    lines: np.ndarray = field(default_factory=lambda: np.zeros(0, "int64"))
    rejected: pd.DataFrame = field(default_factory=pd.DataFrame)


def load_manifest(
    path: Path | str,
    *,
    skip_bad_rows: bool = False,
    rejected_path: Path | str | None = None,
    check_photos: bool = True,
    embeddings: Collection[str] | None = None,
    allow_leaks: bool = False,
) -> Manifest:
    """Reads and checks a manifest.

    Args:
        path: UTF-8 CSV (a byte order mark is allowed) or, if it ends in `.parquet`, Parquet.
        skip_bad_rows: Leave bad rows out and write them, with the reasons, to `rejected_path`,
            instead of raising. Faults of the file as a whole (its encoding, its header) are raised
            all the same.
        rejected_path: Where rejected rows go; default: beside the manifest, `<name>.rejected.csv`.
        check_photos: Whether each photo must be there. (That it can be decoded is the business of
            `photos.inspect_photos`.)
        embeddings: Keys of the embeddings that stand in for photos, if any; `image_path` or else
            `example_id` is looked up among them and no photo file is needed. A row whose photo has
            no embedding keeps its text alone.
        allow_leaks: Whether a group may straddle the manifest's own splits.

    Returns:
        The good rows, in the order of the file.

    Raises:
        DataError: With every fault and its line, or when no good row is left.
    """
    path = Path(path)
    rows = read_rows(path)
    table = _fill_defaults(rows.table)
    if embeddings is None:
        table["image_file"] = _resolve_photos(table["image_path"], path.parent)
    else:
        table["image_path"] = _match_embeddings(table, embeddings)
        table["image_file"] = ""
    options = {
        "check_photos": check_photos,
        "with_embeddings": embeddings is not None,
        "allow_leaks": allow_leaks,
    }
    faults = [*rows.faults, *find_faults(table, rows.lines, path.parent, **options)]
    table["eczema"] = pd.to_numeric(
        table["eczema"].where(table["eczema"].map(is_label), ""), errors="coerce"
    ).astype("float64")
    manifest = Manifest(path, table, rows.lines)
    return _reject(manifest, faults, rows, skip_bad_rows=skip_bad_rows, rejected_path=rejected_path)


def reject_bad_photos(
    manifest: Manifest,
    photos: pd.DataFrame,
    *,
    skip_bad_rows: bool = False,
    rejected_path: Path | str | None = None,
) -> Manifest:
    """Raises for, or leaves out, the rows whose photo cannot be decoded.

    Args:
        manifest: From `load_manifest`.
        photos: From `photos.inspect_photos`, over the manifest's `image_file`.
        skip_bad_rows: As for `load_manifest`; the rows are added to those rejected before.
        rejected_path: As for `load_manifest`.

    Raises:
        DataError: With every bad photo and its line, or when no good row is left.
    """
    errors = photos["error"].reindex(manifest.table["image_file"]).fillna("")
    image_paths = manifest.table["image_path"]
    faults = [
        Fault(row, "image_path", f"{error}; received {image_paths[row]!r}")
        for row, error in enumerate(errors)
        if error
    ]
    rows = Rows(manifest.table, manifest.lines, [])
    return _reject(manifest, faults, rows, skip_bad_rows=skip_bad_rows, rejected_path=rejected_path)


def _fill_defaults(table: pd.DataFrame) -> pd.DataFrame:
    """Adds the columns that are not there; a case is its row and a group its case unless the manifest says otherwise."""
    table = table.assign(**{column: "" for column in MANIFEST_COLUMNS if column not in table})
    for column in TEXT_COLUMNS:
        table[column] = table[column].where(table[column].str.strip() != "", "")
    table["case_id"] = table["case_id"].where(table["case_id"] != "", table["example_id"])
    table["group_id"] = table["group_id"].where(table["group_id"] != "", table["case_id"])
    return table[
        [*MANIFEST_COLUMNS, *(column for column in table if column not in MANIFEST_COLUMNS)]
    ]


def _resolve_photos(image_paths: Iterable[str], folder: Path) -> list[str]:
    """Absolute paths with symbolic links followed; "" for none and for what is no path at all (a fault found later)."""
    resolved = {image_path: resolve_photo(image_path, folder) for image_path in set(image_paths)}
    return [resolved[image_path] for image_path in image_paths]


def _match_embeddings(table: pd.DataFrame, embeddings: Collection[str]) -> list[str]:
    keys = frozenset(embeddings)
    pairs = zip(table["image_path"], table["example_id"], strict=True)
    return [next((key for key in pair if key and key in keys), "") for pair in pairs]


def _reject(
    manifest: Manifest,
    faults: list[Fault],
    rows: Rows,
    *,
    skip_bad_rows: bool,
    rejected_path: Path | str | None,
) -> Manifest:
    """Raises all faults together, or takes their rows out and writes them down."""
    if not faults:
        return manifest
    path, lines = manifest.path, manifest.lines
    faults = sorted(faults, key=lambda fault: fault.row)
    bad = sorted({fault.row for fault in faults})
    described = [
        f"{path.name}:{lines[fault.row]}: {fault.column}: {fault.message}" for fault in faults
    ]
    if not skip_bad_rows:
        raise DataError(join_faults(f"{path} is not valid", described))
    if len(bad) == len(manifest.table):
        raise DataError(join_faults(f"{path}: every row is bad", described))
    reasons = {
        row: "; ".join(f"{fault.column}: {fault.message}" for fault in faults if fault.row == row)
        for row in bad
    }
    newly = rows.table.iloc[bad].assign(
        rejected_line=lines[bad], rejected_reason=[reasons[row] for row in bad]
    )
    rejected = pd.concat([manifest.rejected, newly], ignore_index=True)
    write_csv(rejected_path or path.with_name(f"{path.stem}.rejected.csv"), rejected)
    good = np.setdiff1d(np.arange(len(lines)), bad)
    return replace(
        manifest,
        table=manifest.table.iloc[good].reset_index(drop=True),
        lines=lines[good],
        rejected=rejected,
    )
