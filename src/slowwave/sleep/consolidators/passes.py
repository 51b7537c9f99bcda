"""The paper's sleep (Algorithm 1): passes 2..N over the window's hidden states.

Pass n starts with a zero convolution tail and an attention cache without the window, and reads the
hidden states that pass n-1 put out. A prelude stays as pass 1 left it; a coda returns to the
window's start and reads what the last pass put out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator

from torch import Tensor

from slowwave.models.backbone import HybridLM, Run
from slowwave.models.config import ModelConfig
from slowwave.models.flops import Pass
from slowwave.models.mixers.mixer import find_mixer
from slowwave.sleep.config import Recirculate, SleepConfig
from slowwave.sleep.consolidators.consolidator import (
    Consolidator,
    Replay,
    noted_start,
    with_midterm,
)
from slowwave.state import LayerState, MemoryState


class PassesConsolidator(Consolidator):
    """N passes, each writing into the fast weights."""

    def __init__(self, sleep: SleepConfig) -> None:
        super().__init__(sleep)
        self.config = sleep.looping
        self.keeps_last_cache = self.slides and self.config.kept_cache == "last_pass"
        self.keeps_cache = self.slides and not self.keeps_last_cache
        self.keeps_writes = self.config.between_passes != "reset"

    def reads_hidden(self, sizes: ModelConfig) -> bool:
        """See `Consolidator.reads_hidden`."""
        outlives = self.keeps_last_cache or any(find_mixer(i).has_midterm for i in sizes.layers)
        return outlives and self.config.recirculate != "embedding"

    def plan(self, sizes: ModelConfig, window: int, *, carried: int, passes: int) -> list[Pass]:
        """See `Consolidator.plan`: N - 1 of what sleep loops, then a coda's only one."""
        looped = Pass(
            window,
            carried,
            part=sizes.looped_part,
            is_read=self.reads_hidden(sizes),
            keeps_cache=False,
        )
        last = looped._replace(
            evicts=not self.keeps_last_cache and not sizes.coda,
            is_read=sizes.coda > 0,
            keeps_cache=self.keeps_last_cache,
        )
        planned = [looped] * (passes - 2) + [last]
        if sizes.coda:
            slides = self.slides
            coda = Pass(window, carried, not slides, "coda", is_read=False, keeps_cache=slides)
            planned.append(coda)
        return planned

    def write(
        self,
        model: HybridLM,
        read: MemoryState,
        passes: int,
        run: Run,
        replay: Replay | None = None,
    ) -> Generator[MemoryState, None, tuple[LayerState, ...]]:
        """See `Consolidator.write`."""
        hidden, mask, tokens = read.window_hidden, read.window_mask, read.window_tokens
        start = slept = read.evict()
        if self.config.between_passes == "reset":
            start = with_midterm(start, noted_start(read))
        plan = self.plan(model.config, read.window_fill, carried=read.num_carried, passes=passes)
        for n, each in enumerate(plan[: passes - 1], start=2):
            given = reread(model, hidden, tokens, self.config.recirculate)
            # One name for both states: the pass's keys and values are freed before the next runs.
            before = slept if self.config.between_passes == "carry" else start
            hidden, slept = run(given, before, mask=mask, evicts=each.evicts, part=each.part)
            for coda in plan[passes - 1 :] if n == passes else []:
                begun = _reopen_coda(model, slept, read)
                _, slept = run(hidden, begun, mask=mask, evicts=coda.evicts, part=coda.part)
            if n < passes or not self.slides:
                slept = slept.evict()
            yield slept.evict()
        return self._keep_layers(model, read, slept) if self.slides else slept.layers

    def _keep_layers(
        self, model: HybridLM, read: MemoryState, slept: MemoryState
    ) -> tuple[LayerState, ...]:
        """What sliding eviction keeps of the states after pass 1 and after the last one.

        Pass 1 is the one whose convolution tails go on; the coda's are those of its only reading.
        """
        layers = list(read.layers)
        for i in range(model.config.prelude, len(layers)):
            old, new = read.layers[i], slept.layers[i]
            if old.per_token:
                layers[i] = new if self.keeps_last_cache else old
            elif i in model.config.span("coda"):
                layers[i] = new
            else:
                layers[i] = old.with_midterm(new)
        return tuple(layers)


def reread(model: HybridLM, hidden: Tensor, tokens: Tensor, recirculate: Recirculate) -> Tensor:
    """What the next pass reads; section 1.2 of the paper says the raw hidden states.

    Raises ValueError if it should read embeddings, but a prelude has read them.
    """
    if model.config.prelude and recirculate in ("normed+embedding", "embedding"):
        raise ValueError(
            f"sleep.consolidator.recirculate is {recirculate} with model.prelude "
            f"{model.config.prelude}, and looped blocks after a prelude read no embeddings; use "
            "hidden or normed"
        )
    match recirculate:
        case "hidden":
            return hidden
        case "normed":
            return model.final_norm(hidden)
        case "normed+embedding":
            return model.final_norm(hidden) + model.embed(tokens)
        case "embedding":
            return model.embed(tokens)


def _reopen_coda(model: HybridLM, slept: MemoryState, read: MemoryState) -> MemoryState:
    """The coda as it was when the window opened, its convolution tails included."""
    layers = list(slept.layers)
    for i in model.config.span("coda"):
        layers[i] = noted_start(read)[i] or layers[i]
    return dataclasses.replace(slept, layers=tuple(layers))
