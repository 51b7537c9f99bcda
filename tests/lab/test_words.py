"""Notes written before questions come: what they save, with a solver that never errs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scripted_endpoint import Answer, say, scripted
from slowwave.commands.lab import bench
from slowwave.lab.words.run import AWAKE_WEIGHT, draw_problems, run_words
from slowwave.lab.words.solver import ScriptedSolver
from slowwave.memory.endpoint import Completion
from slowwave.memory.notes_config import NotesConfig
from slowwave.tasks.gsm_infinite.stateful import Guess

PROBLEMS = draw_problems(3, 10)


def measure(
    foresees: Sequence[Guess], budgets: Sequence[int]
) -> dict[tuple[bool, int, int], dict[str, Any]]:
    rows = run_words(
        lambda most: ScriptedSolver(foresees, most),
        PROBLEMS,
        counts=(1, 10),
        budgets=budgets,
        notes=NotesConfig(),
        say=lambda _: None,
    )
    return {(row["notes"], row["budget"], row["questions"]): row for row in rows}


def test_notes_make_answers_short_and_are_paid_once() -> None:
    rows = measure(("stated", "derived", "total"), (1000,))
    plain, noted = rows[False, 1000, 10], rows[True, 1000, 10]
    assert plain["right"] == plain["of"] == noted["right"]
    assert noted["answer_tokens"] < plain["answer_tokens"] / 4
    for (has_notes, _, count), row in rows.items():
        expected = row["sleep_tokens"] / count + AWAKE_WEIGHT * row["answer_tokens"]
        assert row["cost"] == pytest.approx(expected, abs=0.1)
        assert (row["sleep_tokens"] > 0) == has_notes
    assert rows[True, 1000, 10]["cost"] < rows[True, 1000, 1]["cost"]


def test_a_short_answer_is_right_only_where_notes_foresaw_the_question() -> None:
    rows = measure(("stated", "derived"), (4,))
    noted = rows[True, 4, 10]
    for guess in ("stated", "derived"):
        assert noted["right"][guess] == noted["of"][guess] > 0
    assert noted["right"]["total"] < noted["of"]["total"]
    assert not any(rows[False, 4, 10]["right"].values())


def test_notes_that_foresee_nothing_save_nothing() -> None:
    rows = measure((), (1000,))
    assert rows[True, 1000, 10]["answer_tokens"] == rows[False, 1000, 10]["answer_tokens"]


def test_the_command_writes_a_table_and_a_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    bench(["words", "--problems", "2", "--questions", "1", "4", "--out", str(tmp_path)])
    written = json.loads((tmp_path / "words.json").read_text())
    assert written["solver"] == "scripted"
    assert len(written["rows"]) == 5 * 2 * 2
    assert (tmp_path / "words.png").stat().st_size > 10_000


def test_a_model_at_an_endpoint_is_asked_with_its_budget(tmp_path: Path) -> None:
    solver = ScriptedSolver(("stated", "derived", "total"))

    def solve(body: dict[str, Any]) -> Answer:
        found = solver.complete(body["messages"], tools=body.get("tools", ()))
        calls = [(call.name, call.arguments) for call in found.calls]
        return say(found.text, *calls, tokens=(found.tokens_in, found.tokens_out))

    with scripted(rule=solve) as script:
        settings = tmp_path / "notes.toml"
        settings.write_text(f'[endpoint]\nurl = "{script.url}"\nmodel = "m"\nmax_tokens = 999\n')
        options = f"--endpoint {settings} --problems 1 --questions 2 --budgets 7 --out {tmp_path}"
        bench(["words", *options.split()])
    assert {body["max_tokens"] for body in script.asked} == {7, 999}
    rows = json.loads((tmp_path / "words.json").read_text())["rows"]
    assert [row["notes"] for row in rows] == [False, True]
    assert rows[1]["right"] == rows[1]["of"]


def test_an_endpoint_that_is_not_there_is_no_measurement(tmp_path: Path) -> None:
    settings = tmp_path / "notes.toml"
    settings.write_text('[endpoint]\nurl = "http://127.0.0.1:9/v1"\nretries = 0\n')
    with pytest.raises(ValueError, match="cannot be reached"):
        bench(["words", "--endpoint", str(settings), "--problems", "1", "--out", str(tmp_path)])
    assert not (tmp_path / "words.json").exists()


def test_texts_without_notes_are_counted() -> None:
    class Silent(ScriptedSolver):
        def complete(self, messages: Any, *, tools: Any = ()) -> Any:
            if "Question: " in messages[-1]["content"]:
                return super().complete(messages)
            return Completion(text="I do not know how.")

    rows = run_words(
        lambda most: Silent((), most),
        PROBLEMS,
        counts=(1,),
        budgets=(99,),
        notes=NotesConfig(),
        say=lambda _: None,
    )
    assert [row["unwritten"] for row in rows] == [0, len(PROBLEMS)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--problems 0", "--problems is 0; use 1 or more"),
        ("--budgets 0", r"--budgets is \(0,\); give one or more, each 1 or more"),
        ("--questions 21", "--questions has 21; use 20 at most"),
    ],
)
def test_unfit_options_are_refused(options: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        bench(["words", *options.split()])
