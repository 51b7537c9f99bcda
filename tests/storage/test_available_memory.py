"""A model that does not fit is refused, with both figures; control groups count."""

from __future__ import annotations

from pathlib import Path

import pytest

from slowwave.storage.available_memory import GIB, measure_available, require_memory


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MACHINE = {"proc/meminfo": f"MemTotal: 9999999 kB\nMemAvailable: {8 * GIB >> 10} kB\n"}


def test_the_machine_alone(tmp_path: Path) -> None:
    assert measure_available(write(tmp_path, MACHINE)) == 8 * GIB


def test_a_group_of_the_second_version_and_its_parents(tmp_path: Path) -> None:
    group = {
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/b/memory.max": "max\n",
        "sys/fs/cgroup/a/b/memory.current": "5\n",
        "sys/fs/cgroup/a/memory.max": f"{4 * GIB}\n",
        "sys/fs/cgroup/a/memory.current": f"{3 * GIB}\n",
        "sys/fs/cgroup/a/memory.stat": f"anon 1\ninactive_file {2 * GIB}\n",
    }
    assert measure_available(write(tmp_path, MACHINE | group)) == 3 * GIB


def test_a_group_of_the_first_version_shown_as_the_first(tmp_path: Path) -> None:
    group = {
        "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/x\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}",
        "sys/fs/cgroup/memory/memory.stat": "inactive_file 7\ntotal_inactive_file 0\n",
    }
    assert measure_available(write(tmp_path, MACHINE | group)) == GIB


def test_a_group_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    group = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "100\n",
        "sys/fs/cgroup/memory.current": "200\n",
        "sys/fs/cgroup/memory.stat": "",
    }
    assert measure_available(write(tmp_path, MACHINE | group)) == 0


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    assert GIB / 8 < measure_available(tmp_path) < 2**50


def test_a_model_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path, MACHINE)
    require_memory(8 * GIB, Path("model"), root=root)
    with pytest.raises(ValueError, match=r"^model: needs 9\.00 GiB of memory, and 8\.00 GiB are"):
        require_memory(9 * GIB, Path("model"), root=root)
