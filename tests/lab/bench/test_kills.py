"""A kill at any moment leaves the last acknowledged turn."""

from __future__ import annotations

from pathlib import Path

from slowwave.lab.bench.kills import kill_at_random

KILLS = 24  # `slowwave bench kills` does a thousand


def test_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    count = kill_at_random(tmp_path, KILLS, seed=0)
    assert (count.kills, count.unopened, count.lost, count.unlike) == (KILLS, 0, 0, 0)
    assert count.leftover_nbytes == 0
    assert count.idle < KILLS < count.entries
