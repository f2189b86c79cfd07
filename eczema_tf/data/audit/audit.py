"""The leakage audit: what could let a model be tested on training data, or read off the answer.

`audit_dataset` looks at the data as a whole; its `group_id` joins what belongs together, so splits
made from it cannot leak. `check_splits` then lists what straddles splits, which can happen if a
manifest brings its own. No report contains the content of a photo or text.
"""

from dataclasses import dataclass

import pandas as pd
from pandas.core.groupby import DataFrameGroupBy

from eczema_tf.data.audit.diagnoses import FAMILY, OWN, find_named_diagnoses
from eczema_tf.data.audit.duplicates import Duplicates, find_duplicates, merge_groups
from eczema_tf.data.dataset import Dataset
from eczema_tf.data.manifest.table import find_templates
from eczema_tf.files import Record

SHOWN_CLUSTERS = 5  # clusters of each kind in the report
SHOWN_ROWS = 6  # rows of a cluster in the report
NOUNS = {
    "identical_photo": "identical photo",
    "near_photo": "near-duplicate photo",
    "identical_text": "identical text",
    "near_text": "nearly identical text",
}
_NAMED = {
    OWN: "skin diagnosis ({}); the answer can be read off them: leave them out, or say so with the"
    " results",
    FAMILY: "diagnosis in the family ({})",
}


class DuplicateCounts(Record):
    """Duplicates of one kind."""

    clusters: int
    across_groups: int  # clusters in more than one of the manifest's own groups
    rows: int
    cases: int
    examples: list[list[str]]  # example ids of some clusters

    def describe(self) -> str:
        """Returns how many there are, where, and an example."""
        across = f"{self.across_groups} across groups"
        first = ", ".join(map(repr, self.examples[0][:2]))
        return (
            f"{self.clusters}, in {self.cases} cases,"
            f" {across if self.across_groups else 'all within one group'} (for instance {first})"
        )


class GroupCounts(Record):
    """The manifest's groups before and after those that share a duplicate were joined."""

    before: int
    after: int
    merged: int  # groups that were joined with another
    largest_cases: int  # cases in the largest group after


class DiagnosisCounts(Record):
    """Texts that name a diagnosis; a share of no texts is None."""

    texts: int
    share: float | None  # of all texts
    share_of_positive: float | None
    share_of_negative: float | None
    conditions: dict[str, int]
    examples: list[str]  # example ids

    def describe_shares(self) -> str:
        """Returns how often positive and negative cases name one."""
        shares = {"positive": self.share_of_positive, "negative": self.share_of_negative}
        known = [
            f"{share:.1%} of {label} ones" for label, share in shares.items() if share is not None
        ]
        return ", ".join(known) or "unlabelled"


class NotCompared(Record):
    """What the audit did not compare, or attributed to chance."""

    plain_photos: int
    chance_texts: int
    template_texts: int


class AuditReport(Record):
    """The contents of `audit.json`."""

    duplicates: dict[str, DuplicateCounts]  # by kind, a key of `NOUNS`
    groups: GroupCounts
    named_diagnoses: dict[str, DiagnosisCounts]  # "own" and "family"
    not_compared: NotCompared

    def describe(self) -> str:
        """Returns a few lines for people."""
        lines = [
            f"{NOUNS[kind]}s: {found.describe()}"
            for kind, found in self.duplicates.items()
            if found.clusters
        ]
        if self.groups.merged:
            lines.append(
                f"{self.groups.merged} groups share one of these and are joined:"
                f" {self.groups.before} groups become {self.groups.after}"
            )
        lines += [
            f"{named.texts} texts name a {_NAMED[whose].format(named.describe_shares())}"
            for whose, named in self.named_diagnoses.items()
            if named.texts
        ]
        said = lines or ["no duplicates across cases, no text names a diagnosis"]
        return "\n".join(f"audit: {line}" for line in said)


@dataclass(frozen=True)
class Audit:
    """What `audit_dataset` found.

    Attributes:
        table: The manifest's table, with its own groups.
        duplicates: Photos and texts that occur in several cases.
        group_id: The group of each row after groups that share a duplicate were joined; with the
            table's index.
        report: Counts and some ids.
    """

    table: pd.DataFrame
    duplicates: Duplicates
    group_id: pd.Series
    report: AuditReport


def audit_dataset(dataset: Dataset, *, label_threshold: float, join: bool) -> Audit:
    """Looks for duplicates between cases and for texts that name a diagnosis.

    Args:
        dataset: From `load_dataset`.
        label_threshold: A row counts as positive if its label is greater.
        join: Whether groups that share a duplicate are joined.
    """
    table = dataset.table
    duplicates = find_duplicates(dataset)
    group_id = merge_groups(table, duplicates) if join else table["group_id"]
    own_groups = table["group_id"].groupby(group_id.to_numpy()).nunique()
    cases = table["case_id"].groupby(group_id.to_numpy()).nunique()
    report = AuditReport(
        duplicates={kind: _count_duplicates(table, duplicates, kind) for kind in duplicates.kinds},
        groups=GroupCounts(
            before=table["group_id"].nunique(),
            after=group_id.nunique(),
            merged=int(own_groups[own_groups > 1].sum()),
            largest_cases=int(cases.max()) if len(cases) else 0,
        ),
        named_diagnoses=_count_diagnoses(table, label_threshold),
        not_compared=NotCompared(
            plain_photos=duplicates.plain_photos,
            chance_texts=duplicates.chance_texts,
            template_texts=int(find_templates(table).sum()),
        ),
    )
    return Audit(table, duplicates, group_id, report)


def check_splits(table: pd.DataFrame, splits: pd.Series, duplicates: Duplicates) -> list[str]:
    """Finds what straddles splits: groups, and duplicates of any kind, including near-duplicates.

    Splits made from `Audit.group_id` have none of this. A manifest's own splits may, and then the
    test split is no test.

    Args:
        table: Table of a `Manifest`, with its own groups.
        splits: Split (or fold) of each row, with the table's index.
        duplicates: Duplicates found in it.

    Returns:
        One line per finding, with ids and no content; empty if there is no leak.
    """
    rows = table[["example_id", "group_id"]].assign(split=splits.astype(str))
    located = duplicates.members.merge(rows, on="example_id")
    groups = [
        f"group {group!r}: {_describe_rows(members)}"
        for (group,), members in _straddling(rows, ["group_id"], "split")
    ]
    found = [
        f"{NOUNS[kind]}: {_describe_rows(members)}"
        for (kind, _), members in _straddling(located, ["kind", "cluster"], "split")
    ]
    return groups + found


def _count_duplicates(table: pd.DataFrame, duplicates: Duplicates, kind: str) -> DuplicateCounts:
    members = duplicates.members[duplicates.members["kind"] == kind]
    members = members.merge(table[["example_id", "case_id", "group_id"]], on="example_id")
    clusters = members.groupby("cluster")
    examples = [list(ids[:SHOWN_ROWS]) for _, ids in list(clusters["example_id"])[:SHOWN_CLUSTERS]]
    return DuplicateCounts(
        clusters=clusters.ngroups,
        across_groups=_straddling(members, ["cluster"], "group_id").ngroups,
        rows=len(members),
        cases=members["case_id"].nunique(),
        examples=examples,
    )


def _count_diagnoses(table: pd.DataFrame, label_threshold: float) -> dict[str, DiagnosisCounts]:
    found = find_named_diagnoses(table.set_index("example_id")["text"])
    written, label = table["text"] != "", table["eczema"]
    positive, negative = written & (label > label_threshold), written & (label <= label_threshold)
    counts = {}
    for whose in (OWN, FAMILY):
        named = found[found["whose"] == whose]
        rows = table["example_id"].isin(named["example_id"])
        shares = [
            round(float(rows[among].mean()), 4) if among.any() else None
            for among in (written, positive, negative)
        ]
        counts[whose] = DiagnosisCounts(
            texts=int(rows.sum()),
            share=shares[0],
            share_of_positive=shares[1],
            share_of_negative=shares[2],
            conditions=named["condition"].value_counts().sort_index().to_dict(),
            examples=list(table.loc[rows, "example_id"].sort_values()[:SHOWN_CLUSTERS]),
        )
    return counts


def _straddling(rows: pd.DataFrame, keys: list[str], column: str) -> DataFrameGroupBy:
    """Groups by keys the rows whose key has more than one value in a column."""
    return rows[rows.groupby(keys)[column].transform("nunique") > 1].groupby(keys)


def _describe_rows(rows: pd.DataFrame) -> str:
    """Names the splits, with the number of their rows and one row of each."""
    first = rows.sort_values("example_id").groupby("split")["example_id"].agg(["first", "size"])
    return ", ".join(
        f"{split} has {size} of its rows ({example!r})"
        for split, example, size in first.itertuples()
    )
