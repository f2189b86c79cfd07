"""Splits and folds by group: seeded, stratified, and the same whatever the order of the rows.

No group straddles two splits; classes and modalities are shared out evenly. Groups are sorted by
stratum (label, then modalities) and, within it, by a hash of (seed, group); then they are dealt out
one by one. Built-in texts in new wordings go into the test split beforehand.
"""

import hashlib
from collections.abc import Mapping

import pandas as pd

from eczema_tf.errors import DataError
from eczema_tf.schema import NEW_WORDINGS, SPLITS, WORDINGS


def assign_splits(
    table: pd.DataFrame, *, fractions: Mapping[str, float], seed: int, label_threshold: float
) -> pd.Series:
    """Returns the split of each row: the manifest's own, or a seeded, stratified one by group.

    If the manifest's splits lack "val" (some data sets have only train and test), it is cut from
    "train". Of splits that are made here, each gets its fraction of the groups to within one, and
    its share of each class. If a class has so few groups that a split would be left without it, the
    first groups go one to each split (train, val, test), even if a small split then exceeds its
    fraction. If some rows are marked "train" and the others have no split, the groups of the marked
    rows stay in "train" and only the others are split.

    Args:
        table: Table of a `Manifest`; uses the columns `group_id`, `split`, `eczema`, `image_path`,
            `text`.
        fractions: Share of the groups in each of `schema.SPLITS`; they sum to 1, and 0 leaves a
            split empty.
        seed: Any integer.
        label_threshold: A group counts as positive if a label in it is greater.

    Returns:
        "train", "val" or "test" for each row, with the table's index.

    Raises:
        DataError: If only some rows have a split and not all of these are "train", or there are
            fewer groups than splits.
    """
    given = table["split"] != ""
    if given.all() and len(table):
        own = table["split"].copy()
        train, val = own == "train", fractions.get("val", 0.0)
        if val and train.any() and "val" not in set(own):
            share = val / (val + fractions["train"])
            cut = {"train": 1 - share, "val": share}
            own[train] = _assign(table[train], cut, f"{seed}:val", label_threshold)
        return own
    if set(table["split"][given]) - {"train"}:
        raise DataError(
            f"split: {given.sum()} rows have one and {(~given).sum()} have none (the first is"
            f" {table['example_id'][~given].iloc[0]!r}); allowed: all rows, or none (rows are then"
            " split by group), or only 'train' (the other rows are then split by group)"
        )
    meant = table["group_id"].isin(table["group_id"][given])  # whole groups
    others = _assign(table[~meant], fractions, f"{seed}:split", label_threshold)
    return others.reindex(table.index, fill_value="train")


def assign_folds(
    table: pd.DataFrame, *, folds: int, seed: int, repeat: int = 0, label_threshold: float
) -> pd.Series:
    """Returns the fold of each row, by group and stratified, for cross-validation.

    The manifest's own splits are ignored.

    Args:
        table: Table of a `Manifest`.
        folds: How many, at least 2.
        seed: Any integer.
        repeat: Which of several independent divisions with the same seed.
        label_threshold: A group counts as positive if a label in it is greater.

    Returns:
        int64, 0 to folds - 1 for each row, with the table's index. Sizes of folds, and of each
        class in them, differ by at most one group.

    Raises:
        DataError: If there are fewer groups than folds.
    """
    strata = _stratify_groups(table, label_threshold)
    if len(strata) < folds:
        raise DataError(
            f"folds: {folds} asked for, but there are only {len(strata)} groups; allowed: 2 to the"
            " number of groups"
        )
    order = _sort_groups(strata, f"{seed}:{repeat}:fold")
    fold = {group: index % folds for index, group in enumerate(order)}
    return table["group_id"].map(fold).astype("int64")


def fold_splits(
    folds: pd.Series,
    test_fold: int,
    table: pd.DataFrame,
    *,
    val_fraction: float,
    seed: int,
    label_threshold: float,
) -> pd.Series:
    """Returns the split of each row when one fold is the test split.

    A stratified share of the other groups becomes val, the rest train.

    Args:
        folds: From `assign_folds`.
        test_fold: Which fold is the test split.
        table: Table of a `Manifest`, with the index of `folds`.
        val_fraction: Share of the other groups that are val.
        seed: Any integer.
        label_threshold: A group counts as positive if a label in it is greater.

    Raises:
        DataError: If there are fewer than two other groups.
    """
    others = table[folds != test_fold]
    fractions = {"train": 1 - val_fraction, "val": val_fraction}
    rest = _assign(others, fractions, f"{seed}:{test_fold}:val", label_threshold)
    return rest.reindex(table.index, fill_value="test")


def find_missing(
    table: pd.DataFrame, splits: pd.Series, label_threshold: float, kinds: Mapping[str, int]
) -> list[str]:
    """Lists what prevents training and evaluation on these splits, one line each.

    Args:
        table: Table of the manifest.
        splits: Split of each row.
        label_threshold: A row counts as positive if its label is greater.
        kinds: By split, 1 if labelled rows are needed, 2 if rows with and rows without eczema are.
    """
    faults = []
    for split, needed in kinds.items():
        positive = table["eczema"][splits == split].dropna() > label_threshold
        if positive.empty:
            label = " with an eczema label" if (splits == split).any() else ""
            faults.append(f"{split}: no row{label}")
        elif needed > positive.nunique():
            only = "eczema" if positive.all() else "not eczema"
            faults.append(
                f"{split}: all {len(positive)} labelled rows are {only}; both kinds are needed"
            )
    return faults


def _assign(
    table: pd.DataFrame, fractions: Mapping[str, float], salt: str, label_threshold: float
) -> pd.Series:
    strata = _stratify_groups(table, label_threshold)
    wanted = {split: fractions[split] for split in SPLITS if fractions.get(split, 0) > 0}
    if len(strata) < len(wanted):
        raise DataError(
            f"split: {len(strata)} groups cannot fill {len(wanted)} splits ({', '.join(wanted)});"
            " allowed: at least one group each"
        )
    order = _sort_groups(strata, salt)
    seats: dict[str, str] = {}
    if WORDINGS in table and "test" in wanted:
        new = table.loc[table[WORDINGS] == NEW_WORDINGS, "group_id"]
        seats = dict.fromkeys(new, "test")
    free = [group for group in order if group not in seats]
    # one positive and one negative group for each split, as far as they go
    for kind in "pn":
        seats.update(
            zip([group for group in free if strata[group][0] == kind], wanted, strict=False)
        )
    # then each group to the split that lags most behind its fraction of the groups dealt so far
    split_of: dict[str, str] = {}
    count = dict.fromkeys(wanted, 0)
    for dealt, group in enumerate(order, start=1):
        lag = {split: round(share * dealt - count[split], 9) for split, share in wanted.items()}
        split_of[group] = seats.get(group) or max(lag, key=lag.__getitem__)
        count[split_of[group]] += 1
    return table["group_id"].map(split_of)


def _stratify_groups(table: pd.DataFrame, label_threshold: float) -> dict[str, str]:
    """Returns the stratum of each group.

    Its first letter is the class: `p`ositive, `n`egative or `u`nlabelled.
    """
    columns = {
        "label": table["eczema"],
        "image": table["image_path"] != "",
        "text": table["text"] != "",
    }
    groups = pd.DataFrame(columns).groupby(table["group_id"])
    label, image, text = groups["label"].max(), groups["image"].any(), groups["text"].any()
    kind = (label > label_threshold).map({True: "p", False: "n"}).where(label.notna(), "u")
    modalities = image.map({True: " image", False: ""}) + text.map({True: " text", False: ""})
    return (kind + modalities).to_dict()


def _sort_groups(strata: Mapping[str, str], salt: str) -> list[str]:
    """Sorts unlabelled, positive, negative groups: the rare class before the common one."""

    def rank(group: str) -> tuple[str, bytes]:
        return strata[group], hashlib.sha256(f"{salt}:{group}".encode()).digest()

    return sorted(strata, key=rank, reverse=True)
