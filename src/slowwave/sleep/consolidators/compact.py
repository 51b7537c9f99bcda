"""A sleep that keeps few keys and values of a window, for models with attention.

The window is read again, as if it were repeated right after itself, or something else is replayed
there. The queries of that reading say what is looked up (`entry_choice.py` has what follows); keys
and values of the window make room for few, which stand beside those of earlier windows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from slowwave.entries import Entries
from slowwave.models.backbone import HybridLM, Run
from slowwave.models.config import ModelConfig
from slowwave.models.flops import Pass
from slowwave.models.mixers.mixer import Watch
from slowwave.sleep.config import Compact, SleepConfig
from slowwave.sleep.consolidators.candidates import (
    find_real,
    list_candidates,
    list_readings,
    put_entries,
    turn_stream,
)
from slowwave.sleep.consolidators.consolidator import Consolidator, Replay
from slowwave.sleep.consolidators.entry_choice import (
    LEAST_ENTRIES,
    Candidates,
    Reading,
    choose_entries,
)
from slowwave.sleep.consolidators.passes import PassesConsolidator
from slowwave.sleep.positions import count_positions
from slowwave.sleep.surprise import measure_surprise
from slowwave.state import LayerState, MemoryState

NEWEST = 32
"""Tokens at the end of a window whose queries `queries = "recent"` means."""


class CompactConsolidator(Consolidator):
    """Attention layers keep few entries of the window; recurrent ones sleep as `others` says."""

    keeps_writes = True
    keeps_cache = True

    def __init__(self, sleep: SleepConfig) -> None:
        super().__init__(sleep)
        assert isinstance(sleep.consolidator, Compact)
        self.config = sleep.consolidator
        self.capacity = round(self.config.capacity * sleep.window)
        self.passes = PassesConsolidator(sleep) if self.config.others == "passes" else None

    def reads_hidden(self, sizes: ModelConfig) -> bool:
        """See `Consolidator.reads_hidden`."""
        return self.passes is not None and self.passes.reads_hidden(sizes)

    def plan(self, sizes: ModelConfig, window: int, *, carried: int, passes: int) -> list[Pass]:
        """See `Consolidator.plan`: products of the choice and of fits come on top."""
        planned: list[Pass] = []
        if self.passes is not None:
            planned += self.passes.plan(sizes, window, carried=carried, passes=passes)
        if self.config.score == "recent":
            return planned
        rereads = self.config.queries == "reread"
        first = Pass(window, carried + (window if rereads else 0), is_read=False)
        again = first._replace(cached=self.carries(window, carried))
        return planned + [first] + [again] * (passes - 2 if rereads else 0)

    def carries(self, window: int, carried: int) -> int:
        """See `Consolidator.carries`."""
        kept = max(round(self.config.ratio * window), LEAST_ENTRIES)
        return min(carried + kept, self.capacity)

    def position(self, read: MemoryState) -> Tensor | None:
        """See `Consolidator.position`."""
        return count_positions(read).clamp(max=self.config.span)

    def write(
        self,
        model: HybridLM,
        read: MemoryState,
        passes: int,
        run: Run,
        replay: Replay | None = None,
    ) -> Generator[MemoryState, None, tuple[LayerState, ...]]:
        """See `Consolidator.write`."""
        slept, begun = read, read
        if self.passes is not None:
            layers = yield from self.passes.write(model, read, passes, run)
            slept = dataclasses.replace(read, layers=layers)
        streams = [list_candidates(model, read, i) for i in range(read.batch_size)]
        asked: list[list[list[Reading]]] = [[[] for _ in heads] for heads in streams]
        kept: list[list[Entries]] = []
        for _ in range(passes - 1):
            self._ask(model, read, begun, replay, asked, kept)
            kept = [self._choose(*each) for each in zip(streams, asked, strict=True)]
            begun = put_entries(model, read.evict(), kept)
            begun = dataclasses.replace(begun, position=count_positions(read))
            if self.passes is None:
                yield begun
        excess = (count_positions(read) - self.config.span).clamp(min=0).tolist()
        turned = [turn_stream(model, *each) for each in zip(kept, excess, strict=True)]
        return put_entries(model, slept, turned).layers

    def _choose(
        self, heads: Sequence[Candidates], asked: Sequence[Sequence[Reading]]
    ) -> list[Entries]:
        """Entries of all heads of a stream; those it had if its window is all padding."""
        if not len(heads[0].new.place):
            return [head.old for head in heads]
        return choose_entries(heads, asked, self.config, self.capacity)

    def _ask(
        self,
        model: HybridLM,
        read: MemoryState,
        begun: MemoryState,
        replay: Replay | None,
        asked: Sequence[Sequence[list[Reading]]],
        kept: Sequence[Sequence[Entries]],
    ) -> None:
        """Reads once more, from `begun`, and adds to what each head was asked.

        kept: what each stream's heads have in `begun`; none before the first further reading.
        """
        if self.config.score == "recent":
            return
        rereads, watch = self.config.queries == "reread", Watch()
        replay = replay if rereads and replay is not None else self._replay_window(model, read)
        # They come back in lists, which compiled and checkpointed runs do not fill.
        model.run(
            model.embed(replay.tokens),
            begun if rereads else read.evict(),
            mask=replay.mask,
            watch=watch,
        )
        for i, heads in enumerate(asked):
            real, weights = find_real(replay.tokens, replay.mask)[i], replay.surprise[i].sqrt()
            seen = kept[i] if kept and rereads else [None] * len(heads)
            made = list_readings(model, watch, real, weights, i, of_window=not rereads, seen=seen)
            for readings, reading in zip(heads, made, strict=True):
                readings.append(reading)

    def _replay_window(self, model: HybridLM, read: MemoryState) -> Replay:
        """The window itself, and what its queries weigh."""
        tokens, mask = read.window_tokens, read.window_mask
        surprise = find_real(tokens, mask).to(torch.float32)
        if self.config.surprise:
            surprise = surprise * measure_surprise(model, read.window_hidden, tokens).detach()
        if self.config.queries == "recent":
            surprise[:, :-NEWEST] = 0
        return Replay(tokens, mask, surprise)
