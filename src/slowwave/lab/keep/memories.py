"""Who is compared: consolidators by name and size, and the controls beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from slowwave.memory.talker import Talker
from slowwave.sleep.config import KINDS, PRESETS, Compact, SleepConfig
from slowwave.wording import describe_unknown

FULL, EMPTY, FOREIGN = "full context", "empty memory", "another's memory"
LORA = "lora"
"""Windows are evicted; what was told is learned as a low-rank delta before questions come."""
NEWEST = "streaming"
"""The preset that keeps the newest tokens, and the first: the last window at equal bytes."""


class Memory(NamedTuple):
    """A way to keep a context.

    passes: N; kept: share of a window's keys that stay, None where none do. settings: of its
    consolidator; None is full context, which never sleeps.
    """

    name: str
    passes: int = 1
    kept: float | None = None
    settings: dict[str, Any] | None = None

    def talker(self, talker: Talker, window: int, *, replay: str | None = None) -> Talker:
        """The talker, sleeping so on windows of so many tokens.

        replay: replaces what sessions read again, where a second reading is made.
        """
        if self.settings is None:
            return talker._replace(sleep=SleepConfig(window=window, eviction="none"))
        settings = self.settings if replay is None else {**self.settings, "replay": replay}
        sleep = {"window": window, "passes": self.passes, "consolidator": settings}
        return talker._replace(sleep=SleepConfig.from_dict({**sleep, "at_turns": True}))

    @property
    def dreams(self) -> bool:
        """Whether it learns from what was said, which a text without users has nothing of."""
        return self.name == LORA

    @property
    def rereads(self) -> bool:
        """Whether what is replayed matters to it."""
        settings = self.settings or {}
        made = SleepConfig.from_dict({"passes": self.passes, "consolidator": settings}).consolidator
        return isinstance(made, Compact) and made.queries == "reread" and made.score != "recent"


def list_memories(
    talker: Talker,
    names: Sequence[str],
    *,
    ratios: Sequence[float],
    passes: Sequence[int],
    capacity: float | None,
    changes: dict[str, Any],
) -> list[Memory]:
    """Each name with each ratio and N that it has a use for; the model's own settings where they
    are of the same kind.

    ratios: one in so many keys stays. capacity: of all alike, so that their bytes are; the model's
    own if None. changes: settings of every consolidator named. Raises ValueError on a name that is
    not known, or settings that are unfit.
    """
    own, found = talker.sleep.consolidator, list[Memory]()
    if isinstance(own, Compact) and capacity is None:
        capacity = own.capacity
    for name in names:
        if name == LORA:
            found.append(Memory(LORA, settings={"kind": "evict"}))
            continue
        if name not in KINDS and name not in PRESETS:
            raise ValueError(describe_unknown("memory", name, [*KINDS, *PRESETS, LORA]))
        settings = own.to_dict() if own.kind == name else {"kind": name}
        settings = {**settings, **changes}
        compacts = name in PRESETS or KINDS[name] is Compact
        if compacts and capacity is not None:
            settings["capacity"] = capacity
        for ratio in ratios if compacts else (None,):
            kept = None if ratio is None else 1 / ratio
            share = {} if kept is None else {"ratio": kept}
            for count in passes if name not in ("evict", NEWEST) else passes[:1]:
                most = KINDS[settings["kind"] if name in KINDS else "compact"].most_passes
                made = Memory(name, min(count, most), kept, {**settings, **share})
                made.talker(talker, talker.sleep.window)
                found.append(made)
    return found


def describe(memory: Memory) -> dict[str, Any]:
    """What a row says of who was compared."""
    return {"memory": memory.name, "passes": memory.passes, "kept": memory.kept}
