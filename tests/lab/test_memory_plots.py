"""Tables and figures of probes show what probe.json holds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from damage import spoil_json
from slowwave.lab.memory_plots import draw_probe_figure, draw_probes, probe_table
from slowwave.lab.plots import draw_all
from slowwave.storage.json_files import write_json
from slowwave.training.run_files import read_probe

PASSES, SINCE, STEPS = 2, 3, 1


def _accuracies(start: float) -> list[list[list[float]]]:
    """By pass, windows since and steps; every number another one."""
    return [
        [
            [start + 0.1 * n + 0.02 * since + 0.01 * s for s in range(STEPS + 1)]
            for since in range(SINCE)
        ]
        for n in range(PASSES)
    ]


FOUND: dict[str, Any] = {
    "passes": PASSES,
    "steps": STEPS,
    "examples": {"train": 40, "validation": 10, "test": 10},
    "fast_weights": 128,
    "trained": {"first": _accuracies(0.7), "all": _accuracies(0.75)},
    "untrained": {"first": _accuracies(0.5), "all": _accuracies(0.55)},
    "floor": {"first": [0.51, 0.62], "all": [0.52, 0.63]},
    "answers": [0.99, 0.98, 0.97],
}


def test_a_damaged_probe_is_named_or_drawn(tmp_path: Path) -> None:
    refused = 0
    for seed in range(200):
        path, draw = tmp_path / "probe.json", random.Random(seed)
        path.write_text(json.dumps(spoil_json(FOUND, draw)))
        try:
            probe_table(read_probe(path))
            draw_probe_figure({"one": read_probe(path), "two": FOUND})
        except ValueError as error:
            assert str(error).startswith(f"{path}: "), seed
            refused += 1
    assert refused > 100


def test_the_table_holds_every_number() -> None:
    text = probe_table(FOUND)
    first, every = text.split("mean of all cells:")
    assert "| 0 | 1 | 70.0% (50.0%) | 71.0% (51.0%) |" in first
    assert "| 2 | 2 | 84.0% (64.0%) | 85.0% (65.0%) |" in first
    assert "| 1 | answers |  | 98.0% |" in first
    assert "| floor |  | 51.0% | 62.0% |" in first
    assert "| 2 | 1 | 79.0% (59.0%) | 80.0% (60.0%) |" in every
    assert "| floor |  | 52.0% | 63.0% |" in every
    assert "answers" not in every


def test_the_figure_has_a_column_for_each_n() -> None:
    one_pass = {
        **FOUND,
        "passes": 1,
        **{key: {"first": FOUND[key]["first"][:1]} for key in ("trained", "untrained")},
    }
    figure = draw_probe_figure({"b": FOUND, "a": one_pass})
    (other, above, _, below) = figure.axes
    shown = {str(line.get_label()): list(line.get_ydata()) for line in above.get_lines()}  # pyright: ignore
    assert shown["after pass 2"] == FOUND["trained"]["first"][1][0]
    assert shown["floor: likelier bit"] == [0.51, 0.62]
    assert FOUND["untrained"]["first"][1][0] in shown.values()
    assert "after pass 2" not in {line.get_label() for line in other.get_lines()}
    at_the_end = {str(line.get_label()): list(line.get_ydata()) for line in below.get_lines()}  # pyright: ignore
    assert at_the_end["1 window later"] == FOUND["trained"]["first"][1][1]
    assert at_the_end["2 windows later"] == FOUND["trained"]["first"][1][2]


def test_the_figure_shows_the_mean_over_runs_alike() -> None:
    worse = {**FOUND, "trained": {"first": _accuracies(0.5)}}
    (above, _) = draw_probe_figure({"a": FOUND, "b": worse}).axes
    assert "2 runs" in above.get_title()
    shown = np.asarray(above.get_lines()[0].get_ydata(), dtype=np.float64)
    np.testing.assert_allclose(shown, [0.6, 0.61])


def test_probes_are_found_in_folders(tmp_path: Path) -> None:
    assert draw_probes(tmp_path, tmp_path) == []
    for name in ("n1", "n4"):
        write_json(tmp_path / name / "probe.json", FOUND)
    written = draw_all(tmp_path, tmp_path / "out")
    assert written == [tmp_path / "out" / "probe.png", tmp_path / "out" / "probe.md"]
    assert written[0].read_bytes().startswith(b"\x89PNG")
    assert written[1].read_text().count("## n") == 2


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "probe.json").write_text("{")
    with pytest.raises(ValueError, match=r"probe\.json: not valid JSON"):
        draw_probes(tmp_path, tmp_path)
