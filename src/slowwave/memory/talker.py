"""A model to talk to, with which sessions begin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from slowwave.memory.config import GateConfig
from slowwave.memory.sleep_report import SleepReport
from slowwave.models.backbone import HybridLM
from slowwave.runtime import model_folder
from slowwave.runtime.config import ChatFormat, Sampling
from slowwave.sleep.config import SleepConfig
from slowwave.storage.tokenizer import Tokenizer

if TYPE_CHECKING:
    from slowwave.memory.session import Session


class Talker(NamedTuple):
    """All that a session needs of a model."""

    model: HybridLM
    tokenizer: Tokenizer
    sleep: SleepConfig
    chat: ChatFormat | None = None
    """How a conversation is written; None for a model that only goes on with a text."""

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
        from slowwave.memory.session import Session

        session = Session(self, sampling=sampling, on_sleep=on_sleep, gate=gate)
        if path is not None:
            session.load(path)
        return session

    def __repr__(self) -> str:
        config = self.model.config
        return (
            f"<{type(self).__name__} parameters={self.model.num_parameters} "
            f"layers={'-'.join(config.layers)} vocab_size={config.vocab_size} "
            f"window={self.sleep.window} passes={self.sleep.passes} chat={self.chat is not None}>"
        )


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
    model, tokenizer, config = model_folder.load(folder)
    return Talker(model.to(device), tokenizer, config.sleep, config.chat)
