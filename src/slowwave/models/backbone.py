"""HybridLM: a stack of attention and recurrent blocks whose memory goes in and comes out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from slowwave.delta import LowRankDelta
from slowwave.models import one_call
from slowwave.models.block import Block
from slowwave.models.config import ModelConfig, Part
from slowwave.models.flops import written_span
from slowwave.models.int8 import Int8Weight
from slowwave.models.linear import Embedding, Linear, RMSNorm
from slowwave.models.mixers.mixer import Context, Mixer, Watch
from slowwave.ops.append import append
from slowwave.ops.attention import Rope, Rotation, exact_rotation, rotation, window_rotation
from slowwave.ops.norm import wide_dtype
from slowwave.state import MemoryState

Run = Callable[..., tuple[Tensor, MemoryState]]
SMALL_STD = 0.02


class HybridLM(nn.Module):
    """A language model with a window of attention and fast weights that outlive it.

    Sleep loops all blocks but those of a prelude and a coda (`ModelConfig`).
    """

    def __init__(self, config: ModelConfig, *, seed: int | None = 0) -> None:
        """seed: None leaves the weights undrawn, for those who load them."""
        super().__init__()
        if config.vocab_size < 1:
            raise ValueError("model.vocab_size is 0; set it, or build the model for a task")
        self.config = config
        self.embedding = Embedding(config.vocab_size, config.width)
        suffix = config.span("suffix")
        self.blocks = nn.ModuleList(
            Block(config, kind, primed=i in suffix) for i, kind in enumerate(config.layers)
        )
        # Made here: torch.compile breaks a named tuple that is made as it traces.
        self._rope, self._local_rope = find_rope(config), find_rope(config, local=True)
        self.final_norm = RMSNorm(config.width, eps=config.traits.norm_eps)
        self.head = None
        if not config.traits.tied_embeddings:
            self.head = Linear(config.width, config.vocab_size)
        if seed is not None:
            self.reset_parameters(torch.Generator().manual_seed(seed))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draws all weights anew.

        "scaled": matrices are normal with std sqrt(2 / (5 D)), those that write into the residual
        stream smaller by sqrt(2 x number of blocks) (arXiv 2312.16903, the recipe of arXiv
        2511.07384). Embeddings have unit variance, so that a hidden state which comes back in pass
        2 meets a stream of the scale it left.
        "small": matrices and embeddings are normal with std 0.02, as flash-linear-attention draws
        them. What blocks write soon outweighs the embeddings, and small learning rates go further.
        Norm scales start at one. What else a mixer has it draws itself (`Mixer.reset`).
        """
        small = self.config.initial_weights == "small"
        std = SMALL_STD if small else (2 / (5 * self.config.width)) ** 0.5
        out_std = SMALL_STD if small else std / (2 * len(self.blocks)) ** 0.5
        embedding_std = SMALL_STD if small else 1.0
        nn.init.normal_(self.embedding.weight, std=embedding_std, generator=generator)
        for name, module in self.named_modules():
            if isinstance(module, Linear):
                writes_residual = name.endswith((".out",))
                nn.init.normal_(
                    module.weight, std=out_std if writes_residual else std, generator=generator
                )
            if isinstance(module, Mixer):
                module.reset(generator, self.config)
        for block in self._blocks:
            block.mixer.reset_last(generator)

    def set_compute_dtype(self, dtype: torch.dtype | None) -> None:
        """Lets matrix products run in `dtype`; None means the weights' own. The head stays wide."""
        for module in self.modules():
            if isinstance(module, Linear) and module is not self.head:
                module.compute_dtype = dtype

    @property
    def num_parameters(self) -> int:
        """Learned numbers in the model."""
        quantized = (each.shape.numel() for each in self.modules() if isinstance(each, Int8Weight))
        return sum(parameter.numel() for parameter in self.parameters()) + sum(quantized)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    def initial_state(self, batch_size: int) -> MemoryState:
        """The memory of `batch_size` streams that have read nothing."""
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; use 1 or more")
        dtype = self.final_norm.weight.dtype  # of the residual stream
        return MemoryState(
            layers=tuple(block.initial_state(batch_size) for block in self._blocks),
            window_tokens=torch.zeros(batch_size, 0, dtype=torch.int64, device=self.device),
            window_mask=None,
            window_hidden=torch.zeros(
                batch_size, 0, self.config.width, dtype=dtype, device=self.device
            ),
            tokens_seen=torch.zeros(batch_size, dtype=torch.int64, device=self.device),
            num_sleeps=torch.zeros(batch_size, dtype=torch.int64, device=self.device),
        )

    def initial_delta(
        self, batch_size: int, rank: int, *, device: torch.device | str | None = None
    ) -> LowRankDelta:
        """Changes of the model's matrices that add nothing (`MemoryState.delta`)."""
        return LowRankDelta.zeros(
            batch_size,
            len(self.blocks),
            rank=rank,
            inner=self.config.mlp_hidden,
            width=self.config.width,
            dtype=wide_dtype(self.final_norm.weight.dtype),
            device=self.device if device is None else device,
        )

    def embed(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) int64 -> hidden (B, T, D).

        Raises ValueError on an id out of vocabulary, but leaves tokens that are on a GPU to the
        device's own check: looking at them here would wait for it.
        """
        if tokens.numel() and not tokens.is_cuda:
            lowest, highest = (int(bound) for bound in tokens.aminmax())
            if lowest < 0 or highest >= self.config.vocab_size:
                wrong = lowest if lowest < 0 else highest
                raise ValueError(
                    f"tokens hold id {wrong}; use 0 to {self.config.vocab_size - 1}, the "
                    "vocabulary of this model"
                )
        embedded = self.embedding(tokens)
        scale = self.config.traits.embedding_scale
        return embedded if scale == 1 else embedded * scale

    def run(
        self,
        hidden: Tensor,
        state: MemoryState,
        *,
        mask: Tensor | None = None,
        keep_state: bool = True,
        evicts: bool = False,
        part: Part = "all",
        ridge: float | None = None,
        watch: Watch | None = None,
    ) -> tuple[Tensor, MemoryState]:
        """One pass of all blocks, or a part of them, over T tokens that follow the window.

        Attention sees the window, and what `state.carried` left of earlier ones.

        hidden: (B, T, D). mask: (B, T) bool or None, False is padding. With keep_state=False the
        state comes back as given, and hidden may have (B * F) rows, F forks of each stream.
        evicts: True if the window is dropped right after and nobody reads what comes out. Only what
        outlives that is computed, and the hidden that comes back means nothing. ridge, watch: see
        `Context`.
        Returns (hidden (B, T, D), state with new layer states; its window is left as it was).
        """
        blocks, layers = self._blocks, list(state.layers)
        key_mask = _mask_keys(hidden, state, mask)
        rotary = self._rotate_window(hidden, state, key_mask)
        band = None if state.carried is None else state.carried.band
        context = Context(
            rotary=rotary,
            local_rotary=self._rotate_window(hidden, state, key_mask, local=True),
            mask=mask,
            key_mask=key_mask,
            band=band,
            keep_state=keep_state,
            ridge=ridge,
            watch=watch,
        )
        span, last_writer = self.config.span(part), None
        if evicts:
            span, last_writer = written_span(span, [block.mixer for block in blocks])
        if not evicts and one_call.suits(blocks, hidden, state, context):
            hidden, layers = one_call.read_token(self.config, blocks, hidden, state, context, span)
            return hidden, dataclasses.replace(state, layers=tuple(layers))
        for i in span:
            delta = None if state.delta is None else state.delta.layers[i]
            hidden, layers[i] = blocks[i](hidden, layers[i], context, delta)
        if last_writer is not None:
            layers[last_writer] = blocks[last_writer].write(hidden, layers[last_writer], context)
        return hidden, dataclasses.replace(state, layers=tuple(layers))

    def _rotate_window(
        self,
        hidden: Tensor,
        state: MemoryState,
        key_mask: Tensor | None,
        *,
        local: bool = False,
    ) -> Rotation | None:
        """Angles by place in the window. Padding takes none: a padded row sees what others do.

        Where attention crosses into the window, positions go on from what was read before it,
        or from those that compact entries have.
        local: those of "local" layers. None where nothing takes any.
        """
        rope = self._local_rope if local else self._rope
        if rope is None:
            return None
        W, T, dtype = state.window_fill, hidden.shape[1], wide_dtype(hidden.dtype)
        start = state.position if state.carried is None else state.carried.start
        if key_mask is None and start is None:
            return window_rotation(W, W + T, rope, dtype, hidden.device)
        if key_mask is None:
            places = torch.arange(W, W + T, device=hidden.device)[None]
        else:
            places = (key_mask[:, state.num_carried :].cumsum(1)[:, W:] - 1).clamp(min=0)
        if start is None:
            return rotation(places, rope, dtype)
        start = start.repeat_interleave(len(hidden) // state.batch_size)
        return exact_rotation(start[:, None] + places, rope, dtype)

    def read(
        self,
        tokens: Tensor,
        state: MemoryState,
        *,
        mask: Tensor | None = None,
        evicts: bool = False,
        run: Run | None = None,
    ) -> tuple[Tensor, MemoryState]:
        """Pass 1: reads tokens (B, T) into the window. Returns (hidden (B, T, D), state).

        evicts: see `run`. run replaces `self.run`, for a compiled or a checkpointed one.
        """
        run = run or self.run
        if self.config.coda:
            looped, state = run(self.embed(tokens), state, mask=mask, part="trunk")
            hidden, state = run(looped, state, mask=mask, evicts=evicts, part="coda")
        else:
            looped, state = run(self.embed(tokens), state, mask=mask, evicts=evicts)
            hidden = looped
        return hidden, dataclasses.replace(
            state,
            window_tokens=append(state.window_tokens, tokens.clone()),  # the caller keeps its own
            window_mask=_extend_mask(state, mask, tokens),
            window_hidden=append(state.window_hidden, looped),
            tokens_seen=state.tokens_seen + tokens.shape[1],
        )

    def ask(self, questions: Tensor, state: MemoryState, *, run: Run | None = None) -> Tensor:
        """Reads questions (B, F, Q), each on its own fork of the state, which stays as it is.

        run replaces `self.run`, for a compiled one. Returns hidden (B, F, Q, D).
        """
        B, forks, _ = questions.shape
        hidden, _ = (run or self.run)(self.embed(questions.flatten(0, 1)), state, keep_state=False)
        return hidden.unflatten(0, (B, forks))

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (..., D) -> (..., vocab) float32 (float64 for a float64 model)."""
        normed = self.final_norm(hidden)
        return self.embedding.multiply(normed) if self.head is None else self.head(normed)

    @property
    def head_weight(self) -> Tensor:
        """(vocab, D), which makes the logits."""
        return self.embedding.weight if self.head is None else self.head.weight

    def forward(
        self, tokens: Tensor, state: MemoryState | None = None
    ) -> tuple[Tensor, MemoryState]:
        """Reads tokens (B, T) within the window. Returns (logits (B, T, vocab), state)."""
        state = self.initial_state(tokens.shape[0]) if state is None else state
        hidden, state = self.read(tokens, state)
        return self.logits(hidden), state

    @property
    def _blocks(self) -> list[Block]:
        return list(self.blocks)  # pyright: ignore[reportReturnType]


@functools.lru_cache(maxsize=16)
def find_rope(sizes: ModelConfig, *, local: bool = False) -> Rope | None:
    """Rotary positions of attention, or of "local" attention; None where nothing is turned."""
    traits = sizes.traits
    if not traits.rotary_share:
        return None
    if local:
        is_turned = "local" in sizes.layers
        return Rope(sizes.rotary_dim, traits.local_rope_theta) if is_turned else None
    scaling = traits.rope_scaling
    given = () if scaling is None else dataclasses.astuple(scaling)
    return Rope(sizes.rotary_dim, sizes.rope_theta, *given)


def _mask_keys(hidden: Tensor, state: MemoryState, mask: Tensor | None) -> Tensor | None:
    """(B, carried + W + T): which keys are no padding; None if all are none."""
    past = state.cache_mask()
    if mask is None and past is None:
        return None
    rows, T = hidden.shape[:2]
    if past is None:
        cached = state.num_carried + state.window_fill
        past = torch.ones(state.batch_size, cached, dtype=torch.bool, device=hidden.device)
    past = past.repeat_interleave(rows // past.shape[0], dim=0)
    if mask is None:
        mask = torch.ones(rows, T, dtype=torch.bool, device=hidden.device)
    return torch.cat([past, mask], dim=1)


def _extend_mask(state: MemoryState, mask: Tensor | None, tokens: Tensor) -> Tensor | None:
    if mask is None and state.window_mask is None:
        return None
    past = state.window_mask
    if past is None:
        past = torch.ones_like(state.window_tokens, dtype=torch.bool)
    new = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.clone()
    return append(past, new)
