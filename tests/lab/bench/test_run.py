"""Benchmarks compare like with like; their figures are a recorded run's business."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from slowwave import cli
from slowwave.lab.bench import kills, measure, models, op, read, serve, session, sleep_wake, train
from slowwave.lab.bench.measure import Pause, Times, Work, measure_machine
from slowwave.lab.bench.report import Row, Section
from slowwave.lab.bench.run import BENCHMARKS, NEEDS_GPU
from slowwave.models.flops import Pass, pass_flops

CPU = torch.device("cpu")
SMALL_MODEL = dataclasses.replace(models.MODEL, width=32, mlp_hidden=48, key_dim=8, value_dim=8)
SMALL_CASES = tuple(dataclasses.replace(case, B=2, T=min(case.T, 9), K=8, V=8) for case in op.CASES)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[Any, dict[str, Any]] = {
        measure: {"LEAST_SECONDS": 0.0, "SQUARE": 32, "COPY_NBYTES": 2**12, "MACHINE_ROUNDS": 1},
        op: {"CASES": SMALL_CASES, "ROUNDS": 2, "WARMUPS": 1, "measure_extra_nbytes": _seven},
        read: {"WINDOW": 16, "STREAMS": (70,), "CONTEXTS": (8, 64), "GENERATED": 3, "ROUNDS": 2},
        sleep_wake: {
            "WINDOW": 16,
            "FILL": 4,
            "NUM_WINDOWS": (1, 3),
            "TOKENS_TIMED": 3,
            "ROUNDS": 2,
        },
        session: {"ROUNDS": 2},
        kills: {"KILLS": 2},
        serve: {
            "SECONDS": 0.5,
            "SESSIONS": 2,
            "PROBES": 2,
            "BLOCK": 1,
            "CHECKERS": 1,
            "WINDOW": 16,
        },
        train: {"BATCH": 2, "ROUNDS": 1, "WARMUPS": 1, "measure_extra_nbytes": _seven},
    }
    for module, values in settings.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
        if hasattr(module, "MODEL"):
            monkeypatch.setattr(module, "MODEL", SMALL_MODEL)
    monkeypatch.setattr(sleep_wake, "measure_paused", lambda *_: [Pause(7, 0), Pause(14, 0)])
    # It reads the shipped model, and has tests of its own.
    living = Section(title="live", rows=[Row(what="reading a token", by="a session")])
    monkeypatch.setitem(BENCHMARKS, "live", lambda *_: [living])
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(train, "keep_freed_memory", lambda: True)


def _seven(*_: object) -> int:
    return 7


def rows(name: str) -> list[Any]:
    rates = measure_machine(CPU)
    sections = BENCHMARKS[name](CPU, rates)
    return [row for section in sections for row in section.rows]


def refuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["bench", *arguments])
    assert exit_.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name not in NEEDS_GPU])
def test_command(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["bench", name, "--out", str(tmp_path), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / f"{name}.json").read_text())
    assert printed["name"] == name
    unseen = ("store", "kills", "live", "serve")
    assert (tmp_path / "bench.png").exists() == (name not in unseen)
    assert printed["environment"]["torch"] == torch.__version__
    assert printed["environment"]["peers"]["transformers"] is not None
    cli.main(["bench", name])
    assert printed["sections"][0]["title"] in capsys.readouterr().out


def test_mistakes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    known = "op, read, wake, sleep, train, store, kills, live, serve, large, all"
    assert f"use one of {known}" in refuse(["speed"], capsys)
    unknown = refuse(["op", "--workers", "triton"], capsys)
    assert "'triton' cannot be measured; there are native, chunk, reference," in unknown
    assert "fla (fla needs a CUDA device" in unknown
    assert "'fla' cannot be measured" in refuse(["op", "--workers", "chunk", "fla"], capsys)
    assert "five numbers of 1 or more" in refuse(["op", "--shape", "2", "512", "4"], capsys)
    assert "five numbers" in refuse(["op", "--shape", "2", "0", "4", "8", "8"], capsys)
    assert "for bench serve, not for op" in refuse(["op", "--seconds", "3"], capsys)
    assert "not for bench sleep" in refuse(["sleep", "--workers", "chunk"], capsys)


def test_op_of_one_shape_and_some_workers(capsys: pytest.CaptureFixture[str]) -> None:
    shape = ["--shape", "1", "5", "2", "8", "6"]
    cli.main(["bench", "op", *shape, "--workers", "chunk", "reference", "--json"])
    (section,) = json.loads(capsys.readouterr().out)["sections"]
    assert section["notes"][0].startswith("B 1, T 5, H 2, K 8, V 6")
    assert [row["by"] for row in section["rows"]] == 2 * ["chunk", "reference"]
    assert all(row["time_ratio"] is None for row in section["rows"])


def test_op_compares_every_worker_with_the_peer() -> None:
    measured = rows("op")
    workers = ["native", "chunk", "reference", "transformers chunk", "transformers recurrent"]
    assert [row.by for row in measured] == 2 * len(op.CASES) * workers
    assert {row.ratio_to for row in measured} == {"transformers chunk"}
    assert all(row.memory_ratio == 1.0 for row in measured)
    assert all(row.gflops > 0 and row.bandwidth_share > 0 for row in measured)
    forward, backward = measured[0], measured[5]
    flops = [row.gflops * row.milliseconds for row in (forward, backward)]
    assert flops[1] == pytest.approx(3 * flops[0])


@pytest.mark.parametrize("name", ["op", "read"])
def test_a_peer_that_is_not_installed_is_left_out_and_named(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models, "transformers_obstacle", lambda: "pip install -e '.[bench]'")
    monkeypatch.setenv("COLUMNS", "250")
    cli.main(["bench", name])
    printed = capsys.readouterr().out
    assert "pip install -e '.[bench]'" in printed
    assert "transformers" not in printed


def test_read_compares_the_same_work() -> None:
    measured = rows("read")
    by_work = {(row.what, row.context, row.by): row for row in measured}
    one, four, peer = (
        by_work["read 70 tokens", None, by]
        for by in ("slowwave, N = 1", "slowwave, N = 4", "transformers hybrid")
    )
    flops = {row.by: row.gflops * row.milliseconds * 1e6 for row in (one, four, peer)}
    assert flops["transformers hybrid"] > flops["slowwave, N = 1"]
    assert flops["slowwave, N = 4"] > 3 * flops["slowwave, N = 1"]
    generated = [row for row in measured if (row.what, row.context) == ("a token", 78)]
    assert len(generated) == 3
    growing = {(row.what, row.context) for row in measured if row.ratio_to == "full attention"}
    assert growing == {(w, c) for w in ("the next 16", "a token") for c in (8, 64)}


@pytest.mark.parametrize(
    ("ratios", "crossing"),
    [
        ({1: 0.5, 2: 0.4}, "at all of them, from 1 tokens on"),
        ({1: 2.0, 2: 0.9, 4: 1.1, 8: 0.5}, "from 8 tokens on"),
        ({1: 0.5, 2: 1.5}, "at none of them"),
    ],
)
def test_a_crossing_is_where_it_stays_crossed(ratios: dict[int, float], crossing: str) -> None:
    assert read._crossing(ratios) == crossing


def test_wake_states_differ_in_what_they_read_and_in_nothing_else() -> None:
    measured = rows("wake")
    awake, resident = measured[:4], measured[4:]
    assert [row.context for row in awake] == [20, 52, 20, 52]
    assert len({row.nbytes for row in awake}) == 1
    assert {row.ratio_to for row in awake} == {"N = 1, 20 tokens"}
    assert [row.memory_ratio for row in resident] == [1.0, 2.0, 1.0, 2.0]


def test_streams_pause_where_they_were_told() -> None:
    assert list(sleep_wake.stream_with_pauses("1")) == [16, 48]


def test_sleep_is_measured_in_reads_of_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"a read": 2.0, "sleep, N = 2": 1.0, "sleep, N = 3": 3.0, "sleep, N = 4": 5.0}

    def take_turns(works: dict[str, Work], *, rounds: int) -> dict[str, Times]:
        for work in works.values():
            work.run()
        assert list(works)[1:] == list(seconds)[1:]
        return dict(zip(works, (Times((s,) * rounds) for s in seconds.values()), strict=True))

    monkeypatch.setattr(sleep_wake, "time_in_turn", take_turns)
    measured = rows("sleep")
    assert [row.ratio_to for row in measured] == ["1 reads", "1 reads", "2 reads", "3 reads"]
    flops = [row.gflops * row.milliseconds * 1e6 for row in measured]
    whole, last = (pass_flops(SMALL_MODEL, Pass(16, 0, evicts)) for evicts in (False, True))
    assert flops == pytest.approx([whole, last, whole + last, 2 * whole + last])
    assert [row.time_ratio for row in measured] == [1.0, 1 / 2, 3 / 2 / 2, 5 / 2 / 3]


def test_train_counts_the_flops_of_its_passes() -> None:
    one, four, optimizer, *memory_rows = rows("train")
    flops = [row.gflops * row.milliseconds for row in (one, four)]
    assert 4 < flops[1] / flops[0] < 5
    ratio = four.milliseconds / one.milliseconds
    assert four.time_ratio == pytest.approx(ratio / (flops[1] / flops[0]))
    assert optimizer.gflops is None
    assert [row.by for row in memory_rows] == 2 * ["all kept", "checkpointed"]
    assert [row.memory_ratio for row in memory_rows] == 2 * [None, 1.0]
    assert {row.ratio_to for row in memory_rows} == {None, "all kept"}


def test_large_needs_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "needs a GPU" in refuse(["large"], capsys)


def test_large_takes_the_best_batch_and_compares_with_the_paper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (
        ("LARGE_MODEL", dataclasses.replace(SMALL_MODEL, layers=("gdn", "attn"), vocab_size=9)),
        ("LARGE_LENGTH", 50),
        ("LARGE_WINDOWS", (10, 20)),
        ("LARGE_BATCHES", (1, 2)),
        ("LARGE_SQUARE", 16),
        ("LARGE_ROUNDS", 1),
        ("PAPER_TOKENS_PER_SECOND", {(10, 1): 1000}),
    ):
        monkeypatch.setattr(train, name, value)
    (section,) = train.run_large(CPU, measure_machine(CPU))
    assert [row.what for row in section.rows[:2]] == ["window 10, N = 1", "window 10, N = 2"]
    assert [row.time_ratio is None for row in section.rows] == [False] + 5 * [True]
    assert all(row.gflops for row in section.rows)
