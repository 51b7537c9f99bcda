"""Task configs: what they refuse, and how a file names a task."""

import re
from typing import Any

import pytest

from slowwave.config import Config
from slowwave.tasks import read_section
from slowwave.tasks.conversation import ConversationConfig
from slowwave.tasks.depo import DepoConfig
from slowwave.tasks.gsm_infinite import GsmInfiniteConfig
from slowwave.tasks.recall import RecallConfig
from slowwave.tasks.rule110 import Rule110Config
from slowwave.tasks.text import TextConfig

OFFICIAL = {"grammar": "official", "nodes": 75, "questions": 10, "hops": 16}


@pytest.mark.parametrize(
    ("cls", "values", "field"),
    [
        (Rule110Config, {"width": 5}, "width"),
        (Rule110Config, {"width": 65}, "width"),
        (Rule110Config, {"num_states": 0}, "num_states"),
        (Rule110Config, {"steps": -1}, "steps"),
        (DepoConfig, {"nodes": 5}, "nodes"),
        (DepoConfig, {"min_nodes": 1}, "min_nodes"),
        (DepoConfig, {"min_nodes": 11}, "min_nodes"),
        (DepoConfig, {"hops": 0}, "hops"),
        (DepoConfig, {"questions": 0}, "questions"),
        (DepoConfig, {**OFFICIAL, "nodes": 1, "questions": 1}, "nodes"),
        (DepoConfig, {**OFFICIAL, "nodes": 2551}, "nodes"),
        (DepoConfig, {**OFFICIAL, "questions": 76}, "questions"),
        (DepoConfig, {**OFFICIAL, "hops": 500}, "hops"),
        (DepoConfig, {"grammar": "official", "questions": 9, "counting": "unary"}, "counting"),
        (RecallConfig, {"windows": 0}, "windows"),
        (RecallConfig, {"facts": 0, "updates": 0}, "facts"),
        (RecallConfig, {"told_every": 3}, "told_every"),
        (RecallConfig, {"told_every": 2, "distances": (1, 8)}, "distances"),
        (RecallConfig, {"window": 15}, "window"),
        (RecallConfig, {"updates": -1}, "updates"),
        (RecallConfig, {"updates": 4}, "updates"),
        (RecallConfig, {"keys": 50}, "keys"),
        (RecallConfig, {"keys": 49, "untold": 0.0}, "keys"),
        (RecallConfig, {"keys": 2**20 + 1}, "keys"),
        (RecallConfig, {"values": 1}, "values"),
        (RecallConfig, {"values": 2**20 + 1}, "values"),
        (RecallConfig, {"values": 7, "windows": 4, "facts": 1, "updates": 0}, "values"),
        (RecallConfig, {"distances": ()}, "distances"),
        (RecallConfig, {"distances": (0, 1)}, "distances"),
        (RecallConfig, {"distances": (1, 9)}, "distances"),
        (RecallConfig, {"distances": (2, 1)}, "distances"),
        (RecallConfig, {"questions": 0}, "questions"),
        (RecallConfig, {"untold": 1.0}, "untold"),
        (RecallConfig, {"untold": -0.1}, "untold"),
        (ConversationConfig, {"windows": 0}, "windows"),
        (ConversationConfig, {"relations": ()}, "relations"),
        (ConversationConfig, {"relations": ("city", "city")}, "relations"),
        (ConversationConfig, {"relations": ("name",)}, "relations"),
        (ConversationConfig, {"people": 0}, "people"),
        (ConversationConfig, {"people": 25, "invented": 0.05}, "people"),
        (ConversationConfig, {"invented": 1.0}, "invented"),
        (ConversationConfig, {"told": -0.1}, "told"),
        (ConversationConfig, {"corrected": 1.1}, "corrected"),
        (ConversationConfig, {"asked": 0.6}, "asked"),
        (ConversationConfig, {"questions": 0}, "questions"),
        (ConversationConfig, {"question_tokens": 0}, "question_tokens"),
        (ConversationConfig, {"untold": 1.0}, "untold"),
        (TextConfig, {"window": 0}, "window"),
        (TextConfig, {"context": 0}, "context"),
        (TextConfig, {"piece": 256}, "piece"),
        (GsmInfiniteConfig, {"themes": ()}, "themes"),
        (GsmInfiniteConfig, {"themes": ("zoo", "zoo")}, "themes"),
        (GsmInfiniteConfig, {"places": 0}, "places"),
        (GsmInfiniteConfig, {"items": 25}, "items"),
        (GsmInfiniteConfig, {"ops": (0, 8), "subset": "hard"}, "ops"),
        (GsmInfiniteConfig, {"ops": (1, 8)}, "ops"),
        (GsmInfiniteConfig, {"ops": (5, 4)}, "ops"),
        (GsmInfiniteConfig, {"ops": (2, 17)}, "ops"),
        (GsmInfiniteConfig, {"ops": (2, 9), "places": 2, "items": 2}, "ops"),
        (GsmInfiniteConfig, {"length": (-1, 100)}, "length"),
        (GsmInfiniteConfig, {"length": (100, 99), "distractors": "surface"}, "length"),
        (GsmInfiniteConfig, {"length": (1, 100)}, "length"),
        (GsmInfiniteConfig, {"context_tokens": 255}, "context_tokens"),
    ],
)
def test_contradictions_are_refused(cls: type[Config], values: dict[str, Any], field: str) -> None:
    value = re.escape(repr(values[field]))
    with pytest.raises(ValueError, match=rf"^task\.{field} is {value}; ") as error:
        cls(**values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "config",
    [
        Rule110Config(steps=0),
        Rule110Config(width=6),
        Rule110Config(width=64),
        DepoConfig(nodes=6),
        DepoConfig(min_nodes=10),
        DepoConfig(grammar="official", nodes=2, min_nodes=2, questions=2),
        DepoConfig(grammar="official", nodes=2550, questions=2550, hops=499),
        RecallConfig(windows=1, facts=1, updates=0, window=2, keys=2, values=2**12, distances=(1,)),
        RecallConfig(keys=50, untold=0.0, values=2, window=16, updates=2),
        RecallConfig(windows=1000, facts=4, updates=1, keys=4000, distances=(1, 10, 1000)),
        ConversationConfig(people=24, invented=0.0, untold=0.0, relations=("colour",)),
        ConversationConfig(people=200, told=0.4, corrected=0.3, asked=0.3, windows=1000),
        TextConfig(files=("a", "b/*.md"), window=1, context=1, piece=2),
        GsmInfiniteConfig(ops=(2, 2), places=1, items=1, length=(0, 0), context_tokens=0),
        GsmInfiniteConfig(ops=(1, 16), places=24, items=24, subset="hard"),
    ],
)
def test_the_extremes_are_allowed(config: Config) -> None:
    assert type(config).from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    "config",
    [
        Rule110Config(steps=3),
        DepoConfig(min_nodes=4),
        GsmInfiniteConfig(ops=(3, 4)),
        RecallConfig(windows=9),
        ConversationConfig(people=9),
        TextConfig(),
    ],
)
def test_the_name_picks_the_task(config: Config) -> None:
    assert read_section(config.to_dict()) == config


def test_one_file_needs_no_list() -> None:
    assert TextConfig.from_dict({"files": "docs"}) == TextConfig(files=("docs",))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "rule111"}, "rule110"),
        ({"name": "rule110", "nodes": 10}, "nodes"),
        ({"name": "depo", "layout": "rows"}, "forked"),
        ({"name": "depo", "padding": "hidden"}, "masked"),
        ({"name": "gsm_infinite", "themes": ("zoo", "moon")}, "'zoo', 'school' or 'movies'"),
    ],
)
def test_unknown_entries_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_section(values)
