"""Sleep settings that make no sense are refused by name."""

from typing import Any

import pytest

from slowwave.sleep.config import SleepConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window": 0}, r"sleep\.window is 0; use 1 or more tokens"),
        ({"passes": 0}, r"sleep\.passes is 0; use 1 \(plain eviction\) or more"),
    ],
)
def test_contradictions_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        SleepConfig(**values)


def test_unknown_ways_to_recirculate_are_refused() -> None:
    with pytest.raises(ValueError, match=r"recirculate: .* got 'logits'"):
        SleepConfig.from_dict({"recirculate": "logits"})


def test_the_default_is_plain_eviction() -> None:
    assert SleepConfig().passes == 1
    assert SleepConfig().recirculate == "hidden"
