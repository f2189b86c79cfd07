"""A folder of class folders (such as `train/Atopic Dermatitis Photos/x.jpg`) as a manifest.

Copies of DermNet look like this. In goes the folder and, if there are any, captions. Out comes a
folder with `manifest.csv`, `dataset.json` (counts and how each column was made) and the photos
under the same relative paths.

Atlases often hold several shots of one patient as `name-1.jpg`, `name-2.jpg`. They are one group,
so that no split tears them apart.
"""

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from eczema_tf.data.sources.source import Summary, check_folder, read_table, write_source
from eczema_tf.errors import DataError, raise_if_any
from eczema_tf.schema import SPLITS

# a class is eczema if its name has one of these, unless the classes are named
ECZEMA_WORDS = ("eczema", "atopic")
# what a manifest may hold (`data.photo.upright`)
JPEG_SUFFIXES, HEIC_SUFFIXES = (".jpg", ".jpeg"), (".heic", ".heif")
PHOTO_SUFFIXES = (*JPEG_SUFFIXES, ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", *HEIC_SUFFIXES)
SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
PROVENANCE = {
    "attribution": (
        "not known to this program: give it as the place where the folder came from asks"
    ),
    "licence": "not known to this program: see the place where the folder came from",
    "columns": {
        "eczema": "1 if the class folder is one of `eczema_classes`, 0 for the other classes",
        "group_id": (
            "class and file name in lower case, without a number at the end after '-' or '_':"
            " several shots of one patient are often called name-1.jpg, name-2.jpg. There is no"
            " patient id; photos that are only numbered (IMG_1.jpg, IMG_2.jpg) are one group"
        ),
        "split": (
            "the folder train, val (valid, validation) or test at the top, if all photos are in"
            " one; a group found in several splits is put wholly into the earliest of them (train,"
            " val, test), so that the test photos are of others"
        ),
        "text": "from the captions; empty where there is none",
        "condition": "the name of the class folder",
    },
}
DESCRIPTION = """\
{photos} photos in {classes} classes; {eczema} ({share:.1%}) are eczema: {eczema_classes}
{captions} have a caption; passed over: {hidden} hidden files, {not_photos} that are no photos
{groups} groups by file name, the largest of {largest_group} photos (shots of one patient, or mere \
numbering?); {moved} photos moved to the split of their group"""


def prepare_folder(
    out: Path | str,
    *,
    folder: Path | str,
    captions: Path | str | None = None,
    eczema: Collection[str] = (),
    overwrite: bool = False,
) -> Summary:
    """Writes a manifest folder from a folder of class folders.

    Args:
        out: The folder to write.
        folder: Class folders, or `train`, `val` and `test` with class folders in them. Photos may
            lie deeper than that.
        captions: A CSV with the columns `image_path`, relative to `folder`, and `text`; others are
            ignored.
        eczema: Names of the classes that are eczema, whatever the case of the letters; none: those
            that name eczema or atopic.
        overwrite: Whether a folder already there may be replaced.

    Raises:
        DataError: With every photo outside a class, every link, or every caption without a photo;
            if no class is eczema, or all are.
        EczemaError: If `out` cannot be written.
    """
    out, folder = Path(out), check_folder(folder)
    if folder.resolve() in out.resolve().parents:
        raise DataError(f"{out}: is in {folder} and would be taken for a class; choose one outside")
    paths, passed_over = _list_photos(folder)
    rows = _read_paths(folder, paths)
    moved = rows.pop("moved")
    classes = sorted(choose_eczema_classes(set(rows["condition"]), eczema, folder))
    rows["eczema"] = rows["condition"].isin(classes).astype(float)
    rows["text"] = _read_captions(Path(captions), paths).to_numpy() if captions else ""
    counts = {
        "photos": len(rows),
        "eczema": int(rows["eczema"].sum()),
        "captions": int((rows["text"] != "").sum()),
        "classes": rows["condition"].nunique(),
        "groups": rows["group_id"].nunique(),
        "largest_group": int(rows["group_id"].value_counts().max()),
        "moved": int(moved.sum()),
        **passed_over,
    }
    return write_source(
        out,
        name="folder",
        rows=rows,
        counts=counts,
        description=DESCRIPTION.format(
            **counts, share=rows["eczema"].mean(), eczema_classes=", ".join(classes)
        ),
        facts={"counts": counts, "eczema_classes": classes, **PROVENANCE},
        inputs=(folder, captions),
        files={path: (folder / path).resolve() for path in paths},
        overwrite=overwrite,
    )


def choose_eczema_classes(
    classes: Collection[str], names: Collection[str] = (), folder: Path | str = "folder"
) -> set[str]:
    """Returns the classes that count as eczema: those named, or else those of `ECZEMA_WORDS`.

    Raises:
        DataError: If a name is no class, no class is eczema, or all are; with the classes that
            there are.
    """
    there = f"; the classes are: {', '.join(sorted(classes))}"
    folded = {name: name.casefold() for name in classes}
    wanted = {name.casefold(): name for name in names}
    if unknown := [name for fold, name in wanted.items() if fold not in folded.values()]:
        raise DataError(f"{folder}: no such class: {', '.join(sorted(unknown))}{there}")
    chosen = {name for name, fold in folded.items() if fold in wanted}
    if not names:
        chosen = {name for name, fold in folded.items() if any(w in fold for w in ECZEMA_WORDS)}
    if not chosen:
        raise DataError(
            f"{folder}: no class names {' or '.join(ECZEMA_WORDS)}; say with --eczema NAME which"
            f" are eczema{there}"
        )
    if chosen == set(classes):
        raise DataError(
            f"{folder}: every class is eczema; at least one must be something else{there}"
        )
    return chosen


def name_group(condition: str, name: str) -> str:
    """Names the group of a photo: `eczema/knee` for `Knee-12.jpg` in the class `Eczema`."""
    stem = re.sub(r"[-_]+\d+$", "", PurePosixPath(name).stem)
    return f"{condition}/{stem}".lower()


def _list_photos(folder: Path) -> tuple[list[str], dict[str, int]]:
    """Returns the relative paths of all photos, sorted, and the counts of what was passed over."""
    paths, faults, counts = [], [], {"hidden": 0, "not_photos": 0}
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        hidden = [name for name in (*folders, *files) if name.startswith(".")]
        counts["hidden"] += len(hidden)
        folders[:] = sorted(set(folders) - set(hidden))
        for name in {*files, *links} - set(hidden):
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if fault := _describe_fault(path, folder):
                faults.append(f"{ascii(relative)[1:-1]}: {fault}")
            elif path.suffix.lower() in PHOTO_SUFFIXES:
                paths.append(relative)
            else:
                counts["not_photos"] += 1
    raise_if_any(f"{folder}: not all of it can be used", sorted(faults))
    if not paths:
        raise DataError(
            f"{folder}: no photos; allowed: {', '.join(PHOTO_SUFFIXES)} files in class folders"
        )
    return sorted(paths), counts


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


def _read_paths(folder: Path, paths: Sequence[str]) -> pd.DataFrame:
    """Makes the rows of the manifest, as far as paths tell; `moved`: into the split of their group.

    The top folders are splits if all of them are called like one. A group goes wholly into the
    earliest of the splits that its photos are in.
    """
    parts = {path: PurePosixPath(path).parts for path in paths}
    tops = {names[0] for names in parts.values() if len(names) > 1}
    splits = {top for top in tops if top.lower() in SPLIT_FOLDERS}
    if splits and splits != tops:
        raise DataError(
            f"{folder}: some top folders are splits ({', '.join(sorted(splits))}) and some are not"
            f" ({', '.join(sorted(tops - splits))}); allowed: {', '.join(SPLIT_FOLDERS)} for all of"
            " them, or class folders alone"
        )
    depth = 1 if splits else 0  # where the class stands in the path
    homeless = [
        f"{path}: is in no class folder" for path, names in parts.items() if len(names) < depth + 2
    ]
    raise_if_any(f"{folder}: not all photos have a class", homeless)
    rows = pd.DataFrame(
        {
            "example_id": path,
            "case_id": path,
            "group_id": name_group(names[depth], names[-1]),
            "image_path": path,
            "split": SPLIT_FOLDERS[names[0].lower()] if splits else "",
            "source": "folder",
            "condition": names[depth],
        }
        for path, names in parts.items()
    )
    order = ["", *SPLITS]
    split = rows["split"].map(order.index)
    earliest = split.groupby(rows["group_id"]).transform("min")
    return rows.assign(split=[order[index] for index in earliest], moved=split != earliest)


def _read_captions(captions: Path, paths: Sequence[str]) -> pd.Series:
    """Reads the text of each photo, "" for none: str, one a path."""
    table = read_table(captions, ("image_path", "text"))
    photos = table["image_path"]
    wrong = photos.duplicated().map({True: "the photo has a caption already", False: ""})
    wrong = wrong.mask(~photos.isin(paths), "no such photo in the folder")
    faults = [
        f"{captions.name}:{line}: {fault}; received {photos[line]!r}"
        for line, fault in wrong.items()
        if fault
    ]
    raise_if_any(f"{captions} is not valid", faults)
    return table.set_index("image_path")["text"].str.strip().reindex(paths, fill_value="")
