"""Lines of JSON are read strictly; of a last one that was cut, nothing is left."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from slowwave.storage.json_lines import dump_lines, parse_lines

WHOLE = [{"step": 1, "loss": 0.5}, {"step": 2}]
CONTENT = dump_lines(WHOLE)


@pytest.mark.parametrize("kept", range(1, len(CONTENT) + 1))
def test_a_line_that_was_cut_anywhere_is_dropped(kept: int) -> None:
    content = CONTENT[:kept]
    ends = [len(dump_lines(WHOLE[:count])) - 1 for count in (0, 1, 2)]
    expected = WHOLE[: sum(kept >= end for end in ends[1:])]  # whole without its line break too
    assert parse_lines(content, Path("m"), drop_cut=True) == expected


@pytest.mark.parametrize("tail", [b'{"st', b"\0" * 4096, b"\xff\xfe", b"3", b'{"step": NaN}'])
def test_what_a_loss_of_power_leaves_is_dropped_only_if_that_is_asked_for(tail: bytes) -> None:
    assert parse_lines(CONTENT + tail, Path("m"), drop_cut=True) == WHOLE
    with pytest.raises(ValueError, match=r"^m: its last line is "):
        parse_lines(CONTENT + tail, Path("m"))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b'{"st', "m: line 3 is not JSON ("),
        (b'{"step": NaN}', "m: line 3 is not JSON (NaN is no number); restore the file"),
        (b'{"loss": -Infinity}', "m: line 3 is not JSON (-Infinity is no number)"),
        (b"[1]", "m: line 3 is no JSON object; restore the file"),
        (b"\xff", "m: line 3 is not JSON ("),
        (b"[" * 100_000, "m: line 3 is not JSON ("),
        (b"", "m: line 3 is not JSON ("),
    ],
)
@pytest.mark.parametrize("drop_cut", [False, True])
def test_any_other_line_is_named(line: bytes, sentence: str, drop_cut: bool) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        parse_lines(CONTENT + line + b"\n" + CONTENT, Path("m"), drop_cut=drop_cut)


def test_no_number_is_not_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_lines([{"loss": float("nan")}])
