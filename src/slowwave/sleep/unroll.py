"""The differentiable whole: reading, sleeping and answering, as training sees it (Algorithm 1)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from slowwave.models.backbone import HybridLM, Run
from slowwave.sleep.awake import ask_awake, read_awake
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.consolidate import PAPER, consolidate
from slowwave.sleep.schedule import NO_LOSS, Segment, cut_training
from slowwave.state import MemoryState


@dataclasses.dataclass(frozen=True, slots=True)
class Rollout:
    """What an unrolled batch put out.

    hidden: (B, T, D), the last wake pass of every token (which is pass 1 unless `sleep.wake_passes`
    says otherwise); without keep_hidden, of those alone that are in a window with loss or in the
    open one. logits: (M, vocab) at the M scored positions, in the
    order of `targets[targets != NO_LOSS]`. state: what the stream left behind.
    """

    hidden: Tensor
    logits: Tensor
    state: MemoryState


def unroll(
    model: HybridLM,
    inputs: Tensor,
    targets: Tensor,
    sleep: SleepConfig,
    state: MemoryState | None = None,
    *,
    mask: Tensor | None = None,
    checkpoint_activations: bool = False,
    keep_hidden: bool = True,
    segments: Sequence[Segment] | None = None,
    run: Run | None = None,
) -> Rollout:
    """Runs a batch through reads and sleeps; gradients flow through all passes and windows.

    inputs: (B, T) int64. targets: (B, T) int64, the token to predict at each position, NO_LOSS
    where there is none. mask: (B, T) bool or None, False is padding. checkpoint_activations
    recomputes each window's passes in the backward pass instead of keeping what is inside.
    keep_hidden: False if only logits and state are wanted, which spares what nobody else reads.
    segments: how the batch is cut where that is known already (`cut_training`, with the same
    keep_hidden). run replaces `model.run`, for a compiled one.

    Raises ValueError if shapes do not fit, padding has a target, or the rows cannot share a
    schedule (see `cut_training`).
    """
    _check_batch(inputs, targets, mask)
    run = model.run if run is None else run
    if checkpoint_activations:
        run = functools.partial(checkpoint, run, use_reentrant=False)
    state = model.initial_state(inputs.shape[0]) if state is None else state
    hiddens, scored = [state.window_hidden[:, :0]], [targets[:, :0]]
    if segments is None:
        fill = state.window_fill
        segments = cut_training(targets, sleep, window_fill=fill, keep_hidden=keep_hidden)
    for segment in segments:
        piece = slice(segment.start, segment.stop)
        piece_mask = _cut_mask(mask, piece)
        hidden, state = read_awake(
            model,
            inputs[:, piece],
            state,
            sleep,
            mask=piece_mask,
            predicts=segment.keeps_hidden,
            evicts=segment.evicts,
            run=run,
        )
        if segment.keeps_hidden:
            hiddens.append(hidden)
            scored.append(targets[:, piece])
        if segment.closes:
            state = consolidate(model, state, passes=segment.passes, sleep=sleep, run=run)
    hidden = torch.cat(hiddens, dim=1)
    logits = model.logits(hidden[torch.cat(scored, dim=1) != NO_LOSS])
    return Rollout(hidden, logits, state)


def _cut_mask(mask: Tensor | None, piece: slice) -> Tensor | None:
    """The mask of a piece; None if it hides nothing, since passes without one are far cheaper."""
    if mask is None or bool(mask[:, piece].all()):
        return None
    return mask[:, piece]


def _check_batch(inputs: Tensor, targets: Tensor, mask: Tensor | None) -> None:
    if inputs.shape[1] == 0:
        raise ValueError(f"inputs of shape {tuple(inputs.shape)} hold no token; give 1 or more")
    for name, tensor in (("targets", targets), ("mask", mask)):
        if tensor is not None and tensor.shape != inputs.shape:
            raise ValueError(
                f"{name} must have the shape of inputs, {tuple(inputs.shape)}, "
                f"got {tuple(tensor.shape)}; fit it"
            )
    if mask is not None and bool((targets[~mask] != NO_LOSS).any()):
        raise ValueError(f"targets hold a token where mask is False; use {NO_LOSS} for padding")


def answer_forks(
    model: HybridLM,
    questions: Tensor,
    targets: Tensor,
    state: MemoryState,
    *,
    sleep: SleepConfig = PAPER,
    run: Run | None = None,
) -> Tensor:
    """Logits (M, vocab) at the scored positions of questions (B, F, Q), each on its own fork.

    sleep: how often a question is read.
    """
    hidden = ask_awake(model, questions, state, sleep, run=run)
    return model.logits(hidden[targets != NO_LOSS])
