"""Recorded runs of one recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from recorded_runs import DEPO, exact_of, write_run
from slowwave.lab.run_results import Variant, find_runs, find_variants


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three seeds at N = 1 and 4, and one run of each of three variants."""
    root = tmp_path / "results"
    for passes in (1, 4):
        for seed in (0, 1, 2):
            write_run(
                root / f"n{passes}-seed{seed}",
                DEPO,
                exact=exact_of(passes, seed),
                sleep__passes=passes,
                train__seed=seed,
            )
    write_run(root / "flops", DEPO, exact=0.3, train__steps=2600, train__muon_lr=2e-2)
    write_run(
        root / "normed", DEPO, exact=0.7, sleep__passes=4, sleep__consolidator__recirculate="normed"
    )
    write_run(
        root / "row",
        DEPO,
        exact=0.5,
        floors={"chance": 0.11, "copy": 0.2},
        sleep__passes=4,
        task__layout="row",
    )
    return root


@pytest.fixture
def variants(folder: Path) -> list[Variant]:
    return find_variants(find_runs(folder))
