"""The machine's rates: products weigh as much as they take time."""

import pytest
import torch

from slowwave.lab.bench import machine
from slowwave.lab.bench.timing import Times


def test_rate_is_all_work_over_all_time_of_the_faster_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = iter([(1.0, 9.0), (8.0, 4.0)])

    def measured(*_: object, **__: object) -> dict[str, Times]:
        matmul, linear = next(seconds)
        return {"matmul": Times((matmul,)), "linear": Times((linear,))}

    monkeypatch.setattr(machine, "time_in_turn", measured)
    shapes = {(2, 3, 4): 1, (5, 6, 7): 2}
    rate = machine.matmul_gflops(shapes, torch.float32, torch.device("cpu"))
    assert rate == pytest.approx((48 + 2 * 420) / (1 + 2 * 4) / 1e9)


def test_this_machine_multiplies_and_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SQUARE", 64)
    monkeypatch.setattr(machine, "COPY_NBYTES", 2**16)
    monkeypatch.setattr(machine, "ROUNDS", 1)
    measured = machine.measure_machine(torch.device("cpu"))
    assert measured.float32_gflops > 0
    assert measured.bfloat16_gflops > 0
    assert measured.bandwidth_gbytes > 0
