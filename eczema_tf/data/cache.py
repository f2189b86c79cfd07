"""Arrays computed once and kept on disk: preprocessed pixels and the features of frozen encoders.

An array's name is the hash of everything it depends on (contents of the photos or texts,
preprocessing, weights, versions), so a stale one is never found. The file is renamed into place
only when it is complete.
"""

import contextlib
import hashlib
import json
import mmap
import secrets
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eczema_tf.data.progress import track
from eczema_tf.errors import RunError
from eczema_tf.files import replacing_file

_mapped: weakref.WeakValueDictionary[tuple[Path, int, int, int], np.ndarray] = (
    weakref.WeakValueDictionary()
)


def fingerprint(*parts: Any) -> str:
    """Hashes JSON-able values, byte strings and arrays into 32 hex digits (half a SHA-256)."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(str((part.dtype, part.shape)).encode())
            data = np.ascontiguousarray(part).tobytes()
        else:
            data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        digest.update(len(data).to_bytes(8, "big"))  # so that ("ab", "c") and ("a", "bc") differ
        digest.update(data)
    return digest.hexdigest()[:32]


def map_array(path: Path) -> np.ndarray:
    """Maps a `.npy` file into memory, once per process: every mapping uses memory of its own.

    Args:
        path: Path of the file. A file that has changed since is mapped again.

    Returns:
        The array, read-only.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError, EOFError: If the file is incomplete.
    """
    status = path.stat()
    version = path, status.st_ino, status.st_size, status.st_mtime_ns
    array = _mapped.get(version)
    if array is None:
        array = _mapped[version] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def release_maps() -> None:
    """Releases the memory that mapped arrays have filled; they are read again when needed."""
    for array in list(_mapped.values()):
        array.base.madvise(mmap.MADV_DONTNEED)  # type: ignore[union-attr]  # an mmap


class ArrayCache:
    """A folder of arrays by fingerprint.

    Args:
        folder: Where the arrays are.
        keep: Whether arrays stay there for later use. If not, the file of a new array is unlinked
            as soon as it is complete, so its space is freed when the process ends, however it ends.
    """

    def __init__(self, folder: Path | str, *, keep: bool = True):
        self.folder, self.keep = Path(folder), keep

    def load_or_compute(
        self,
        name: str,
        key: str,
        shape: Sequence[int],
        dtype: str,
        compute: Callable[[], Iterable[np.ndarray]],
    ) -> np.ndarray:
        """Returns an array, computing it if the folder lacks it.

        Args:
            name: What the array is, for the file name and the progress bar.
            key: `fingerprint` of everything it depends on.
            shape: Shape of the whole array; rows first.
            dtype: Type of the whole array.
            compute: Yields the rows in order, in blocks of any length.

        Returns:
            The array, memory-mapped and read-only.

        Raises:
            RunError: If `compute` yields more or fewer rows than `shape` says.
        """
        shape = tuple(int(length) for length in shape)
        if shape[0] == 0:
            return np.zeros(shape, dtype)
        path = self.folder / f"{name}-{key}.npy"
        # an incomplete file (a disk fault) counts as absent
        with contextlib.suppress(FileNotFoundError, ValueError, EOFError):
            found = map_array(path)
            if found.shape == shape and found.dtype == np.dtype(dtype):
                return found
        if not self.keep:  # private to this process: another may write a kept one meanwhile
            path = path.with_stem(f"{path.stem}-{secrets.token_hex(8)}")
        with (
            replacing_file(path) as aside,
            # not mapped: on a full disk, a map would raise a bus error
            aside.open("wb") as file,
            track(None, name.replace("_", " "), shape[0]) as progress,
        ):
            form = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, form)
            done = 0
            for block in compute():
                rows = np.asarray(block, dtype).reshape(len(block), *shape[1:])
                file.write(np.ascontiguousarray(rows).data)
                done += len(block)
                progress.update(len(block))
            if done != shape[0]:
                raise RunError(f"{name}: {done} rows where {shape[0]} were expected")
        array = map_array(path)
        if not self.keep:
            path.unlink()
        return array
