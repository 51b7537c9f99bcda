"""Every pass that a schedule runs, by its sizes; torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from slowwave.model.config import ModelConfig, Part
from slowwave.sleep.config import SleepConfig

if TYPE_CHECKING:
    from slowwave.sleep.schedule import Segment


class Pass(NamedTuple):
    """num_tokens after `cached` ones that attention holds; evicts, part: as for `HybridLM.run`."""

    num_tokens: int
    cached: int
    evicts: bool
    part: Part


class Fill(NamedTuple):
    """Tokens that attention holds: those of the window, and those carried from earlier ones."""

    window: int
    carried: int = 0


def list_passes(
    model: ModelConfig,
    segments: Sequence[Segment],
    sleep: SleepConfig,
    fill: Fill,
    *,
    keep_hidden: bool,
) -> Iterator[Pass]:
    """The passes over one stream in order, questions aside.

    fill: what is held before the first segment; a sleep reads the whole window again, also what
    was in it before. keep_hidden: as for `unroll`, False if nobody reads what pass 1 puts out for
    windows without loss.
    """
    for segment, held in zip(segments, follow_fill(segments, sleep, fill), strict=False):
        num_tokens = segment.stop - segment.start
        cached, window = held.window + held.carried, held.window + num_tokens
        read = keep_hidden or segment.scored or not segment.closes
        unread = segment.passes == 1 and not read and sleep.eviction == "all"
        if model.coda:
            yield Pass(num_tokens, cached, False, "trunk")
        yield Pass(num_tokens, cached, unread, "coda" if model.coda else "all")
        for _ in range(2, sleep.wake_passes + 1 if read else 2):
            yield Pass(num_tokens, cached, False, "all")
        for n in range(2, segment.passes + 1):
            ends_here = n == segment.passes and not model.coda
            evicts = ends_here and not sleep.keeps_last_cache
            yield Pass(window, held.carried, evicts, "core")
        if model.coda and segment.passes > 1:
            yield Pass(window, held.carried, sleep.eviction == "all", "coda")


def follow_fill(segments: Sequence[Segment], sleep: SleepConfig, fill: Fill) -> list[Fill]:
    """What is held before every segment, and after the last."""
    fills = [fill]
    for segment in segments:
        window = fills[-1].window + segment.stop - segment.start
        carried = fills[-1].carried
        if segment.closes:
            kept = sleep.sinks + sleep.window - 1 if sleep.eviction == "sliding" else 0
            window, carried = 0, min(kept, window + carried)
        fills.append(Fill(window, carried))
    return fills
