"""The session that a command talks in: one of the store, or one that is gone afterwards."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from slowwave.commands.memory import (
    Directory,
    default_directory,
    has_store,
    load_model,
    open_store,
)
from slowwave.memory.config import read_gate
from slowwave.memory.names import check_name, is_fit
from slowwave.runtime.config import Sampling

if TYPE_CHECKING:
    from slowwave.memory.session import Session
    from slowwave.memory.sleep_report import SleepReport
    from slowwave.memory.store import Store
    from slowwave.memory.stored_session import StoredSession


@dataclasses.dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """Whom to talk to, in which memory, and how replies are drawn."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """A model to talk to: a folder of slowwave's or of Hugging Face's, a .gguf file, a name on the
    hub (org/model), or smollm2 (docs/models.md)."""
    memory: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Name of the session to go on with, made if it is new; all is forgotten if not given."""
    memory_dir: Directory = dataclasses.field(default_factory=default_directory)
    """Directory of memories; SLOWWAVE_MEMORY_DIR, else memories in the current directory."""
    gate: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """TOML file of what may reject the sleeps of a new session, for good (docs/gate.md)."""
    max_new_tokens: int = 256
    """Tokens after which a reply ends at the latest."""
    temperature: float = 0.0
    """0 takes the likeliest token; 1 draws by the model's probabilities."""
    top_k: int = 0
    """Draw among the likeliest so many tokens; 0 is all."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that together have this probability."""
    seed: int = 0
    """Another seed draws another reply."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"--max-new-tokens is {self.max_new_tokens}; use 1 or more")

    @property
    def sampling(self) -> Sampling:
        """How tokens are drawn."""
        return Sampling(
            temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, seed=self.seed
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restored:
    """What a session of the store brings along."""

    memory: str
    is_new: bool
    turns: int
    tokens_seen: int
    num_sleeps: int
    changed: float
    """When it was last told something, in seconds since 1970."""
    others: list[str]
    """Sessions that are in the store beside it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
    """A session of a store, the store, and what was in it."""

    session: StoredSession
    store: Store
    restored: Restored


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """A session to talk in; `stored` is None if it ends with the process."""

    session: Session
    stored: Stored | None


@contextlib.contextmanager
def open_session(
    options: SessionOptions, on_sleep: Callable[[SleepReport], object]
) -> Iterator[Opened]:
    """The session within; raises ValueError or OSError if it cannot be had."""
    sampling = options.sampling
    gate = None if options.gate is None else read_gate(options.gate)
    if options.memory is not None:
        _require_name(options.memory, options.memory_dir)
    talker = load_model(options.model)
    if options.memory is None:
        session = talker.session(sampling=sampling, on_sleep=on_sleep, gate=gate)
        yield Opened(session=session, stored=None)
        return
    name = options.memory
    with open_store(options.memory_dir, create=True) as store:
        names = [info.name for info in store.sessions()]
        with store.open(
            name, talker, create=True, sampling=sampling, on_sleep=on_sleep, gate=gate
        ) as session:
            info = store.info(name)
            restored = Restored(
                memory=name,
                is_new=name not in names,
                turns=sum(entry.kind == "told" for entry in session.ledger()),
                tokens_seen=info.tokens_seen,
                num_sleeps=info.num_sleeps,
                changed=info.changed,
                others=[other for other in names if other != name],
            )
            stored = Stored(session=session, store=store, restored=restored)
            yield Opened(session=session, stored=stored)


def _require_name(name: str, directory: Path) -> None:
    """Before anything is loaded or made: a session that is there keeps whatever name it has."""
    if is_fit(name):
        return
    if has_store(directory):
        with open_store(directory) as store:
            if any(info.name == name for info in store.sessions()):
                return
    check_name("session", name)
