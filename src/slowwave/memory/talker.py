"""A model to talk to, with which sessions begin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from slowwave.memory.config import GateConfig
from slowwave.memory.session import Session
from slowwave.memory.sleep_report import SleepReport
from slowwave.runtime import model_folder
from slowwave.runtime.config import Sampling
from slowwave.runtime.model_folder import TalkingModel


class Talker(TalkingModel):
    """A model to talk to, with sessions."""

    __slots__ = ()

    def session(
        self,
        path: str | Path | None = None,
        *,
        sampling: Sampling | None = None,
        on_sleep: Callable[[SleepReport], object] | None = None,
        gate: GateConfig | None = None,
    ) -> Session:
        """A new session, or one that goes on from a file that `Session.save` wrote.

        The keywords are those of `Session`. Raises ValueError if the file cannot be read or is of
        another model.
        """
        session = Session(self, sampling=sampling, on_sleep=on_sleep, gate=gate)
        if path is not None:
            session.load(path)
        return session


def load(folder: str | Path, *, device: str | torch.device = "cpu") -> Talker:
    """A model to talk to, from a folder with config.json, model.safetensors and, unless it reads
    bytes, tokenizer.json.

    Raises ValueError naming the file that is missing or unfit, or a device that torch cannot use.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise ValueError(
            f"device is {str(device)!r}, which torch cannot use here; use cpu"
        ) from None
    return Talker(*model_folder.load(folder, device))
