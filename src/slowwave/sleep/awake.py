"""Reading awake: pass 1, and the further passes of a reader that loops before it predicts.

The looping-at-wake baseline: windows sleep as ever, but what predicts is read `sleep.wake_passes`
times. Each wake pass has keys, values and fast weights of its own in the open window
(`MemoryState.wake_layers`), which begin as the state does at the window's start. So pass m of a
token has met pass m of the tokens before it and nothing of those after it, and reading token by
token is exact. A sleep drops all of that and goes on from pass 1.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor

from slowwave.models.backbone import HybridLM, Run
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.consolidators.passes import reread
from slowwave.state import LayerState, MemoryState


def read_awake(
    model: HybridLM,
    tokens: Tensor,
    state: MemoryState,
    sleep: SleepConfig,
    *,
    mask: Tensor | None = None,
    predicts: bool = True,
    evicts: bool = False,
    run: Run | None = None,
) -> tuple[Tensor, MemoryState]:
    """Reads tokens (B, T) within the window. Returns (hidden (B, T, D) of the last pass, state).

    mask: (B, T) bool or None, False is padding. predicts: False if nobody reads what comes out
    before the window is slept; then pass 1 is enough. evicts, run: as for `HybridLM.read`.

    Raises ValueError if the open window was read with another number of wake passes, or if there
    are several and the model has a prelude or a coda.
    """
    hidden, after = model.read(
        tokens, open_window(model, state, sleep), mask=mask, evicts=evicts, run=run
    )
    if not predicts:
        return hidden, after
    run = model.run if run is None else run
    wake_layers: list[tuple[LayerState, ...]] = []
    for layers in _begin_wake(model, state, sleep):
        read = reread(model, hidden, tokens, sleep.looping.recirculate)
        hidden, looped = run(read, dataclasses.replace(state, layers=layers), mask=mask)
        wake_layers.append(looped.layers)
    return hidden, dataclasses.replace(after, wake_layers=tuple(wake_layers))


def ask_awake(
    model: HybridLM,
    questions: Tensor,
    state: MemoryState,
    sleep: SleepConfig,
    *,
    run: Run | None = None,
) -> Tensor:
    """Reads questions (B, F, Q), each on its own fork of the state, which stays as it is.

    Returns hidden (B, F, Q, D) of the last pass. Raises ValueError as `read_awake`.
    """
    hidden = model.ask(questions, state, run=run).flatten(0, 1)
    run = model.run if run is None else run
    for layers in _begin_wake(model, state, sleep):
        read = reread(model, hidden, questions.flatten(0, 1), sleep.looping.recirculate)
        hidden, _ = run(read, dataclasses.replace(state, layers=layers), keep_state=False)
    return hidden.unflatten(0, questions.shape[:2])


def open_window(model: HybridLM, state: MemoryState, sleep: SleepConfig) -> MemoryState:
    """The state; if a window opens, with what its sleep will return to noted."""
    if sleep.passes == 1 or state.window_fill > 0:
        return state
    places = sleep.consolidator.returns_to(model.config)
    if not places:
        return state
    start = (
        layer if i in places and not layer.per_token else None
        for i, layer in enumerate(state.layers)
    )
    return dataclasses.replace(state, window_start=tuple(start))


def _begin_wake(
    model: HybridLM, state: MemoryState, sleep: SleepConfig
) -> tuple[tuple[LayerState, ...], ...]:
    """Where wake passes 2 and later go on: in the open window, or at its start."""
    further = sleep.wake_passes - 1
    if further and (model.config.prelude or model.config.coda):
        raise ValueError(
            f"sleep.wake_passes is {sleep.wake_passes} with model.prelude {model.config.prelude} "
            f"and model.coda {model.config.coda}; wake passes loop all blocks, so use 0 for both"
        )
    if len(state.wake_layers) == further:
        return state.wake_layers
    if state.window_fill > 0:
        raise ValueError(
            f"sleep.wake_passes is {sleep.wake_passes}, but the open window of {state.window_fill} "
            f"tokens was read with {len(state.wake_layers) + 1}; read all of a window alike"
        )
    return (state.evict().layers,) * further
