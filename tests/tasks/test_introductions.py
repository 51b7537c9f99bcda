"""Conversations of introductions: what is asked was told, corrected last, or never told."""

import random

from hypothesis import given
from hypothesis import strategies as st

from slowwave.tasks.introductions.conversation import KINDS, draw_conversation, read_words


@given(st.integers(0, 2**32), st.integers(0, 12), st.integers(0, 70), st.integers(1, 3))
def test_answers_follow_from_what_was_said(seed: int, told: int, talk: int, repeats: int) -> None:
    drawn = draw_conversation(random.Random(seed), told=told, talk=talk, repeats=repeats)
    users = [turn.text for turn in drawn.turns if turn.role == "user"]
    roles = [turn.role for turn in drawn.turns]
    assert roles == ["user", "assistant"] * (len(roles) // 2)
    assert len(drawn.questions) == told * repeats + 2
    for question in drawn.questions:
        assert question.kind in KINDS
        assert question.value in question.answer
        if question.kind == "unknown":
            assert question.value == ""
        else:
            assert any(question.value in text for text in users)


def test_corrections_come_after_what_they_correct() -> None:
    """Of two values that a thing had, the later one is right."""
    words, num_corrected = read_words(), 0
    for seed in range(200):
        drawn = draw_conversation(random.Random(seed), told=1, talk=0, unknown=0)
        if drawn.questions[0].kind != "corrected":
            continue
        num_corrected += 1
        first, second = (turn.text for turn in drawn.turns if turn.role == "user")
        assert drawn.questions[0].value in second
        starts = tuple(text.partition("{said}")[0] for text in words.correct)
        assert second.startswith(starts)
        assert not first.startswith(starts)
    assert num_corrected > 10


def test_words_are_whole() -> None:
    for name, attribute in read_words().attributes.items():
        assert all("{v}" in text for text in [*attribute.tell, attribute.answer]), name
        assert not any("{" in text for text in attribute.ask), name
        assert len(attribute.tell) > 2 and len(attribute.ask) > 1, name
        assert len(set(attribute.values)) > 3, name


def test_equal_seeds_draw_alike() -> None:
    one, two = (draw_conversation(random.Random(5), told=4, talk=3) for _ in range(2))
    assert one == two
    assert one != draw_conversation(random.Random(6), told=4, talk=3)
