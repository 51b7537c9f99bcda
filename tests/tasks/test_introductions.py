"""Conversations of introductions: what is asked was told, corrected last, or never told."""

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from slowwave.tasks.introductions.conversation import KINDS, draw_conversation, read_words

TALK = ("Tell me a joke.", "A joke.")


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
        random.Random(seed), told=told, talk=[TALK] * talk, noted=noted, repeats=repeats
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
            assert question.text not in users
            is_asked = question.text.endswith("?") and "How has your day been" not in question.text
            assert is_asked == (question.kind == "unknown")
        else:
            assert any(question.value.lower() in text.lower() for text in users)


def test_corrections_come_after_what_they_correct() -> None:
    """Of two values that a thing had, the later one is right."""
    words, num_corrected, num_changed = read_words(), 0, 0
    for seed in range(200):
        drawn = draw_conversation(random.Random(seed), told=1, unknown=0)
        if drawn.questions[0].kind != "corrected":
            continue
        num_corrected += 1
        first, second = (turn.text for turn in drawn.turns if turn.role == "user")
        assert drawn.questions[0].value.lower() in second.lower()
        num_changed += drawn.questions[0].value.lower() not in first.lower()
        forms = [text.partition("{said}") for text in words.correct]
        is_correction = [
            [said.startswith(before) and said.endswith(after) for before, _, after in forms]
            for said in (first, second)
        ]
        assert [any(each) for each in is_correction] == [False, True]
    assert num_corrected > 10
    assert num_changed > 0.9 * num_corrected  # a value may be a part of another


def test_words_are_whole() -> None:
    words = read_words()
    assert len({*words.requests}) == len(words.requests) > 500
    assert not any("{" in text for text in words.requests)
    for attribute in [*words.attributes, *itertools.chain(*words.patterns.values())]:
        assert all("{v}" in text for text in [*attribute.tell, attribute.answer]), attribute
        assert not any("{" in text for text in attribute.ask), attribute
        assert not any("{x}" in text for text in attribute.tell), attribute
        assert len(attribute.tell) > 2 and len(attribute.ask) > 1, attribute
        assert len(set(attribute.values)) > 1, attribute
    assert all("{said}" in text for text in [*words.wrap, *words.correct])


def test_no_two_things_of_a_conversation_are_asked_for_alike() -> None:
    for seed in range(100):
        drawn = draw_conversation(random.Random(seed), told=20, unknown=10)
        unknown = [each.text for each in drawn.questions if each.kind == "unknown"]
        told = [each.text for each in drawn.questions if each.kind != "unknown"]
        assert not set(unknown) & set(told), seed


def test_much_of_what_was_never_told_sounds_like_what_was() -> None:
    """A question about another's name, where a name was told."""
    words = read_words()
    every = [*words.attributes, *itertools.chain(*words.patterns.values())]
    values = {asked: {*each.values} for each in every for asked in each.ask}
    alike: list[bool] = []
    for seed in range(200):
        drawn = draw_conversation(random.Random(seed), told=1, unknown=3)
        told = next(each.text for each in drawn.questions if each.kind != "unknown")
        unknown = [each.text for each in drawn.questions if each.kind == "unknown"]
        alike += [values[text] == values[told] for text in unknown]
    assert 0.3 < sum(alike) / len(alike) < 0.7


def test_equal_seeds_draw_alike() -> None:
    one, two = (draw_conversation(random.Random(5), told=4, talk=[TALK] * 3) for _ in range(2))
    assert one == two
    assert one != draw_conversation(random.Random(6), told=4, talk=[TALK] * 3)
