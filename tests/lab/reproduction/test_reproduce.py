"""`slowwave reproduce` as a stranger meets it, with models of a second."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from slowwave import cli
from slowwave.lab.probe import probe_run
from slowwave.lab.reproduction.runs import PlannedRun
from slowwave.storage.json_files import read_json

ROOT = Path(__file__).parents[3]
SIZES = """
[model]
width = 16
mlp_hidden = 16
attn_heads = 2
key_dim = 8
value_dim = 8
[sleep]
window = 12
[train]
steps = 2
batch_size = 4
eval_examples = 4
threads = 1
"""
TASK = """
name = "tiny"
[task]
name = "depo"
nodes = 6
hops = 2
questions = 2
"""
CELLS = """
name = "cells"
[task]
name = "rule110"
width = 12
steps = 1
"""
FIGURE = """
title = "A tiny figure"
shows = "That it runs."
curve_by = "sleep.passes"
[[mini]]
recipe = "tiny"
name = "n{sleep.passes}-seed{train.seed}"
each = { sleep.passes = [1, 2] }
"""
PROBED = """
title = "Tiny probes"
shows = "What is left."
probes = true
[[mini]]
recipe = "cells"
name = "n{sleep.passes}-seed{train.seed}"
set = { sleep.passes = 2 }
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with one recipe and one figure."""
    (tmp_path / "recipes" / "figures").mkdir(parents=True)
    (tmp_path / "recipes" / "tiny.toml").write_text(TASK + SIZES)
    (tmp_path / "recipes" / "figures" / "small.toml").write_text(FIGURE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def test_a_figure_is_made_once(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.main(["reproduce", "small", "--seeds", "1", "--jobs", "2", "--dry-run"])
    shown = capsys.readouterr().out
    assert "results/tiny/n1-seed0: to do, 0.00 M tokens, 0.0 TFLOP" in shown
    assert not (tiny / "results").exists()

    cli.main(["reproduce", "small", "--seeds", "1", "--jobs", "2"])
    printed = capsys.readouterr()
    assert "0 of 2 runs are recorded" in printed.err
    for name in ("README.md", "tiny/small.png", "tiny/table.md", "tiny/learning-curves.png"):
        assert f"results/{name}\n" in printed.out
        assert (tiny / "results" / name).exists()
    assert "[0](tiny/n2-seed0)" in (tiny / "results" / "README.md").read_text()

    monkeypatch.setattr("slowwave.lab.reproduction.reproduce.train_runs", _refuse)
    cli.main(["reproduce", "small", "--seeds", "1"])
    assert "2 of 2 runs are recorded" in capsys.readouterr().err
    cli.main(["reproduce", "small", "--seeds", "1", "--dry-run"])
    assert "n2-seed0: recorded" in capsys.readouterr().out
    cli.main(["reproduce", "--seeds", "1"])
    listed = capsys.readouterr().out
    assert "small" in listed and "A tiny figure. That it runs." in listed
    assert "2 of 2 runs" in listed


def test_a_run_without_its_checkpoint_is_trained_once_more_to_be_probed(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tiny / "recipes" / "cells.toml").write_text(CELLS + SIZES)
    (tiny / "recipes" / "figures" / "probed.toml").write_text(PROBED)
    few = functools.partial(probe_run, examples=16)
    monkeypatch.setattr("slowwave.lab.probe.probe_run", few)
    monkeypatch.setattr("slowwave.lab.reproduction.reproduce.train_runs", _train_here)
    monkeypatch.setattr("slowwave.experiment.TEST_EXAMPLES", 8)
    record = tiny / "results" / "cells" / "n2-seed0"
    probe, again = record / "probe.json", tiny / "runs" / "cells" / "n2-seed0"

    cli.main(["reproduce", "probed", "--seeds", "1"])
    assert "results/cells/n2-seed0: probing its fast weights" in capsys.readouterr().err
    assert read_json(probe)["examples"]["train"] == 16
    assert (tiny / "results" / "cells" / "probe.png").exists()
    assert "[n2-seed0](cells/n2-seed0/probe.json)" in (tiny / "results" / "README.md").read_text()

    shutil.rmtree(record / "checkpoint")
    written = probe.read_bytes()
    cli.main(["reproduce", "probed", "--seeds", "1"])
    assert "probing" not in capsys.readouterr().err
    assert probe.read_bytes() == written and not again.exists()

    probe.unlink()
    summary = (record / "summary.json").read_bytes()
    cli.main(["reproduce", "probed", "--seeds", "1", "--dry-run"])
    shown = capsys.readouterr().out
    assert "results/cells/n2-seed0/probe.json: to do" in shown
    assert "runs/cells/n2-seed0: to do" in shown
    cli.main(["reproduce", "probed", "--seeds", "1"])
    said = capsys.readouterr().err
    assert "trained once more to be probed: runs/cells/n2-seed0" in said
    assert probe.read_bytes() == written
    assert (record / "summary.json").read_bytes() == summary
    assert not (record / "checkpoint").exists()
    cli.main(["reproduce", "--seeds", "1"])
    assert "1 of 1 runs, 1 probed" in capsys.readouterr().out

    cli.main(["probe", str(again), "--examples", "16"])
    shown = capsys.readouterr().out
    assert "| 3 | answers |" in shown and f"{again / 'probe.png'}\n" in shown
    cli.main(["probe", str(again), "--examples", "16", "--json"])
    assert json.loads(capsys.readouterr().out) == read_json(probe)


def test_an_interrupt_says_how_to_go_on(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slowwave.lab.reproduction.reproduce.train_runs", _interrupt)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["reproduce", "small"])
    assert exit_.value.code == cli.INTERRUPTED
    assert "interrupted and saved; the same command goes on" in capsys.readouterr().err


def test_the_list_names_every_figure_of_the_paper(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    cli.main(["reproduce"])
    listed = capsys.readouterr().out
    for name in ("fig2a", "fig2b", "fig3", "fig4", "fig5", "fig6", "many-windows"):
        assert name in listed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["big"], "unknown figure 'big'; use one of small"),
        (["small", "--scale", "huge"], "unknown scale 'huge'; use one of mini, paper"),
        (["small", "--scale", "paper"], "scale is 'paper', which small does not have; use mini"),
        (["small", "--jobs", "0"], "--jobs is 0; use 1 or more"),
        (["small", "--seeds", "0"], "--seeds is 0; use 1 or more"),
    ],
)
def test_mistakes_get_one_sentence(
    tiny: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["reproduce", *arguments])
    assert exit_.value.code == cli.USER_ERROR
    assert capsys.readouterr().err == f"slowwave: {sentence}\n"


def test_without_recipes_it_says_where_to_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["reproduce"])
    assert "recipes/figures: no figures here; change to a checkout" in capsys.readouterr().err


def _train_here(runs: Sequence[PlannedRun], *_: object, **__: object) -> None:
    for run in runs:
        cli.main(run.arguments)


def _refuse(*_: object, **__: object) -> None:
    raise AssertionError("nothing is missing")


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
