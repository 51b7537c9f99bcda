"""Scores as people read them."""

from __future__ import annotations

import io
import math
from typing import Any

from rich.console import Console

from slowwave.evaluation.tables import score_table


def _record(passes: int, exact: float, **groups: float) -> dict[str, Any]:
    overall = {"exact": exact, "sampled": 0.25, "token_accuracy": 0.75, "loss": math.log(2)}
    overall["answers"] = 4
    scored = {name: {"exact": value, "loss": math.log(2)} for name, value in groups.items()}
    return {"passes": passes, "flops": 10_000_000 * passes, "overall": overall, "groups": scored}


SUMMARY: dict[str, Any] = {
    "name": "recall-mini",
    "trained_passes": 4,
    "group_name": "windows ago",
    "floors": {"constant": 0.125, "windows ago 2": 0.0625},
    "test": [
        _record(passes, 0.1 * passes, **{str(2**i): 0.01 * i for i in range(8)})
        for passes in (1, 2, 3, 4)
    ],
}


def _print(summary: dict[str, Any]) -> list[str]:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(score_table(summary))
    return console.export_text().splitlines()


def test_many_groups_fit_a_terminal() -> None:
    lines = _print(SUMMARY)
    assert not any("…" in line for line in lines)
    cells = {row[1]: row[2:-1] for line in lines if len(row := line.split("│")) > 2}
    found = {name.strip(): [cell.strip() for cell in row] for name, row in cells.items()}
    assert found["exact"] == ["10.0%", "20.0%", "30.0%", "40.0%", ""]
    assert found["MFLOP an answer"] == ["2.5", "5.0", "7.5", "10.0", ""]
    assert found["windows ago 2"] == ["1.0%"] * 4 + ["6.2%"]
    assert found["windows ago 128"] == ["7.0%"] * 4 + [""]
    assert any("N = 4 (trained)" in line for line in lines)
    assert lines[-1].strip() == "floors: constant 12.5%"


def test_text_is_scored_in_bits_per_byte() -> None:
    lines = _print(SUMMARY | {"bytes_per_token": 0.5, "floors": {"constant": 0.004}})
    assert any("windows ago 8" in line and "2.000" in line for line in lines)
    assert "bits per byte" in lines[-1]
