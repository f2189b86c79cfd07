"""Precomputed photo embeddings (`.npz`), which stand in for the photos as an image encoder.

Two layouts: arrays `image_path` (or `example_id`) and `embedding`, or one array for each image
path, as Google publishes for SCIN (`scin_dataset_precomputed_embeddings.npz`). Nothing pickled is
ever loaded.
"""

import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from eczema_tf.errors import DataError, raise_if_any

KEY_ARRAYS = ("image_path", "example_id")


@dataclass(frozen=True)
class Embeddings(Collection):
    """Embeddings by key. As a collection, it is the collection of its keys.

    Attributes:
        keys: Image paths or example ids.
        matrix: float32 (keys, dimension), finite.
    """

    keys: tuple[str, ...]
    matrix: np.ndarray

    @property
    def dimension(self) -> int:
        """Length of one embedding."""
        return self.matrix.shape[1]

    @cached_property
    def _place(self) -> dict[str, int]:
        return {key: place for place, key in enumerate(self.keys)}

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys)

    def __contains__(self, key: object) -> bool:
        return key in self._place

    def rows_of(self, keys: Iterable[str]) -> np.ndarray:
        """Returns the embeddings of some keys, float32 (keys, dimension), in their order.

        Raises:
            DataError: If a key has none.
        """
        keys = list(keys)
        raise_if_any("photos without an embedding", (key for key in keys if key not in self))
        return self.matrix[np.array([self._place[key] for key in keys], "int64")]

    def keys_of_rows(self, table: pd.DataFrame) -> list[str]:
        """Returns the key of each row's embedding, "" where it has none.

        Args:
            table: Of a manifest loaded with these embeddings: its `image_path` holds the keys.
        """
        return [key if key in self else "" for key in table["image_path"]]


def load_embeddings(path: Path | str) -> Embeddings:
    """Reads an embedding file of either layout.

    Raises:
        DataError: If it is not an `.npz`, holds pickled objects, lacks an array, or the arrays do
            not fit together.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            keys, matrix = (
                _read_table(path, arrays) if "embedding" in arrays else _read_one_each(path, arrays)
            )
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such embedding file") from error
    except (ValueError, OSError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: is not readable as .npz without pickled objects:"
            f" {' '.join(str(error).split())}"
        ) from error
    return _merge_equal(path, keys, _check_matrix(path, keys, matrix))


def _read_table(path: Path, arrays: np.lib.npyio.NpzFile) -> tuple[tuple[str, ...], np.ndarray]:
    name = next((name for name in KEY_ARRAYS if name in arrays), None)
    if name is None:
        raise DataError(
            f"{path}: has `embedding` but no array {' or '.join(KEY_ARRAYS)}; received:"
            f" {', '.join(arrays)}"
        )
    keys, matrix = arrays[name], arrays["embedding"]
    if keys.ndim != 1 or matrix.ndim != 2 or len(keys) != len(matrix):
        raise DataError(
            f"{path}: {name} must be (n,) and embedding (n, dimension); received {keys.shape} and"
            f" {matrix.shape}"
        )
    return (
        tuple(key.decode() if isinstance(key, bytes) else str(key) for key in keys.tolist()),
        matrix,
    )


def _read_one_each(path: Path, arrays: np.lib.npyio.NpzFile) -> tuple[tuple[str, ...], np.ndarray]:
    lost = [name for name in KEY_ARRAYS if name in arrays]
    if lost:
        raise DataError(
            f"{path}: has `{lost[0]}` but no array `embedding`; received: {', '.join(arrays)}"
        )
    rows = {key: arrays[key] for key in arrays}
    shapes = Counter(row.squeeze().shape for row in rows.values())  # (dimension,) or (1, dimension)
    if len(shapes) != 1 or any(len(shape) != 1 for shape in shapes):
        received = (
            ", ".join(f"{shape} {count} times" for shape, count in shapes.most_common(5))
            or "no array at all"
        )
        raise DataError(
            f"{path}: allowed: one array of one dimension for each image path, all of one length;"
            f" received: {received}"
        )
    return tuple(rows), np.stack([row.squeeze() for row in rows.values()])


def _check_matrix(path: Path, keys: tuple[str, ...], matrix: np.ndarray) -> np.ndarray:
    if not np.issubdtype(matrix.dtype, np.number) or np.iscomplexobj(matrix) or not matrix.size:
        raise DataError(
            f"{path}: embeddings must be numbers, at least one row of them; received {matrix.dtype}"
            f" {matrix.shape}"
        )
    with np.errstate(
        over="ignore"
    ):  # what does not fit float32 becomes infinite, and is reported below
        matrix = np.ascontiguousarray(matrix, "float32")
    faults = [
        f"{keys[row]}: holds NaN or infinity"
        for row in np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    ]
    raise_if_any(f"{path} is not valid", faults)
    return matrix


def _merge_equal(path: Path, keys: tuple[str, ...], matrix: np.ndarray) -> Embeddings:
    """A key may be there twice if both embeddings are equal, as when two cases share a photo."""
    first: dict[str, int] = {}
    for row, key in enumerate(keys):
        first.setdefault(key, row)
    faults = [
        f"{key!r}: key is there twice, with different embeddings"
        for row, key in enumerate(keys)
        if (matrix[row] != matrix[first[key]]).any()
    ]
    raise_if_any(f"{path} is not valid", faults)
    return Embeddings(tuple(first), matrix[list(first.values())])
