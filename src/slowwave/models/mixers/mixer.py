"""What every mixer is: it reads tokens with a state, and returns the state after them."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from slowwave.config import import_object
from slowwave.models.config import MIXERS, LayerType, ModelConfig
from slowwave.ops.attention import Rotation
from slowwave.state import Band, LayerState


@dataclasses.dataclass(frozen=True, slots=True)
class Watch:
    """What a sleep wants to know of a pass, left by the layers that keep entries, in their order.

    queries: (B, T, H, Dh) as they are turned. log_sums: (B, T, H), of all that each saw, which its
    attention is divided by. stream_norms: (B,), the length of the residual stream
    on average, before the layer.
    """

    queries: list[Tensor] = dataclasses.field(default_factory=list[Tensor])
    log_sums: list[Tensor] = dataclasses.field(default_factory=list[Tensor])
    stream_norms: list[Tensor] = dataclasses.field(default_factory=list[Tensor])


class Context(NamedTuple):
    """What mixers are told of T tokens that follow the window, beside the tokens themselves.

    rotary, local_rotary: angles of their positions, for attention and for "local" attention; None
    if they take none. mask: (B, T) bool, False is padding,
    which leaves no trace; None when nothing is padded. key_mask: (B, carried + W + T) bool, the
    same of all that attention could see. band: how far back it sees; None for all. keep_state:
    False for questions, which leave the state as it was given. ridge: the penalty with which the
    tokens' values are fitted on their keys; the state is that fit then, and not what the mixer's
    own rule leaves. None for the rule. watch: see `Watch`; None if
    nobody asks.
    """

    rotary: Rotation | None = None
    mask: Tensor | None = None
    key_mask: Tensor | None = None
    band: Band | None = None
    keep_state: bool = True
    local_rotary: Rotation | None = None
    ridge: float | None = None
    watch: Watch | None = None


class Mixer(nn.Module):
    """A kind of mixer; the norms before and after it and the residual stream are the block's.

    It makes, reads, writes, evicts and counts its own state. FLOPs are those of one row of T
    tokens, for the sizes of a model; `slowwave.models.flops` says what is counted.
    """

    has_midterm: ClassVar[bool]
    """Whether its state outlives a sleep."""
    keeps_entries: ClassVar[bool] = False
    """Whether compact entries of its keys and values may outlive one, where a sleep makes them."""

    def __init__(self, sizes: ModelConfig) -> None:
        """A mixer of these sizes, its weights not drawn yet."""
        super().__init__()

    def reset(self, generator: torch.Generator, sizes: ModelConfig) -> None:
        """Draws what is no matrix; the model draws those."""

    def reset_last(self, generator: torch.Generator) -> None:
        """Draws matrices that begin otherwise than the model's, after all of those."""

    def initial_state(self, batch_size: int) -> LayerState:
        """The state of `batch_size` streams that have read nothing."""
        raise NotImplementedError

    def forward(self, x: Tensor, state: LayerState, context: Context) -> tuple[Tensor, LayerState]:
        """Mixes T tokens: x (B, T, D). Returns (out (B, T, D), state).

        The state may have fewer rows than x: B / F, each shared by F rows.
        """
        raise NotImplementedError

    def write(self, x: Tensor, state: LayerState, context: Context) -> LayerState:
        """As `forward` before an eviction, when the output is not read.

        Only what outlives the eviction is computed.
        """
        raise NotImplementedError

    def weights(self) -> list[Tensor | None]:
        """What the compiled token reads with, in its order; None for what this mixer lacks.

        Only mixers that it knows have that.
        """
        raise NotImplementedError

    @classmethod
    def forward_flops(cls, sizes: ModelConfig, T: int, *, cached: int, context: Context) -> int:
        """FLOPs of `forward`, after `cached` tokens that attention holds."""
        raise NotImplementedError

    @classmethod
    def write_flops(cls, sizes: ModelConfig, T: int, *, context: Context) -> int:
        """FLOPs of `write`."""
        raise NotImplementedError

    @classmethod
    def state_flops(cls, sizes: ModelConfig, T: int, *, context: Context) -> int:
        """FLOPs of `forward` that the state depends on; all of a fused product, whose gradient is
        one too."""
        raise NotImplementedError


@functools.cache
def find_mixer(kind: LayerType) -> type[Mixer]:
    """The mixer of a layer type."""
    return import_object(MIXERS[kind], Mixer)


def product_flops(rows: int, inner: int, columns: int) -> int:
    """FLOPs of a product of matrices (rows, inner) and (inner, columns)."""
    return 2 * rows * inner * columns
