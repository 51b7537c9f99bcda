"""Sleep settings that make no sense are refused by name."""

from typing import Any

import pytest

from slowwave.config import Config
from slowwave.sleep.config import Evict, Passes, Ridge, SleepConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window": 0}, r"sleep\.window is 0; use 1 or more tokens"),
        ({"passes": 0}, r"sleep\.passes is 0; use 1 \(plain eviction\) to 64$"),
        ({"passes": 10**9}, r"sleep\.passes is 1000000000; use 1 \(plain eviction\) to 64$"),
        ({"wake_passes": 0}, r"sleep\.wake_passes is 0; use 1 to 64$"),
        ({"wake_passes": 65}, r"sleep\.wake_passes is 65; use 1 to 64$"),
        (
            {"passes": 2, "eviction": "none"},
            r"sleep\.passes is 2 with sleep\.eviction none, which never sleeps; use 1 pass",
        ),
        ({"sinks": -1, "eviction": "sliding"}, r"sleep\.sinks is -1; use 0 or more tokens"),
        (
            {"sinks": 4},
            r"sleep\.sinks is 4 with sleep\.eviction all, .*; use 0, or eviction sliding",
        ),
        (
            {"kept_cache": "first_pass", "eviction": "none"},
            r"sleep\.consolidator\.kept_cache is first_pass with sleep\.eviction none, .*; use",
        ),
    ],
)
def test_contradictions_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        SleepConfig.from_dict(values)


@pytest.mark.parametrize("name", ["window", "passes", "wake_passes", "sinks"])
@pytest.mark.parametrize("value", [-(10**4000), 10**4000], ids=["less", "more"])
def test_refusals_are_short(name: str, value: int) -> None:
    if name == "window" and value > 0:
        return  # a model that never sleeps may have any window
    with pytest.raises(ValueError, match=rf"^sleep\.{name} is .{{4,80}}[; ]") as refusal:
        SleepConfig.from_dict({name: value})
    assert len(str(refusal.value)) < 300


def test_unknown_ways_to_recirculate_are_refused() -> None:
    with pytest.raises(ValueError, match=r"recirculate: .* got 'logits'"):
        SleepConfig.from_dict({"recirculate": "logits"})


@pytest.mark.parametrize(
    ("older", "settings"),
    [
        ({"recirculate": "normed"}, Passes(recirculate="normed")),
        ({"between_passes": "reset", "consolidator": "passes"}, Passes(between_passes="reset")),
        ({"kept_cache": "first_pass", "eviction": "sliding"}, Passes(kept_cache="first_pass")),
        ({"consolidator": {"recirculate": "embedding"}}, Passes(recirculate="embedding")),
        ({"consolidator": "ridge"}, Ridge()),
        ({"consolidator": "evict"}, Evict()),
    ],
)
def test_older_and_shorter_settings_are_read(older: dict[str, Any], settings: Config) -> None:
    config = SleepConfig.from_dict(older)
    assert config.consolidator == settings
    assert SleepConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"consolidator": "dreams"},
            r"sleep\.consolidator\.kind is 'dreams'; use one of evict, passes, ridge",
        ),
        ({"consolidator": 3}, r"sleep\.consolidator\.kind is 3; use one of evict"),
        (
            {"consolidator": "ridge", "recirculate": "normed"},
            r"sleep\.recirculate is a setting of the consolidator passes, and "
            r"sleep\.consolidator\.kind is ridge; leave it out$",
        ),
        ({"consolidator": {"kind": "ridge", "penalty": 0}}, r"sleep\.consolidator\.penalty is 0"),
        (
            {"consolidator": {"recirculate": "normed"}, "recirculate": "hidden"},
            r"sleep\.recirculate is sleep\.consolidator\.recirculate now, which is given too;",
        ),
        ({"consolidator": {"penalty": 1}}, r"sleep\.consolidator\.penalty: unknown key"),
        (
            {"consolidator": "ridge", "passes": 3},
            r"sleep\.passes is 3 with sleep\.consolidator ridge; use 1 \(plain eviction\) to 2$",
        ),
        ({"consolidator": "evict", "passes": 2}, r"sleep\.passes is 2 with .* evict; use 1$"),
    ],
)
def test_wrong_consolidators_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        SleepConfig.from_dict(values)


def test_the_default_is_plain_eviction() -> None:
    assert SleepConfig().passes == 1
    assert SleepConfig().consolidator == Passes()
    assert Passes().recirculate == "hidden"
    assert SleepConfig().eviction == "all"
    assert Passes().between_passes == "carry"
    assert SleepConfig().wake_passes == 1
