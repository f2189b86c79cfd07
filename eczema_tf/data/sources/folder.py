"""A folder of class folders (as DermNet's copies are: `train/Atopic Dermatitis Photos/x.jpg`) as a manifest.

In goes the folder and, if there are any, captions. Out comes a folder with `manifest.csv`,
`dataset.json` (counts and how each column was made) and the photos under the same relative paths.

Atlases often hold several shots of one patient as `name-1.jpg`, `name-2.jpg`. They are one group,
so that no split tears them apart.
"""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from eczema_tf.data.sources.source_files import (
    Summary,
    check_folder,
    read_table,
    refuse_overlap,
    write_dataset,
)
from eczema_tf.errors import DataError, join_faults
from eczema_tf.schema import SPLITS

ECZEMA_WORDS = (
    "eczema",
    "atopic",
)  # a class is eczema if its name has one of these, unless the classes are named
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")  # what a manifest may hold
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


@dataclass(frozen=True)
class FolderSummary(Summary):
    """What was found.

    Attributes:
        photos: Photos, one row each.
        eczema: Photos in an eczema class.
        captions: Photos with a caption.
        classes: Class folders.
        eczema_classes: The names of those that count as eczema.
        groups: Photos that may be of one patient are one group.
        largest_group: Photos in the largest group.
        moved: Photos put into another split, because their group was in two.
        hidden: Hidden files and folders, passed over.
        not_photos: Files that are no JPEG or PNG by their name, passed over.
    """

    photos: int
    eczema: int
    captions: int
    classes: int
    eczema_classes: tuple[str, ...]
    groups: int
    largest_group: int
    moved: int
    hidden: int
    not_photos: int

    def describe(self) -> str:
        """Returns the counts as a few lines for people."""
        return (
            f"{self.photos} photos in {self.classes} classes; {self.eczema}"
            f" ({self.eczema / self.photos:.1%}) are eczema:"
            f" {', '.join(self.eczema_classes)}\n{self.captions} have a caption; passed over:"
            f" {self.hidden} hidden files, {self.not_photos} that are no JPEG or PNG\n{self.groups}"
            f" groups by file name, the largest of {self.largest_group} photos (shots of one"
            f" patient, or mere numbering?); {self.moved} photos moved to the split of their group"
        )


@dataclass(frozen=True)
class _Photo:
    """A photo and what its place says."""

    path: str  # relative to the folder
    split: str
    condition: str
    group: str


def prepare_folder(
    out: Path | str,
    *,
    folder: Path | str,
    captions: Path | str | None = None,
    eczema: Collection[str] = (),
    overwrite: bool = False,
) -> FolderSummary:
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
    refuse_overlap(out, (folder, captions))
    if out.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            f"{out}: is in {folder}, and would be taken for a class the next time; choose a folder"
            " outside"
        )
    paths, passed_over = _list_photos(folder)
    found = _read_places(folder, paths)
    positive = choose_eczema_classes({photo.condition for photo in found}, eczema, folder)
    texts = (
        _read_captions(Path(captions), {photo.path for photo in found})
        if captions is not None
        else {}
    )
    splits = _unite_groups(found)
    rows = [
        _build_row(
            photo, photo.condition in positive, texts.get(photo.path, ""), splits[photo.group]
        )
        for photo in found
    ]
    sizes = Counter(photo.group for photo in found)
    summary = FolderSummary(
        manifest=out / "manifest.csv",
        photos=len(rows),
        eczema=int(sum(row["eczema"] for row in rows)),
        captions=sum(bool(row["text"]) for row in rows),
        classes=len({photo.condition for photo in found}),
        eczema_classes=tuple(sorted(positive)),
        groups=len(sizes),
        largest_group=max(sizes.values()),
        moved=sum(photo.split != splits[photo.group] for photo in found),
        **passed_over,
    )
    facts = {
        "source": "folder",
        "counts": summary.count(),
        "eczema_classes": list(summary.eczema_classes),
        **PROVENANCE,
    }
    write_dataset(
        out,
        rows,
        facts,
        {photo.path: (folder / photo.path).resolve() for photo in found},
        overwrite=overwrite,
    )
    return summary


def choose_eczema_classes(
    classes: Collection[str], names: Collection[str] = (), folder: Path | str = "folder"
) -> set[str]:
    """Returns the classes that count as eczema: those named, or else those whose name has a word of `ECZEMA_WORDS`.

    Raises:
        DataError: If a name is no class, no class is eczema, or all are; with the classes that
            there are.
    """
    there = f"; the classes are: {', '.join(sorted(classes))}"
    unknown = {
        name for name in names if name.casefold() not in {known.casefold() for known in classes}
    }
    if unknown:
        raise DataError(f"{folder}: no such class: {', '.join(sorted(unknown))}{there}")
    wanted = {name.casefold() for name in names}
    chosen = {
        name
        for name in classes
        if (
            name.casefold() in wanted
            if names
            else any(word in name.casefold() for word in ECZEMA_WORDS)
        )
    }
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
    """Names the group of a photo, for instance `eczema/knee` for `Knee-12.jpg` in the class `Eczema`."""
    stem = re.sub(r"[-_]+\d+$", "", PurePosixPath(name).stem)
    return f"{condition}/{stem}".lower()


def _list_photos(folder: Path) -> tuple[list[str], dict[str, int]]:
    """Returns the relative paths of all photos, sorted, and the counts of what was passed over."""
    paths, faults, counts = [], [], Counter(hidden=0, not_photos=0)
    for path in _walk(folder, counts):
        relative = path.relative_to(folder).as_posix()
        fault = _describe_place(path, relative, folder)
        if fault:
            faults.append(f"{ascii(relative)[1:-1]}: {fault}")
        elif path.suffix.lower() not in PHOTO_SUFFIXES:
            counts["not_photos"] += 1
        else:
            paths.append(relative)
    if faults:
        raise DataError(join_faults(f"{folder}: not all of it can be used", sorted(faults)))
    if not paths:
        raise DataError(
            f"{folder}: no photos; allowed: {', '.join(PHOTO_SUFFIXES)} files in class folders"
        )
    return sorted(paths), dict(counts)


def _walk(folder: Path, counts: Counter) -> Iterator[Path]:
    """All files, and links to folders, that are not hidden and not in a hidden folder."""
    for parent, folders, files in os.walk(folder):
        hidden = [name for name in (*folders, *files) if name.startswith(".")]
        counts["hidden"] += len(hidden)
        folders[:] = sorted(set(folders) - set(hidden))
        links = [name for name in folders if Path(parent, name).is_symlink()]
        yield from (Path(parent, name) for name in sorted((set(files) | set(links)) - set(hidden)))


def _describe_place(path: Path, relative: str, folder: Path) -> str:
    """Says why a file cannot be used, "" if it can."""
    try:
        relative.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    if not path.is_symlink():
        return ""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # nothing there, or a loop
        return "is a link to nothing"
    if target.is_dir():
        return "is a link to a folder; put the folder itself there"
    return (
        ""
        if target.is_relative_to(folder.resolve())
        else "is a link that leads out of the folder; put the file itself there"
    )


def _read_places(folder: Path, paths: Iterable[str]) -> list[_Photo]:
    """Reads split and class off each path. The top folders are splits if they are all called so."""
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
    if homeless:
        raise DataError(join_faults(f"{folder}: not all photos have a class", homeless))
    return [
        _Photo(
            path,
            SPLIT_FOLDERS[names[0].lower()] if splits else "",
            names[depth],
            name_group(names[depth], names[-1]),
        )
        for path, names in parts.items()
    ]


def _unite_groups(photos: Iterable[_Photo]) -> dict[str, str]:
    """Returns the split of each group: the earliest of those that its photos are in."""
    order = ("", *SPLITS)
    splits: dict[str, str] = {}
    for photo in photos:
        splits[photo.group] = min(
            photo.split, splits.get(photo.group, photo.split), key=order.index
        )
    return splits


def _read_captions(path: Path, photos: Collection[str]) -> Mapping[str, str]:
    table = read_table(path, ("image_path", "text"))
    faults = [
        f"{path.name}:{line}: no such photo in the folder; received {name!r}"
        for line, name in table["image_path"].items()
        if name not in photos
    ]
    twice = table["image_path"].duplicated()
    faults += [
        f"{path.name}:{line}: the photo has a caption already; received {name!r}"
        for line, name in table["image_path"][twice].items()
    ]
    if faults:
        raise DataError(join_faults(f"{path} is not valid", faults))
    return dict(zip(table["image_path"], table["text"].str.strip(), strict=True))


def _build_row(photo: _Photo, eczema: bool, text: str, split: str) -> dict[str, object]:
    return {
        "example_id": photo.path,
        "case_id": photo.path,
        "group_id": photo.group,
        "image_path": photo.path,
        "text": text,
        "eczema": float(eczema),
        **dict.fromkeys(("consistency", "severity", "skin_tone", "age_group", "sex"), ""),
        "split": split,
        "source": "folder",
        "condition": photo.condition,
    }
