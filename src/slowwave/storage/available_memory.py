"""How much memory there is for a model, before one is loaded that does not fit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

GIB = 2**30
ROOT = Path("/")

# Folder below /sys/fs/cgroup, and the files of limit, use and, in memory.stat, what a cache holds.
_VERSION_1 = ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("", "memory.max", "memory.current", "inactive_file")


def require_memory(needed_bytes: int, path: Path, *, root: Path = ROOT) -> None:
    """Raises ValueError, with both figures, if the model at a path takes more than is available."""
    available = measure_available(root)
    if needed_bytes > available:
        raise ValueError(
            f"{path}: needs {needed_bytes / GIB:.2f} GiB of memory, and {available / GIB:.2f} GiB "
            "are available; close other programs, or use a smaller model"
        )


def measure_available(root: Path = ROOT) -> int:
    """Bytes that a process may still take: of the machine, or of the control groups it is in.

    root: where proc and sys are found.
    """
    return min([_measure_machine(root), *_measure_groups(root)])


def _measure_machine(root: Path) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    # Not Linux, or one that tells nothing: all that is built in.
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _measure_groups(root: Path) -> Iterator[int]:
    """What each control group of this process has left, from its own up to the first."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folder, *files = _VERSION_1 if controllers else _VERSION_2
        group = PurePosixPath(name.lstrip("/"))
        for each in (group, *group.parents):
            # A container may show its own group as the first one, and none of the others.
            with contextlib.suppress(OSError, ValueError):
                yield _measure_group(root / "sys/fs/cgroup" / folder / each, *files)


def _measure_group(folder: Path, limit: str, used: str, cached: str) -> int:
    most = int((folder / limit).read_text())  # "max" is no number, and no limit
    taken = int((folder / used).read_text())
    for line in (folder / "memory.stat").read_text().splitlines():
        name, _, count = line.partition(" ")
        if name == cached:
            taken -= int(count)
    return max(0, most - taken)
