"""What memories keep: the texts that are asked about, the scores, and who is compared."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from byte_tokenizer import ByteTokenizer
from slowwave.commands.lab import bench
from slowwave.lab.keep import run
from slowwave.lab.keep.memories import EMPTY, FOREIGN, FULL, Memory, list_memories
from slowwave.lab.keep.report import draw_keep, list_tables
from slowwave.lab.keep.run import KeepTest, read_document, run_keep
from slowwave.lab.keep.scores import (
    Kept,
    cut_chat,
    encode_exchange,
    is_right,
    live_through,
    score_continuation,
)
from slowwave.lab.keep.texts import Question, read_talk, write_chat, write_facts
from slowwave.memory.session import Session
from slowwave.memory.talker import Talker
from slowwave.models.backbone import HybridLM
from slowwave.runtime.config import ChatFormat
from slowwave.sleep.config import Compact, SleepConfig
from tiny_models import TWO_LAYERS

TEST = KeepTest(
    texts=2,
    people=(0, 1),
    windows=(1, 2),
    window=512,
    replay="user",
    document="x " * 2000,
    places=2,
)


@pytest.fixture
def talker() -> Talker:
    sleep = SleepConfig(window=512, passes=2, consolidator=Compact())
    model = HybridLM(TWO_LAYERS).requires_grad_(False)
    return Talker(model, ByteTokenizer(), sleep, ChatFormat())


def _has(pattern: str, text: str) -> bool:
    return re.search(rf"\b(?:{pattern})", text, re.IGNORECASE) is not None


@pytest.mark.parametrize("person", range(10))
def test_answers_were_told_and_are_not_in_the_questions(person: int) -> None:
    told, questions = read_talk().people[person]
    assert len([each for each in questions if each.kind == "told"]) == 10
    for each in questions:
        if each.kind == "unknown":
            assert not each.right
            continue
        assert any(_has(each.right, text) for text in told), each
        assert not _has(each.right, each.text), each
        assert not each.outdated or not _has(each.outdated, each.text), each


@pytest.mark.parametrize("person", range(10))
def test_what_is_corrected_is_told_later(person: int) -> None:
    told, questions = read_talk().people[person]
    for each in questions:
        if each.kind == "corrected":
            first = [place for place, text in enumerate(told) if _has(each.outdated, text)]
            then = [place for place, text in enumerate(told) if _has(each.right, text)]
            assert first[0] < then[-1], each


def test_a_chat_tells_all_and_goes_on() -> None:
    chat = write_chat(3, spacing=2)
    said = [next(chat)[0] for _ in range(200)]
    assert [text for text in said if text in read_talk().people[3].told] == read_talk().people[
        3
    ].told
    small = [next(write_chat(3, spacing=2))[0] for _ in range(3)]
    assert small == [said[0]] * 3, "the same person says the same"


def test_texts_state_their_facts_and_differ() -> None:
    text, facts = write_facts(1)
    assert len(facts) == 12
    assert all(fact.begin + fact.end in text for fact in facts)
    assert write_facts(1) == (text, facts)
    assert write_facts(2)[0] != text


@pytest.mark.parametrize(
    ("kind", "reply", "expected"),
    [
        ("told", "Your name is Marta.", True),
        ("told", "It is smarta.", False),
        ("corrected", "You read Marta now.", True),
        ("corrected", "Marta, and before that Saramago.", False),
        ("unknown", "You have not told me that.", True),
        ("unknown", "I don't know.", True),
        ("unknown", "It is Marta.", False),
    ],
)
def test_replies_are_judged(kind: str, reply: str, expected: bool) -> None:
    outdated = "saramago" if kind == "corrected" else ""
    assert is_right(Question("?", "marta", outdated, kind), reply) is expected


def test_windows_of_a_chat_are_not_full(talker: Talker) -> None:
    windows = cut_chat(talker, 0, 512, 3)
    assert len(windows) == 3
    lengths = [
        sum(len(each.tokens) for exchange in window for each in encode_exchange(talker, exchange))
        for window in windows
    ]
    assert all(256 < length < 512 for length in lengths)


def test_a_session_sleeps_once_a_window_and_restarts(talker: Talker) -> None:
    windows = cut_chat(talker, 0, 512, 3)
    lived = [*live_through(talker, windows, (1, 3))]
    assert [count for count, _, _ in lived] == [1, 3]
    assert [session.state.counters.num_sleeps for _, session, _ in lived] == [1, 3]
    assert lived[-1][1].state.window_fill == 0


def test_memories_are_listed_with_what_they_take(talker: Talker) -> None:
    found = list_memories(
        talker,
        ["compact", "streaming", "evict"],
        ratios=(8, 16),
        passes=(2, 3),
        capacity=0.5,
        changes={},
    )
    assert [(each.name, each.passes, each.kept) for each in found] == [
        ("compact", 2, 1 / 8),
        ("compact", 3, 1 / 8),
        ("compact", 2, 1 / 16),
        ("compact", 3, 1 / 16),
        ("streaming", 2, 1 / 8),
        ("streaming", 2, 1 / 16),
        ("evict", 1, None),
    ]
    sleep = found[0].talker(talker, 100).sleep
    assert sleep.consolidator == Compact(ratio=1 / 8, capacity=0.5)
    assert Memory(FULL).talker(talker, 100).sleep.eviction == "none"
    roomy = talker._replace(sleep=SleepConfig(passes=2, consolidator=Compact(capacity=3.0)))
    sizes = list_memories(
        roomy, ["compact", "h2o"], ratios=(8,), passes=(2,), capacity=None, changes={}
    )
    rooms = [each.talker(talker, 100).sleep.consolidator for each in sizes]
    assert [each.capacity for each in rooms if isinstance(each, Compact)] == [3.0, 3.0]
    with pytest.raises(ValueError, match="unknown memory 'compct'; did you mean compact"):
        list_memories(talker, ["compct"], ratios=(8,), passes=(2,), capacity=None, changes={})


def test_full_context_loses_nothing_and_an_empty_memory_all(talker: Talker) -> None:
    tokens = torch.randint(0, 256, (1, 96), generator=torch.Generator().manual_seed(0))
    full = Memory(FULL).talker(talker, 32)
    nats, nbytes, _ = score_continuation(full, tokens, 64)
    hidden, _ = talker.model.read(tokens, talker.model.initial_state(1))
    logs = talker.model.logits(hidden[:, 63:-1]).log_softmax(-1)
    expected = -float(logs.gather(-1, tokens[:, 64:, None]).mean())
    assert nats == pytest.approx(expected, rel=1e-5)
    assert nbytes > score_continuation(full, tokens[:, 63:], 1)[1]


def test_rows_have_controls_beside_memories(talker: Talker) -> None:
    memories = list_memories(
        talker, ["compact", "streaming"], ratios=(8,), passes=(2,), capacity=None, changes={}
    )
    rows = [*run_keep(talker, ("facts", "strangers", "continuation"), memories, TEST, print)]
    names = {test: [row["memory"] for row in rows if row["test"] == test] for test in run.TESTS}
    assert names["facts"] == [FULL, "compact", "streaming", EMPTY, FOREIGN]
    assert (
        names["strangers"]
        == [FULL] * 2 + ["compact"] * 2 + ["streaming"] * 2 + [EMPTY] + [FOREIGN] * 2
    )
    assert names["continuation"] == [FULL] * 2 + ["compact"] * 2 + ["streaming"] * 2 + [EMPTY] * 2
    by_name = {
        (row["memory"], row.get("windows")): row for row in rows if row["test"] == "strangers"
    }
    assert by_name["compact", 2]["of"] == {"told": 20, "corrected": 4, "unknown": 6, "outdated": 4}
    assert by_name["compact", 2]["kilobytes"] == by_name["streaming", 2]["kilobytes"]
    assert by_name["compact", 2]["kilobytes"] < by_name[FULL, 2]["kilobytes"]
    assert len(list_tables(rows)) == 3


def test_another_memory_is_of_another_person_after_as_many_windows(
    talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, Any]] = []

    def note(session: Any, questions: Any, *, seconds: float) -> Kept:
        asked.append((session, questions))
        counted = Counter({"told": 1})
        return Kept(right=counted, asked=counted, nbytes=0, seconds=seconds)

    monkeypatch.setattr(run, "cut_chat", lambda _, person, *__: person)
    monkeypatch.setattr(
        run,
        "live_through",
        lambda _, person, counts, **__: [(each, (person, each), 0.0) for each in counts],
    )
    monkeypatch.setattr(run, "ask_questions", note)
    memories = [Memory("compact", 2, 1 / 8, {"kind": "compact"})]
    rows = [*run_keep(talker, ("strangers",), memories, TEST, print)]
    assert [row["windows"] for row in rows if row["memory"] == FOREIGN] == [1, 2]
    first, second = (each.questions for each in read_talk().people[:2])
    others = [((1, 1), first), ((0, 1), second), ((1, 2), first), ((0, 2), second)]
    assert asked[-4:] == others


def test_dreams_are_of_strangers_alone_and_are_asked_after_a_restart(talker: Talker) -> None:
    (memory,) = list_memories(talker, ["lora"], ratios=(8,), passes=(2,), capacity=None, changes={})
    assert memory.dreams
    windows = cut_chat(talker, 0, 400, 2)
    sleeper = memory.talker(talker, 400)
    for dreams in (False, True):
        (lived,) = live_through(sleeper, windows, [2], dreams=dreams)
        assert (lived[1].state.delta is not None) == dreams
    small_talk = [[("What is snow?", "Frozen water.")]]
    ((_, session, _),) = live_through(sleeper, small_talk, [1], dreams=True)
    assert session.state.delta is None  # there is nothing to dream of
    rows = run_keep(talker, ("facts", "continuation"), [memory], TEST, print)
    assert not [*rows]


@pytest.mark.parametrize("is_taken", [True, False])
def test_a_row_of_dreams_says_how_many_were_taken(
    talker: Talker, monkeypatch: pytest.MonkeyPatch, is_taken: bool
) -> None:
    """A dream that is rejected leaves plain eviction."""

    def dream(session: Session) -> None:
        if is_taken:
            delta = talker.model.initial_delta(1, 1)
            session.state = dataclasses.replace(session.state, delta=delta)

    monkeypatch.setattr(Session, "dream", dream)
    memory = Memory("lora", settings={"kind": "evict"})
    rows = run_keep(talker, ("strangers",), [memory], TEST, print)
    found = [row["dreamt"] for row in rows if row["memory"] == "lora"]
    assert found == [2 * is_taken] * 2


def test_a_text_that_is_too_short_is_refused(talker: Talker) -> None:
    short = dataclasses.replace(TEST, document="x")
    memories = [Memory("evict", 1, None, {"kind": "evict"})]
    with pytest.raises(ValueError, match=r"--text has 1 tokens; give at least 1536"):
        list(run_keep(talker, ("continuation",), memories, short, print))
    with pytest.raises(ValueError, match="--text cannot be read"):
        read_document([Path("missing.txt")])
    assert len(read_document([])) > 100_000


def test_the_command_writes_rows_and_a_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, talker: Talker
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("slowwave.memory.talker.load", lambda *_, **__: talker)
    options = "--tests facts --memories compact --ratios 8 16 --texts 2"
    bench(["keep", "MODEL", *options.split(), "--out", str(tmp_path)])
    written = json.loads((tmp_path / "keep.json").read_text())
    assert [row["kept"] for row in written["rows"]] == [None, 1 / 8, 1 / 16, None, 1 / 8]
    assert written["options"]["texts"] == 2
    assert (tmp_path / "keep.png").stat().st_size > 10_000
    assert draw_keep([], tmp_path, "nothing") is None


def test_rows_that_were_found_outlast_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, talker: Talker
) -> None:
    monkeypatch.setattr("slowwave.memory.talker.load", lambda *_, **__: talker)
    scored = run.score_facts
    left = iter(range(3))

    def stop(*arguments: Any, **options: Any) -> Kept:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return scored(*arguments, **options)

    monkeypatch.setattr(run, "score_facts", stop)
    with pytest.raises(KeyboardInterrupt):
        bench(["keep", "MODEL", "--tests", "facts", "--texts", "2", "--out", str(tmp_path)])
    written = json.loads((tmp_path / "keep.json").read_text())
    assert [row["memory"] for row in written["rows"]] == [FULL]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--people", "10"], "--people has 10; use 0 to 9"),
        (["--ratios", "0.5"], r"--ratios has 0\.5; use 1"),
        (["--windows", "0"], "--windows has 0; use 1 or more"),
        (["--texts", "0"], "--texts is 0; use 1 or more"),
        (
            ["--tests", "facts", "--memories", "lora"],
            "lora learns what strangers told; add strangers to --tests",
        ),
    ],
)
def test_unfit_options_are_refused(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, talker: Talker
) -> None:
    monkeypatch.setattr("slowwave.memory.talker.load", lambda *_, **__: talker)
    with pytest.raises(ValueError, match=message):
        bench(["keep", "MODEL", *arguments])
