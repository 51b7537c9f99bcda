"""Sessions, ledgers, gates, stores and exports work with any consolidator."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from slowwave.memory.config import GateConfig
from slowwave.memory.sleep_report import SleepReport
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.models.backbone import HybridLM
from slowwave.sleep.config import KINDS, SleepConfig

WINDOW = 12
GATE = GateConfig(held_out=("A text.",), max_median_rise=9)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def slept_talker(talker: Talker, kind: str) -> Talker:
    passes = min(2, KINDS[kind].most_passes)
    sizes = dataclasses.replace(talker.model.config, prime_blocks=1)
    return talker._replace(
        model=HybridLM(sizes, seed=1) if kind == "ttt" else talker.model,
        sleep=SleepConfig(window=WINDOW, passes=passes, consolidator=KINDS[kind]()),
    )


@pytest.mark.parametrize("gate", [None, GATE], ids=["no gate", "gate"])
def test_sessions_sleep_by_any(
    tmp_path: Path, slept_talker: Talker, kind: str, gate: GateConfig | None
) -> None:
    with Store(tmp_path) as store:
        told = list[SleepReport]()
        with store.open(
            "ann", slept_talker, create=True, gate=gate, on_sleep=told.append
        ) as session:
            session.read("Ann lives in Lima, and has a cat.")
            assert session.sleep(1) is not None
            state = session.state
        reports = [slept.report for slept in store.sleeps("ann")]
        assert reports == told
        full, asked = {r.consolidator for r in reports[:-1]}, reports[-1].consolidator
        assert (full, asked) == ({kind}, "evict")
        assert {report.passes for report in reports[:-1]} == {slept_talker.sleep.passes}
        if gate is not None:
            assert all(report.verdict is not None for report in reports)
        store.fork("ann", "bob")
        for name in ("ann", "bob"):
            again = store.state(name, slept_talker).tensors()
            for field, before in state.tensors().items():
                assert torch.equal(again[field], before)
        store.export("ann", tmp_path / "ann.zip")
        store.import_session(tmp_path / "ann.zip", "eve")
        assert [slept.report for slept in store.sleeps("eve")] == reports
        assert store.rebuild("eve", slept_talker) == []


def test_more_passes_than_a_consolidator_uses_are_refused(slept_talker: Talker, kind: str) -> None:
    session = slept_talker.session()
    session.read("Ann")
    most = KINDS[kind].most_passes
    with pytest.raises(ValueError, match=rf"^passes is {most + 1}.*; use 1"):
        session.sleep(most + 1)
    assert session.status().num_sleeps == 0
