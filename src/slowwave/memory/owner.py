"""What a session of a store belongs to: model, tokenizer, settings, gate."""

from __future__ import annotations

import json

from slowwave.config import Config
from slowwave.generation.model_folder import Talker
from slowwave.memory.catalogue_rows import Owner, SessionRow
from slowwave.memory.config import GateConfig, require_sleep
from slowwave.memory.refusals import OtherModel
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


def parse_gate(owner: Owner) -> GateConfig | None:
    """The gate of a session; None if it has none."""
    return None if owner.gate is None else GateConfig.from_dict(json.loads(owner.gate))


def require_talker(row: SessionRow, talker: Talker) -> None:
    """Raises ValueError if a session is of another model, tokenizer or sleep settings."""
    for field, theirs, ours in zip(Owner._fields, row.owner, own(talker, None), strict=True):
        if field != "gate" and theirs != ours:
            raise OtherModel(
                f"session {row.name!r} was read with another {field}; open it with its own, or "
                "move it to this one by resleep"
            )


def require_gate(row: SessionRow, gate: GateConfig | None) -> GateConfig | None:
    """The gate of a session; raises ValueError if another one is given."""
    found = parse_gate(row.owner)
    if gate is not None and gate != found:
        raise ValueError(
            f"session {row.name!r} was made with {'no gate' if found is None else 'another gate'}; "
            "open it without naming one, or move it to this one by resleep"
        )
    return found


def _dump(config: Config) -> str:
    return json.dumps(config.to_dict(), sort_keys=True)
