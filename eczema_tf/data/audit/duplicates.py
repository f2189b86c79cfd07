"""Duplicates: photos and texts that occur in several cases, exactly or nearly, and their groups.

`find_duplicates` finds them in a data set; `merge_groups` joins all groups that share one, so that
no split can separate them. `near_photos` decides what counts as the same photo, `near_texts` what
counts as the same text.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from eczema_tf.data.audit.near_photos import find_near_photos, find_plain_photos
from eczema_tf.data.audit.near_texts import PhraseModel, Words, find_near_texts, split_words
from eczema_tf.data.cache import fingerprint
from eczema_tf.data.dataset import Dataset
from eczema_tf.data.manifest.table import find_templates
from eczema_tf.data.photo.inspection import GRAY_PX

MEMBERS = ("kind", "cluster", "example_id")
DUPLICATE_KINDS = ("identical_photo", "near_photo", "identical_text", "near_text")

# by kind, the key of each row: rows with the same key are duplicates, "" is no key
Keys = dict[str, list[str]]


@dataclass(frozen=True)
class Duplicates:
    """What `find_duplicates` found.

    Attributes:
        members: One row for each row of the manifest in a cluster of duplicates, sorted: `kind` (of
            `DUPLICATE_KINDS`), `cluster` (the smallest `example_id` in it) and `example_id`. Every
            cluster spans at least two cases; clusters of near-duplicates contain different photos
            or texts.
        kinds: What was looked for; with embeddings, near-duplicate photos are not.
        plain_photos: Photos too plain to be compared, except for identical files.
        chance_texts: Distinct texts that several groups share, which counts as chance: short ones
            and stock phrases.
    """

    members: pd.DataFrame
    kinds: tuple[str, ...] = DUPLICATE_KINDS
    plain_photos: int = 0
    chance_texts: int = 0


def find_duplicates(dataset: Dataset) -> Duplicates:
    """Compares all photos and all texts of a data set with each other.

    Photos: identical files (SHA-256) and near-duplicates; with embeddings, identical embeddings (so
    also one image path in several cases). Texts: identical ones (apart from case, punctuation and
    spacing) and nearly identical ones. Templates are left out.

    Args:
        dataset: From `load_dataset`.

    Returns:
        The duplicates, whatever the order of the rows.
    """
    table = dataset.table
    photos, plain = _key_photos(dataset)
    texts, chance = _key_texts(table)
    keys_by_kind = photos | texts
    members = []
    for kind, keys in keys_by_kind.items():
        rows = table[["example_id", "case_id"]].assign(kind=kind, key=keys)
        rows = rows[rows["key"] != ""]
        by_key = rows.groupby("key")
        rows = rows.assign(cluster=by_key["example_id"].transform("min"))
        shared = rows[by_key["case_id"].transform("nunique") > 1]
        members.append(shared[list(MEMBERS)].sort_values(["cluster", "example_id"]))
    return Duplicates(pd.concat(members, ignore_index=True), tuple(keys_by_kind), plain, chance)


def merge_groups(table: pd.DataFrame, duplicates: Duplicates) -> pd.Series:
    """Joins groups that share a duplicate, directly or through others.

    Args:
        table: Table of a `Manifest`.
        duplicates: Duplicates found in it.

    Returns:
        The group of each row, with the table's index; a merged group takes the alphabetically first
        name of its groups.
    """
    names, codes = np.unique(table["group_id"].to_numpy(str), return_inverse=True)
    code_of = dict(zip(table["example_id"], codes.tolist(), strict=True))
    members = duplicates.members[duplicates.members["example_id"].isin(code_of)]
    first = members.groupby(["kind", "cluster"])["example_id"].transform("first")
    leader = find_leaders(len(names), first.map(code_of), members["example_id"].map(code_of))
    return pd.Series(
        names[leader][codes], index=table.index, dtype=table["group_id"].dtype, name="group_id"
    )


def identify_photos(dataset: Dataset) -> list[str]:
    """Returns a digest of each row's photo file or embedding, "" for a row without a photo."""
    if dataset.embeddings is None:
        digest_of = dict(zip(dataset.photos.index, dataset.photos["sha256"], strict=True))
        return [digest_of.get(file, "") for file in dataset.table["image_file"]]
    paths = dataset.embeddings.keys_of_rows(dataset.table)
    distinct = sorted(set(paths) - {""})
    matrix = dataset.embeddings.rows_of(distinct)
    hash_of = {key: fingerprint(row) for key, row in zip(distinct, matrix, strict=True)}
    return [hash_of.get(path, "") for path in paths]


def list_words(table: pd.DataFrame) -> list[Words]:
    """Returns the words of each row's text; none for a template."""
    word_of = {text: split_words(text) for text in set(table["text"])}
    return [
        () if written else word_of[text]
        for text, written in zip(table["text"], find_templates(table), strict=True)
    ]


def build_phrase_model(table: pd.DataFrame, words: Sequence[Words]) -> PhraseModel:
    """Learns from all texts of a manifest (`words` of its rows) how much their phrases tell."""
    return PhraseModel(_count_values(words, table["group_id"]))


def _key_photos(dataset: Dataset) -> tuple[Keys, int]:
    """Returns the keys of photos, and how many photos are too plain to be compared."""
    digests = identify_photos(dataset)
    if dataset.embeddings is not None:
        return {"identical_photo": digests}, 0
    distinct = sorted(set(digests) - {""})
    gray_of = dict(zip(dataset.photos["sha256"], dataset.photos["gray"], strict=True))
    gray = np.array([gray_of[digest] for digest in distinct], "uint8").reshape(-1, GRAY_PX, GRAY_PX)
    near = _name_clusters(distinct, find_near_photos(gray).tolist())
    keys = {"identical_photo": digests, "near_photo": [near.get(digest, "") for digest in digests]}
    return keys, int(find_plain_photos(gray).sum())


def _key_texts(table: pd.DataFrame) -> tuple[Keys, int]:
    """Returns the keys of texts, and how many texts have copies that may be chance."""
    words = list_words(table)
    model = build_phrase_model(table, words)
    shared = {text for text, cases in _count_values(words, table["case_id"]).items() if cases > 1}
    copied = {text for text in shared if model.is_copy(text)}
    pairs = find_near_texts(model)
    distinct = sorted({text for pair in pairs for text in pair})
    index = {text: place for place, text in enumerate(distinct)}
    names = [" ".join(text) for text in distinct]
    near = _name_clusters(names, [(index[first], index[second]) for first, second in pairs])
    chance = sum(model.copies[text] > 1 for text in shared - copied)
    keys = {
        "identical_text": [" ".join(text) if text in copied else "" for text in words],
        "near_text": [near.get(" ".join(text), "") for text in words],
    }
    return keys, chance


def _count_values(words: Sequence[Words], owners: Iterable[str]) -> Mapping[Words, int]:
    """Counts the groups, or the cases, that have each text."""
    return Counter(text for text, _ in set(zip(words, owners, strict=True)) if text)


def _name_clusters(keys: Sequence[str], pairs: Sequence[Sequence[int]]) -> dict[str, str]:
    """Names each cluster of paired keys after its first key; keys in no pair are left out."""
    paired = sorted({index for pair in pairs for index in pair})
    leader = find_leaders(len(keys), [pair[0] for pair in pairs], [pair[1] for pair in pairs])
    return {keys[index]: keys[leader[index]] for index in paired}


def find_leaders(count: int, first: Iterable[int], second: Iterable[int]) -> np.ndarray:
    """Returns the smallest index in the connected component of each index: int64 (count,)."""
    first, second = np.array([*first], "int64"), np.array([*second], "int64")
    links = coo_array((np.ones(len(first), "int8"), (first, second)), shape=(count, count))
    component = connected_components(links, directed=False)[1] if count else np.zeros(0, "int64")
    _, leaders = np.unique(component, return_index=True)
    return leaders[component]
