"""Whatever is done to a session, its ledger is what it went through, and leads to its state."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ledger_trace import trace
from slowwave.memory.config import GateConfig
from slowwave.memory.ledger import Entry
from slowwave.memory.replay import replay
from slowwave.memory.session import Session
from slowwave.memory.sleep_report import SleepReport
from slowwave.memory.store import Store
from slowwave.memory.stored_session import StoredSession
from slowwave.memory.talker import Talker
from slowwave.runtime.config import Sampling
from slowwave.sleep.config import SleepConfig

WINDOW = 6
SLEEPS = {
    "all": SleepConfig(window=WINDOW, passes=2),
    "sliding": SleepConfig(window=WINDOW, passes=2, eviction="sliding", sinks=1),
    "none": SleepConfig(window=WINDOW, eviction="none"),
    "wake": SleepConfig(window=WINDOW, passes=2, wake_passes=2),
}
GATES = {
    "no": None,
    "a": GateConfig(held_out=("aab",), max_median_rise=None, max_mean_rise=0.0),
}
NAMES = ("monday", "tuesday")
STEPS = st.one_of(
    st.tuples(st.just("read"), st.text("ab", min_size=1, max_size=2 * WINDOW)),
    st.tuples(st.just("generate"), st.integers(1, WINDOW)),
    st.tuples(st.just("sleep"), st.none()),
    st.tuples(st.just("open again"), st.none()),
    st.tuples(st.just("snapshot"), st.sampled_from(NAMES)),
    st.tuples(st.just("roll back"), st.sampled_from(NAMES)),
    st.tuples(st.just("fork"), st.none()),
    st.tuples(st.just("forget"), st.integers(0, 5)),
)


class Walk:
    """A session of a store, and what its ledger and those of its snapshots must be."""

    def __init__(self, store: Store, talker: Talker, gate: GateConfig | None) -> None:
        self.store, self.talker, self.gate = store, talker, gate
        self.session = self.open()
        self.ledger: list[Entry] = []
        self.snapshots: dict[str, list[Entry]] = {}

    def open(self) -> StoredSession:
        sampling = Sampling(temperature=1.0, top_k=40)
        return self.store.open("ann", self.talker, create=True, sampling=sampling, gate=self.gate)

    def start(self) -> Session:
        return self.talker.session(gate=self.gate)

    def take(self, step: str, what: str | int | None) -> None:
        match step, what:
            case "read", str():
                self.session.read(what, source=what[0])
            case "generate", int():
                self.session.generate("a", max_new_tokens=what)
            case "sleep", _ if self.session.state.window_fill and self.talker.sleep.passes > 1:
                self.session.sleep()
            case "open again", _:
                self.session.close()
                self.session = self.open()
            case "snapshot", str() if what not in self.snapshots:
                self.session.snapshot(what)
                self.snapshots[what] = self.session.ledger()
            case "roll back", str() if what in self.snapshots:
                self.session.rollback(what)
                self.ledger = self.snapshots[what]
            case "fork", _ if len(self.store.sessions()) < 3:
                self.store.fork("ann", f"fork {len(self.store.sessions())}")
            case "forget", int() if what < len(self.ledger):
                self.forget(what)
            case _:
                return
        found = self.session.ledger()
        assert found[: len(self.ledger)] == self.ledger
        self.ledger = found

    def forget(self, place: int) -> None:
        preview = self.session.preview_forgetting(places=[place])
        gone = set(self.ledger[place:])
        self.session.forget(preview)
        self.ledger = replay(self.start, preview.plan.kept_entries).entries
        for name in preview.snapshots:
            assert gone & set(self.snapshots.pop(name))

    def check(self) -> None:
        assert self.session.ledger() == self.ledger
        points = {"ann": self.ledger} | {f"ann@{n}": ls for n, ls in self.snapshots.items()}
        for point, ledger in points.items():
            assert self.store.entries(point) == ledger
            self.check_provenance(point, ledger)
            self.check_pieces(point, ledger)
            self.check_sources(point, ledger)
        self.check_state(self.session)
        assert [mark.name for mark in self.store.info("ann").snapshots] == list(self.snapshots)
        assert self.store.measure().leftovers == 0
        self.session.close()
        for info in self.store.sessions():
            with self.store.open(info.name, self.talker) as session:
                self.check_state(session)

    def check_provenance(self, point: str, ledger: list[Entry]) -> None:
        rejected = set[int]()
        session = self.start()
        for place, entry in enumerate(ledger):
            session.repeat(entry)
            if entry.kind == "sleep" and session.sleeps[-1].is_rejected:
                rejected.add(place)
        expected = trace(ledger, self.talker.sleep, rejected=rejected)
        assert self.store.provenance(point) == expected

    def check_pieces(self, point: str, ledger: list[Entry]) -> None:
        sleeps, begin = self.store.sleeps(point), 0
        for start in range(len(ledger) + 1):
            piece = self.store.page(point, start, start + 2)
            assert (piece.place, piece.start, piece.entries) == (
                start,
                begin,
                ledger[start : start + 2],
            )
            end = begin + sum(len(entry.tokens) for entry in piece.entries)
            assert piece.sleeps == [
                each for each in sleeps if max(begin, each.start) < min(end, each.stop)
            ]
            begin += sum(len(entry.tokens) for entry in ledger[start : start + 1])
        assert self.store.last_page(point, 3) == self.store.page(
            point, max(0, len(ledger) - 3), len(ledger)
        )

    def check_sources(self, point: str, ledger: list[Entry]) -> None:
        by_source: dict[str, list[Entry]] = {}
        for entry in ledger:
            if entry.kind != "sleep":
                by_source.setdefault(entry.source, []).append(entry)
        assert self.store.sources(point) == [
            (
                source,
                len(entries),
                sum(len(entry.tokens) for entry in entries),
                min(entry.time for entry in entries),
                max(entry.time for entry in entries),
            )
            for source, entries in by_source.items()
        ]

    def check_state(self, session: StoredSession) -> None:
        twin = replay(self.start, session.ledger())
        assert session.state.counters == twin.state.counters
        mine, theirs = session.state.tensors(), twin.state.tensors()
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        stored = [slept.report for slept in self.store.sleeps(session.name)]
        assert [plain(report) for report in stored] == [plain(report) for report in twin.sleeps]


def plain(report: SleepReport) -> SleepReport:
    """A report without the time that a sleep took."""
    verdict = report.verdict and dataclasses.replace(report.verdict, milliseconds=0)
    return dataclasses.replace(report, verdict=verdict, milliseconds=0)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    setting=st.sampled_from(sorted(SLEEPS)),
    gate=st.sampled_from(sorted(GATES)),
    steps=st.lists(STEPS, max_size=10),
)
@example(  # a rejected sleep right after that of a full window consolidates nothing
    setting="all", gate="a", steps=[*[("read", "a")] * 3, ("read", "abba"), ("sleep", None)]
)
def test_walks(
    talker: Talker, setting: str, gate: str, steps: list[tuple[str, str | int | None]]
) -> None:
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder)) as store:
        rule = None if setting == "none" else GATES[gate]
        walk = Walk(store, talker._replace(sleep=SLEEPS[setting]), rule)
        for step, what in steps:
            walk.take(step, what)
        walk.check()
