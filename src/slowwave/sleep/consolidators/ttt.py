"""Sleep as test-time training (TTT-E2E, arXiv 2512.23675): a window is what prime MLPs train on.

The window is read once more from its start. Blocks before the first prime MLP do that at once.
Those from it on read chunk by chunk, and after each chunk the prime MLPs take a step of gradient
descent on its next-token loss, every stream for itself. Keys and values of a chunk stay as the
weights before its step made them. In training gradients flow through the steps, gradients of
gradients.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from slowwave.models.backbone import HybridLM, Run
from slowwave.models.config import ModelConfig
from slowwave.models.flops import Pass
from slowwave.models.int8 import Int8Weight
from slowwave.sleep.config import TTT, SleepConfig
from slowwave.sleep.consolidators.consolidator import Consolidator, Replay, noted_start
from slowwave.sleep.schedule import NO_LOSS
from slowwave.state import LayerState, MemoryState, PrimeDelta


class TTTConsolidator(Consolidator):
    """N - 1 steps a chunk of every prime MLP; recurrent layers keep what reading left."""

    keeps_writes = True

    def __init__(self, sleep: SleepConfig) -> None:
        super().__init__(sleep)
        assert isinstance(sleep.consolidator, TTT)
        self.config = sleep.consolidator
        self.chunk = self.config.chunk or sleep.window
        self.keeps_cache = self.slides

    def reads_hidden(self, sizes: ModelConfig) -> bool:
        """See `Consolidator.reads_hidden`."""
        return False

    def plan(self, sizes: ModelConfig, window: int, *, carried: int, passes: int) -> list[Pass]:
        """See `Consolidator.plan`: the prefix once, then N - 1 times the chunks."""
        kept = {"keeps_writes": False, "keeps_cache": False}
        chunks = [
            Pass(stop - start, carried + start, part="suffix", is_step=True, **kept)
            for start, stop in self.cut(window)
        ]
        return [Pass(window, carried, part="prefix", **kept), *chunks * (passes - 1)]

    def cut(self, window: int) -> list[tuple[int, int]]:
        """Where chunks begin and end; the last one may be shorter."""
        return [(at, min(at + self.chunk, window)) for at in range(0, window, self.chunk)]

    def write(
        self,
        model: HybridLM,
        read: MemoryState,
        passes: int,
        run: Run,
        replay: Replay | None = None,
    ) -> Generator[MemoryState, None, tuple[LayerState, ...]]:
        """See `Consolidator.write`."""
        if any(isinstance(module, Int8Weight) for module in model.modules()):
            raise ValueError("a model with int8 weights cannot sleep by ttt; load it in float32")
        learns = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.set_grad_enabled(learns):
            read = read if learns else read.map(_own)
            begun, tokens, mask = _reopen_window(read), read.window_tokens, read.window_mask
            hidden, _ = run(model.embed(tokens), begun, mask=mask, part="prefix")
        slept = read
        for _ in range(passes - 1):
            with _gradients(learns):
                begun = self._train(model, begun, hidden, tokens, mask, learns=learns)
            slept = put_primes(read, begun.primes)
            yield slept.evict()
        return slept.layers

    def _train(
        self,
        model: HybridLM,
        begun: MemoryState,
        hidden: Tensor,
        tokens: Tensor,
        mask: Tensor | None,
        *,
        learns: bool,
    ) -> MemoryState:
        """Goes over the chunks of a window, a step each; `begun` with the prime MLPs after that.

        hidden: (B, W, D), what the prefix put out. learns: whether gradients flow through it.
        """
        targets, state = find_targets(tokens, mask), begun
        for start, stop in self.cut(tokens.shape[1]):
            state = state if learns else state.detach()
            primes = tuple(each.map(_with_gradient) for each in state.primes)
            state = put_primes(state, primes)
            piece = None if mask is None else mask[:, start:stop]
            out, state = model.run(hidden[:, start:stop], state, mask=piece, part="suffix")
            loss = measure_losses(model.logits(out), targets[:, start:stop])
            state = dataclasses.replace(
                put_primes(state, self.step(loss, primes, learns=learns)),
                window_tokens=tokens[:, :stop],
                window_mask=None if mask is None else mask[:, :stop],
            )
        return put_primes(begun, (state if learns else state.detach()).primes)

    def step(
        self, losses: Tensor, primes: Sequence[PrimeDelta], *, learns: bool
    ) -> tuple[PrimeDelta, ...]:
        """Prime MLPs after a step of gradient descent on losses (B,), every stream on its own."""
        weights = [tensor for each in primes for tensor in (each.up, each.out)]
        slopes = torch.autograd.grad(losses.sum(), weights, create_graph=learns)
        clip = self.config.clip_norm
        squares = torch.stack([slope.flatten(1).square().sum(1) for slope in slopes]).sum(0)
        # The bound is within the root, whose own slope at 0 is infinite.
        rates = self.config.learning_rate * clip / squares.clamp(min=clip**2).sqrt()
        stepped = [
            weight - rates[:, None, None] * slope
            for weight, slope in zip(weights, slopes, strict=True)
        ]
        return tuple(map(PrimeDelta, stepped[::2], stepped[1::2]))


def find_targets(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """(B, W) int64: what follows each token of a window, padding skipped; NO_LOSS at its end.

    tokens: (B, W). mask: (B, W) bool, False is padding, which has no target; None if there is none.
    """
    B, W = tokens.shape
    mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    places = torch.arange(W, device=tokens.device)
    real = torch.where(mask, places, W)
    nearest = real.flip(1).cummin(1).values.flip(1)  # the token itself, or the next real one
    end = torch.full((B, 1), W, device=tokens.device)
    following = torch.cat([nearest[:, 1:], end], dim=1)
    ended = torch.cat([tokens, torch.full_like(end, NO_LOSS)], dim=1)
    return torch.where(mask, ended.gather(1, following), NO_LOSS)


def measure_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,): nats a target on average; 0 for streams that have none. logits: (B, T, vocab)."""
    is_target = targets != NO_LOSS
    right = logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    nats = torch.where(is_target, logits.logsumexp(-1) - right, 0)
    return nats.sum(1) / is_target.sum(1).clamp(min=1)


def put_primes(state: MemoryState, primes: Sequence[PrimeDelta]) -> MemoryState:
    """The state with these changes of its prime MLPs, which are in its last layers."""
    first = len(state.layers) - len(primes)
    primed = (
        dataclasses.replace(layer, prime=prime)
        for layer, prime in zip(state.layers[first:], primes, strict=True)
    )
    return dataclasses.replace(state, layers=(*state.layers[:first], *primed))


def _reopen_window(read: MemoryState) -> MemoryState:
    """The state as it was when the window opened."""
    emptied, noted = read.evict(), noted_start(read)
    layers = (
        layer if start is None else start
        for layer, start in zip(emptied.layers, noted, strict=True)
    )
    return dataclasses.replace(emptied, layers=tuple(layers))


@contextlib.contextmanager
def _gradients(learns: bool) -> Iterator[None]:
    """Gradients, whatever the caller has turned off; twice differentiable where training needs it.

    Torch's fused attention has no second derivative.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if learns:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def _own(tensor: Tensor) -> Tensor:
    """Cut loose from what made it; torch saves nothing for gradients that inference mode made."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _with_gradient(tensor: Tensor) -> Tensor:
    """The tensor by another name, of which nothing that was read before a step is a function.

    So a step goes back through its own chunk alone, not through reads, which may be compiled.
    """
    return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()
