"""What a session of a store belongs to: model, tokenizer, settings, gate."""

from __future__ import annotations

import json

from slowwave.config import Config, describe_differences
from slowwave.memory.catalogue_rows import Owner, SessionRow
from slowwave.memory.config import GateConfig, require_sleep
from slowwave.memory.names import OtherModel
from slowwave.memory.talker import Talker
from slowwave.sleep.config import SleepConfig
from slowwave.storage.fingerprint import fingerprint_model


def own(talker: Talker, gate: GateConfig | None) -> Owner:
    """The owner of a session that is made with these."""
    model, tokenizer = fingerprint_model(talker.model), talker.tokenizer.fingerprint
    return make_owner(model, tokenizer, talker.sleep, gate)


def make_owner(model: str, tokenizer: str, sleep: SleepConfig, gate: GateConfig | None) -> Owner:
    """An owner, from the fingerprints of model and tokenizer; raises as `require_sleep`."""
    require_sleep(gate, sleep)
    return Owner(model, tokenizer, _dump(sleep), None if gate is None else _dump(gate))


def require_talker(row: SessionRow, talker: Talker) -> None:
    """Raises ValueError if a session is of another model, tokenizer or sleep settings."""
    ours = own(talker, None)
    settings = row.owner.parse_sleep()
    if row.owner.model != ours.model:
        other = "model"
    elif row.owner.tokenizer != ours.tokenizer:
        other = "tokenizer"
    elif settings != talker.sleep:
        other = f"sleep ({_describe('sleep', talker.sleep, settings)})"
    else:
        return
    raise OtherModel(
        f"session {row.name!r} was read with another {other}; open it with its own, or move it to "
        "this one by resleep"
    )


def require_gate(row: SessionRow, gate: GateConfig | None) -> GateConfig | None:
    """The gate of a session; raises ValueError if another one is given."""
    found = row.owner.parse_gate()
    if gate is not None and gate != found:
        other = f"another gate ({_describe('gate', gate, found)})" if found else "no gate"
        raise ValueError(
            f"session {row.name!r} was made with {other}; open it without naming one, or move it "
            "to this one by resleep"
        )
    return found


def _describe(section: str, here: Config, there: Config) -> str:
    return describe_differences(
        {section: here.to_dict()}, {section: there.to_dict()}, "in the session"
    )


def _dump(config: Config) -> str:
    return json.dumps(config.to_dict(), sort_keys=True)
