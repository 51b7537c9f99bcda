"""docs/performance.md and the README say what the recorded benchmarks hold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _row(name: str, what: str, by: str, section: str = "", context: int | None = None) -> Any:
    """The one recorded row of a benchmark that fits."""
    recorded = json.loads((ROOT / f"results/bench/{name}.json").read_text(encoding="utf-8"))
    assert recorded["environment"]["dirty"] is False
    found = [
        row
        for part in recorded["sections"]
        for row in part["rows"]
        if section in part["title"] and row["what"] == what and row["by"] == by
    ]
    (row,) = (row for row in found if context in (None, row["context"]))
    return row


def _times(name: str, what: str, by: str, section: str = "", context: int | None = None) -> str:
    """How many times as fast as its peer: "6.9", or "35" from 20 on."""
    times = 1 / _row(name, what, by, section, context)["time_ratio"]
    return f"{times:.1f}" if times < 20 else f"{times:.0f}"


def _reached(page: str, start: str) -> str:
    """The last cell of the table row that starts so."""
    (line,) = re.findall(rf"^\| {re.escape(start)}.*\|$", page, re.MULTILINE)
    return line.split("|")[-2].strip()


def test_the_delta_rule() -> None:
    forward = _row("op", "forward", "native", "long read")
    both = _row("op", "forward + backward", "native", "long read")
    assert _reached(PAGE, "delta rule, B 2") == f"{1 / forward['time_ratio']:.1f} x"
    assert _reached(PAGE, "the same with its") == f"{1 / both['time_ratio']:.1f} x"
    memory = [row["memory_ratio"] for row in (forward, both)]
    assert _reached(PAGE, "its extra memory") == f"{memory[0]:.2f} / {memory[1]:.2f}"


def test_training() -> None:
    one, four = (_row("train", "forward + backward", f"N = {passes}") for passes in (1, 4))
    shares = f"{one['matmul_share']:.0%} / {four['matmul_share']:.0%}"
    assert _reached(PAGE, "training `rule110`, batch 256") == shares
    assert _reached(PAGE, "time at N = 4 over N = 1") == f"{four['time_ratio']:.2f}"


def test_reading_sleeping_and_tokens() -> None:
    one, four = "slowwave, N = 1", "slowwave, N = 4"
    reads = [_times("read", "read 32,768 tokens", by) for by in (one, four)]
    assert _reached(PAGE, "reading 32 k tokens") == f"{reads[0]} x / {reads[1]} x"
    for passes, by in ((1, one), (4, four)):
        tokens = [_times("read", "a token", by, "Generating", context) for context in (1280, 33024)]
        start = f"one token after 1 k / 33 k, N = {passes}"
        assert _reached(PAGE, start) == f"{tokens[0]} x / {tokens[1]} x"
    grown = [_times("read", "the next 512", by, "Growing", 131072) for by in (one, four)]
    assert _reached(PAGE, "the next 512 tokens") == f"{grown[0]} x / {grown[1]} x"
    sleeps = [_row("sleep", "a window of 512", f"sleep, N = {n}")["time_ratio"] for n in (2, 3, 4)]
    assert _reached(PAGE, "sleep of N = 2") == " / ".join(f"{ratio:.2f}" for ratio in sleeps)


def test_awake_nothing_grows() -> None:
    recorded = json.loads((ROOT / "results/bench/wake.json").read_text(encoding="utf-8"))
    rows = [row for part in recorded["sections"] for row in part["rows"]]
    tokens = [row for row in rows if row["what"] == "a token"]
    (nbytes,) = {row["nbytes"] for row in tokens}
    ratios = [row["time_ratio"] for row in tokens]
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    assert _reached(PAGE, "a token after 1 k, 100 k") == spread
    for text in (PAGE, README):
        assert spread in text and f"{nbytes:,} bytes" in text
    growth = max(row["memory_ratio"] for row in rows if row["what"] == "resident memory") - 1
    assert re.search(rf"grows by at\s+most {growth:.2%}", PAGE)


def test_what_the_readme_says_of_speed() -> None:
    by = ("slowwave, N = 1", "slowwave, N = 4")
    reads = [_times("read", "read 32,768 tokens", each) for each in by]
    grown = [_times("read", "the next 512", each, "Growing", 131072) for each in by]
    text = " ".join(README.split())
    assert f"32 k tokens is {reads[0]} (N = 1) and {reads[1]} (N = 4) times as fast" in text
    assert f"after 128 k tokens is {grown[0]} and {grown[1]} times as fast" in text
    sleeps = [_row("sleep", "a window of 512", f"sleep, N = {n}")["time_ratio"] for n in (2, 3, 4)]
    assert "takes less time than N - 1 reads" in text and max(sleeps) < 1
