"""The leakage audit: what in a data set could let a model be tested on what it was trained on, or read the answer off the text.

`audit_dataset` looks at the data as a whole; its `group_id` joins what belongs together, so that
splits made from it cannot leak. `check_splits` then says what straddles splits, as it may where a
manifest brings its own. No report holds the content of a photo or text.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from pandas.core.groupby import DataFrameGroupBy

from eczema_tf.data.audit.diagnoses import FAMILY, OWN, find_named_diagnoses
from eczema_tf.data.audit.duplicates import TEMPLATE, Duplicates, find_duplicates, merge_groups
from eczema_tf.data.dataset import Dataset

EXAMPLES = 5  # clusters of each kind in the report
EXAMPLE_ROWS = 6  # rows of a cluster in the report
_NOUNS = {
    "identical_photo": "identical photo",
    "near_photo": "near-duplicate photo",
    "identical_text": "identical text",
    "near_text": "nearly identical text",
}


@dataclass(frozen=True)
class Audit:
    """What `audit_dataset` found.

    Attributes:
        table: Of the manifest, with its own groups.
        duplicates: Photos and texts that stand in several cases.
        group_id: The group of each row once groups that share a duplicate are one; with the table's
            index.
        named: Texts that name a diagnosis, from `find_named_diagnoses`.
        label_threshold: A row counts as positive if its label is greater.
    """

    table: pd.DataFrame
    duplicates: Duplicates
    group_id: pd.Series
    named: pd.DataFrame
    label_threshold: float = 0.5

    def describe(self) -> str:
        """Returns a few lines for people."""
        report = self.to_json()
        lines = [
            _describe_kind(kind, counts)
            for kind, counts in report["duplicates"].items()
            if counts["clusters"]
        ]
        groups = report["groups"]
        if groups["merged"]:
            lines.append(
                f"{groups['merged']} groups share one of these: joined, {groups['before']} groups"
                f" become {groups['after']}"
            )
        for whose, counts in report["named_diagnoses"].items():
            if counts["texts"]:
                lines.append(_describe_named(whose, counts))
        return "\n".join(
            f"audit: {line}"
            for line in lines or ["no duplicates across cases, no text names a diagnosis"]
        )

    def to_json(self, examples: int = EXAMPLES) -> dict[str, Any]:
        """Returns counts and up to `examples` example ids of each kind, JSON-able."""
        return {
            "duplicates": {
                kind: self._count_kind(kind, examples) for kind in self.duplicates.kinds
            },
            "groups": self._count_groups(),
            "named_diagnoses": {
                whose: self._count_named(whose, examples) for whose in (OWN, FAMILY)
            },
            "not_compared": self._count_not_compared(),
        }

    def _count_kind(self, kind: str, examples: int) -> dict[str, Any]:
        members = _locate(self.table, self.duplicates, kind)
        clusters = members.groupby("cluster")
        return {
            "clusters": clusters.ngroups,
            "across_groups": _straddling(members, ["cluster"], "group_id").ngroups,
            "rows": len(members),
            "cases": members["case_id"].nunique(),
            "examples": [
                list(ids[:EXAMPLE_ROWS]) for _, ids in list(clusters["example_id"])[:examples]
            ],
        }

    def _count_groups(self) -> dict[str, int]:
        before, after = self.table["group_id"], self.group_id
        sizes = before.groupby(after.to_numpy()).nunique()
        cases = self.table["case_id"].groupby(after.to_numpy()).nunique()
        return {
            "before": before.nunique(),
            "after": after.nunique(),
            "merged": int(sizes[sizes > 1].sum()),
            "largest_cases": int(cases.max()) if len(cases) else 0,
        }

    def _count_not_compared(self) -> dict[str, int]:
        templates = (self.table["source"] == TEMPLATE) & (self.table["text"] != "")
        duplicates = self.duplicates
        return {
            "plain_photos": duplicates.plain_photos,
            "chance_texts": duplicates.chance_texts,
            "template_texts": int(templates.sum()),
        }

    def _count_named(self, whose: str, examples: int) -> dict[str, Any]:
        named = self.named[self.named["whose"] == whose]
        rows = self.table["example_id"].isin(named["example_id"])
        written, label = self.table["text"] != "", self.table["eczema"]
        return {
            "texts": int(rows.sum()),
            "share": _share(rows, written),
            "share_of_positive": _share(rows, written & (label > self.label_threshold)),
            "share_of_negative": _share(rows, written & (label <= self.label_threshold)),
            "conditions": {
                str(name): int(count)
                for name, count in named["condition"].value_counts().sort_index().items()
            },
            "examples": list(self.table.loc[rows, "example_id"].sort_values()[:examples]),
        }


def audit_dataset(
    dataset: Dataset, *, label_threshold: float = 0.5, workers: int = 2, progress: bool = True
) -> Audit:
    """Looks for duplicates between cases and for texts that name a diagnosis.

    Args:
        dataset: From `load_dataset`.
        label_threshold: A row counts as positive if its label is greater.
        workers: Threads that decode photos.
        progress: Whether to show a bar.
    """
    table = dataset.table
    duplicates = find_duplicates(dataset, workers=workers, progress=progress)
    named = find_named_diagnoses(table.set_index("example_id")["text"])
    return Audit(table, duplicates, merge_groups(table, duplicates), named, label_threshold)


def check_splits(table: pd.DataFrame, splits: pd.Series, duplicates: Duplicates) -> list[str]:
    """Finds what straddles splits: groups, and duplicates of any kind, near ones too.

    Splits made from `Audit.group_id` have none of it. A manifest's own splits may, and then the
    test is no test.

    Args:
        table: Of a `Manifest`, with its own groups.
        splits: Split (or fold) of each row, with the table's index.
        duplicates: Found in it.

    Returns:
        One line a finding, with ids and no content; empty if there is no leak.
    """
    rows = table[["example_id", "group_id"]].assign(split=splits.astype(str))
    located = duplicates.members.merge(rows, on="example_id")
    groups = [
        f"group {group!r}: {_describe_rows(members)}"
        for (group,), members in _straddling(rows, ["group_id"], "split")
    ]
    found = [
        f"{_NOUNS[kind]}: {_describe_rows(members)}"
        for (kind, _), members in _straddling(located, ["kind", "cluster"], "split")
    ]
    return groups + found


def _straddling(rows: pd.DataFrame, keys: list[str], column: str) -> DataFrameGroupBy:
    """Groups by keys the rows whose key has more than one value in a column."""
    return rows[rows.groupby(keys)[column].transform("nunique") > 1].groupby(keys)


def _locate(table: pd.DataFrame, duplicates: Duplicates, kind: str) -> pd.DataFrame:
    members = duplicates.members[duplicates.members["kind"] == kind]
    return members.merge(table[["example_id", "case_id", "group_id"]], on="example_id")


def _describe_rows(rows: pd.DataFrame) -> str:
    """Says which splits, and one row of each."""
    first = rows.sort_values("example_id").groupby("split")["example_id"].agg(["first", "size"])
    return ", ".join(
        f"{split} has {size} of its rows ({example!r})"
        for split, example, size in first.itertuples()
    )


def _describe_kind(kind: str, counts: dict[str, Any]) -> str:
    across = (
        f"{counts['across_groups']} across groups"
        if counts["across_groups"]
        else "all within one group"
    )
    first = ", ".join(map(repr, counts["examples"][0][:2]))
    return (
        f"{_NOUNS[kind]}s: {counts['clusters']}, in {counts['cases']} cases, {across} (for instance"
        f" {first})"
    )


def _describe_named(whose: str, counts: dict[str, Any]) -> str:
    who = "name a skin diagnosis" if whose == OWN else "name a diagnosis in the family"
    given = {label: counts[f"share_of_{label}"] for label in ("positive", "negative")}
    shares = ", ".join(
        f"{share:.1%} of {label} ones" for label, share in given.items() if share is not None
    )
    warning = (
        "; the answer can be read off them: leave them out, or say so with the results"
        if whose == OWN
        else ""
    )
    return f"{counts['texts']} texts {who} ({shares or 'unlabelled'}){warning}"


def _share(rows: pd.Series, among: pd.Series) -> float | None:
    """None where there is nothing to be a share of."""
    return round(float(rows[among].mean()), 4) if among.any() else None
