"""Fast weights of a window in closed form, instead of by passes.

N passes over keys and values that stay as they are, those of pass 1, tend to a ridge regression of
the values on the keys; it is solved at once. The window is read once more from its start, so that
every layer meets what it met on pass 1; hidden states do not move, and no N beyond 2 helps.
"""

from __future__ import annotations

from collections.abc import Generator

from slowwave.models.backbone import HybridLM, Run
from slowwave.models.config import ModelConfig
from slowwave.models.flops import Pass
from slowwave.sleep.config import Ridge, SleepConfig
from slowwave.sleep.consolidators.consolidator import (
    Consolidator,
    Replay,
    noted_start,
    with_midterm,
)
from slowwave.state import LayerState, MemoryState


class RidgeConsolidator(Consolidator):
    """One further reading, after which every recurrent layer holds the fit of its own pairs."""

    keeps_writes = False

    def __init__(self, sleep: SleepConfig) -> None:
        super().__init__(sleep)
        assert isinstance(sleep.consolidator, Ridge)
        self.penalty = sleep.consolidator.penalty
        self.keeps_cache = self.slides

    def reads_hidden(self, sizes: ModelConfig) -> bool:
        """See `Consolidator.reads_hidden`."""
        return False

    def plan(self, sizes: ModelConfig, window: int, *, carried: int, passes: int) -> list[Pass]:
        """See `Consolidator.plan`."""
        evicts, ridge = True, self.penalty
        return [Pass(window, carried, evicts, is_read=False, keeps_cache=False, ridge=ridge)]

    def write(
        self,
        model: HybridLM,
        read: MemoryState,
        passes: int,
        run: Run,
        replay: Replay | None = None,
    ) -> Generator[MemoryState, None, tuple[LayerState, ...]]:
        """See `Consolidator.write`."""
        begun = with_midterm(read.evict(), noted_start(read))
        embedded = model.embed(read.window_tokens)
        _, fitted = run(embedded, begun, mask=read.window_mask, evicts=True, ridge=self.penalty)
        slept = with_midterm(read, fitted.layers)
        yield slept.evict()
        return slept.layers
