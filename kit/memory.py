"""How a process takes memory, and leaves it behind."""

import atexit
import ctypes
import gc
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's names in `malloc.h`."""
_KEPT_BYTES = 8 * 1024**2


def tune_memory() -> None:
    """Make large pieces cheap, and garbage collection as well. To be called once, after the imports.

    By itself glibc gives pieces of 128 KiB and more back to the system as soon as they are freed: for each new one the
    kernel clears and maps all its pages, which was half of a transfer's CPU. It may keep up to 8 MiB instead. Without
    glibc nothing changes.

    What was imported stays, so no collection needs to look at it; and none as the interpreter ends, because the system
    takes all memory at once.
    """
    with suppress(OSError, AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(_MMAP_THRESHOLD, _KEPT_BYTES)
        set_option(_TRIM_THRESHOLD, _KEPT_BYTES)
    gc.freeze()
    gc.enable()
    atexit.register(gc.freeze)
