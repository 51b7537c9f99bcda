"""Where streams are cut, and which windows sleep."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slowwave.sleep.config import Eviction, SleepConfig
from slowwave.sleep.schedule import NO_LOSS, Segment, cut_stream, cut_training


@given(
    num_tokens=st.integers(0, 60),
    window=st.integers(1, 12),
    passes=st.integers(1, 4),
    fill=st.integers(0, 11),
)
def test_segments_fill_windows_in_order(
    num_tokens: int, window: int, passes: int, fill: int
) -> None:
    fill %= window
    sleep = SleepConfig(window=window, passes=passes)
    segments = cut_stream(num_tokens, sleep, window_fill=fill)
    read = [t for segment in segments for t in range(segment.start, segment.stop)]
    assert read == list(range(num_tokens))
    for segment in segments:
        fill += segment.stop - segment.start
        assert segment.stop > segment.start
        assert segment.closes == (fill == window)
        assert segment.passes == (passes if segment.closes else 1)
        fill = 0 if segment.closes else fill
    assert [s.closes for s in segments[:-1]] == [True] * len(segments[:-1])


@given(num_tokens=st.integers(0, 40), first=st.integers(0, 40), window=st.integers(1, 9))
def test_a_stream_cut_in_two_sleeps_at_the_same_tokens(
    num_tokens: int, first: int, window: int
) -> None:
    first = min(first, num_tokens)
    sleep = SleepConfig(window=window, passes=2)
    whole = cut_stream(num_tokens, sleep)
    before = cut_stream(first, sleep)
    after = cut_stream(num_tokens - first, sleep, window_fill=first % window)
    ends = [s.stop for s in before if s.closes] + [first + s.stop for s in after if s.closes]
    assert ends == [s.stop for s in whole if s.closes]


def targets_with_loss(rows: int, num_tokens: int, *scored: tuple[int, int]) -> torch.Tensor:
    targets = torch.full((rows, num_tokens), NO_LOSS)
    for row, token in scored:
        targets[row, token] = 1
    return targets


def test_windows_with_loss_get_one_pass() -> None:
    targets = targets_with_loss(2, 14, (0, 5), (1, 7), (0, 13))
    assert cut_training(targets, SleepConfig(window=4, passes=3)) == [
        Segment(0, 4, 3, True, keeps_hidden=False),
        Segment(4, 8, 1, True),
        Segment(8, 12, 3, True, keeps_hidden=False),
        Segment(12, 14, 1, False),
    ]


@pytest.mark.parametrize("eviction", ["all", "sliding"])
def test_windows_that_nothing_reads_end_with_their_last_write(eviction: Eviction) -> None:
    targets = targets_with_loss(2, 10, (0, 5), (1, 7))
    sleep = SleepConfig(window=4, eviction=eviction)
    evicts = eviction == "all"
    kept = cut_stream(10, sleep)
    assert cut_training(targets, sleep) == [
        Segment(0, 4, 1, True, keeps_hidden=False, evicts=evicts),
        *kept[1:],
    ]
    assert cut_training(targets, sleep, keep_hidden=True) == kept


def test_windows_with_loss_may_be_slept_after_they_were_scored() -> None:
    """Wherever there is loss, the schedule is that of a stream; rows need not agree."""
    targets = targets_with_loss(2, 14, (0, 5), (1, 7), (1, 9), (0, 13))
    sleep = SleepConfig(window=4, passes=3, loss_windows="sleep_after")
    segments = cut_training(targets, sleep)
    assert segments == [
        Segment(0, 4, 3, True, keeps_hidden=False),
        Segment(4, 8, 3, True),
        Segment(8, 12, 3, True),
        Segment(12, 14, 1, False),
    ]
    assert [segment._replace(keeps_hidden=True) for segment in segments] == cut_stream(14, sleep)


def test_an_open_window_shortens_the_first_segment() -> None:
    targets = targets_with_loss(1, 7, (0, 6))
    assert cut_training(targets, SleepConfig(window=5, passes=2), window_fill=3) == [
        Segment(0, 2, 2, True, keeps_hidden=False),
        Segment(2, 7, 1, True),
    ]


@pytest.mark.parametrize("fill", [-1, 4, 9])
def test_windows_that_are_too_full_are_refused(fill: int) -> None:
    with pytest.raises(ValueError, match=f"window_fill is {fill} with sleep.window 4"):
        cut_stream(3, SleepConfig(window=4), window_fill=fill)


def test_rows_that_cannot_share_a_schedule_are_refused() -> None:
    targets = targets_with_loss(3, 8, (1, 5))
    with pytest.raises(ValueError, match=r"tokens 4\.\.8 have loss in 1 of 3 rows"):
        cut_training(targets, SleepConfig(window=4, passes=2))
    # With one pass there is nothing to disagree on, and an open window sleeps in no row.
    assert len(cut_training(targets, SleepConfig(window=4, passes=1))) == 2
    assert cut_training(targets[:, :7], SleepConfig(window=4, passes=2))[1].passes == 1
