"""What every consolidator is, and the simplest one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Generator, Sequence
from typing import NamedTuple

from torch import Tensor

from slowwave.config import import_object
from slowwave.models.backbone import HybridLM, Run
from slowwave.models.config import ModelConfig
from slowwave.models.flops import Pass, pass_flops
from slowwave.sleep.config import SleepConfig
from slowwave.state import LayerState, MemoryState


class Replay(NamedTuple):
    """What a sleep reads again in place of the window.

    tokens: (B, R) int64. mask: (B, R) bool, False is padding; None when nothing is padded.
    surprise: (B, R), how little each token's successor was expected, in nats; 0 for padding, and
    where it does not matter.
    """

    tokens: Tensor
    mask: Tensor | None
    surprise: Tensor


class Consolidator:
    """Writes a window into mid-term memory, as `sleep.consolidator` says.

    A sleep is differentiable, and each of its steps is bounded work.
    """

    keeps_writes: bool
    """Whether what pass 1 wrote into fast weights goes on."""
    keeps_cache: bool
    """Whether keys and values of pass 1 go on."""

    def __init__(self, sleep: SleepConfig) -> None:
        self.slides, self.most_carried = sleep.reach is not None, sleep.most_carried

    def reads_hidden(self, sizes: ModelConfig) -> bool:
        """Whether what goes on depends on the hidden states that pass 1 put out."""
        raise NotImplementedError

    def write(
        self,
        model: HybridLM,
        read: MemoryState,
        passes: int,
        run: Run,
        replay: Replay | None = None,
    ) -> Generator[MemoryState, None, tuple[LayerState, ...]]:
        """Steps of a sleep on the window in `read`, for 2 passes or more.

        replay: what is read again where that is not the window; for a sleep that asks what it reads
        again. Yields the state after each pass but the first, its window evicted. Returns the
        layers to go on with, before anything is evicted from them.
        """
        raise NotImplementedError

    def carries(self, window: int, carried: int) -> int:
        """Keys and values of slept windows that a head of attention has after a sleep on one, on
        average."""
        return min(self.most_carried, window + carried) if self.slides else carried

    def position(self, read: MemoryState) -> Tensor | None:
        """(B,) int64, the rotary position at which the next window begins; None is 0."""
        return read.position

    def plan(self, sizes: ModelConfig, window: int, *, carried: int, passes: int) -> list[Pass]:
        """The passes that `write` runs over a window, beside `carried` tokens of earlier ones."""
        raise NotImplementedError

    def flops(self, sizes: ModelConfig, window: int, *, carried: int = 0, passes: int) -> int:
        """FLOPs of `write` for one row; see `slowwave.models.flops`."""
        plan = self.plan(sizes, window, carried=carried, passes=passes)
        return sum(pass_flops(sizes, each) for each in plan)


class EvictConsolidator(Consolidator):
    """Writes nothing: attention loses the window, and fast weights keep what reading left."""

    keeps_writes = True

    def __init__(self, sleep: SleepConfig) -> None:
        super().__init__(sleep)
        self.keeps_cache = self.slides

    def reads_hidden(self, sizes: ModelConfig) -> bool:
        """See `Consolidator.reads_hidden`."""
        return False

    def write(
        self,
        model: HybridLM,
        read: MemoryState,
        passes: int,
        run: Run,
        replay: Replay | None = None,
    ) -> Generator[MemoryState, None, tuple[LayerState, ...]]:
        """See `Consolidator.write`."""
        yield from ()
        return read.layers

    def plan(self, sizes: ModelConfig, window: int, *, carried: int, passes: int) -> list[Pass]:
        """See `Consolidator.plan`."""
        return []


@functools.cache
def find_consolidator(sleep: SleepConfig, passes: int) -> Consolidator:
    """What sleeps as the settings say; one pass is plain eviction, whatever they say."""
    if passes == 1:
        return EvictConsolidator(sleep)
    return import_object(sleep.consolidator.path, Consolidator)(sleep)


def noted_start(read: MemoryState) -> tuple[LayerState | None, ...]:
    """The recurrent layers as they were when the window opened, None for others.

    Raises ValueError if that was not noted.
    """
    if not read.window_start:
        raise ValueError(
            "the window was read without noting the state it began with, to which its sleep "
            "returns; read it with read_stream, unroll or read_awake"
        )
    return read.window_start


def with_midterm(state: MemoryState, others: Sequence[LayerState | None]) -> MemoryState:
    """The state with the mid-term memory of others, where there are any."""
    layers = (
        layer if other is None else layer.with_midterm(other)
        for layer, other in zip(state.layers, others, strict=True)
    )
    return dataclasses.replace(state, layers=tuple(layers))
