"""Memory is measured in processes of their own, which know what they are to do."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from slowwave.lab.bench import measure

MIB = 2**20
pytestmark = pytest.mark.skipif(not measure.STATUS.exists(), reason="the system does not tell")


@pytest.fixture(autouse=True)
def _found_by_fresh_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


def make_buffers(count: str) -> Callable[[], torch.Tensor]:
    """Work that holds `count` MiB at once and gives them back."""
    return lambda: torch.ones(int(count) * MIB, dtype=torch.uint8)


def leak(count: str) -> Iterator[int]:
    """A run that holds `count` MiB more at every pause, and says how many there were."""
    held: list[torch.Tensor] = []
    for pauses in range(3):
        held.append(torch.ones(int(count) * MIB, dtype=torch.uint8))
        yield pauses


def fail() -> None:
    raise RuntimeError("nothing to measure")


def test_memory_is_what_one_call_adds() -> None:
    small, large = (
        measure.measure_extra_nbytes("test_memory", "make_buffers", count) for count in ("1", "65")
    )
    assert small is not None and large is not None
    assert 60 * MIB < large - small < 70 * MIB


@pytest.mark.parametrize("count", ["0", "40"])
def test_a_leak_shows(count: str) -> None:
    pauses = measure.measure_paused("test_memory", "leak", count)
    assert pauses is not None
    assert [pause.value for pause in pauses] == [0, 1, 2]
    for before, after in itertools.pairwise(pauses):
        assert after.nbytes - before.nbytes == pytest.approx(int(count) * MIB, abs=4 * MIB)


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(ValueError, match="nothing to measure"):
        measure.measure_extra_nbytes("test_memory", "fail")


def test_memory_is_not_known_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measure, "STATUS", tmp_path / "missing")
    assert measure.measure_extra_nbytes("test_memory", "make_buffers", "1") is None
    assert measure.measure_paused("test_memory", "leak", "1") is None


def test_a_step_keeps_less_with_checkpointed_activations() -> None:
    kept, checkpointed = (
        measure.measure_extra_nbytes("slowwave.lab.bench.train", "memory_work", "2", checkpoint)
        for checkpoint in ("False", "True")
    )
    assert kept is not None and checkpointed is not None
    assert 0 < checkpointed < kept / 2
