"""Conversations of introductions: what is asked was told, corrected last, or never told."""

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from slowwave.tasks.introductions.conversation import KINDS, draw_conversation, read_words


@given(
    st.integers(0, 2**32),
    st.integers(0, 12),
    st.integers(0, 70),
    st.integers(0, 3),
    st.integers(1, 3),
)
def test_answers_follow_from_what_was_said(
    seed: int, told: int, talk: int, noted: int, repeats: int
) -> None:
    drawn = draw_conversation(
        random.Random(seed), told=told, talk=talk, noted=noted, repeats=repeats
    )
    users = [turn.text for turn in drawn.turns if turn.role == "user"]
    roles = [turn.role for turn in drawn.turns]
    assert roles == ["user", "assistant"] * (len(roles) // 2)
    assert len(drawn.questions) == told * repeats + 2 + noted
    kinds = [question.kind for question in drawn.questions]
    assert (kinds.count("unknown"), kinds.count("noted")) == (2, noted)
    for question in drawn.questions:
        assert question.kind in KINDS
        assert question.value.lower() in question.answer.lower()
        if question.kind in ("unknown", "noted"):
            assert question.value == ""
            assert question.text.endswith("?") == (question.kind == "unknown")
        else:
            assert any(question.value.lower() in text.lower() for text in users)


def test_corrections_come_after_what_they_correct() -> None:
    """Of two values that a thing had, the later one is right."""
    words, num_corrected = read_words(), 0
    for seed in range(200):
        drawn = draw_conversation(random.Random(seed), told=1, talk=0, unknown=0)
        if drawn.questions[0].kind != "corrected":
            continue
        num_corrected += 1
        first, second = (turn.text for turn in drawn.turns if turn.role == "user")
        assert drawn.questions[0].value.lower() in second.lower()
        starts = tuple(text.partition("{said}")[0] for text in words.correct)
        assert second.startswith(starts)
        assert not first.startswith(starts)
    assert num_corrected > 10


def test_words_are_whole() -> None:
    words = read_words()
    for attribute in [*words.attributes, *itertools.chain(*words.patterns.values())]:
        assert all("{v}" in text for text in [*attribute.tell, attribute.answer]), attribute
        assert not any("{" in text for text in attribute.ask), attribute
        assert not any("{x}" in text for text in attribute.tell), attribute
        assert len(attribute.tell) > 2 and len(attribute.ask) > 1, attribute
        assert len(set(attribute.values)) > 1, attribute
    assert all("{said}" in text for text in [*words.wrap, *words.correct])


def test_no_two_things_of_a_conversation_are_asked_for_alike() -> None:
    for seed in range(100):
        drawn = draw_conversation(random.Random(seed), told=20, talk=0, unknown=10)
        unknown = [each.text for each in drawn.questions if each.kind == "unknown"]
        told = [each.text for each in drawn.questions if each.kind != "unknown"]
        assert not set(unknown) & set(told), seed


def test_equal_seeds_draw_alike() -> None:
    one, two = (draw_conversation(random.Random(5), told=4, talk=3) for _ in range(2))
    assert one == two
    assert one != draw_conversation(random.Random(6), told=4, talk=3)
