"""A text is cut where it ends something, nothing of it is lost, and a reading that broke off is
found again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowwave.memory.turn import PIECE, count_known, cut_text

TEXTS = st.text(alphabet=st.sampled_from("ab \n\r\u0301\U0001f600"), max_size=200)


@given(text=TEXTS, most=st.integers(2, 40))
def test_pieces_are_the_text(text: str, most: int) -> None:
    pieces = cut_text(text, most)
    assert "".join(pieces) == text
    assert all(1 <= len(piece) <= most for piece in pieces) or text == ""
    assert all(len(piece) >= most // 2 for piece in pieces[:-1])


def test_a_short_text_is_one_piece() -> None:
    assert cut_text("x" * PIECE) == ["x" * PIECE]
    assert [len(piece) for piece in cut_text("x" * (PIECE + 1))] == [PIECE, 1]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("one two\n\nthree\nfour", ["one two\n\n", "three\nfour"]),
        ("one two\nthree four", ["one two\n", "three four"]),
        ("one two three four", ["one two", " three four"]),
        ("a b onetwothreefour", ["a b onetwoth", "reefour"]),
    ],
)
def test_a_piece_ends_with_a_paragraph_a_line_or_a_word(text: str, pieces: list[str]) -> None:
    assert cut_text(text, 12) == pieces


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ("", 0),
        ("a", 1),
        ("ab", 2),
        ("abc", 0),  # all of it: whoever reads it again means that
        ("xab", 2),
        ("abx", 0),
        ("abca", 1),
        ("abcabc", 0),
        ("ac", 0),
        ("ba", 1),
    ],
)
def test_a_reading_that_broke_off_is_known_by_its_end(told: str, known: int) -> None:
    assert count_known("abc", told) == known


def test_a_text_of_one_piece_never_broke_off() -> None:
    assert count_known("a", "a") == count_known("a", "") == 0


def test_equal_pieces_that_were_all_read_did_not_break_off() -> None:
    assert count_known("aaa", "aaa") == 0
    assert count_known("aaa", "aa") == 2
