"""Benchmarks compare like with like; their figures are a recorded run's business."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from slowwave import cli
from slowwave.bench import large, machine, memory, op, peers, read, sleep, train, wake
from slowwave.bench.models import MODEL
from slowwave.bench.run import BENCHMARKS, NEEDS_GPU
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.schedule import cut_stream
from slowwave.training.memory_model import predict_memory


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_model = dataclasses.replace(wake.MODEL, width=32, mlp_hidden=48, key_dim=8, value_dim=8)
    small_cases = tuple(
        dataclasses.replace(case, B=2, T=min(case.T, 9), K=8, V=8) for case in op.CASES
    )
    settings: dict[Any, dict[str, Any]] = {
        machine: {"SQUARE": 32, "COPY_NBYTES": 2**12, "ROUNDS": 1},
        op: {"CASES": small_cases, "ROUNDS": 2, "WARMUPS": 1},
        read: {"WINDOW": 16, "STREAM_TOKENS": 70, "CONTEXTS": (8, 64), "GENERATED": 3, "ROUNDS": 2},
        sleep: {"WINDOW": 16, "ROUNDS": 2},
        wake: {"WINDOW": 16, "FILL": 4, "NUM_WINDOWS": (1, 3), "TOKENS_TIMED": 3, "ROUNDS": 2},
        train: {"BATCH": 2, "ROUNDS": 1, "WARMUPS": 1, "measure_extra_nbytes": lambda *_: 7},
    }
    for module, values in settings.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
        if hasattr(module, "MODEL"):
            monkeypatch.setattr(module, "MODEL", small_model)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(op, "measure_extra_nbytes", lambda *_: 7)
    monkeypatch.setattr("slowwave.training.allocator.keep_freed_memory", lambda: True)


def rows(name: str) -> list[Any]:
    rates = machine.measure_machine(torch.device("cpu"))
    sections = BENCHMARKS[name](torch.device("cpu"), rates)
    return [row for section in sections for row in section.rows]


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name not in NEEDS_GPU])
def test_command(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["bench", name, "--out", str(tmp_path), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / f"{name}.json").read_text())
    assert printed["name"] == name
    assert (tmp_path / "bench.png").exists() == (name != "wake")
    assert printed["environment"]["torch"] == torch.__version__
    cli.main(["bench", name])
    assert all(section["title"] in capsys.readouterr().out for section in printed["sections"][:1])


def test_unknown_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["bench", "speed"])
    assert exit_.value.code == 2
    assert "use one of op, read, wake, sleep, train, large, all" in capsys.readouterr().err


def test_large_needs_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["bench", "large"])
    assert exit_.value.code == 2
    assert "needs a GPU" in capsys.readouterr().err


def test_large_takes_the_best_batch_and_compares_with_the_paper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (
        ("MODEL", dataclasses.replace(large.MODEL, width=32, layers=("gdn", "attn"), vocab_size=9)),
        ("LENGTH", 50),
        ("WINDOWS", (10, 20)),
        ("BATCHES", (1, 2)),
        ("SQUARE", 16),
        ("ROUNDS", 1),
        ("PAPER_TOKENS_PER_SECOND", {(10, 1): 1000}),
    ):
        monkeypatch.setattr(large, name, value)
    section = large.measure_large(torch.device("cpu"))
    assert [row.what for row in section.rows[:2]] == ["window 10, N = 1", "window 10, N = 2"]
    assert [row.ratio is None for row in section.rows] == [False] + 5 * [True]
    assert all(row.gflops for row in section.rows)


def test_op_compares_every_worker_with_the_peer() -> None:
    measured = rows("op")
    workers = {"slowwave native", "slowwave chunk", "transformers"}
    forward = [row for row in measured if row.what == "forward"]
    assert len(forward) == len(op.CASES) * len(workers)
    assert {row.by for row in measured} == workers
    assert all(row.ratio == 1.0 for row in measured if row.by == "transformers")
    assert all(row.milliseconds > 0 and row.gflops > 0 for row in measured)


@pytest.mark.parametrize("name", ["op", "read"])
def test_a_peer_that_is_not_installed_is_left_out_and_named(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "has_transformers", lambda: False)
    monkeypatch.setenv("COLUMNS", "200")
    cli.main(["bench", name])
    printed = capsys.readouterr().out
    assert "pip install slowwave[bench]" in printed
    assert "transformers hybrid" not in printed


def test_read_times_generation_inside_the_window() -> None:
    measured = rows("read")
    by_work = {(row.what, row.context, row.by) for row in measured}
    assert ("read 70 tokens", 0, "slowwave, N = 4") in by_work
    assert ("a token", 70, "transformers hybrid") in by_work
    assert ("the next 16", 64, "full attention") in by_work


def test_wake_states_differ_in_what_they_read_and_in_nothing_else() -> None:
    measured = rows("wake")
    assert [row.by for row in measured] == [
        "N = 1, 20 tokens before",
        "N = 1, 52 tokens before",
        "N = 4, 20 tokens before",
        "N = 4, 52 tokens before",
    ]
    assert [row.context for row in measured] == [20, 52, 20, 52]
    assert len({row.nbytes for row in measured}) == 1
    assert measured[0].ratio == 1.0


def test_sleep_is_measured_in_reads_of_its_window() -> None:
    measured = rows("sleep")
    assert [row.ratio_to for row in measured] == ["1 reads", "1 reads", "2 reads", "3 reads"]
    assert measured[0].ratio == 1.0


def test_train_counts_the_flops_of_its_passes() -> None:
    one, four, optimizer, *memory_rows = rows("train")
    flops = [row.gflops * row.milliseconds for row in (one, four)]
    assert 4 < flops[1] / flops[0] < 5
    assert optimizer.gflops is None
    assert four.ratio_to == "N = 1, by FLOPs"
    assert [row.by for row in memory_rows] == 2 * ["all kept", "checkpointed"]


@pytest.mark.skipif(not memory.STATUS.exists(), reason="the system does not tell")
@pytest.mark.parametrize("checkpoint", [False, True])
def test_the_memory_model_predicts_the_peak_of_a_step(checkpoint: bool) -> None:
    """Without the small sizes of the other tests: a fresh process knows nothing of them."""
    measured = memory.measure_extra_nbytes(train.__name__, "memory_work", "4", str(checkpoint))
    predicted = predict_memory(
        MODEL,
        cut_stream(97, SleepConfig(window=24, passes=4)),
        rows=32,
        num_parameters=3_400_000,
        bfloat16=True,
        checkpoint_activations=checkpoint,
    )
    assert measured == pytest.approx(predicted.kept + predicted.recomputed, rel=0.25)


def make_buffers(count: str) -> Any:
    """Work that holds `count` MiB at once."""
    return lambda: torch.ones(int(count) * 2**20, dtype=torch.uint8)


@pytest.mark.skipif(not memory.STATUS.exists(), reason="the system does not tell")
def test_memory_is_what_one_call_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    small, large = (
        memory.measure_extra_nbytes("test_run", "make_buffers", count) for count in ("1", "65")
    )
    assert small is not None and large is not None
    assert 60 * 2**20 < large - small < 70 * 2**20


def test_memory_is_not_known_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "missing")
    assert memory.measure_extra_nbytes("test_run", "make_buffers", "1") is None
