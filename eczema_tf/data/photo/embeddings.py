"""Precomputed photo embeddings (`.npz`), which stand in for photos and their encoder.

Two layouts: arrays `image_path` (or `example_id`) and `embedding`, or one array for each image
path, as Google publishes for SCIN (`scin_dataset_precomputed_embeddings.npz`). Nothing pickled is
ever loaded.
"""

import lzma
import math
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from eczema_tf.errors import DataError, raise_if_any, shorten

KEY_ARRAYS = ("image_path", "example_id")
MAX_BYTES = 1 << 32  # unpacked: 4 GiB, 170,000 embeddings of 6144 values
_MAX_RATIO = 100  # unpacked to packed; floating-point numbers do not shrink to a tenth
_SMALL_BYTES = 1 << 26  # below which the ratio does not matter
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True)
class Embeddings(Collection):
    """Embeddings by key; as a collection, this is the collection of its keys.

    Attributes:
        places: Rows of `matrix` by key, an image path or example id, in order.
        matrix: float32 (keys, dimension), finite.
    """

    places: dict[str, int]
    matrix: np.ndarray

    @property
    def dimension(self) -> int:
        """Length of one embedding."""
        return self.matrix.shape[1]

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __contains__(self, key: object) -> bool:
        return key in self.places

    def rows_of(self, keys: Iterable[str]) -> np.ndarray:
        """Returns the embeddings of some keys, float32 (keys, dimension), in their order.

        Raises:
            DataError: If a key has none.
        """
        keys = list(keys)
        raise_if_any("photos without an embedding", (key for key in keys if key not in self))
        return self.matrix[np.array([self.places[key] for key in keys], "int64")]

    def keys_of_rows(self, table: pd.DataFrame) -> list[str]:
        """Returns the key of each row's embedding, "" where it has none.

        Args:
            table: Table of a manifest loaded with these embeddings: its `image_path` contains the
                keys.
        """
        return [key if key in self else "" for key in table["image_path"]]


def load_embeddings(path: Path | str) -> Embeddings:
    """Reads an embedding file of either layout.

    Raises:
        DataError: If it is not an `.npz`, contains pickled objects, lacks an array, or the arrays
            do not fit together.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such embedding file")
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _read_arrays(path, archive)
    except (
        *(ValueError, OSError, EOFError, KeyError, RuntimeError, MemoryError),
        *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError),
    ) as error:
        raise DataError(
            f"{path}: is not readable as .npz without pickled objects: {shorten(str(error))}"
        ) from error
    read = _read_table if "embedding" in arrays else _read_one_each
    keys, matrix = read(path, arrays)
    return _merge_equal(path, keys, _check_matrix(path, keys, matrix))


def _read_arrays(path: Path, archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """Reads all arrays, each only after its header agrees with its number of bytes."""
    members = archive.infolist()
    size = sum(member.file_size for member in members)
    if size > min(MAX_BYTES, max(_SMALL_BYTES, _MAX_RATIO * path.stat().st_size)):
        raise DataError(
            f"{path}: unpacks to {size:,} bytes; allowed: {MAX_BYTES:,}, and {_MAX_RATIO} times the"
            " size of the file"
        )
    arrays: dict[str, np.ndarray] = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name in arrays:
            raise DataError(f"{path}: array {shorten(name)!r} appears twice")
        with archive.open(member) as file:
            shape, _, kind = _HEADERS[np.lib.format.read_magic(file)](file)
            promised, there = math.prod(shape) * kind.itemsize, member.file_size - file.tell()
            if promised != there and not kind.hasobject:
                raise DataError(
                    f"{path}: array {shorten(name)!r} claims to be {kind} {shape}, which takes"
                    f" {promised:,} bytes; received {there:,}"
                )
            file.seek(0)
            arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays


def _read_table(path: Path, arrays: Mapping[str, np.ndarray]) -> tuple[tuple[str, ...], np.ndarray]:
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
    texts = (key.decode() if isinstance(key, bytes) else str(key) for key in keys.tolist())
    # paths of Windows, as in the manifest
    return tuple(key.replace("\\", "/") if name == "image_path" else key for key in texts), matrix


def _read_one_each(
    path: Path, arrays: Mapping[str, np.ndarray]
) -> tuple[tuple[str, ...], np.ndarray]:
    lost = [name for name in KEY_ARRAYS if name in arrays]
    if lost:
        raise DataError(
            f"{path}: has `{lost[0]}` but no array `embedding`; received: {', '.join(arrays)}"
        )
    # each is (dimension,) or (1, dimension)
    shapes = Counter(row.squeeze().shape for row in arrays.values())
    if len(shapes) != 1 or any(len(shape) != 1 for shape in shapes):
        received = [f"{shape} {count} times" for shape, count in shapes.most_common(5)]
        raise DataError(
            f"{path}: allowed: one array of one dimension for each image path, all of one length;"
            f" received: {', '.join(received) or 'no array at all'}"
        )
    keys = tuple(key.replace("\\", "/") for key in arrays)
    return keys, np.stack([row.squeeze() for row in arrays.values()])


def _check_matrix(path: Path, keys: tuple[str, ...], matrix: np.ndarray) -> np.ndarray:
    if not np.issubdtype(matrix.dtype, np.number) or np.iscomplexobj(matrix) or not matrix.size:
        raise DataError(
            f"{path}: embeddings must be numbers, at least one row of them; received {matrix.dtype}"
            f" {matrix.shape}"
        )
    # what does not fit float32 becomes infinite, and is reported below
    with np.errstate(over="ignore"):
        matrix = np.ascontiguousarray(matrix, "float32")
    faults = [
        f"{keys[row]}: contains NaN or infinity"
        for row in np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    ]
    raise_if_any(f"{path} is not valid", faults)
    return matrix


def _merge_equal(path: Path, keys: tuple[str, ...], matrix: np.ndarray) -> Embeddings:
    """Merges equal embeddings of the same key, as when two cases share a photo."""
    first: dict[str, int] = {}
    for row, key in enumerate(keys):
        first.setdefault(key, row)
    different = {
        key: f"{key!r}: key appears twice, with different embeddings"
        for row, key in enumerate(keys)
        if (matrix[row] != matrix[first[key]]).any()
    }
    raise_if_any(f"{path} is not valid", [*different.values()])
    places = {key: place for place, key in enumerate(first)}
    return Embeddings(places, matrix[list(first.values())])
