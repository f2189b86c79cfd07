"""Names in a folder of class folders: which classes are eczema, which group a photo is in."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from eczema_tf.cli import say
from eczema_tf.data.manifest.reading import SPLIT_NAMES
from eczema_tf.data.photo.files import compose
from eczema_tf.errors import DataError, raise_if_any, shorten
from eczema_tf.schema import SPLITS

# a class is eczema if its name has one of these, unless the classes are named
ECZEMA_WORDS = ("eczema", "atopic")
# no_eczema, eczema-free
DENIED = re.compile(
    r"(?<![a-z])(no|non|not|without|free|negative|neg|absent)(?![a-z])|non(?=eczema|atopic)"
    r"|(?<=eczema)free"
)
BY_NAME, BY_PHOTO = "name", "photo"  # rules of grouping; any other is a regular expression
GROUPED = {
    BY_NAME: (
        "`group_id` from the metadata; else class and file name in lower case, without a number at"
        " the end after '-' or '_' or in brackets: several shots of one patient are often called"
        " name-1.jpg, name-2.jpg or name (1).jpg. Photos that are only numbered (IMG_1.jpg,"
        " IMG_2.jpg) are one group"
    ),
    BY_PHOTO: (
        "the photo: nothing is known of patients, so one patient may be in several splits; only"
        " the audit's duplicates and near-duplicates are joined"
    ),
}


def choose_eczema_classes(
    classes: Collection[str], names: Collection[str] = (), folder: Path | str = "folder"
) -> set[str]:
    """Returns the classes that count as eczema: those named, or else those of `ECZEMA_WORDS`.

    The case of letters, blanks around a name and the coding of accents do not matter; "no eczema"
    does not count.

    Raises:
        DataError: If a name is not a class, no class is eczema, or all are; the message lists the
            classes.
    """
    there = f"; the classes are: {', '.join(sorted(classes))}"
    if len(classes) == 1:
        there += f"; if that folder contains the classes, give {Path(folder, *classes)}"
    folded = {name: fold_name(name) for name in classes}
    wanted = {fold_name(name): name for name in names}
    if unknown := [name for fold, name in wanted.items() if fold not in folded.values()]:
        raise DataError(f"{folder}: no such class: {', '.join(sorted(unknown))}{there}")
    chosen = {name for name, fold in folded.items() if fold in wanted}
    if not names:
        chosen = {
            name
            for name, fold in folded.items()
            if any(word in fold for word in ECZEMA_WORDS) and not DENIED.search(fold)
        }
    if not chosen:
        raise DataError(
            f"{folder}: no class names {' or '.join(ECZEMA_WORDS)}; use --eczema NAME to say which"
            f" are eczema{there}"
        )
    if chosen == set(classes):
        raise DataError(
            f"{folder}: every class is eczema; at least one must be something else: use"
            f" --eczema NAME to say which are eczema{there}"
        )
    return chosen


def fold_name(name: str) -> str:
    """Normalises a class's name for comparison."""
    return compose(name).strip().casefold()


def find_split(folder: str) -> str:
    """Returns the split that a folder's name stands for (`Training`, `test_set`), "" for none."""
    return SPLIT_NAMES.get(re.sub(r"[\W_]*(set|data)?$", "", folder.casefold()), "")


def find_tops(folder: Path, paths: Sequence[str]) -> dict[str, str]:
    """Finds the top folder of each photo if all of them are named like splits, else "".

    Raises:
        DataError: If some are, and some are not.
    """
    own = {path: path.rpartition("/")[0].partition("/")[0] for path in paths}
    tops = {top for top in own.values() if top}
    splits = {top for top in tops if find_split(top)}
    if splits and splits != tops:
        raise DataError(
            f"{folder}: some top folders are splits ({', '.join(sorted(splits))}) and some are not"
            f" ({', '.join(sorted(tops - splits))}); allowed: {', '.join(SPLIT_NAMES)} for all of"
            " them, or only class folders"
        )
    return {path: top if splits else "" for path, top in own.items()}


def strip_numbers(classes: Mapping[str, Collection[str]]) -> dict[str, dict[str, str]]:
    """Removes numbers from class names: "3. Atopic Dermatitis - 1.25k" is "Atopic Dermatitis".

    A number is removed only if all names of a split begin or end with one: it then counts classes
    or photos, is different in each split and is not part of a name. If names of a split would no
    longer differ, all are left alone.

    Args:
        classes: Class names by split.

    Returns:
        By split: name -> what is left of it.
    """
    bare = {split: _strip(names) for split, names in classes.items()}
    if all(len({*left.values()} - {""}) == len(left) for left in bare.values()):
        return bare
    return {split: {name: name for name in names} for split, names in classes.items()}


def _strip(names: Collection[str]) -> dict[str, str]:
    bare = {name: name for name in names}
    for numbers in (r"^\d+[.)_\s-]+", r"[\s_-]+\(?\d+(\.\d+)?k?\)?$"):
        if all(re.search(numbers, name) for name in bare.values()):
            bare = {name: re.sub(numbers, "", left) for name, left in bare.items()}
    return bare


def find_groups(paths: Sequence[str], group_by: str) -> dict[str, str]:
    """Finds the group of each photo, except by `BY_NAME`, which needs its class; see `group_by`."""
    if group_by in GROUPED:
        return {path: path for path in paths} if group_by == BY_PHOTO else {}
    title = (
        f"--group-by {shorten(group_by)}: allowed: {BY_NAME}, {BY_PHOTO}, or a regular expression"
    )
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise DataError(f"{title}; {error}") from error
    if pattern.groups != 1:
        raise DataError(f"{title} with one group in parentheses; received {pattern.groups}")
    found = {path: pattern.search(path) for path in paths}
    faults = [f"{path}: has no match" for path, match in found.items() if not (match and match[1])]
    raise_if_any(f"--group-by {shorten(group_by)}: does not find every photo's group", faults)
    return {path: match[1] for path, match in found.items() if match}


def name_group(condition: str, name: str) -> str:
    """Names the group of a photo: `eczema/knee` for `Knee-12.jpg` in the class `Eczema`."""
    stem = re.sub(r"([-_]+\d+|\s*\(\d+\))$", "", PurePosixPath(name).stem)
    return compose(f"{condition}/{stem}".lower())


def keep_together(rows: pd.DataFrame) -> pd.DataFrame:
    """Puts each group wholly into the earliest of its splits, so that test photos are of others.

    Args:
        rows: Rows of the manifest, with `group_id` and `split`.

    Returns:
        The same rows with `moved`, whether a row was moved; without splits if there is only
        `train`.
    """
    if set(rows["split"]) == {"train"}:  # as in many data sets of the Hub
        say("note: all photos are in `train`: no split is written, training splits them by group")
        rows = rows.assign(split="")
    order = ["", *SPLITS]
    split = rows["split"].map(order.index)
    earliest = split.groupby(rows["group_id"]).transform("min")
    if lost := set(rows["split"]) - {order[index] for index in earliest}:
        say(
            f"note: no photo is left in {', '.join(sorted(lost))}, since each has others of its"
            " group in an earlier split; --group-by sets the rule for groups"
        )
    return rows.assign(split=[order[index] for index in earliest], moved=split != earliest)
