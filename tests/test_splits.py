"""Splits and folds keep groups whole and classes balanced, and never depend on the row order."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from eczema_tf.data import splits as splitting
from eczema_tf.data.splits import find_missing
from eczema_tf.errors import DataError

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}
assign_splits = partial(splitting.assign_splits, fractions=FRACTIONS, label_threshold=0.5)
assign_folds = partial(splitting.assign_folds, label_threshold=0.5)
fold_splits = partial(splitting.fold_splits, label_threshold=0.5)


def build_table(labels: list[float], rows_a_group: int = 1, split: str = "") -> pd.DataFrame:
    """Builds a table with one label per group."""
    groups = [f"g{group}" for group in range(len(labels)) for _ in range(rows_a_group)]
    return pd.DataFrame(
        {
            "example_id": [f"r{row}" for row in range(len(groups))],
            "group_id": groups,
            "split": split,
            "eczema": np.repeat(labels, rows_a_group),
            "image_path": ["a.png" if row % 3 else "" for row in range(len(groups))],
            "text": ["" if row % 5 == 1 else "dry" for row in range(len(groups))],
        }
    )


def splits_by_group(table: pd.DataFrame, splits: pd.Series) -> pd.Series:
    return splits.groupby(table["group_id"]).first()


labels_of_groups = st.lists(st.sampled_from([0.0, 0.3, 0.8, 1.0, np.nan]), min_size=3, max_size=120)


@given(labels_of_groups, st.integers(1, 3), st.integers(0, 9))
def test_groups_stay_in_one_split_and_fractions_hold(labels: list[float], rows: int, seed: int):
    table = build_table(labels, rows)
    splits = assign_splits(table, seed=seed)
    assert splits.groupby(table["group_id"]).nunique().max() == 1
    sizes = splits_by_group(table, splits).value_counts()
    assert set(sizes.index) <= set(FRACTIONS)
    # to within one group, and one more for each class so rare that a split might lack it
    positive, known = np.array(labels) > 0.5, ~np.isnan(labels)
    rare = sum(0 < count < 20 for count in (positive.sum(), (known & ~positive).sum()))
    for split, fraction in FRACTIONS.items():
        assert abs(sizes.get(split, 0) - fraction * len(labels)) <= 1 + rare


@given(labels_of_groups, st.integers(0, 9))
def test_each_class_is_in_as_many_splits_as_possible(labels: list[float], seed: int):
    table = build_table(labels)
    splits = assign_splits(table, seed=seed)
    for kind in (table["eczema"] > 0.5, table["eczema"] <= 0.5):
        assert splits[kind].nunique() == min(kind.sum(), 3)


def test_prevalence_is_the_same_in_every_split():
    table = build_table([1.0] * 300 + [0.0] * 700)
    prevalence = table["eczema"].groupby(assign_splits(table, seed=0)).mean()
    assert prevalence.between(0.29, 0.31).all()


def test_rows_without_a_photo_are_spread_evenly_over_the_splits():
    table = build_table([1.0, 0.0] * 300)
    splits = assign_splits(table, seed=0)
    assert (table["image_path"] == "").groupby(splits).mean().between(0.31, 0.36).all()


def test_row_order_does_not_matter():
    table = build_table([1.0, 0.0, np.nan, 0.2] * 20, rows_a_group=2)
    shuffled = table.sample(frac=1, random_state=3)
    pd.testing.assert_series_equal(
        assign_splits(shuffled, seed=5).sort_index(), assign_splits(table, seed=5)
    )
    pd.testing.assert_series_equal(
        assign_folds(shuffled, folds=5, seed=5).sort_index(), assign_folds(table, folds=5, seed=5)
    )


@given(labels_of_groups, st.integers(0, 9))
def test_rows_with_new_wordings_go_to_the_test_split(labels: list[float], seed: int):
    table = build_table(labels, 2)
    new = table["group_id"].isin([f"g{group}" for group in range(0, len(labels), 14)])
    table["wordings"] = np.where(new, "new", "known")
    splits = assign_splits(table, seed=seed)
    assert (splits[new] == "test").all()
    sizes = splits_by_group(table, splits).value_counts()
    for split, share in FRACTIONS.items():
        # to within one group, and one more for each class (1, 0, unknown) too rare to be dealt out
        assert abs(sizes.get(split, 0) - share * len(labels)) <= 4


def test_seed_determines_splits_and_folds():
    table = build_table([1.0, 0.0] * 50)
    assert assign_splits(table, seed=1).equals(assign_splits(table, seed=1))
    assert not assign_splits(table, seed=1).equals(assign_splits(table, seed=2))
    assert not assign_folds(table, folds=5, seed=1).equals(assign_folds(table, folds=5, seed=2))
    assert not assign_folds(table, folds=5, seed=1).equals(
        assign_folds(table, folds=5, seed=1, repeat=1)
    )


def test_splits_never_change_between_versions():
    """Published figures must stay reproducible; the string is the second letter of each split."""
    splits = assign_splits(build_table([1.0, 0.0] * 6), seed=0)
    assert "".join(split[1] for split in splits) == "rraaeerrrrrr"


def test_label_threshold_decides_what_is_positive():
    table = build_table([0.2] * 3 + [0.0] * 30)
    splits = assign_splits(table, seed=0, label_threshold=0.1)
    assert splits[table["eczema"] == 0.2].nunique() == 3


def test_given_splits_are_kept():
    table = build_table([1.0, 0.0, 1.0])
    table["split"] = ["test", "train", "val"]
    assert list(assign_splits(table, seed=0)) == ["test", "train", "val"]


def test_rows_marked_train_keep_their_groups_and_do_not_move_the_rest():
    plain = build_table([1.0, 0.0] * 20)
    table = build_table([1.0, 0.0] * 23)
    table.loc[40:44, "split"] = "train"
    table.loc[45, "group_id"] = table.loc[44, "group_id"]
    splits = assign_splits(table, seed=0)
    assert list(splits[:40]) == list(assign_splits(plain, seed=0))
    assert set(splits[40:]) == {"train"}


def test_splits_of_only_some_rows_are_an_error():
    table = build_table([1.0, 0.0, 1.0])
    table.loc[1, "split"] = "test"
    with pytest.raises(DataError, match=r"1 rows have one and 2 have none \(the first is 'r0'\)"):
        assign_splits(table, seed=0)
    table.loc[[0, 1], "split"], table.loc[[0, 1], "group_id"] = ["train", "test"], "one"
    with pytest.raises(DataError, match="2 rows have one and 1 have none"):
        # a test row does not count as marked for training, whatever its group
        assign_splits(table, seed=0)


def test_too_few_groups_are_an_error():
    table = build_table([1.0, 0.0], rows_a_group=9)
    with pytest.raises(DataError, match="2 groups cannot fill 3 splits"):
        assign_splits(table, seed=0)
    with pytest.raises(DataError, match="only 2 groups"):
        assign_folds(table, folds=3, seed=0)


def test_fraction_of_zero_leaves_its_split_empty():
    splits = assign_splits(
        build_table([1.0, 0.0] * 10), fractions={"train": 0.8, "val": 0.2, "test": 0.0}, seed=0
    )
    assert splits.value_counts().to_dict() == {"train": 16, "val": 4}


@given(labels_of_groups, st.integers(2, 5), st.integers(0, 9))
def test_folds_differ_by_at_most_one_group_of_each_class(
    labels: list[float], folds: int, seed: int
):
    assume(len(labels) >= folds)
    table = build_table(labels, rows_a_group=2)
    fold = assign_folds(table, folds=folds, seed=seed)
    assert fold.groupby(table["group_id"]).nunique().max() == 1
    by_group = fold.groupby(table["group_id"]).first()
    label = table.groupby("group_id")["eczema"].max()
    for kind in (label > 0.5, label <= 0.5, label.isna(), label.index != ""):
        sizes = by_group[kind].value_counts().reindex(range(folds), fill_value=0)
        assert sizes.max() - sizes.min() <= 1


def test_one_fold_becomes_test_and_a_share_of_the_others_val():
    table = build_table([1.0, 0.0, 0.0] * 40, rows_a_group=2)
    folds = assign_folds(table, folds=5, seed=0)
    for test_fold in range(5):
        splits = fold_splits(folds, test_fold, table, val_fraction=0.25, seed=0)
        assert ((splits == "test") == (folds == test_fold)).all()
        assert splits.groupby(table["group_id"]).nunique().max() == 1
        assert (splits == "val").sum() == 48  # 24 of the 96 other groups
        assert table["eczema"].groupby(splits).mean().between(0.30, 0.37).all()


def test_missing_val_split_is_cut_from_train_by_group():
    table = build_table([0.0, 1.0] * 40, rows_a_group=2, split="train")
    table.loc[table.index[-40:], "split"] = "test"
    splits = assign_splits(table, seed=0)
    assert list(splits[table["split"] == "test"].unique()) == ["test"]
    cut = splits[table["split"] == "train"]
    assert set(cut) == {"train", "val"}
    assert splits.groupby(table["group_id"]).nunique().max() == 1
    assert (cut == "val").mean() == pytest.approx(0.15 / 0.85, abs=0.02)
    assert table["eczema"][splits == "val"].nunique() == 2
    assert list(splits) == list(assign_splits(table, seed=0))
    kept = assign_splits(table, fractions={"train": 0.8, "val": 0.0, "test": 0.2}, seed=0)
    assert list(kept) == list(table["split"])


@pytest.mark.parametrize(
    ("labels", "split", "said"),
    [
        (
            [0.0, 1.0, 1.0, 1.0, 0.0],
            ["train", "train", "val", "val", "test"],
            ["val: all 2 labelled rows are eczema"],
        ),
        ([0.0, 1.0, 0.0, 1.0], ["train", "train", "test", "test"], ["val: no row"]),
        ([0.0, 1.0, 0.0], ["val", "val", "test"], ["train: no row"]),
        (
            [0.0, 0.0, 1.0, 0.0, 1.0],
            ["train", "train", "val", "val", "test"],
            ["train: all 2 labelled rows are not"],
        ),
        (
            [1.0, np.nan, 1.0, 0.0, np.nan],
            ["train", "train", "val", "val", "test"],
            ["are eczema", "test: no row with an eczema label"],
        ),
        ([0.0, 1.0, 1.0, 0.0, 1.0], ["train", "train", "val", "val", "test"], []),
    ],
)
def test_find_missing_names_splits_that_lack_rows_labels_or_a_class(labels, split, said):
    table = build_table(labels)
    faults = find_missing(table, pd.Series(split), 0.5, {"train": 2, "val": 2, "test": 1})
    assert len(faults) == len(said)
    for fault, words in zip(faults, said, strict=True):
        assert words in fault
        assert ("with an eczema label" in fault) == ("with an eczema label" in words)


def test_group_is_positive_whichever_of_its_rows_is():
    """Fourteen of 40 groups of 24 rows have one positive row, the first or the last."""
    for place in (0, 23):
        table = build_table([0.0] * 40, rows_a_group=24).assign(image_path="a.png", text="")
        positive = table.index % (24 * 3) == place
        table["eczema"] = np.where(positive, 1.0, 0.0)
        folds = assign_folds(table, folds=7, seed=0)
        counts = folds[positive].value_counts()
        assert (len(counts), counts.max()) == (7, 2)  # fourteen groups
