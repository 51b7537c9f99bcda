"""Watches a model read a stream: how the window fills, what each sleep writes, what it drops."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from slowwave.models.backbone import HybridLM
from slowwave.sleep.awake import read_awake
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.sleep.schedule import cut_stream
from slowwave.state import MemoryState


@dataclasses.dataclass(frozen=True, slots=True)
class ReadEvent:
    """What the stream held after one more token."""

    tokens_seen: int
    window_fill: int
    cache_nbytes: int
    fast_weights_nbytes: int
    state_nbytes: int
    kind: Literal["read"] = "read"


@dataclasses.dataclass(frozen=True, slots=True)
class LayerWrite:
    """What one pass wrote into one recurrent layer; Frobenius norms over all its heads."""

    layer: int
    """Index into the model's layers."""
    change: float
    """Norm of the difference that this pass made."""
    norm: float
    """Norm of the fast weights after this pass."""


@dataclasses.dataclass(frozen=True, slots=True)
class SleepEvent:
    """One sleep."""

    tokens_seen: int
    window_tokens: int
    passes: int
    milliseconds: float
    cache_nbytes_before: int
    cache_nbytes_after: int
    fast_weights_nbytes_before: int
    fast_weights_nbytes_after: int
    writes: tuple[tuple[LayerWrite, ...], ...]
    """One entry a pass, one write a recurrent layer. Pass 1 is the read, all of the window's."""
    kind: Literal["sleep"] = "sleep"


Event = ReadEvent | SleepEvent


@dataclasses.dataclass(frozen=True, slots=True)
class StreamTrace:
    """events: in order. hidden: (1, T, D), the last wake pass of each token. state: at the end."""

    sleep: SleepConfig
    layers: tuple[str, ...]
    events: tuple[Event, ...]
    hidden: Tensor
    state: MemoryState

    def to_dict(self) -> dict[str, Any]:
        """All but the tensors as plain data: what stream.json holds."""
        return {
            "sleep": self.sleep.to_dict(),
            "layers": list(self.layers),
            "events": [dataclasses.asdict(event) for event in self.events],
        }


def trace_stream(
    model: HybridLM,
    tokens: Tensor,
    sleep: SleepConfig,
    *,
    on_event: Callable[[Event], Any] | None = None,
) -> StreamTrace:
    """Reads tokens (1, T) one by one, from an empty memory, and records what happens.

    Hidden states and memory are those of `read_stream` called token by token, to the bit.
    on_event sees every event as it happens. Raises ValueError for more than one stream, or none.
    """
    if tokens.dim() != 2 or tokens.shape[0] != 1 or tokens.shape[1] == 0:
        raise ValueError(f"tokens have shape {tuple(tokens.shape)}; give one stream, (1, T)")
    events: list[Event] = []
    hiddens: list[Tensor] = []

    def record(event: Event) -> None:
        events.append(event)
        if on_event is not None:
            on_event(event)

    with torch.no_grad():
        state = model.initial_state(1)
        at_window_start = state.fast_weights
        for token in tokens.split(1, dim=1):
            (segment,) = cut_stream(1, sleep, window_fill=state.window_fill)
            hidden, state = read_awake(model, token, state, sleep)
            hiddens.append(hidden)
            record(
                ReadEvent(
                    tokens_seen=state.counters.tokens_seen,
                    window_fill=state.window_fill,
                    cache_nbytes=state.cache_nbytes,
                    fast_weights_nbytes=_fast_weights_nbytes(state),
                    state_nbytes=state.nbytes,
                )
            )
            if segment.closes:
                state, event = _sleep(model, state, sleep, at_window_start)
                at_window_start = state.fast_weights
                record(event)
    return StreamTrace(sleep, model.config.layers, tuple(events), torch.cat(hiddens, dim=1), state)


def _sleep(
    model: HybridLM, state: MemoryState, sleep: SleepConfig, at_window_start: tuple[Tensor, ...]
) -> tuple[MemoryState, SleepEvent]:
    """The slept state, and the event with what each pass changed."""
    # States are immutable, so keeping them is free and the norms can wait until the clock stops.
    kept = [at_window_start]
    _wait_for(model.device)
    began = time.perf_counter()
    slept = consolidate(
        model,
        state,
        passes=sleep.passes,
        sleep=sleep,
        on_pass=lambda _, after: kept.append(after.fast_weights),
    )
    _wait_for(model.device)
    seconds = time.perf_counter() - began
    layers = [i for i, layer in enumerate(state.layers) if not layer.per_token]
    return slept, SleepEvent(
        tokens_seen=state.counters.tokens_seen,
        window_tokens=state.window_fill,
        passes=sleep.passes,
        milliseconds=1e3 * seconds,
        cache_nbytes_before=state.cache_nbytes,
        cache_nbytes_after=slept.cache_nbytes,
        fast_weights_nbytes_before=_fast_weights_nbytes(state),
        fast_weights_nbytes_after=_fast_weights_nbytes(slept),
        writes=tuple(
            tuple(
                LayerWrite(layer, (new - old).norm().item(), new.norm().item())
                for layer, old, new in zip(layers, before, after, strict=True)
            )
            for before, after in zip(_starts(kept, sleep), kept[1:], strict=True)
        ),
    )


def _starts(kept: list[tuple[Tensor, ...]], sleep: SleepConfig) -> list[tuple[Tensor, ...]]:
    """The fast weights that each pass started from, of those at the window's start and after."""
    further = len(kept) - 2
    starts = {
        "carry": kept[:-1],
        "reset": [kept[0], *[kept[0]] * further],
        "frozen": [kept[0], *[kept[1]] * further],
    }
    return starts[sleep.looping.between_passes]


def _fast_weights_nbytes(state: MemoryState) -> int:
    return sum(tensor.nbytes for tensor in state.fast_weights)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
