"""Living with a model is measured through a store, and beside what never forgets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from byte_tokenizer import ByteTokenizer
from slowwave.lab.bench import session as bench
from slowwave.lab.bench.measure import Pause, Times, Work, measure_machine
from slowwave.models.backbone import HybridLM
from slowwave.runtime import model_folder
from slowwave.runtime.config import ChatFormat
from slowwave.runtime.model_folder import TalkerConfig
from slowwave.sleep.config import SleepConfig
from tiny_models import TWO_LAYERS

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TalkerConfig(
        model=TWO_LAYERS, sleep=SleepConfig(window=12, passes=2), chat=ChatFormat()
    )
    model_folder.save(tmp_path / "model", HybridLM(TWO_LAYERS), ByteTokenizer(), config)
    for name, value in (
        ("SHIPPED", tmp_path / "model"),
        ("TURN", 10),
        ("SOONER", (1, 2, 4)),
        ("ROUNDS", 2),
    ):
        monkeypatch.setattr(bench, name, value)


def test_every_tenth_reads_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(bench, "_time_turn", lambda session, turn: float(read.append(turn) or turn))
    nanoseconds = list(bench.read_endless("400"))
    assert read == list(range(40))
    middles = [1.5 + 4 * part for part in range(10)]
    assert nanoseconds == [round(1e9 * middle / 10) for middle in middles]


def test_full_attention_forgets_nothing_until_patience_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fills: list[int] = []
    time_turn = bench._time_turn

    def watch(session: bench.Session, turn: int) -> float:
        seconds = time_turn(session, turn)
        fills.append(session.state.window_fill)
        return seconds

    monkeypatch.setattr(bench, "_time_turn", watch)
    assert len(list(bench.read_with_full_attention("1000"))) == 3
    assert fills == [10, 20, 30, 40]
    assert len(list(bench.read_with_full_attention("0"))) == 1


def test_ratios_are_to_the_second_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [Pause(100 + part, 10 * (part + 1)) for part in range(10)]
    answers = {"read_endless": parts, "read_with_full_attention": [Pause(202, 40)]}
    monkeypatch.setattr(bench, "measure_paused", lambda module, function, *_: answers[function])
    places: dict[str, int] = {}
    time_in_turn = bench.time_in_turn

    def watch(works: dict[str, Work], rounds: int) -> dict[str, Times]:
        sessions = {name: work.prepare() for name, work in works.items() if work.prepare}
        places.update(
            {name: session.state.counters.tokens_seen for name, session in sessions.items()}
        )
        return time_in_turn(works, rounds=rounds)

    monkeypatch.setattr(bench, "time_in_turn", watch)
    stream, coming_back = bench.run_live(CPU, measure_machine(CPU))
    *tenths, full = stream.rows
    assert [row.context for row in tenths] == [100_000 * (part + 1) for part in range(10)]
    assert tenths[1].memory_ratio == tenths[1].time_ratio == 1.0
    assert tenths[9].memory_ratio == 109 / 101
    assert tenths[9].time_ratio == 5.0
    assert (full.context, full.memory_ratio, full.time_ratio) == (10, 2.0, 2.0)
    opening, kept, beside, reopened = coming_back.rows
    assert [kept.by, beside.by, reopened.by] == [*places]
    assert len(set(places.values())) == 1
    assert places["never closed"] > 20 * len("> I live in Lisbon.")
    assert opening.time_ratio is kept.time_ratio is None
    assert beside.ratio_to == reopened.ratio_to == "never closed"


def test_without_the_shipped_model_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "SHIPPED", tmp_path / "none")
    with pytest.raises(ValueError, match="call it in a checkout"):
        bench.run_live(CPU, measure_machine(CPU))
