"""When and how a model sleeps; torch-free."""

from __future__ import annotations

import dataclasses
from typing import Literal

from slowwave.config import Config

Eviction = Literal["all", "sliding", "none"]
KeptCache = Literal["last_pass", "first_pass"]
BetweenPasses = Literal["carry", "reset", "frozen"]
Recirculate = Literal["hidden", "normed", "normed+embedding", "embedding"]
LossWindows = Literal["paper", "sleep_after"]

MOST_PASSES = 64
"""Passes of a sleep, and of what predicts: those that a file from elsewhere asks for must end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SleepConfig(Config):
    """A window of L tokens, read N times when it is full, then evicted."""

    window: int = 20
    """Window length L in tokens."""
    passes: int = 1
    """N, all passes counted; 1 is plain eviction."""
    eviction: Eviction = "all"
    """What attention loses after a sleep: all of the window; under sliding all but the newest L - 1
    tokens, so that every token sees itself and L - 1 before it (section 1.4 of the paper); none
    never evicts nor sleeps, whatever the window, and is full attention."""
    kept_cache: KeptCache = "last_pass"
    """Under sliding eviction, the pass whose keys and values stay."""
    sinks: int = 0
    """Under sliding eviction, the first tokens of the stream (padding included) that stay in the
    cache for ever (attention sinks, arXiv 2309.17453). They keep the positions they were read at,
    not places in the cache: a key is then turned once, when it is read, however a stream is cut."""
    between_passes: BetweenPasses = "carry"
    """Fast weights that pass n starts from: those that pass n-1 left (carry, the paper), those that
    the window began with (reset), or those that pass 1 left (frozen). The last two are controls:
    passes 2 to N-1 then leave nothing but their hidden states."""
    wake_passes: int = 1
    """How often what predicts is read: open windows, windows with loss and forked questions. The
    looping-at-wake baseline: pass m starts with the window or question again, from the state at its
    start, and reads what pass m-1 put out (see `recirculate`); logits come from the last pass."""
    recirculate: Recirculate = "hidden"
    """What pass n reads: the raw hidden states of pass n-1 (the paper), those states normed, normed
    with the embeddings added again, or the embeddings alone (a control without recirculation)."""
    loss_windows: LossWindows = "paper"
    """What becomes in training of a full window with loss: paper gives it one pass and evicts it,
    sleep_after scores it on pass 1 and then sleeps on it as on any other, as reading a stream does.
    Text, where every window has loss, needs sleep_after."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"sleep.window is {self.window!r:.80}; use 1 or more tokens")
        if not 1 <= self.passes <= MOST_PASSES:
            raise ValueError(
                f"sleep.passes is {self.passes!r:.80}; use 1 (plain eviction) to {MOST_PASSES}"
            )
        if not 1 <= self.wake_passes <= MOST_PASSES:
            raise ValueError(
                f"sleep.wake_passes is {self.wake_passes!r:.80}; use 1 to {MOST_PASSES}"
            )
        if self.eviction == "none" and self.passes > 1:
            raise ValueError(
                f"sleep.passes is {self.passes} with sleep.eviction none, which never sleeps; "
                "use 1 pass, or another eviction"
            )
        if self.sinks < 0:
            raise ValueError(f"sleep.sinks is {self.sinks!r:.80}; use 0 or more tokens")
        for name, default in (("sinks", 0), ("kept_cache", "last_pass")):
            value = getattr(self, name)
            if self.eviction != "sliding" and value != default:
                raise ValueError(
                    f"sleep.{name} is {value!s:.80} with sleep.eviction {self.eviction}, which "
                    f"keeps no cache; use {default}, or eviction sliding"
                )

    @property
    def keeps_last_cache(self) -> bool:
        """Whether keys and values of a window's last pass outlive its sleep."""
        return self.eviction == "sliding" and self.kept_cache == "last_pass"
