"""Appending to what a window holds without copying it every time, and without changing it."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

LEAST_ROOM = 64
_ROOM = "_slowwave_room"


class _Room:
    """A buffer (B, capacity, ...) of which some tensor shows the first part; the rest is free.

    The tensor that shows all that is filled may grow in place: nobody sees the free part. Any other
    tensor of the same buffer is an older state, or that of a fork which has gone another way.
    """

    def __init__(self, past: Tensor, capacity: int) -> None:
        self.buffer = past.new_empty(past.shape[0], capacity, *past.shape[2:])
        self.filled = past.shape[1]
        self.buffer[:, : self.filled] = past
        self._lock = threading.Lock()

    def claim(self, start: int, stop: int) -> bool:
        """Reserves start..stop for the caller, unless they are taken, too many, or out of reach."""
        # Torch lets tensors made in inference mode be written to in inference mode alone.
        if self.buffer.is_inference() != torch.is_inference_mode_enabled():
            return False
        with self._lock:
            if start != self.filled or stop > self.buffer.shape[1]:
                return False
            self.filled = stop
            return True

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Copies and files of a tensor go without the room, which only it may fill."""
        return type(None), ()


def append(past: Tensor, new: Tensor) -> Tensor:
    """As torch.cat([past, new], dim=1) for (B, W, ...) and (B, T, ...), in the time of `new`.

    Without gradients the result may lie in a buffer with room to grow, which the next append to it
    fills. What was appended before never changes; memory is at most twice what is shown.
    """
    W, T = past.shape[1], new.shape[1]
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return concatenate(past, new)
    if W == 0:
        owns_memory = new.untyped_storage().nbytes() == new.nbytes
        return new if owns_memory else new.clone()
    if past.dtype != new.dtype:
        return torch.cat([past, new], dim=1)
    shown = reserve(past, T)
    shown[:, W:] = new
    return shown


def concatenate(past: Tensor, new: Tensor) -> Tensor:
    """torch.cat([past, new], dim=1); `new` itself if there is no past."""
    return torch.cat([past, new], dim=1) if past.shape[1] else new


def reserve(past: Tensor, count: int) -> Tensor:
    """past (B, W, ...) followed by `count` tokens that the caller writes; without gradients."""
    start, stop = past.shape[1], past.shape[1] + count
    room: _Room | None = getattr(past, _ROOM, None)
    if room is None or not room.claim(start, stop):
        room = _Room(past, max(2 * stop, LEAST_ROOM))
        claimed = room.claim(start, stop)
        assert claimed
    # .data gives each tensor a version of its own: autograd need not mind that another one grows.
    shown = room.buffer.data[:, :stop]
    setattr(shown, _ROOM, room)
    return shown
