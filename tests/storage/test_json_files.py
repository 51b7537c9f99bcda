"""JSON that two readers could read differently, or none to its end, is refused."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from slowwave.storage.json_files import dump_lines, parse_json, parse_lines, read_json

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


def test_plain_json() -> None:
    assert parse_json('{"a": [1, 2.5, null, true, "\\ud83d\\ude00 \\u00e9"]}') == {
        "a": [1, 2.5, None, True, "\U0001f600 \u00e9"]
    }
    assert parse_json('"\u00e9"'.encode()) == "\u00e9"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 1}', "names a key twice"),
        ("{" + ",".join(f'"{i}": 1' for i in range(65)) + "}", "has 65 keys in one place"),
        ('[{"b": {"a": 1, "a": 2}}]', "names a key twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("1e999", "a number that is not finite"),
        ("[NaN]", "a number that is not finite"),
        ("-Infinity", "a number that is not finite"),
        (r'["\ud800"]', "holds what is no text"),
        (r'{"\udfff": 1}', "holds what is no text"),
        (b'"\xff"', "holds what is no text"),
        ("", "malformed"),
        ("[1, 2", "malformed"),
        ("1" * 9999, "digits"),
    ],
)
def test_text_that_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refusal:
        parse_json(text)
    assert "\n" not in str(refusal.value)


def test_no_pipe_and_nothing_endless_is_read_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "device.json").symlink_to("/dev/zero")
    for name in ("pipe.json", "device.json"):
        with pytest.raises(ValueError, match=rf"{name}: no plain file; name another"):
            read_json(tmp_path / name)
    path = tmp_path / "large.json"
    path.write_text("[1, 2]" + " " * 2**20)
    assert read_json(path) == [1, 2]
    monkeypatch.setattr("slowwave.storage.files.MOST_BYTES", 2**20)
    with pytest.raises(ValueError, match=r"large\.json: larger than 1 MiB; name another"):
        read_json(path)
