"""What a session of a store belongs to: model, tokenizer, settings, gate."""

from __future__ import annotations

import functools
import json
from typing import NamedTuple

from slowwave.config import Config, describe_differences
from slowwave.memory.config import GateConfig, require_sleep
from slowwave.memory.names import OtherModel
from slowwave.runtime.model_folder import TalkingModel
from slowwave.sleep.config import SleepConfig
from slowwave.storage.checkpoint import fingerprint_model
from slowwave.storage.json_files import parse_json

ELSEWHERE = "elsewhere"
"""In place of the fingerprints of a session whose model runs elsewhere."""


class Owner(NamedTuple):
    """What a session was read with, and is read on with."""

    model: str
    """Fingerprints of model and tokenizer."""
    tokenizer: str
    sleep: str
    """The sleep settings as canonical JSON."""
    gate: str | None = None
    """The gate as canonical JSON; None if there is none."""

    def parse_sleep(self) -> SleepConfig:
        """The sleep settings; raises ValueError if the JSON holds none."""
        return _parse_sleep(self.sleep)

    def parse_gate(self) -> GateConfig | None:
        """The gate; raises ValueError if the JSON holds none."""
        return None if self.gate is None else _parse_gate(self.gate)

    def require_talker(self, name: str, talker: TalkingModel) -> None:
        """Raises OtherModel if session `name` is of another model, tokenizer or sleep settings."""
        ours, settings = own(talker, None), self.parse_sleep()
        if self.model != ours.model:
            other = "model"
        elif self.tokenizer != ours.tokenizer:
            other = "tokenizer"
        elif settings != talker.sleep:
            other = f"sleep ({_describe('sleep', talker.sleep, settings)})"
        else:
            return
        raise OtherModel(
            f"session {name!r} was read with another {other}; open it with its own, or move it to "
            "this one by resleep"
        )

    def require_elsewhere(self, name: str) -> None:
        """Raises OtherModel if session `name` is of a model on this machine."""
        if self.model != ELSEWHERE:
            raise OtherModel(
                f"session {name!r} was read by a model on this machine; use another name for one "
                "whose model runs elsewhere"
            )

    def require_gate(self, name: str, gate: GateConfig | None) -> GateConfig | None:
        """The gate of session `name`; raises ValueError if another one is given."""
        found = self.parse_gate()
        if gate is not None and gate != found:
            other = f"another gate ({_describe('gate', gate, found)})" if found else "no gate"
            raise ValueError(
                f"session {name!r} was made with {other}; open it without naming one, or move it "
                "to this one by resleep"
            )
        return found


def own(talker: TalkingModel, gate: GateConfig | None) -> Owner:
    """The owner of a session that is made with these."""
    model, tokenizer = fingerprint_model(talker.model), talker.tokenizer.fingerprint
    return make_owner(model, tokenizer, talker.sleep, gate)


def make_owner(model: str, tokenizer: str, sleep: SleepConfig, gate: GateConfig | None) -> Owner:
    """An owner, from the fingerprints of model and tokenizer; raises as `require_sleep`."""
    require_sleep(gate, sleep)
    return Owner(model, tokenizer, _dump(sleep), None if gate is None else _dump(gate))


def own_words() -> Owner:
    """The owner of a session whose model runs elsewhere; it has no window, so no settings."""
    return make_owner(ELSEWHERE, ELSEWHERE, SleepConfig(window=1, eviction="none"), None)


def _describe(section: str, here: Config, there: Config) -> str:
    return describe_differences(
        {section: here.to_dict()}, {section: there.to_dict()}, "in the session"
    )


def _dump(config: Config) -> str:
    return json.dumps(config.to_dict(), sort_keys=True)


@functools.lru_cache
def _parse_sleep(text: str) -> SleepConfig:
    return SleepConfig.from_dict(parse_json(text))


@functools.lru_cache
def _parse_gate(text: str) -> GateConfig:
    return GateConfig.from_dict(parse_json(text))
