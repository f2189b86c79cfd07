"""Any table with a map (`table_map`) as a manifest: PAD-UFES-20, Fitzpatrick17k, or one's own.

In go the table (CSV or Parquet), the map and the photos, where there are any. Out comes a folder
with `manifest.csv` (with the diagnosis as a further column, `condition`), `dataset.json` (counts,
where the data set is from, the map) and the photos.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from eczema_tf.data.manifest.checks import find_faults
from eczema_tf.data.sources.source import (
    PHOTOS,
    Source,
    Summary,
    find_photos,
    read_table,
    write_source,
)
from eczema_tf.data.sources.table_map import TableMap, fold, load_map
from eczema_tf.errors import DataError, join_faults
from eczema_tf.schema import MANIFEST_COLUMNS

DESCRIPTION = """\
{name}: {rows} rows: {kept} kept, in {groups} groups; left out: {left_out} by the map, \
{unlabelled} without a diagnosis, {empty} with neither photo nor text
{eczema} of the kept rows ({share:.1%}) are eczema
{photo_rows} rows with a photo, {text_rows} with text alone; {missing_photos} photos are missing"""


def prepare_table(
    out: Path | str,
    *,
    table: Path | str,
    map_path: Path | str,
    images: Path | str | None = None,
    overwrite: bool = False,
) -> Summary:
    """Writes a manifest folder from a table and a map.

    Args:
        out: The folder.
        table: CSV or Parquet.
        map_path: A YAML file, or the name of a map that comes with the program.
        images: A folder with photos, named as the map's `image_path` says; those found are linked
            (or copied) into `out`.
        overwrite: Whether a folder already there may be replaced.

    Raises:
        ConfigError: If the map is not there or not valid, with every fault.
        DataError: With every column that is missing, every value that the map does not know, or
            every row that cannot be right; when no row is left, none is eczema though the map says
            which are, or no photo is found; or when `out` holds one of the inputs.
        EczemaError: If `out` cannot be written.
    """
    table = Path(table)
    mapping = load_map(map_path)
    given = read_table(table, mapping.list_columns())
    left_out = pd.Series(False, index=given.index)
    for column, values in mapping.leave_out.items():
        left_out |= given[column].map(fold).isin(map(fold, values))
    unlabelled = ~left_out & (given[mapping.eczema.column].str.strip() == "")
    labelled = given[~left_out & ~unlabelled]
    _check_values(labelled, mapping, table)
    named = pd.DataFrame(
        [_map_row(row, mapping) for row in labelled.to_dict("records")],
        index=labelled.index,
        columns=[*MANIFEST_COLUMNS, "condition"],
    )
    photos = find_photos(images, named["image_path"])
    rows = named.assign(
        image_path=[f"{PHOTOS}/{name}" if name in photos else "" for name in named["image_path"]]
    )
    kept = rows[(rows["image_path"] != "") | (rows["text"] != "")]
    _check_rows(kept, mapping, table, images)
    photo_rows = int((kept["image_path"] != "").sum())
    counts = {
        "rows": len(given),
        "left_out": int(left_out.sum()),  # as the map says
        "unlabelled": int(unlabelled.sum()),  # left out, too: no diagnosis
        "empty": len(rows) - len(kept),  # left out, too: neither a photo nor a text
        "kept": len(kept),
        "eczema": int(kept["eczema"].sum()),
        "groups": kept["group_id"].nunique(),
        "photo_rows": photo_rows,
        "text_rows": len(kept) - photo_rows,
        "missing_photos": (
            0 if images is None else int((named["image_path"] != "").sum()) - photo_rows
        ),
    }
    share = counts["eczema"] / counts["kept"]
    source = Source(
        name=mapping.name,
        rows=kept,
        counts=counts,
        description=DESCRIPTION.format(**counts, name=mapping.name, share=share),
        facts={"counts": counts, **_describe_map(mapping, given)},
        inputs=(table, map_path if Path(map_path).is_file() else None, images),
        files={f"{PHOTOS}/{name}": file for name, file in photos.items()},
    )
    return write_source(out, source, overwrite=overwrite)


def _check_values(given: pd.DataFrame, mapping: TableMap, path: Path) -> None:
    """Raises for every distinct value that the map does not know: how often, and where first."""
    unknown: dict[str, list[int]] = {}
    label, label_column = mapping.eczema.label, mapping.eczema.column
    for line, row in zip(given.index, given.to_dict("records"), strict=True):
        faults = [
            f"{column}: {template} is not among the values of the map; received {result!r}"
            for column, rule in mapping.columns.items()
            for template, result in rule.find_unknown(row)
        ]
        if label(row[label_column]) is None:
            faults.insert(
                0, f"eczema: is neither positive nor negative; received {row[label_column]!r}"
            )
        for fault in faults:
            unknown.setdefault(fault, []).append(line)
    if unknown:
        title = f"{path}: values that the map {mapping.name} does not know"
        faults = [
            f"{path.name}:{lines[0]}: {fault} ({len(lines)} row{'s' if len(lines) > 1 else ''})"
            for fault, lines in unknown.items()
        ]
        raise DataError(join_faults(title, faults))


def _map_row(row: Mapping[str, str], mapping: TableMap) -> dict[str, object]:
    """Makes a row of the manifest from one of the table."""
    made = {column: rule.apply(row) for column, rule in mapping.columns.items()}
    case_id = made.get("case_id") or made["example_id"]
    condition = row[mapping.eczema.column].strip()
    return {
        **dict.fromkeys(MANIFEST_COLUMNS, ""),
        **made,
        "case_id": case_id,
        "group_id": made.get("group_id") or case_id,
        "eczema": mapping.eczema.label(condition),
        "source": mapping.name,
        "condition": condition,
    }


def _check_rows(
    rows: pd.DataFrame, mapping: TableMap, path: Path, images: Path | str | None
) -> None:
    """Raises for what training could not use: nothing left, no eczema, and faults of rows."""
    if images is not None and not (rows["image_path"] != "").any():
        rule = mapping.columns.get("image_path")
        example = "nothing: the map has no image_path" if rule is None else rule.template
        raise DataError(f"{images}: none of the photos is there; the map looks for {example}")
    if rows.empty:
        hint = "give the photos with --images" if images is None else "see leave_out in the map"
        raise DataError(f"{path}: no row is left; {hint}")
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
    faults = [
        f"{path.name}:{rows.index[fault.row]}: {fault.column}: {fault.message}"
        for fault in find_faults(
            checked.reset_index(drop=True),
            rows.index.to_numpy(),
            folder,
            check_photos=False,
            with_embeddings=False,
        )
    ]
    if faults:
        title = f"{path}: does not make a valid manifest with the map {mapping.name}"
        raise DataError(join_faults(title, faults))


def _describe_map(mapping: TableMap, given: pd.DataFrame) -> dict[str, object]:
    """What `dataset.json` says of the map; a value to leave out that never came shows by its 0."""
    counted = {column: Counter(given[column].map(fold)) for column in mapping.leave_out}
    return {
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
