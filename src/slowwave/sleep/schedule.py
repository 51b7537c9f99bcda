"""Where a stream is cut into windows, how many passes each of them gets, and which those are.

One schedule serves training and streaming (section 1.2 of the paper): a full window without loss
gets N passes, a window with loss gets one, or N after it was scored (`sleep.loss_windows`), and the
open tail gets one and stays open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from slowwave.models.config import ModelConfig
from slowwave.models.flops import Pass
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.consolidators.consolidator import find_consolidator

NO_LOSS = -100


class Segment(NamedTuple):
    """Tokens start..stop of a call; after them the window is slept for `passes`, or stays open.

    keeps_hidden: whether the hidden states that pass 1 puts out are wanted. evicts: as for
    `HybridLM.run`, of pass 1: the window is dropped right after, and they are not.
    """

    start: int
    stop: int
    passes: int
    closes: bool
    keeps_hidden: bool = True
    evicts: bool = False


class Fill(NamedTuple):
    """Tokens that attention holds: those of the window, and those carried from earlier ones."""

    window: int
    carried: int = 0


EMPTY = Fill(0)


def cut_stream(
    num_tokens: int, sleep: SleepConfig, *, window_fill: int = 0, keep_hidden: bool = True
) -> list[Segment]:
    """Cuts a stream without loss that meets a window already filled by `window_fill` tokens.

    Where nothing is evicted, all of it is one open window. keep_hidden: whether hidden states are
    wanted of windows that close.
    """
    if sleep.eviction == "none":
        return [Segment(0, num_tokens, 1, False)] if num_tokens else []
    if not 0 <= window_fill < sleep.window:
        raise ValueError(
            f"window_fill is {window_fill} with sleep.window {sleep.window}; sleep a full window "
            "first"
        )
    segments: list[Segment] = []
    start = 0
    while start < num_tokens:
        stop = min(start + sleep.window - (window_fill if start == 0 else 0), num_tokens)
        closes = stop - start + (window_fill if start == 0 else 0) == sleep.window
        passes, keeps = sleep.passes if closes else 1, keep_hidden or not closes
        evicts = passes == 1 and not keeps and sleep.reach is None
        segments.append(Segment(start, stop, passes, closes, keeps, evicts))
        start = stop
    return segments


def cut_training(
    targets: Tensor, sleep: SleepConfig, *, window_fill: int = 0, keep_hidden: bool = False
) -> list[Segment]:
    """Cuts a batch whose targets (B, T) are NO_LOSS where nothing is predicted.

    keep_hidden: whether hidden states of windows without loss are wanted all the same.

    Raises ValueError if loss decides how often a window is read and a full one has loss in some
    rows only: rows share one schedule.
    """
    fill, num_tokens = window_fill, targets.shape[1]
    segments = cut_stream(num_tokens, sleep, window_fill=fill, keep_hidden=keep_hidden)
    return [_note_loss(segment, targets, sleep) for segment in segments]


def _note_loss(segment: Segment, targets: Tensor, sleep: SleepConfig) -> Segment:
    if not segment.closes:
        return segment
    scored = (targets[:, segment.start : segment.stop] != NO_LOSS).any(dim=1)
    if not bool(scored.any()):
        return segment
    kept = segment._replace(keeps_hidden=True, evicts=False)
    if sleep.loss_windows == "sleep_after":
        return kept
    if segment.passes > 1 and not bool(scored.all()):
        raise ValueError(
            f"targets: tokens {segment.start}..{segment.stop} have loss in "
            f"{int(scored.sum())} of {len(scored)} rows; rows of one batch must share a "
            "schedule, so batch rows alike, or set sleep.loss_windows to sleep_after"
        )
    return kept._replace(passes=1)


def list_passes(
    sizes: ModelConfig, segments: Sequence[Segment], sleep: SleepConfig, fill: Fill
) -> Iterator[Pass]:
    """Every pass over one stream in order, questions aside.

    fill: what is held before the first segment; a sleep reads the whole window again, also what
    was in it before.
    """
    for segment, held in zip(segments, follow_fill(segments, sleep, fill), strict=False):
        num_tokens = segment.stop - segment.start
        cached, window = held.window + held.carried, held.window + num_tokens
        consolidator, sleeps = find_consolidator(sleep, segment.passes), segment.passes > 1
        first = Pass(
            num_tokens,
            cached,
            evicts=segment.evicts,
            is_read=segment.keeps_hidden or (sleeps and consolidator.reads_hidden(sizes)),
            keeps_writes=not segment.closes or consolidator.keeps_writes,
            keeps_cache=not segment.closes or consolidator.keeps_cache,
        )
        if sizes.coda:
            is_read = first.is_read or not sleeps
            yield first._replace(evicts=False, part="trunk", is_read=is_read)
            is_read = segment.keeps_hidden
            yield first._replace(part="coda", is_read=is_read, keeps_writes=not sleeps)
        else:
            yield first
        for _ in range(2, sleep.wake_passes + 1 if segment.keeps_hidden else 2):
            yield Pass(num_tokens, cached)
        if segment.closes:
            yield from consolidator.plan(sizes, window, carried=held.carried, passes=segment.passes)


def follow_fill(segments: Sequence[Segment], sleep: SleepConfig, fill: Fill) -> list[Fill]:
    """What is held before every segment, and after the last."""
    fills = [fill]
    for segment in segments:
        window = fills[-1].window + segment.stop - segment.start
        carried = fills[-1].carried
        if segment.closes:
            consolidator = find_consolidator(sleep, segment.passes)
            window, carried = 0, consolidator.carries(window, carried)
        fills.append(Fill(window, carried))
    return fills
