"""Questions about one context: exact answers, and ways to them that a reader can follow."""

import re

import pytest

from slowwave.tasks.gsm_infinite import GsmInfiniteConfig
from slowwave.tasks.gsm_infinite.stateful import (
    GUESSES,
    draw_stateful,
    write_steps,
)
from slowwave.tasks.gsm_infinite.task import GsmInfinite

TASK = GsmInfinite(GsmInfiniteConfig(ops=(12, 14), length=(0, 640), context_tokens=640))
STATEMENT = re.compile(r"The number of (.+?) in (.+?) equals (.+)\.")


class Reader:
    """Follows sentences, and shares no code with the generator."""

    def __init__(self, statements: tuple[str, ...]) -> None:
        found = [STATEMENT.fullmatch(sentence) for sentence in statements]
        self.stated = {f"the number of {f[1]} in {f[2]}": f[3] for f in found if f is not None}
        assert len(self.stated) == len(statements)

    def value(self, text: str) -> int:
        if text.isdigit():
            return int(text)
        if text in self.stated:
            return self.value(self.stated[text])
        if match := re.fullmatch(r"(\d+) (plus|times) (.+)", text):
            other = self.value(match[3])
            return int(match[1]) + other if match[2] == "plus" else int(match[1]) * other
        if match := re.fullmatch(r"the (sum of|difference between) (.+)", text):
            values = [self.value(each) for each in re.split(r", and |, | and (?=the )", match[2])]
            return sum(values) if match[1] == "sum of" else values[0] - values[1]
        total = re.fullmatch(r"the total number of .+ in (.+)", text)
        names = [name for name in self.stated if total and name.endswith(f" in {total[1]}")]
        return sum(map(self.value, names))  # 0 if nothing is said of it

    def answer(self, question: str) -> int:
        if single := re.fullmatch(r"How many (.+) does (.+) have\?", question):
            return self.value(f"the number of {single[1]} in {single[2]}")
        asked = re.fullmatch(r"What is (.+)\?", question)
        assert asked is not None, question
        return self.value(asked[1])


@pytest.mark.parametrize("index", range(40))
def test_a_reader_of_the_sentences_finds_the_same_answers(index: int) -> None:
    problem = draw_stateful(TASK, "test", index, 8)
    assert len({each.text for each in problem.questions}) == 8
    reader = Reader(problem.statements)
    for question in problem.questions:
        assert reader.answer(question.text) == question.answer, question


def test_questions_are_from_foreseen_to_not_as_evenly_as_there_are() -> None:
    drawn = [draw_stateful(TASK, "test", index, 8) for index in range(40)]
    kinds = [each.guess for problem in drawn for each in problem.questions]
    assert {*kinds} == {*GUESSES}
    assert min(kinds.count(guess) for guess in GUESSES) > 40
    for problem in drawn:
        stated = [each for each in problem.questions if each.guess == "stated"]
        assert all(each.steps == 1 for each in stated)
        assert all(each.steps > 2 for each in problem.questions if each.guess == "other")


def test_steps_lead_to_the_answer() -> None:
    for index in range(20):
        problem = draw_stateful(TASK, "test", index, 6)
        for question in problem.questions:
            if question.guess != "other":
                steps = write_steps(problem.problem, question.quantities[0])
                assert len(steps) == question.steps
                assert steps[-1].endswith(f" is {question.answer}.")


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
