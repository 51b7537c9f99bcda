"""The benchmark compares like with like; its figures are a recorded run's business."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from slowwave import cli
from slowwave.evaluation import bench_wake
from slowwave.evaluation.bench_wake import measure_sleep, measure_wake
from slowwave.model.hybrid import HybridLM


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("WINDOW", 32),
        ("FILL", 8),
        ("TOKENS_TIMED", 4),
        ("NUM_WINDOWS", (1, 3)),
        ("WAKE_ROUNDS", 2),
        ("SLEEP_ROUNDS", 2),
    ):
        monkeypatch.setattr(bench_wake, name, value)


def test_states_differ_in_what_they_read_and_in_nothing_else() -> None:
    with torch.inference_mode():
        rows = measure_wake(HybridLM(bench_wake.MODEL), (1, 3), rounds=2)
    assert [(row.passes, row.tokens_seen) for row in rows] == [(1, 40), (1, 104), (4, 40), (4, 104)]
    assert len({row.state_nbytes for row in rows}) == 1
    assert rows[0].ratio == 1.0
    assert all(row.milliseconds > 0 and row.ratio > 0 for row in rows)


def test_a_sleep_is_measured_against_a_read_of_its_window() -> None:
    with torch.inference_mode():
        rows = measure_sleep(HybridLM(bench_wake.MODEL), rounds=3)
    assert [row.passes for row in rows] == [2, 3, 4]
    assert rows[2].milliseconds > rows[0].milliseconds > 0


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["bench", "wake", "--out", str(tmp_path), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "wake.json").read_text())
    assert len(printed["wake"]) == 4 and len(printed["sleep"]) == 3
    cli.main(["bench", "wake"])
    assert "A sleep over N - 1 reads" in capsys.readouterr().out
