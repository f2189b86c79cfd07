"""Reads the photos of rows before the model is asked; a row's status reports a bad photo.

The server and batch scoring read every photo here, as training does (`data.photo.upright`). The
graph therefore sees only upright JPEGs, and no stranger's bytes.
"""

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from eczema_tf.data.photo.upright import upright_jpeg
from eczema_tf.errors import DataError

PHOTOS_AT_ONCE = 3  # that a server reads at a time; others wait


class PhotoReader:
    """Reads photos in threads, a few at once."""

    def __init__(self) -> None:
        """Creates the threads; they start when they are needed."""
        self._threads = ThreadPoolExecutor(PHOTOS_AT_ONCE, thread_name_prefix="photo")

    async def read(self, data: bytes) -> bytes:
        """Returns the result of `upright_jpeg`, or raises its DataError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, upright_jpeg, data)

    async def read_rows(self, images: Sequence[bytes]) -> tuple[list[bytes], list[str]]:
        """Reads a request's photos one after another, so that it does not hold up other requests.

        Args:
            images: Photos as they were sent; b"" for none.

        Returns:
            Upright JPEGs, b"" where there is none, and what was wrong with each, "" for nothing.
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
    """Returns what a row's status says about its photo."""
    return f"photo: {str(error).removeprefix('photo ')}"


def join_statuses(statuses: Iterable[bytes], faults: Iterable[str]) -> np.ndarray:
    """Puts what was wrong with a photo before what the model said about its row.

    Args:
        statuses: From the signature, UTF-8; in a row with a fault, the model saw no photo.
        faults: As many; "" for none.

    Returns:
        bytes, object (rows,).
    """
    joined = []
    for status, fault in zip(statuses, faults, strict=True):
        # only what the model says about the text or clinical fields adds anything to the fault
        adds = status.startswith((b"text: ", b"clinical: "))
        parts = [fault.encode(), status] if adds else [fault.encode()]
        joined.append(b"; ".join(parts) if fault else status)
    return np.array(joined, object)
