"""Photos of rows, before the model is asked: a bad one is said in its row's status, as elsewhere.

The server and batch scoring read every photo here, as training does (`data.photo.upright`), so that
the graph sees none but upright JPEGs and no stranger's bytes.
"""

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from eczema_tf.data.photo.upright import upright_jpeg
from eczema_tf.errors import DataError

PHOTOS_AT_ONCE = 3  # are read in a server; more wait


class PhotoReader:
    """Reads photos in threads, a few at once."""

    def __init__(self) -> None:
        """Makes the threads; they start when they are needed."""
        self._threads = ThreadPoolExecutor(PHOTOS_AT_ONCE, thread_name_prefix="photo")

    async def read(self, data: bytes) -> bytes:
        """Returns what `upright_jpeg` returns, or raises its DataError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, upright_jpeg, data)

    async def read_rows(self, images: Sequence[bytes]) -> tuple[list[bytes], list[str]]:
        """Reads a request's photos one after another, so that it does not hold up others.

        Args:
            images: Photos as they were sent; b"" for none.

        Returns:
            Upright JPEGs, b"" where there is none, and what was wrong, "" for nothing.
        """
        photos, faults = [], []
        for image in images:
            try:
                photo, fault = await self.read(image) if image else b"", ""
            except DataError as error:
                photo, fault = b"", describe_fault(error)
            photos.append(photo)
            faults.append(fault)
        return photos, faults


def describe_fault(error: DataError) -> str:
    """What a row's status says of its photo."""
    return f"photo: {str(error).removeprefix('photo ')}"


def join_statuses(statuses: Iterable[bytes], faults: Iterable[str]) -> np.ndarray:
    """Puts what was wrong with a photo before what the model said of its row.

    Args:
        statuses: Of the signature, UTF-8; of a row with a fault, the model saw no photo.
        faults: As many; "" for none.

    Returns:
        bytes, object (rows,).
    """
    joined = []
    for status, fault in zip(statuses, faults, strict=True):
        # only what the model says of the text and of clinical fields adds anything to the fault
        adds = status.startswith((b"text: ", b"clinical: "))
        parts = [fault.encode(), status] if adds else [fault.encode()]
        joined.append(b"; ".join(parts) if fault else status)
    return np.array(joined, object)
