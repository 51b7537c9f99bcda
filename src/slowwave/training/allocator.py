"""glibc's allocator, told to keep the memory that a training step frees for the next one.

By default glibc maps every large tensor anew from the system, which then zeroes it page by page.
On a CPU that took a third of a training step of the `rule110` recipe (docs/log.md).
"""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """From now on this process keeps freed memory; says whether its allocator could be told so.

    Only glibc can. The process then holds its peak memory until it ends.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    allocator = ctypes.CDLL(None)
    never = -1
    told = allocator.mallopt(_M_MMAP_MAX, 0), allocator.mallopt(_M_TRIM_THRESHOLD, never)
    return all(told)
