"""The manifest: the one table that every data set becomes (docs/manifest.md explains its columns).

`load_manifest` reads a CSV, Parquet or JSON lines file, fills in defaults, resolves photo paths and
reports every bad row at once.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from eczema_tf.data.manifest.checks import Fault, find_faults, parse_label
from eczema_tf.data.manifest.reading import find_header_faults, open_manifest
from eczema_tf.data.photo.files import find_photo
from eczema_tf.errors import DataError, join_faults, raise_if_any, shorten
from eczema_tf.files import write_csv
from eczema_tf.schema import MANIFEST_COLUMNS, NUMBER, TEMPLATE, TEXT_KIND


@dataclass(frozen=True)
class Manifest:
    """A loaded manifest, all of whose rows are good.

    Attributes:
        path: The file it came from.
        table: One row per photo, or a row without a photo; index 0..n-1. All of
            `schema.MANIFEST_COLUMNS` (text columns are strings, "" for empty; `eczema` is float64,
            NaN for empty), every other column as it was read (from CSV: strings), and `image_file`,
            the absolute path of the photo or "". With embeddings, `image_path` is the key of the
            row's embedding or "".
        lines: int64 (rows,), the line of each row in the file (for Parquet: the row's number, from
            1).
        read: The same rows as they are in the file, before defaults are filled in.
        without_embedding: How many rows name a photo without an embedding, if embeddings stand in
            for photos; these rows keep only their text.
        rejected: The rows left out because of `skip_bad_rows`, with `rejected_line` and
            `rejected_reason`.
    """

    path: Path
    table: pd.DataFrame
    lines: np.ndarray = field(default_factory=lambda: np.zeros(0, "int64"))
    read: pd.DataFrame = field(default_factory=pd.DataFrame)
    without_embedding: int = 0
    rejected: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def rejected_file(self) -> Path:
        """Where the rows that are left out are written, with the reasons."""
        return self.path.with_name(f"{self.path.stem}.rejected.csv")


def find_templates(table: pd.DataFrame) -> np.ndarray:
    """Finds the texts that a program wrote from flags or answers: bool (rows,)."""
    written = table["source"] == TEMPLATE
    if TEXT_KIND in table:
        written |= table[TEXT_KIND] == TEMPLATE
    return (written & (table["text"] != "")).to_numpy(bool)


def load_manifest(
    path: Path | str,
    *,
    skip_bad_rows: bool = False,
    embeddings: Collection[str] | None = None,
    allow_leaks: bool = False,
    clinical: Mapping[str, str] | None = None,
) -> Manifest:
    """Reads and checks a manifest.

    Args:
        path: UTF-8 CSV (a byte order mark is allowed) or, if it ends in `.parquet`, Parquet.
        skip_bad_rows: Leave bad rows out and write them, with the reasons, next to the manifest as
            `<name>.rejected.csv`, instead of raising. Faults of the file as a whole (its encoding,
            its header) are raised all the same.
        embeddings: Keys of the embeddings that stand in for photos, if any; `image_path` or else
            `example_id` is looked up among them and no photo file is needed. A row whose photo has
            no embedding keeps only its text.
        allow_leaks: Whether a group may straddle the manifest's own splits.
        clinical: The kinds of the clinical fields, as in `config.DataConfig`.

    Returns:
        The good rows, in the order of the file. Each photo file exists; `inspect_photos` finds out
        whether it can be decoded.

    Raises:
        DataError: Listing every fault with its line, or when no good row is left.
    """
    path = Path(path)
    kinds = clinical or {}
    numbers = [name for name, kind in kinds.items() if kind == NUMBER]
    read, row_faults = open_manifest(path, further=kinds, numbers=numbers).collect()
    if read.empty:
        raise DataError(f"{path}: has a header but no rows")
    lines, read, lost = read.index.to_numpy(), read.reset_index(drop=True), 0
    faults = [Fault(row, "row", fault) for row, fault in enumerate(row_faults) if fault]

    # a case is its row, and a group its case, unless the manifest says otherwise
    table = read.assign(**{column: "" for column in MANIFEST_COLUMNS if column not in read})
    if (table["group_id"] == "").all():
        named = [name for name in read if name != "group_id"]
        raise_if_any(f"{path}: no group is named", find_header_faults(named))
    table["case_id"] = table["case_id"].where(table["case_id"] != "", table["example_id"])
    table["group_id"] = table["group_id"].where(table["group_id"] != "", table["case_id"])
    others = [column for column in table if column not in MANIFEST_COLUMNS]
    table = table[[*MANIFEST_COLUMNS, *others]]

    if embeddings is None:
        table["image_file"], path_faults = _find_photos(list(table["image_path"]), path.parent)
        faults += path_faults
    else:
        keys = _find_keys(table, embeddings, path)
        lost = int(((table["image_path"] != "") & (keys == "")).sum())
        table["image_path"], table["image_file"] = keys, ""
    faults += find_faults(
        table,
        lines,
        with_embeddings=embeddings is not None,
        allow_leaks=allow_leaks,
        clinical=clinical,
    )
    table["eczema"] = table["eczema"].map(parse_label).astype("float64")
    return _reject(Manifest(path, table, lines, read, lost), faults, skip_bad_rows)


def reject_bad_photos(
    manifest: Manifest, photos: pd.DataFrame, *, skip_bad_rows: bool = False
) -> Manifest:
    """Raises for, or leaves out, the rows whose photo cannot be decoded.

    Args:
        manifest: From `load_manifest`.
        photos: From `inspect_photos`, over the manifest's `image_file`.
        skip_bad_rows: As for `load_manifest`; the rows are added to those rejected before.

    Raises:
        DataError: Listing every bad photo with its line, or when no good row is left.
    """
    table = manifest.table
    errors = photos["error"].reindex(table["image_file"]).fillna("")
    faults = [
        Fault(row, "image_path", f"{error}; received {shorten(image_path)!r}")
        for row, (error, image_path) in enumerate(zip(errors, table["image_path"], strict=True))
        if error
    ]
    return _reject(manifest, faults, skip_bad_rows)


def _find_keys(table: pd.DataFrame, embeddings: Collection[str], path: Path) -> pd.Series:
    """Returns the key of each row's embedding; "" where there is none."""
    pairs = zip(table["image_path"], table["example_id"], strict=True)
    keys = [next((key for key in pair if key and key in embeddings), "") for pair in pairs]
    if any(table["image_path"]) and not any(keys):
        raise DataError(
            f"{path}: none of its photos has an embedding in the file that was given for them"
            " (data.embeddings); give a file that has them (evaluate: --embeddings FILE)"
        )
    return pd.Series(keys, table.index, dtype=object)


def _find_photos(image_paths: list[str], folder: Path) -> tuple[list[str], list[Fault]]:
    """Returns absolute paths, "" for none and for faults: what is not a photo in the folder."""
    root, found, wrong = folder.resolve(), {"": ""}, {}
    for image_path in set(image_paths) - {""}:
        try:
            found[image_path] = str(find_photo(image_path, root))
        except DataError as error:
            wrong[image_path] = f"{error}; received {shorten(image_path)!r}"
    faults = [
        Fault(row, "image_path", wrong[image_path])
        for row, image_path in enumerate(image_paths)
        if image_path in wrong
    ]
    return [found.get(image_path, "") for image_path in image_paths], faults


def _reject(manifest: Manifest, faults: list[Fault], skip_bad_rows: bool) -> Manifest:
    """Raises all faults together, or removes their rows and writes them to a file."""
    if not faults:
        return manifest
    path, lines = manifest.path, manifest.lines
    faults = sorted(faults, key=lambda fault: fault.row)
    described = (
        f"{path.name}:{lines[fault.row]}: {fault.column}: {fault.message}" for fault in faults
    )
    if not skip_bad_rows:
        raise DataError(join_faults(f"{path} is not valid", described))
    reasons: dict[int, list[str]] = {}
    for fault in faults:
        reasons.setdefault(fault.row, []).append(f"{fault.column}: {fault.message}")
    bad = list(reasons)
    if len(bad) == len(manifest.table):
        raise DataError(join_faults(f"{path}: every row is bad", described))
    newly = manifest.read.iloc[bad].assign(
        rejected_line=lines[bad], rejected_reason=["; ".join(reasons[row]) for row in bad]
    )
    rejected = pd.concat([manifest.rejected, newly], ignore_index=True)
    write_csv(manifest.rejected_file, rejected)
    return replace(
        manifest,
        table=manifest.table.drop(index=bad).reset_index(drop=True),
        lines=np.delete(lines, bad),
        read=manifest.read.drop(index=bad).reset_index(drop=True),
        rejected=rejected,
    )
