"""Freed memory stays with the process, so that the next image need not be given fresh, cleared pages.

In:  nothing. Out: nothing; glibc's allocator is told, others are left alone.

By default each buffer of an image is mapped and unmapped by itself: hundreds of megabytes of page faults per
image. Kept, the heap is as large as the largest image needed, which is what a worker's memory limit is about.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Take large blocks from the heap, and never give its end back. For processes that do nothing else."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
