"""Any table with a map (`table_map`) as a manifest: PAD-UFES-20, Fitzpatrick17k, SkinCAP, DDI, or one's own.

In go the table (CSV or Parquet), the map and the photos, where there are any. Out comes a folder
with `manifest.csv` (with the diagnosis as a further column, `condition`), `dataset.json` (counts,
where the data set is from, the map) and the photos.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from eczema_tf.data.manifest.checks import find_faults
from eczema_tf.data.sources.source_files import (
    PHOTOS,
    Summary,
    check_folder,
    find_photo,
    read_table,
    refuse_overlap,
    write_dataset,
)
from eczema_tf.data.sources.table_map import TableMap, fold, load_map
from eczema_tf.errors import DataError, join_faults
from eczema_tf.schema import MANIFEST_COLUMNS

COLUMNS = (*MANIFEST_COLUMNS, "condition")


@dataclass(frozen=True)
class TableSummary(Summary):
    """What became of the rows.

    Attributes:
        source: The map's name.
        rows: In the table.
        left_out: As the map's `leave_out` says.
        unlabelled: Left out: no diagnosis.
        empty: Left out: neither a photo that is there nor a text.
        kept: In the manifest.
        eczema: Kept rows with the label 1.
        groups: Of the kept rows.
        photo_rows: Kept rows with a photo.
        text_rows: Kept rows with text alone.
        missing_photos: Photos that are named but not in the folder given; 0 without a folder.
    """

    source: str
    rows: int
    left_out: int
    unlabelled: int
    empty: int
    kept: int
    eczema: int
    groups: int
    photo_rows: int
    text_rows: int
    missing_photos: int

    def describe(self) -> str:
        """Returns the counts as a few lines for people."""
        return (
            f"{self.source}: {self.rows} rows: {self.kept} kept, in {self.groups} groups; left out:"
            f" {self.left_out} by the map, {self.unlabelled} without a diagnosis, {self.empty} with"
            f" neither photo nor text\n{self.eczema} of the kept rows"
            f" ({self.eczema / self.kept:.1%}) are eczema\n{self.photo_rows} rows with a photo,"
            f" {self.text_rows} with text alone; {self.missing_photos} photos are not there"
        )


def prepare_table(
    out: Path | str,
    *,
    table: Path | str,
    map_path: Path | str,
    images: Path | str | None = None,
    overwrite: bool = False,
) -> TableSummary:
    """Writes a manifest folder from a table and a map.

    Args:
        out: The folder.
        table: CSV or Parquet.
        map_path: A YAML file, or the name of a map that comes with the program.
        images: A folder with photos, named as the map's `image_path` says; those that are there are
            linked (or copied) into `out`.
        overwrite: Whether a folder already there may be replaced.

    Raises:
        ConfigError: If the map is not there or not valid, with every fault.
        DataError: With every column that is missing, every value that the map does not know, or
            every row that cannot be right; when no row is left, none is eczema though the map says
            which are, or no photo is there; or when `out` holds one of the inputs.
        EczemaError: If `out` cannot be written.
    """
    out, table = Path(out), Path(table)
    refuse_overlap(out, (table, Path(map_path) if Path(map_path).is_file() else None, images))
    mapping = load_map(map_path)
    given = read_table(table, mapping.list_columns())
    left_out = _find_left_out(given, mapping)
    unlabelled = ~left_out & (given[mapping.eczema.column].str.strip() == "")
    labelled = given[~left_out & ~unlabelled]
    _check_values(labelled, mapping, table)
    named = pd.DataFrame(
        [_build_row(row, mapping) for row in labelled.to_dict("records")],
        index=labelled.index,
        columns=COLUMNS,
    )
    photos = _find_photos(named["image_path"], images)
    rows = named.assign(
        image_path=[f"{PHOTOS}/{name}" if name in photos else "" for name in named["image_path"]]
    )
    kept = rows[(rows["image_path"] != "") | (rows["text"] != "")]
    _check_rows(kept, mapping, table, images)
    photo_rows = int((kept["image_path"] != "").sum())
    summary = TableSummary(
        manifest=out / "manifest.csv",
        source=mapping.name,
        rows=len(given),
        left_out=int(left_out.sum()),
        unlabelled=int(unlabelled.sum()),
        empty=len(rows) - len(kept),
        kept=len(kept),
        eczema=int(kept["eczema"].sum()),
        groups=kept["group_id"].nunique(),
        photo_rows=photo_rows,
        text_rows=len(kept) - photo_rows,
        missing_photos=0 if images is None else int((named["image_path"] != "").sum()) - photo_rows,
    )
    files = {f"{PHOTOS}/{name}": file for name, file in photos.items()}
    write_dataset(
        out,
        kept.to_dict("records"),
        _describe_source(given, mapping, summary),
        files,
        overwrite=overwrite,
    )
    return summary


def _find_left_out(given: pd.DataFrame, mapping: TableMap) -> pd.Series:
    masks = [
        given[column].map(fold).isin(map(fold, values))
        for column, values in mapping.leave_out.items()
    ]
    return pd.concat(masks, axis=1).any(axis=1) if masks else pd.Series(False, index=given.index)


def _check_values(given: pd.DataFrame, mapping: TableMap, path: Path) -> None:
    """Raises for every distinct value that the map does not know, with how often and where it first is."""
    unknown: dict[str, list[int]] = {}
    for line, row in zip(given.index, given.to_dict("records"), strict=True):
        for fault in _find_unknown(row, mapping):
            unknown.setdefault(fault, []).append(line)
    faults = [
        f"{path.name}:{lines[0]}: {fault} ({len(lines)} row{'s' if len(lines) > 1 else ''})"
        for fault, lines in unknown.items()
    ]
    if faults:
        raise DataError(
            join_faults(f"{path}: values that the map {mapping.name} does not know", faults)
        )


def _find_unknown(row: Mapping[str, str], mapping: TableMap) -> Iterator[str]:
    if mapping.eczema.label(row[mapping.eczema.column]) is None:
        yield f"eczema: is neither positive nor negative; received {row[mapping.eczema.column]!r}"
    for column, rule in mapping.columns.items():
        for template, result in rule.find_unknown(row):
            yield f"{column}: {template} is not among the values of the map; received {result!r}"


def _build_row(row: Mapping[str, str], mapping: TableMap) -> dict[str, object]:
    made = dict.fromkeys(MANIFEST_COLUMNS, "") | {
        column: rule.apply(row) for column, rule in mapping.columns.items()
    }
    made["case_id"] = made["case_id"] or made["example_id"]
    made["group_id"] = made["group_id"] or made["case_id"]
    condition = row[mapping.eczema.column].strip()
    return {
        **made,
        "eczema": mapping.eczema.label(condition),
        "source": mapping.name,
        "condition": condition,
    }


def _find_photos(names: Iterable[str], images: Path | str | None) -> dict[str, Path]:
    """The photos that are to be had, by name."""
    if images is None:
        return {}
    folder = check_folder(images)
    found = {name: find_photo(folder, name) for name in names}
    return {name: file for name, file in found.items() if file is not None}


def _check_rows(
    rows: pd.DataFrame, mapping: TableMap, path: Path, images: Path | str | None
) -> None:
    """Raises for what no training could use: nothing left, no eczema where some was expected, and faults of rows, with their lines."""
    if images is not None and not (rows["image_path"] != "").any():
        example = (
            mapping.columns["image_path"].template
            if "image_path" in mapping.columns
            else "nothing: the map has no image_path"
        )
        raise DataError(f"{images}: none of the photos is there; the map looks for {example}")
    if rows.empty:
        raise DataError(
            f"{path}: no row is left; "
            + ("give the photos with --images" if images is None else "see leave_out in the map")
        )
    if mapping.eczema.positive and not (rows["eczema"] == 1).any():
        seen = ", ".join(name for name, _ in Counter(rows["condition"]).most_common(20))
        raise DataError(
            f"{path}: {mapping.eczema.column}: none of {', '.join(mapping.eczema.positive)} is"
            f" there; received {seen}"
        )
    folder = Path.cwd()  # photos were found already: only the other columns are in question
    checked = rows.assign(
        eczema=rows["eczema"].astype(str),
        image_file=[str(folder / name) if name else "" for name in rows["image_path"]],
    )
    found = find_faults(
        checked.reset_index(drop=True),
        rows.index.to_numpy(),
        folder,
        check_photos=False,
        with_embeddings=False,
    )
    faults = [
        f"{path.name}:{rows.index[fault.row]}: {fault.column}: {fault.message}" for fault in found
    ]
    if faults:
        raise DataError(
            join_faults(
                f"{path}: does not make a valid manifest with the map {mapping.name}", faults
            )
        )


def _describe_source(
    given: pd.DataFrame, mapping: TableMap, summary: TableSummary
) -> dict[str, object]:
    """What goes into `dataset.json`: each value that leaves rows out is counted, so that one that is never there shows."""
    counted = {column: Counter(given[column].map(fold)) for column in mapping.leave_out}
    return {
        "source": mapping.name,
        "counts": summary.count(),
        "left_out": {
            column: {value: counted[column][fold(value)] for value in values}
            for column, values in mapping.leave_out.items()
        },
        **mapping.model_dump(include={"attribution", "licence", "where", "notes"}),
        "columns": {
            column: rule.model_dump(exclude_none=True) for column, rule in mapping.columns.items()
        },
        "eczema": mapping.eczema.model_dump(),
    }
