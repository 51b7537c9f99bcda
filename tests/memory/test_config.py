"""Gates and questions are read strictly, with the texts that they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from slowwave.memory.config import Canary, GateConfig, Question, read_gate

TOML = """
held_out = ["one text"]
held_out_files = ["texts/two.txt"]
max_median_rise = 0.5

[[canaries]]
question = "Where does Ann live?"
answer = "Lima"
"""


def write(folder: Path, toml: str = TOML) -> Path:
    (folder / "texts").mkdir()
    (folder / "texts" / "two.txt").write_text("another é", encoding="utf-8")
    (folder / "gate.toml").write_text(toml, encoding="utf-8")
    return folder / "gate.toml"


def test_a_file_makes_a_gate_that_needs_no_files(tmp_path: Path) -> None:
    gate = read_gate(write(tmp_path))
    assert gate == GateConfig(
        canaries=(Canary(question="Where does Ann live?", answer="Lima"),),
        held_out=("one text", "another é"),
        max_median_rise=0.5,
    )
    (tmp_path / "texts" / "two.txt").unlink()
    assert GateConfig.from_dict(gate.to_dict()) == gate


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("max_lost_canaries = 1.5", r"gate\.toml: gate.max_lost_canaries is 1.5; use a share"),
        ("max_mean_rise = nan", r"gate\.max_mean_rise is nan; use a number of nats per token"),
        ("max_mean_rize = 1", "max_mean_rize: unknown key in GateConfig"),
        ("max_new_tokens = 0", r"gate\.max_new_tokens is 0; use 1 or more"),
        ("held_out = [' ']", "held_out is ' '; use a text that says something"),
        ("[[canaries]]\nquestion = 'a'\nanswer = ''", "answer is ''; use a text that says"),
        ("[[canaries]]\nquestion = ' '\nanswer = 'a'", "question is ' '; use a text that says"),
        ("[[canaries]]\nquestion = 'a'", "canaries.0.answer"),
        ("held_out_files = 'a'", "held_out_files is 'a'; use a list of paths"),
        ("held_out_files = ['absent']", "absent: No such file or directory; name a text file"),
        ("held_out_files = ['texts']", "texts: Is a directory; name a text file"),
        ("held_out_files = ['raw']", "raw: no UTF-8; name a text file"),
        ("held_out_files = ['empty']", "held_out is ''; use a text that says something"),
        ("held_out", r"gate\.toml: not valid TOML"),
    ],
)
def test_unfit_gates(tmp_path: Path, toml: str, message: str) -> None:
    path = write(tmp_path, toml)
    (tmp_path / "raw").write_bytes(b"\xff")
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match=message) as error:
        read_gate(path)
    assert str(error.value).startswith(str(path))


def test_unfit_questions() -> None:
    with pytest.raises(ValueError, match="answer is ' '; use a text that says something"):
        Question(question="a", answer=" ")
    with pytest.raises(ValueError, match="question holds half of a surrogate pair"):
        Question(question="\ud800")
