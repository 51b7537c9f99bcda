"""A store keeps sessions: over restarts, in forks, at snapshots, and without what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from slowwave.generation.config import Sampling
from slowwave.generation.model_folder import Talker
from slowwave.memory.provenance import trace
from slowwave.memory.replay import replay
from slowwave.memory.session import Session
from slowwave.memory.store import Store
from slowwave.memory.stored_session import StoredSession
from slowwave.state import MemoryState

DRAWN = Sampling(temperature=1.0, top_k=40)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as store:
        yield store


def start(talker: Talker) -> Session:
    return Session(talker.model, talker.tokenizer, talker.sleep, chat=talker.chat, sampling=DRAWN)


def begin(store: Store, talker: Talker, name: str = "ann") -> StoredSession:
    return store.open(name, talker, create=True, sampling=DRAWN)


def live(session: Session) -> None:
    """A few turns, with sleeps within and between."""
    session.read("Ann lives in Lima and likes tea.", source="notes")
    session.generate("Where?", max_new_tokens=9)
    session.read("Bob.", source="letters")
    session.sleep()


def tensors(state: MemoryState) -> list[Tensor]:
    found: list[Tensor] = []
    state.map(lambda tensor: (found.append(tensor), tensor)[1])
    return found


def assert_same(actual: MemoryState, expected: MemoryState) -> None:
    assert (actual.tokens_seen, actual.num_sleeps) == (expected.tokens_seen, expected.num_sleeps)
    for mine, other in zip(tensors(actual), tensors(expected), strict=True):
        assert torch.equal(mine, other)


def assert_led_to(session: StoredSession, talker: Talker) -> None:
    """The ledger leads to the state."""
    assert_same(session.state, replay(lambda: start(talker), session.ledger()).state)


def state_files(store: Store) -> list[str]:
    return sorted(path.name for path in (store.directory / "states").iterdir())


# Turns.


def test_a_session_goes_on_after_a_restart_as_if_never_stopped(
    store: Store, talker: Talker
) -> None:
    alone = start(talker)
    live(alone)
    with begin(store, talker) as session:
        live(session)
        assert session.entries == session.sleeps == []
        assert session.status() == alone.status()
    with Store(store.directory) as again, begin(again, talker) as session:
        assert_same(session.state, alone.state)
        texts = [(entry.kind, entry.source, entry.tokens) for entry in session.ledger()]
        assert texts == [(entry.kind, entry.source, entry.tokens) for entry in alone.entries]
        assert session.generate("Who?") == alone.generate("Who?")
        assert_same(session.state, alone.state)
        assert_led_to(session, talker)
    assert len(state_files(store)) == 1


def test_the_ledger_is_kept_whole(store: Store, talker: Talker) -> None:
    alone = start(talker)
    seen = []
    with store.open("ann", talker, create=True, sampling=DRAWN, on_sleep=seen.append) as session:
        live(session)
        for entry in session.ledger():
            alone.repeat(entry)
    assert store.entries("ann") == alone.entries
    assert [slept.report for slept in store.sleeps("ann")] == seen
    assert store.provenance("ann") == trace(alone.entries, talker.sleep)
    spans = [(slept.start, slept.stop) for slept in store.sleeps("ann")]
    assert [stop - start for start, stop in spans] == [report.tokens for report in seen]
    info = store.info("ann")
    assert (info.num_entries, info.num_sleeps) == (len(alone.entries), len(seen))
    assert (info.tokens_seen, info.window_fill) == (alone.state.tokens_seen, 0)
