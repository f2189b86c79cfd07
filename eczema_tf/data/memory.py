"""Memory that was freed, given back to the system."""

import ctypes
import gc
from contextlib import suppress


def give_memory_back() -> None:
    """Gives back what has been freed but is kept for later, where the C library can (glibc).

    It keeps large pieces for each thread, which adds up where a step needs gigabytes for a moment.
    """
    gc.collect()
    with suppress(AttributeError, TypeError):  # elsewhere there is no such function
        ctypes.CDLL(None).malloc_trim(0)
