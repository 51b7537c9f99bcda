"""Questions about one context: exact answers, and ways to them that a reader can follow."""

import pytest

from slowwave.lab.words.solver import Reader, find_asked
from slowwave.tasks.gsm_infinite import GsmInfiniteConfig
from slowwave.tasks.gsm_infinite.stateful import (
    GUESSES,
    draw_stateful,
)
from slowwave.tasks.gsm_infinite.task import GsmInfinite

TASK = GsmInfinite(GsmInfiniteConfig(ops=(12, 14), length=(0, 640), context_tokens=640))


@pytest.mark.parametrize("index", range(40))
def test_a_reader_of_the_sentences_finds_the_same_answers(index: int) -> None:
    problem = draw_stateful(TASK, "test", index, 8)
    assert len({each.text for each in problem.questions}) == 8
    for question in problem.questions:
        found = Reader(problem.context).value(find_asked(question.text))
        assert found == question.answer, question


def test_questions_are_from_foreseen_to_not_as_evenly_as_there_are() -> None:
    drawn = [draw_stateful(TASK, "test", index, 8) for index in range(40)]
    kinds = [each.guess for problem in drawn for each in problem.questions]
    assert {*kinds} == {*GUESSES}
    assert min(kinds.count(guess) for guess in GUESSES) > 40


def test_fewer_questions_are_of_the_same_context() -> None:
    one, ten = (draw_stateful(TASK, "test", 3, count) for count in (1, 10))
    assert one.statements == ten.statements
    assert draw_stateful(TASK, "test", 3, 10) == ten
    assert draw_stateful(TASK, "train", 3, 1).statements != one.statements


def test_unfit_questions_are_refused() -> None:
    reverse = GsmInfinite(GsmInfiniteConfig(mode="reverse"))
    with pytest.raises(ValueError, match=r"task.mode makes a problem in reverse; use forward"):
        draw_stateful(reverse, "test", 0, 1)
    with pytest.raises(ValueError, match="0 questions are asked for; ask for 1 or more"):
        draw_stateful(TASK, "test", 0, 0)
    with pytest.raises(ValueError, match=r"1000 questions are asked for, and example 0 has \d+"):
        draw_stateful(TASK, "test", 0, 1000)
