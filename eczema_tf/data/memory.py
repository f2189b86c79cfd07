"""Gives freed memory back to the system."""

import ctypes
import gc
from contextlib import suppress


def give_memory_back() -> None:
    """Gives back memory that was freed but that the C library keeps, where it can do so (glibc).

    glibc keeps large pieces for each thread, which adds up when a step briefly needs gigabytes.
    """
    gc.collect()
    with suppress(AttributeError, TypeError):  # other C libraries lack it
        ctypes.CDLL(None).malloc_trim(0)
