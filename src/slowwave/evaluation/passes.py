"""Every pass that a schedule runs, by its sizes; torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from slowwave.models.config import ModelConfig, Part
from slowwave.sleep.config import SleepConfig

if TYPE_CHECKING:
    from slowwave.sleep.schedule import Segment


class Pass(NamedTuple):
    """num_tokens after `cached` ones that attention holds; evicts, part: as for `HybridLM.run`.

    is_read: whether a loss or a later pass reads what comes out. keeps_writes, keeps_cache: whether
    the fast weights and the keys and values that it makes are read after it. Gradients come back
    through nothing else.
    """

    num_tokens: int
    cached: int
    evicts: bool
    part: Part
    is_read: bool = True
    keeps_writes: bool = True
    keeps_cache: bool = True


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
    slides, has_coda = sleep.eviction == "sliding", model.coda > 0
    outlives = sleep.keeps_last_cache or set(model.layers) != {"attn"}
    rereads = outlives and sleep.recirculate != "embedding"
    for segment, held in zip(segments, follow_fill(segments, sleep, fill), strict=False):
        num_tokens = segment.stop - segment.start
        cached, window = held.window + held.carried, held.window + num_tokens
        scored = keep_hidden or segment.scored or not segment.closes
        sleeps = segment.passes > 1
        kept = not segment.closes or (slides and not (sleeps and sleep.keeps_last_cache))
        evicts = sleep.eviction == "all" and not (scored or sleeps)
        first = Pass(num_tokens, cached, evicts, "all", scored or (sleeps and rereads), True, kept)
        if has_coda:
            yield first._replace(evicts=False, part="trunk", is_read=first.is_read or not sleeps)
            yield first._replace(part="coda", is_read=scored, keeps_writes=not sleeps)
        else:
            yield first
        for _ in range(2, sleep.wake_passes + 1 if scored else 2):
            yield Pass(num_tokens, cached, False, "all")
        for n in range(2, segment.passes + 1):
            ends = n == segment.passes
            kept = ends and sleep.keeps_last_cache
            evicts = ends and not (kept or has_coda)
            is_read = has_coda if ends else rereads
            yield Pass(window, held.carried, evicts, "core", is_read, True, kept)
        if has_coda and sleeps:
            yield Pass(window, held.carried, not slides, "coda", False, True, slides)


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
