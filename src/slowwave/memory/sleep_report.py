"""What a sleep did, how a gate judged it, and which tokens of the ledger it consolidated."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from pydantic import ConfigDict
from torch import Tensor

from slowwave.config import Many
from slowwave.memory.ledger import Entry
from slowwave.state import MemoryState
from slowwave.storage.memory_file import MOST_TOKENS

Outcome = Literal["accepted", "rejected", "accepted_unmeasured"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What a memory knows. NLL is in nats per token; None where nothing could be measured."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    right: Many[bool] = ()
    """For every canary, whether the reply contains the answer."""
    canary_nll: Many[float] = ()
    """For every canary the mean NLL of the answer's tokens."""
    median_nll: float | None = None
    """Of all tokens of held-out text but the first of each."""
    mean_nll: float | None = None
    num_tokens: int = 0
    """How many these were."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a sleep that was tried, and why."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    outcome: Outcome
    """accepted_unmeasured: there was nothing to measure, or nothing to refuse."""
    refused: Measures | None = None
    """Of what the session goes on with if the sleep is refused: the memory as it was, or, of a full
    window, after one pass."""
    accepted: Measures | None = None
    """Of what it goes on with if the sleep is accepted."""
    reasons: Many[str] = ()
    """What led to a rejection, and what was not measured, a sentence each."""
    milliseconds: float = 0.0
    """What measuring and judging took."""


Trigger = Literal["full", "asked", "idle", "turn", "system", "dream"]


WITHIN = ("full", "system")
"""Of sleeps that no entry called for: they happen within the entry that was read."""


def find_trigger(source: str) -> Trigger:
    """What called for a sleep, by the source of its entry in a ledger."""
    match source:
        case "idle" | "turn":
            return source
        case _:
            return "asked"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """How many dreams a critic refused for one reason."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    reason: str
    count: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DreamReport:
    """What a dream replayed and learned; NLL is in nats per token."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    statements: int
    """What users told of themselves, in sentences."""
    replayed: int
    """Questions about them that were learned."""
    refused: Many[Refusals]
    """Questions that the critic kept out."""
    steps: int
    """Optimizer steps."""
    ended_by: Literal["enough", "steps", "seconds"]
    rank: int
    nll: tuple[float, float]
    """Of the answers without the delta and with it."""
    right: tuple[int, int]
    """Answers that are the likeliest, token by token, without the delta and with it."""
    anchor_mean: tuple[float, float]
    """Mean NLL of held-out text without any delta and with this one."""
    anchor_median: tuple[float, float]
    """Their median."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SleepReport:
    """One sleep of a session; of a rejected one, what was tried.

    Raises ValueError if a count is negative, or larger than any.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    trigger: Trigger
    """The window was full, a client asked for it, nothing had been said for a while, or the next
    turn had no room in the window; system is no sleep: the window was a system prompt, and all of
    it stays; a dream leaves the window as it is."""
    number: int
    """Of this sleep among all of the stream, from 1. One that was called for and rejected never
    was, so the next has its number again; so it is with dreams."""
    tokens: int
    """Tokens in the window that was slept on."""
    passes: int
    """N, all passes counted."""
    milliseconds: float
    bytes_before: int
    """Size of the state with its full window."""
    bytes_after: int
    """Size of the state that the session goes on with."""
    changes: Many[float]
    """For every recurrent layer |S_after - S_before| / |S_before|, in Frobenius norms."""
    pass_changes: Many[Many[float]] = ()
    """For passes 2 to N and every recurrent layer |S_n - S_(n-1)| / |S_(n-1)|, where pass n left
    S_n; also where pass n began elsewhere (`Passes.between_passes` = reset, frozen; a coda). Empty
    in what was recorded before there was a gate."""
    verdict: Verdict | None = None
    """What the gate decided; None without a gate."""
    consolidator: str = "passes"
    """The kind of sleep that it was; "passes" also in what was recorded when there was no other."""
    replayed: int = 0
    """Tokens that were read again in place of the window; 0 if it was the window itself, or
    nothing."""
    entries: int = 0
    """Compact entries of all heads that the session goes on with."""
    dream: DreamReport | None = None
    """Of a dream, which reads the ledger in place of a window and evicts nothing."""

    def __post_init__(self) -> None:
        counts = (self.number, self.tokens, self.passes, self.bytes_before, self.bytes_after)
        counts += (self.replayed, self.entries)
        if not (min(counts) >= 0 and max(counts) <= MOST_TOKENS):
            raise ValueError(f"a count of sleep {self.number} cannot be")

    @property
    def is_rejected(self) -> bool:
        """Whether the gate refused it."""
        return self.verdict is not None and self.verdict.outcome == "rejected"

    @property
    def is_undone(self) -> bool:
        """Whether the session goes on as if it had not been called for."""
        return self.is_rejected and self.trigger != "full"

    @property
    def is_counted(self) -> bool:
        """Whether the stream has slept once more."""
        return not self.is_undone and self.trigger != "dream"

    @property
    def num_evicted(self) -> int:
        """Tokens that left the window."""
        return 0 if self.is_undone else self.tokens


def measure_changes(before: MemoryState, after: MemoryState) -> tuple[float, ...]:
    """`measure_change` of every recurrent layer."""
    pairs = zip(before.fast_weights, after.fast_weights, strict=True)
    return tuple(measure_change(old, new) for old, new in pairs)


def measure_change(old: Tensor, new: Tensor) -> float:
    """|new - old| / |old| of two tensors of one shape; 0 where both are zero.

    The largest number there is where that is none: no JSON holds NaN or infinity.
    """
    tiny = torch.finfo(torch.float32).tiny  # keeps the quotient finite
    change = (new - old).norm() / old.norm().clamp(min=tiny)
    return float(change.nan_to_num(nan=torch.finfo(change.dtype).max))


class Span(NamedTuple):
    """Tokens start..stop of the entry at a place of the ledger."""

    place: int
    start: int
    stop: int


class Slept(NamedTuple):
    """A sleep, and the tokens start..stop of the stream that it consolidated.

    None if it was called for and rejected. A rejected sleep of a full window has its tokens: they
    were read, and evicted with one pass.
    """

    report: SleepReport
    start: int
    stop: int


class Provenance(NamedTuple):
    """sleeps: what each sleep consolidated. window: what has been read since the last one."""

    sleeps: list[list[Span]]
    window: list[Span]


def report_pin(before: MemoryState, after: MemoryState, milliseconds: float) -> SleepReport:
    """Of a window that was pinned."""
    return SleepReport(
        trigger="system",
        number=after.counters.num_sleeps,
        tokens=before.window_fill,
        passes=1,
        milliseconds=milliseconds,
        bytes_before=before.nbytes,
        bytes_after=after.nbytes,
        changes=measure_changes(before, after),
        consolidator="pin",
        entries=after.num_entries,
    )


def place_sleeps(
    entries: Iterable[Entry], reports: Iterable[SleepReport], *, start: int = 0, slept: int = 0
) -> list[list[Slept]]:
    """For every entry the sleeps that happened in it, given all that happened in all of them.

    start: tokens of the stream before the first entry. slept: those of them that the sleeps before
    consolidated.
    """
    placed: list[list[Slept]] = []
    pending = deque(reports)
    for entry in entries:
        start += len(entry.tokens)
        mine: list[Slept] = []
        # What was called for has an entry of its own; a full window sleeps where it is filled.
        while pending and (pending[0].trigger in WITHIN) == (entry.kind != "sleep"):
            stop = slept + pending[0].num_evicted
            if stop > start:
                break
            mine.append(Slept(pending.popleft(), slept, stop))
            slept = stop
            if entry.kind == "sleep":
                break
        placed.append(mine)
    assert not pending, "a sleep happened in no entry"
    return placed


def locate(entries: Iterable[Entry], sleeps: Iterable[Slept]) -> Provenance:
    """Which parts of a ledger each of its sleeps consolidated, and what the window has."""
    stops = deque(slept.stop for slept in sleeps)
    closed: list[list[Span]] = []
    window: list[Span] = []
    begin = 0
    for place, entry in enumerate(entries):
        at, end = begin, begin + len(entry.tokens)
        while stops and stops[0] <= end:
            stop = stops.popleft()
            if stop > at:
                window.append(Span(place, at - begin, stop - begin))
            closed.append(window)
            window, at = [], stop
        if end > at:
            window.append(Span(place, at - begin, end - begin))
        begin = end
    return Provenance(closed, window)
