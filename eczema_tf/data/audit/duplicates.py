"""Duplicates: photos and texts that stand in several cases, exactly or nearly; and the groups that follow from them.

`find_duplicates` looks for them in a data set, `merge_groups` makes one group of all groups that
share one, so that no split can separate them. What counts as the same photo is in `near_photos`,
what counts as the same text in `near_texts`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from eczema_tf.data.audit.near_photos import compute_signatures, find_near_photos
from eczema_tf.data.audit.near_texts import (
    PhraseModel,
    Words,
    find_copied_texts,
    find_near_texts,
    split_words,
)
from eczema_tf.data.cache import fingerprint
from eczema_tf.data.dataset import Dataset
from eczema_tf.data.photo.embeddings import Embeddings

KINDS = ("identical_photo", "near_photo", "identical_text", "near_text")
# value of the manifest's `source`: written by a program from flags, so that equal texts mean equal
# flags
TEMPLATE = "template"

Keys = dict[
    str, list[str]
]  # kind to the key of each row: rows with the same key are the same, "" is none


@dataclass(frozen=True)
class Duplicates:
    """What `find_duplicates` found.

    Attributes:
        members: One row for each row of the manifest in a cluster of duplicates, sorted: `kind` (of
            `KINDS`), `cluster` (the smallest `example_id` in it) and `example_id`. Every cluster
            spans at least two cases; near ones hold different photos or texts.
        kinds: What was looked for: no near photos with embeddings.
        plain_photos: Photos too plain to be compared, except for identical files.
        chance_texts: Distinct texts of several groups that are taken for chance: short, stock
            phrases.
    """

    members: pd.DataFrame
    kinds: tuple[str, ...] = KINDS
    plain_photos: int = 0
    chance_texts: int = 0


def find_duplicates(dataset: Dataset, *, workers: int = 2, progress: bool = True) -> Duplicates:
    """Compares all photos and all texts of a data set with each other.

    Photos: identical files (SHA-256) and near-duplicates; with embeddings, identical embeddings (so
    also one image path in several cases). Texts: identical ones (but for case, punctuation and
    spacing) and nearly identical ones. Templates are left out.

    Args:
        dataset: From `load_dataset`.
        workers: Threads that decode photos.
        progress: Whether to show a bar.

    Returns:
        The same whatever the order of the rows.
    """
    table = dataset.table
    photos, plain = _find_photos(dataset, workers, progress)
    texts, chance = _find_texts(table)
    keys_by_kind = photos | texts
    members = [_list_members(table, kind, keys) for kind, keys in keys_by_kind.items()]
    return Duplicates(pd.concat(members, ignore_index=True), tuple(keys_by_kind), plain, chance)


def merge_groups(table: pd.DataFrame, duplicates: Duplicates) -> pd.Series:
    """Makes one group of groups that share a duplicate, directly or through others.

    Args:
        table: Of a `Manifest`.
        duplicates: Found in it.

    Returns:
        The group of each row, with the table's index; a merged group has the first of its groups'
        names in alphabetical order.
    """
    names, codes = np.unique(table["group_id"].to_numpy(str), return_inverse=True)
    code_of = dict(zip(table["example_id"], codes.tolist(), strict=True))
    members = duplicates.members[duplicates.members["example_id"].isin(code_of)]
    first = members.groupby(["kind", "cluster"])["example_id"].transform("first")
    leader = _find_leaders(len(names), first.map(code_of), members["example_id"].map(code_of))
    return pd.Series(
        names[leader][codes], index=table.index, dtype=table["group_id"].dtype, name="group_id"
    )


def _find_photos(dataset: Dataset, workers: int, progress: bool) -> tuple[Keys, int]:
    """Also counts the photos that are too plain."""
    if dataset.embeddings is not None:
        return {"identical_photo": _hash_embeddings(dataset.table, dataset.embeddings)}, 0
    digest_of = dict(zip(dataset.photos.index, dataset.photos["sha256"], strict=True))
    digests = [digest_of.get(file, "") for file in dataset.table["image_file"]]
    files = {digest_of[file]: file for file in sorted(digest_of)}
    distinct = sorted(set(digests) - {""})
    signatures = compute_signatures(
        [files[digest] for digest in distinct], workers=workers, progress=progress
    )
    near = _name_clusters(distinct, find_near_photos(signatures).tolist())
    keys = {"identical_photo": digests, "near_photo": [near.get(digest, "") for digest in digests]}
    return keys, int(signatures.plain.sum())


def _hash_embeddings(table: pd.DataFrame, embeddings: Embeddings) -> list[str]:
    keys = embeddings.keys_of_rows(table)
    hash_of = {key: fingerprint(row) for key, row in _rows_by_key(embeddings, keys)}
    return [hash_of.get(key, "") for key in keys]


def _rows_by_key(embeddings: Embeddings, keys: Iterable[str]) -> Iterable[tuple[str, np.ndarray]]:
    distinct = sorted(set(keys) - {""})
    return zip(distinct, embeddings.rows_of(distinct), strict=True)


def _find_texts(table: pd.DataFrame) -> tuple[Keys, int]:
    """Also counts the texts whose copies are taken for chance."""
    word_of = {text: split_words(text) for text in set(table["text"])}
    own = (table["source"] != TEMPLATE).to_numpy()
    words = [
        word_of[text] if written else () for text, written in zip(table["text"], own, strict=True)
    ]
    model = PhraseModel(_count_values(words, table["group_id"]))
    shared = {text for text, cases in _count_values(words, table["case_id"]).items() if cases > 1}
    copied = find_copied_texts(model, shared)
    near = _name_near_texts(find_near_texts(model))
    chance = sum(model.copies[text] > 1 for text in shared - copied)
    keys = {
        "identical_text": [_key(text) if text in copied else "" for text in words],
        "near_text": [near.get(text, "") for text in words],
    }
    return keys, chance


def _count_values(words: Sequence[Words], owners: Iterable[str]) -> Mapping[Words, int]:
    """In how many groups, or cases, each text is."""
    return Counter(text for text, _ in set(zip(words, owners, strict=True)) if text)


def _key(words: Words) -> str:
    return " ".join(words)


def _name_near_texts(pairs: list[tuple[Words, Words]]) -> dict[Words, str]:
    distinct = sorted({words for pair in pairs for words in pair})
    place = {words: index for index, words in enumerate(distinct)}
    named = _name_clusters(
        [_key(words) for words in distinct],
        [[place[first], place[second]] for first, second in pairs],
    )
    return {words: named[_key(words)] for words in distinct}


def _name_clusters(keys: Sequence[str], pairs: Sequence[Sequence[int]]) -> dict[str, str]:
    """Names what hangs together after its first key; what is in no pair is left out."""
    paired = sorted({index for pair in pairs for index in pair})
    leader = _find_leaders(len(keys), [pair[0] for pair in pairs], [pair[1] for pair in pairs])
    return {keys[index]: keys[leader[index]] for index in paired}


def _find_leaders(count: int, first: Iterable[int], second: Iterable[int]) -> np.ndarray:
    """Returns the smallest index among those that each index hangs together with: int64 (count,)."""
    first, second = np.array([*first], "int64"), np.array([*second], "int64")
    links = coo_array((np.ones(len(first), "int8"), (first, second)), shape=(count, count))
    component = connected_components(links, directed=False)[1] if count else np.zeros(0, "int64")
    _, leaders = np.unique(component, return_index=True)
    return leaders[component] if count else component


def _list_members(table: pd.DataFrame, kind: str, keys: Sequence[str]) -> pd.DataFrame:
    """Lists the rows of every key that is in at least two cases."""
    rows = pd.DataFrame(
        {
            "kind": kind,
            "key": keys,
            "example_id": table["example_id"].to_numpy(),
            "case_id": table["case_id"].to_numpy(),
        }
    )
    rows = rows[rows["key"] != ""]
    by_key = rows.groupby("key")
    rows = rows.assign(cluster=by_key["example_id"].transform("min"))[
        by_key["case_id"].transform("nunique") > 1
    ]
    return rows[["kind", "cluster", "example_id"]].sort_values(["cluster", "example_id"])
