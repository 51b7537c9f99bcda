"""What a run left is read as it was written, and refused by field where it was not."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slowwave.training.run_files import read_counters, read_metrics, read_summary

RESULTS = Path(__file__).parents[2] / "results"
RECORDED = sorted(RESULTS.glob("*/*/summary.json"))
SCORE = {"exact": 0.5, "sampled": 0.25, "token_accuracy": 1, "loss": 0.125, "answers": 8}
RECORD = {"split": "test", "passes": 2, "flops": 3, "overall": SCORE, "groups": {"1": SCORE}}
COUNTERS = {"step": 1, "tokens": 2, "flops": 3, "seconds": 0.5}
SUMMARY = {
    **COUNTERS,
    "name": "tiny",
    "parameters": 5,
    "trained_passes": 2,
    "group_name": "hop",
    "floors": {"chance": 0.1},
    "test": [RECORD],
}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parts[-3]}/{path.parts[-2]}")
def test_all_that_is_recorded_can_be_read(path: Path) -> None:
    assert read_summary(path) == json.loads(path.read_text())
    assert read_metrics(path.with_name("metrics.jsonl"))[-1]["step"] > 0


def change(*keys: str | int, to: Any) -> Callable[[], Any]:
    def make() -> Any:
        changed: Any = json.loads(json.dumps(SUMMARY))
        place = changed
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to
        return changed

    return make


@pytest.mark.parametrize(
    ("summary", "sentence"),
    [
        (change("test", to=[]), "test: List should have at least 1 item"),
        (change("test", 0, "passes", to=3), "test lacks N = 2; restore the file"),
        (change("test", 0, "overall", to={}), "test.0.overall.exact: is missing; restore the file"),
        (change("test", 0, "groups", "1", "loss", to="0.5"), "test.0.groups.1.loss: "),
        (change("floors", to=None), "floors: "),
        (change("tokens", to=1.5), "tokens: "),
        (change("step", to=-1), "step: "),
        (change("flops", to=10**400), "flops: "),
        (change("seconds", to=1.7e308), "seconds: "),
        (change("bytes_per_token", to=0), "bytes_per_token: "),
        (lambda: [], "Summary: "),
        (lambda: None, "Summary: "),
        (lambda: {}, "step: is missing; restore the file"),
    ],
)
def test_a_summary_of_another_form_is_named(
    tmp_path: Path, summary: Callable[[], Any], sentence: str
) -> None:
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(summary()))
    with pytest.raises(ValueError, match=re.escape(f"{path}: {sentence}")):
        read_summary(path)


@pytest.mark.parametrize("text", ["", "{", '{"step": NaN}', "\0" * 80, "[" * 100_000])
def test_what_is_no_json_is_named(tmp_path: Path, text: str) -> None:
    for name, read in (("summary.json", read_summary), ("progress.json", read_counters)):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=rf"{name}: not valid JSON .*; restore the file"):
            read(tmp_path / name)


def test_lines_of_metrics(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    lines = [{**COUNTERS, "loss": 1.5}, {**COUNTERS, "evaluation": RECORD}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_metrics(path) == lines
    path.write_text(json.dumps({**COUNTERS, "step": "1"}) + "\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl: line 1: step: .* got '1'; restore"):
        read_metrics(path)


def test_a_pipe_of_metrics_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match=r"metrics\.jsonl: no plain file; name another"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_counters_are_those_alone(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    path.write_text(json.dumps({**COUNTERS, "later": 1}))
    assert read_counters(path) == COUNTERS
