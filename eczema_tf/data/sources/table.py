"""Any table with a map (`table_map`) as a manifest: PAD-UFES-20, Fitzpatrick17k, or your own.

Takes the table (CSV, Parquet or JSON lines), the map and the photos, if there are any. Writes a
folder with `manifest.csv` (with the diagnosis as a further column, `condition`), `dataset.json`
(counts, where the data set is from, the map) and the photos.
"""

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from eczema_tf.cli import say
from eczema_tf.data.manifest.checks import find_faults
from eczema_tf.data.manifest.reading import clean_cell
from eczema_tf.data.sources.source import (
    PHOTOS,
    Summary,
    count_photos,
    describe_missing,
    find_photos,
    read_table,
    write_source,
)
from eczema_tf.data.sources.table_map import TableMap, fold, load_map
from eczema_tf.errors import DataError, raise_if_any, shorten
from eczema_tf.schema import ECZEMA, MANIFEST_COLUMNS, POSITIVE_CLASS

LEFT_OUT = {
    "left_out": "left out by the map",
    "unlabelled": "without a diagnosis",
    "empty": "with neither a text nor an available photo",
}
DESCRIPTION = """\
{name}: {rows} rows: {kept} kept, in {groups} groups; left out: {left_out} by the map, \
{unlabelled} without a diagnosis, {empty} with neither photo nor text
{eczema} of the kept rows ({share:.1%}) are {positive_class}
{photo_rows} rows with a photo, {text_rows} with only text; {missing_photos} photos are missing"""


def prepare_table(
    out: Path | str,
    *,
    table: Path | str,
    map_path: Path | str,
    images: Path | str | None = None,
    positive: Collection[str] = (),
    overwrite: bool = False,
) -> Summary:
    """Writes a manifest folder from a table and a map.

    Args:
        out: The folder.
        table: CSV, Parquet or JSON lines.
        map_path: A YAML file, or the name of a map that comes with the program.
        images: A folder with photos, named as the map's `image_path` says; those found are linked
            (or copied) into `out`.
        positive: Diagnoses to tell from all others in place of eczema; empty for the map's eczema.
            Their name is in a further column of the manifest, `positive_class`.
        overwrite: Whether a folder already there may be replaced.

    Raises:
        ConfigError: If there is no such map, it is not valid (every fault is listed), or the
            positive values need a name.
        DataError: Listing every missing column, every value that the map does not know, or every
            row that is not valid; if no row is left, none is eczema although the map says which
            are, or no photo is found; or if `out` contains one of the inputs.
        EczemaError: If `out` cannot be written.
    """
    mapping = load_map(map_path)
    name, mapping = mapping.stand_in(positive) if positive else (ECZEMA, mapping)
    given = read_table(Path(table), mapping.list_columns(), mapping.list_clinical_columns())
    _check_asked(positive, given[mapping.eczema.column], table)
    mapping = mapping.keep_fields(given.columns)
    fates = _find_fates(given, mapping)
    named = _map_rows(given[fates == ""], mapping, table)
    photos = find_photos(images, named["image_path"])
    paths = [f"{PHOTOS}/{photo}" if photo in photos else "" for photo in named["image_path"]]
    kept = named.assign(image_path=paths).query("image_path != '' or text != ''")
    if name != ECZEMA:
        kept = kept.assign(**{POSITIVE_CLASS: name})
    _check_rows(kept, mapping, table, images)
    missing = named["image_path"][~named["image_path"].isin(["", *photos])] if images else ()
    counts = {**_count_kept(fates, named, kept), "missing_photos": len(missing)}
    return write_source(
        out,
        name=mapping.name,
        rows=kept,
        counts=counts,
        description=DESCRIPTION.format(
            **counts, name=mapping.name, share=kept["eczema"].mean(), positive_class=name
        )
        + describe_missing(missing),
        facts={POSITIVE_CLASS: name, **_describe_map(mapping, given, kept)},
        left_out=LEFT_OUT,
        inputs=(table, map_path if Path(map_path).is_file() else None, images),
        files={f"{PHOTOS}/{photo}": file for photo, file in photos.items()},
        overwrite=overwrite,
    )


def _check_asked(positive: Collection[str], diagnoses: pd.Series, path: Path | str) -> None:
    """Raises if a requested value does not occur: its cases would count as the other class."""
    there = set(diagnoses.map(fold))
    if absent := [value for value in positive if fold(value) not in there]:
        seen = ", ".join(name for name, _ in Counter(diagnoses.str.strip()).most_common(20))
        raise DataError(
            f"{path}: {diagnoses.name}: there is no {', '.join(absent)}; received {seen}"
        )


def _find_fates(given: pd.DataFrame, mapping: TableMap) -> pd.Series:
    """Says why each row is left out (of `LEFT_OUT`), "" if it is not."""
    fates = given[mapping.eczema.column].map(
        lambda value: "" if mapping.eczema.tells(value) else "unlabelled"
    )
    for column, values in mapping.leave_out.items():
        fates = fates.mask(given[column].map(fold).isin(map(fold, values)), "left_out")
    return fates


def _count_kept(fates: pd.Series, named: pd.DataFrame, kept: pd.DataFrame) -> dict[str, int]:
    return {
        "rows": len(fates),
        **{fate: int((fates == fate).sum()) for fate in ("left_out", "unlabelled")},
        "empty": len(named) - len(kept),  # neither a photo nor a text
        "kept": len(kept),
        "eczema": int(kept["eczema"].sum()),
        "groups": kept["group_id"].nunique(),
        **count_photos(kept),
    }


def _count_diagnoses(kept: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Counts the rows of each diagnosis that became positive, and of each that did not."""
    sides = {"positive": kept["eczema"] == 1, "other": kept["eczema"] == 0}
    return {side: dict(Counter(kept["condition"][of]).most_common()) for side, of in sides.items()}


def _map_rows(given: pd.DataFrame, mapping: TableMap, path: Path | str) -> pd.DataFrame:
    """Makes the rows of the manifest.

    Raises:
        DataError: Listing every distinct value that the map does not know, with its count and first
            line.
    """
    rows, unknown = [], dict[str, list[int]]()
    for line, row in zip(given.index, given.to_dict("records"), strict=True):
        condition = row[mapping.eczema.column].strip()
        label = mapping.eczema.label(condition)
        faults = [
            f"{column}: {template} is not among the values of the map;"
            f" received {shorten(repr(result))}"
            for column, rule in mapping.rules.items()
            for template, result in rule.find_unknown(row)
        ]
        if label is None:
            received = shorten(repr(row[mapping.eczema.column]))
            faults.insert(0, f"eczema: is neither positive nor negative; received {received}")
        for fault in faults:
            unknown.setdefault(fault, []).append(line)
        made = dict.fromkeys(MANIFEST_COLUMNS, "")
        made |= {
            column: clean_cell(column, rule.apply(row)) for column, rule in mapping.rules.items()
        }
        made["case_id"] = made["case_id"] or made["example_id"]
        made["group_id"] = made["group_id"] or made["case_id"]
        rows.append({**made, "eczema": label, "source": mapping.name, "condition": condition})
    faults = [
        f"{Path(path).name}:{lines[0]}: {fault} ({len(lines)} row{'s' if len(lines) > 1 else ''})"
        for fault, lines in unknown.items()
    ]
    raise_if_any(f"{path}: values that the map {mapping.name} does not know", faults)
    further = [column for column in mapping.rules if column not in MANIFEST_COLUMNS]
    columns = [*MANIFEST_COLUMNS, *further, "condition"]
    return pd.DataFrame(rows, index=given.index, columns=columns)


def _check_rows(
    rows: pd.DataFrame, mapping: TableMap, path: Path | str, images: Path | str | None
) -> None:
    """Raises if training could not use the rows: none left, no eczema, or faults."""
    if rows.empty:
        hint = "give the photos with --images" if images is None else "see leave_out in the map"
        raise DataError(f"{path}: no row is left; {hint}")
    if mapping.eczema.positive and not (rows["eczema"] == 1).any():
        seen = ", ".join(name for name, _ in Counter(rows["condition"]).most_common(20))
        raise DataError(
            f"{path}: {mapping.eczema.column}: none of {', '.join(mapping.eczema.positive)} is"
            f" there; received {seen}"
        )
    there = set(rows["condition"].map(fold))
    if absent := [value for value in mapping.eczema.positive if fold(value) not in there]:
        say(f"note: {mapping.eczema.column}: no kept row is {shorten(', '.join(absent))}")
    checked = rows.assign(eczema=rows["eczema"].astype(str)).reset_index(drop=True)
    faults = [
        f"{Path(path).name}:{rows.index[fault.row]}: {fault.column}: {fault.message}"
        for fault in find_faults(checked, rows.index.to_numpy())
    ]
    raise_if_any(f"{path}: does not make a valid manifest with the map {mapping.name}", faults)


def _describe_map(mapping: TableMap, given: pd.DataFrame, kept: pd.DataFrame) -> dict[str, object]:
    """Describes the map for `dataset.json`; a value to leave out that never occurs counts 0."""
    counted = {column: Counter(given[column].map(fold)) for column in mapping.leave_out}
    return {
        "diagnoses": _count_diagnoses(kept),
        "left_out": {
            column: {value: counted[column][fold(value)] for value in values}
            for column, values in mapping.leave_out.items()
        },
        **mapping.model_dump(include={"attribution", "licence", "where", "notes"}),
        "columns": {
            column: rule.model_dump(exclude_none=True) for column, rule in mapping.rules.items()
        },
        "eczema": mapping.eczema.model_dump(),
    }
