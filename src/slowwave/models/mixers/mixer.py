"""What every mixer is: it reads tokens with a state, and returns the state after them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from slowwave.ops.attention import Rotation
from slowwave.state import Band, LayerState


class Context(NamedTuple):
    """What mixers are told of T tokens that follow the window, beside the tokens themselves.

    rotary: angles of their positions; None if they take none. mask: (B, T) bool, False is padding,
    which leaves no trace; None when nothing is padded. key_mask: (B, carried + W + T) bool, the
    same of all that attention could see. band: how far back it sees; None for all. keep_state:
    False for questions, which leave the state as it was given.
    """

    rotary: Rotation | None = None
    mask: Tensor | None = None
    key_mask: Tensor | None = None
    band: Band | None = None
    keep_state: bool = True


class Mixer(nn.Module):
    """A kind of mixer; it has no bias, and norms and residual stream are the block's."""

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

    def weights(self) -> list[Tensor]:
        """What `native` reads a token with, in its order; only a mixer it knows has that."""
        raise NotImplementedError
