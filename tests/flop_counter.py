"""Torch's own count of FLOPs, and what it does not know."""

from __future__ import annotations

import pytest
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from slowwave.ops import linear, native, rule_chunks


class Counter(FlopCounterMode):
    """Torch's counter, and the triangular solves that it does not know.

    Every product is made one that torch counts: no fused sums, no fused kernel.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(display=False)
        self.solves = 0
        solve = linear.solve_unit_lower

        def counted_solve(system: Tensor, wanted: Tensor, *, transpose: bool = False) -> Tensor:
            self.solves += (system.shape[-1] - 1) * wanted.numel()
            return solve(system, wanted, transpose=transpose)

        monkeypatch.setattr(linear, "FEW_ROWS", 0)
        monkeypatch.setattr(rule_chunks, "solve_unit_lower", counted_solve)
        monkeypatch.setattr(native, "is_ready", lambda: False)

    @property
    def total(self) -> int:
        return self.get_total_flops() + self.solves
