"""Where a stream is cut into windows, and how many passes each of them gets.

One schedule serves training and streaming (section 1.2 of the paper): a full window without loss
gets N passes, a window with loss gets one, or N after it was scored (`sleep.loss_windows`), and the
open tail gets one and stays open.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from slowwave.sleep.config import SleepConfig

NO_LOSS = -100


class Segment(NamedTuple):
    """Tokens start..stop of a call; after them the window is slept for `passes`, or stays open.

    scored: whether a window that closes holds tokens with loss, all of it on pass 1.
    """

    start: int
    stop: int
    passes: int
    closes: bool
    scored: bool = False


def cut_stream(num_tokens: int, sleep: SleepConfig, *, window_fill: int = 0) -> list[Segment]:
    """Cuts a stream without loss that meets a window already filled by `window_fill` tokens.

    Where nothing is evicted, all of it is one open window.
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
        segments.append(Segment(start, stop, sleep.passes if closes else 1, closes))
        start = stop
    return segments


def cut_training(targets: Tensor, sleep: SleepConfig, *, window_fill: int = 0) -> list[Segment]:
    """Cuts a batch whose targets (B, T) are NO_LOSS where nothing is predicted.

    Raises ValueError if loss decides how often a window is read and a full one has loss in some
    rows only: rows share one schedule.
    """
    segments = cut_stream(targets.shape[1], sleep, window_fill=window_fill)
    return [_note_loss(segment, targets, sleep) for segment in segments]


def _note_loss(segment: Segment, targets: Tensor, sleep: SleepConfig) -> Segment:
    if not segment.closes:
        return segment
    scored = (targets[:, segment.start : segment.stop] != NO_LOSS).any(dim=1)
    if not bool(scored.any()):
        return segment
    if sleep.loss_windows == "sleep_after":
        return segment._replace(scored=True)
    if segment.passes > 1 and not bool(scored.all()):
        raise ValueError(
            f"targets: tokens {segment.start}..{segment.stop} have loss in "
            f"{int(scored.sum())} of {len(scored)} rows; rows of one batch must share a "
            "schedule, so batch rows alike, or set sleep.loss_windows to sleep_after"
        )
    return segment._replace(passes=1, scored=True)
