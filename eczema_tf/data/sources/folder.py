"""A folder of class folders (such as `train/Atopic Dermatitis Photos/x.jpg`) as a manifest.

Copies of DermNet look like this. Takes the folder and, if there are any, captions. Writes a folder
with `manifest.csv`, `dataset.json` (counts and how each column was made) and the photos under the
same relative paths.

Atlases often contain several shots of one patient as `name-1.jpg`, `name-2.jpg`. These form one
group, so that no split separates them, unless another rule is given. Numbers and counts in class
names (`3. Atopic Dermatitis - 1.25k`, as on Kaggle) are removed. If `metadata.csv` or
`metadata.jsonl` is next to photos, as in Hugging Face's ImageFolder, its `label` takes precedence
over the class folder, and its `text` is a caption.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import pandas as pd

from eczema_tf.cli import say
from eczema_tf.data.manifest.reading import clean_cell, find_meant
from eczema_tf.data.photo.files import compose
from eczema_tf.data.sources.folder_names import (
    BY_NAME,
    GROUPED,
    choose_eczema_classes,
    find_groups,
    find_split,
    find_tops,
    fold_name,
    keep_together,
    name_group,
    strip_numbers,
)
from eczema_tf.data.sources.parquet_folder import NAMES, list_parquet, list_parts, unpack_photos
from eczema_tf.data.sources.source import (
    PHOTO_SUFFIXES,
    Summary,
    check_folder,
    check_kept,
    lower_ending,
    read_table,
    write_source,
)
from eczema_tf.data.tables import open_table
from eczema_tf.errors import DataError, raise_if_any, shorten

METADATA_FILES = ("metadata.csv", "metadata.jsonl")
# the columns that are read, by their names in the manifest
METADATA_COLUMNS = {"eczema": "label", "text": "text", "group_id": "group_id"}
PROVENANCE = {
    "attribution": "not known to this program: give it as the source of the folder asks",
    "licence": "not known to this program: see the source of the folder",
}
COLUMNS = {
    "eczema": "1 if the class folder is one of `eczema_classes`, 0 for the other classes",
    "split": (
        "the folder train, val (valid, validation, dev) or test at the top, if all photos are in"
        " one, and not all in train; a group in several of them is put wholly into the earliest"
        " (train, val, test), so that the test photos are of other groups"
    ),
    "text": "from the captions; empty if there is none",
    "condition": "the name of the class folder; without number and count, if all names have one",
}
DESCRIPTION = """\
{photos} photos in {classes} classes; {eczema} ({share:.1%}) are eczema: {eczema_classes}
{captions} have a caption; skipped: {hidden} hidden files, {not_photos} files that are not photos
{groups} groups, the largest of {largest_group} photos (shots of one patient, or mere numbering? \
--group-by sets the rule); {moved} photos moved to the split of their group"""


def prepare_folder(
    out: Path | str,
    *,
    folder: Path | str,
    captions: Path | str | None = None,
    eczema: Collection[str] = (),
    group_by: str = BY_NAME,
    overwrite: bool = False,
) -> Summary:
    """Writes a manifest folder from a folder of class folders.

    Args:
        out: The folder to write.
        folder: Class folders, or `train`, `val` and `test` with class folders in them. Photos may
            be deeper than that. Or Parquet files with the photos in them (`parquet_folder`).
        captions: A CSV with the columns `image_path`, relative to `folder`, and `text`; others are
            ignored.
        eczema: Names of the classes that are eczema, whatever the case of the letters; if empty,
            those whose name contains eczema or atopic.
        group_by: What photos of one patient have in common: `BY_NAME`, what `name_group` returns;
            `BY_PHOTO`, nothing that is known; or a regular expression whose single group is found
            in the path of each photo.
        overwrite: Whether a folder already there may be replaced.

    Raises:
        DataError: Listing every photo outside a class, every bad link, or every caption without a
            photo; if no class is eczema, or all are; or if the expression is not valid or does not
            match every photo.
        EczemaError: If `out` cannot be written.
    """
    out, folder = Path(out), check_folder(folder)
    prepare = partial(
        _prepare_photos,
        out,
        captions=captions,
        eczema=eczema,
        group_by=group_by,
        overwrite=overwrite,
    )
    if not (parts := list_parts(folder)):
        return prepare(folder)
    check_kept(out, (folder, captions))
    with TemporaryDirectory() as unpacked:
        unpack_photos(parts, Path(unpacked))
        try:
            return prepare(Path(unpacked))
        except DataError as error:  # name the folder that was given
            raise DataError(str(error).replace(unpacked, str(folder))) from error


def _prepare_photos(
    out: Path,
    folder: Path,
    *,
    captions: Path | str | None,
    eczema: Collection[str],
    group_by: str,
    overwrite: bool,
) -> Summary:
    if folder.resolve() in out.resolve().parents:
        raise DataError(f"{out}: is in {folder} and would be taken for a class; choose one outside")
    paths, tables, passed_over = _list_photos(folder)
    told = read_metadata(folder, tables, paths)
    groups = find_groups(paths, group_by) or told["group_id"]
    rows = _read_paths(folder, paths, groups, told["label"])
    moved, classes = rows.pop("moved"), _choose_classes(rows, eczema, folder)
    rows["eczema"] = rows["condition"].isin(classes).astype(float)
    texts = _read_captions(Path(captions), paths) if captions else told["text"]
    rows["text"] = texts.to_numpy()
    counts = {**_count_photos(rows), "moved": int(moved.sum()), **passed_over}
    return write_source(
        out,
        name="folder",
        rows=rows,
        counts=counts,
        description=DESCRIPTION.format(
            **counts, share=rows["eczema"].mean(), eczema_classes=", ".join(classes)
        ),
        facts={
            "eczema_classes": classes,
            **PROVENANCE,
            "columns": {**COLUMNS, "group_id": GROUPED.get(group_by, f"found by {group_by}")},
        },
        inputs=(folder, captions),
        files={path: (folder / path).resolve() for path in paths},
        overwrite=overwrite,
    )


def _choose_classes(rows: pd.DataFrame, eczema: Collection[str], folder: Path) -> list[str]:
    """Chooses the classes that are eczema, which may be given by their names in the folder."""
    given = rows.pop("class").map(fold_name)
    names = dict(zip(given, rows["condition"], strict=True))
    named = [names.get(fold_name(name), name) for name in eczema]
    return sorted(choose_eczema_classes(set(rows["condition"]), named, folder))


def _count_photos(rows: pd.DataFrame) -> dict[str, int]:
    return {
        "photos": len(rows),
        "eczema": int(rows["eczema"].sum()),
        "captions": int((rows["text"] != "").sum()),
        "classes": rows["condition"].nunique(),
        "groups": rows["group_id"].nunique(),
        "largest_group": int(rows["group_id"].value_counts().max()),
    }


def _list_photos(folder: Path) -> tuple[list[str], list[str], dict[str, int]]:
    """Returns the relative paths of all photos and of metadata tables, sorted, and counts.

    The counts are of what was skipped.
    """
    paths, tables, faults, counts = [], [], [], {"hidden": 0, "not_photos": 0}
    for parent, folders, files in os.walk(folder, onerror=_fail):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        hidden = {name for name in (*folders, *files) if name.startswith(".")}
        counts["hidden"] += len(hidden)
        folders[:] = sorted({*folders} - hidden)
        for name in {*files, *links} - hidden:
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if fault := _describe_fault(path, folder):
                faults.append(f"{ascii(relative)[1:-1]}: {fault}")
            elif path.suffix.lower() in PHOTO_SUFFIXES:
                paths.append(relative)
            elif name in METADATA_FILES:
                tables.append(relative)
            else:
                counts["not_photos"] += 1
    raise_if_any(f"{folder}: not all of it can be used", sorted(faults))
    if not paths:
        allowed = f"{', '.join(PHOTO_SUFFIXES)} files in class folders"
        if others := list_parquet(folder):
            allowed += f", or {NAMES}; received {shorten(', '.join(others))}"
        raise DataError(f"{folder}: no photos; allowed: {allowed}")
    return sorted(paths), sorted(tables), counts


def _fail(error: OSError) -> None:
    """Raises, so that no unreadable folder is skipped."""
    raise error


def _describe_fault(path: Path, folder: Path) -> str:
    """Says why a file, or a link to a folder, cannot be used, "" if it can."""
    try:
        str(path.relative_to(folder)).encode()
        target = path.resolve(strict=True)
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    except (OSError, RuntimeError):  # nothing there, or a loop
        return "is a link to nothing"
    if target.is_dir():
        return "is a link to a folder; put the folder itself there"
    outside = "is a link that leads out of the folder; put the file itself there"
    return "" if target.is_relative_to(folder.resolve()) else outside


def _read_paths(
    folder: Path, paths: Sequence[str], groups: Mapping[str, str], labels: Mapping[str, str]
) -> pd.DataFrame:
    """Makes the rows of the manifest, as far as paths determine them.

    Adds `class`, as it was given, and `moved`, whether a photo was moved to the split of its group.
    """
    tops = find_tops(folder, paths)
    parts = {path: PurePosixPath(path.removeprefix(f"{top}/")).parts for path, top in tops.items()}
    homeless = [
        f"{path}: is in no class folder"
        for path, names in parts.items()
        if len(names) < 2 and not labels[path]
    ]
    raise_if_any(f"{folder}: not all photos have a class", homeless)
    classes = {path: labels[path] or names[0] for path, names in parts.items()}
    by_top: dict[str, set[str]] = {top: set() for top in tops.values()}
    for path, top in tops.items():
        by_top[top].add(classes[path])
    bare = strip_numbers(by_top)
    conditions = {path: compose(bare[top][classes[path]]) for path, top in tops.items()}
    rows = pd.DataFrame(
        {
            "example_id": path,
            "case_id": path,
            "group_id": groups.get(path) or name_group(conditions[path], names[-1]),
            "image_path": path,
            "split": find_split(tops[path]),
            "source": "folder",
            "condition": conditions[path],
            "class": classes[path],
        }
        for path, names in parts.items()
    )
    return keep_together(rows)


def read_metadata(folder: Path, tables: Sequence[str], paths: Sequence[str]) -> pd.DataFrame:
    """Reads what tables next to photos say about them.

    Args:
        folder: The folder that all is in.
        tables: Relative paths of the tables; `file_name` in a table is relative to the table's
            folder, and `label`, `text` and `group_id` are read (Hugging Face, Create an image
            dataset: ImageFolder).
        paths: Relative paths of all photos.

    Returns:
        `label`, `text` and `group_id` of each photo, by its path; "" where there is none.

    Raises:
        DataError: Listing every name that is not a photo, or appears twice.
    """
    found: dict[str, dict[str, str]] = {}
    columns, known, faults = [*METADATA_COLUMNS.values()], _index_names(paths), []
    for table in tables:
        rows = read_table(folder / table, ("file_name",), columns)
        header = open_table(folder / table, ()).header
        for name in header:
            meant = find_meant(name, header)
            column = METADATA_COLUMNS.get(meant, "")
            if column and column not in header:
                faults.append(f"{table}: {shorten(name)!r}: looks like {column!r}; rename it")
            if meant == "split":
                say(f"note: {table}: {shorten(name)!r} is not read: splits are folders at the top")
        for line, row in zip(rows.index, rows.to_dict("records"), strict=True):
            name = str(PurePosixPath(table).parent / clean_cell("image_path", row.pop("file_name")))
            path = _find_name(name, known)
            if not path or path in found:
                what = "appears twice" if path else "no such photo"
                faults.append(f"{table}:{line}: {what}; received {shorten(name)!r}")
            found[path] = {
                name: clean_cell("group_id" if name == "group_id" else "text", value).strip()
                for name, value in row.items()
            }
    raise_if_any(f"{folder}: metadata do not match its photos", faults)
    told = {name: [found.get(path, {}).get(name, "") for path in paths] for name in columns}
    return pd.DataFrame(told, paths, dtype=str)


def _index_names(paths: Sequence[str]) -> dict[str, dict[str, str]]:
    """Indexes photos by path, together with those that differ only in the case of the ending."""
    known: dict[str, dict[str, str]] = {}
    for path in paths:
        composed = compose(path)
        known.setdefault(lower_ending(composed), {})[composed] = path
    return known


def _find_name(name: str, known: Mapping[str, Mapping[str, str]]) -> str:
    """Finds the photo that a table names, whatever the coding of accents; "" for none.

    The case of the ending counts only where several photos differ in it.
    """
    composed = compose(name)
    alike = known.get(lower_ending(composed), {})
    return next(iter(alike.values())) if len(alike) == 1 else alike.get(composed, "")


def _read_captions(captions: Path, paths: Sequence[str]) -> pd.Series:
    """Reads the text of each photo, "" for none: str, one per path."""
    table = read_table(captions, ("image_path", "text"))
    names = table["image_path"].map(lambda path: str(PurePosixPath(clean_cell("image_path", path))))
    known = _index_names(paths)
    photos = names.map(lambda name: _find_name(name, known) or name)
    wrong = photos.duplicated().map({True: "the photo has a caption already", False: ""})
    wrong = wrong.mask(~photos.isin(paths), "no such photo in the folder")
    faults = [
        f"{captions.name}:{line}: {fault}; received {shorten(photos[line])!r}"
        for line, fault in wrong[wrong != ""].items()
    ]
    raise_if_any(f"{captions} is not valid", faults)
    texts = table["text"].map(lambda text: clean_cell("text", text).strip())
    return texts.set_axis(photos).reindex(paths, fill_value="")
