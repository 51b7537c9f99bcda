"""JSON that two readers could read differently, or none to its end, is refused."""

import pytest

from slowwave.storage.strict_json import parse_json


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
def test_refusals(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refusal:
        parse_json(text)
    assert "\n" not in str(refusal.value)
