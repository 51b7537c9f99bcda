"""A repeated request is one request: nothing is told twice, whatever became of the reply."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from serving_app import Make, chat, listen, run, serve
from slowwave.memory.ledger import Entry
from slowwave.memory.session import Session
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.serving.monitoring import Key

CHAT = "/v1/chat/completions"
ANN = {"memory": "ann"}


def reply(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def ledger(folder: Path, name: str = "ann") -> list[Entry]:
    with Store(folder / "memories") as store:
        return store.entries(name)


def said(folder: Path) -> list[str]:
    return [entry.said or entry.text for entry in ledger(folder) if entry.kind == "told"]


def test_another_reply_to_the_last_message(make: Make, talker: Talker, tmp_path: Path) -> None:
    """And another last message: the memory is as if the turn before had never been."""

    async def scenario() -> tuple[str, list[str]]:
        async with serve(make()) as client:
            first = reply(await client.post(CHAT, json=chat("My cat is Mio.", **ANN)))
            replies = list[str]()
            for seed, last in ((1, "Who?"), (2, "Who?"), (3, "What?")):
                talk = chat("My cat is Mio.", first, last, **ANN, temperature=1, seed=seed)
                replies.append(reply(await client.post(CHAT, json=talk)))
            return first, replies

    first, replies = run(scenario())
    entries = ledger(tmp_path)
    assert [entry.said for entry in entries] == ["My cat is Mio.", first, "What?", replies[-1]]
    alone = talker.session()
    for entry in entries:
        alone.repeat(entry)
    with Store(tmp_path / "memories") as store:
        state = store.state("ann", talker)
        assert state.counters.tokens_seen == alone.state.counters.tokens_seen
        assert state.counters.num_sleeps == alone.state.counters.num_sleeps
        assert store.measure().leftovers == 0


def test_a_turn_that_fails_leaves_the_one_that_it_would_replace(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with serve(make()) as client:
            first = reply(await client.post(CHAT, json=chat("Hi", **ANN)))
            reply(await client.post(CHAT, json=chat("Hi", first, "Who?", **ANN)))
            with monkeypatch.context() as patch:
                patch.setattr(Session, "_predict", lambda *_: 1 / 0)
                broken = await client.post(CHAT, json=chat("Hi", first, "What?", **ANN))
                assert broken.status_code == 500
            reply(await client.post(CHAT, json=chat("Go on", **ANN)))

    run(scenario())
    assert said(tmp_path) == ["Hi", "Who?", "Go on"]


def test_watchers_hear_that_a_turn_was_taken_anew(make: Make) -> None:
    async def scenario() -> list[str]:
        app = make()
        async with serve(app) as client:
            first = reply(await client.post(CHAT, json=chat("Hi", **ANN)))
            await client.post(CHAT, json=chat("Hi", first, "Who?", **ANN))
            with app.state.server.feed.watch(Key("", "ann")) as events:
                await client.post(CHAT, json=chat("Hi", first, "What?", **ANN))
                found = [events.get_nowait() for _ in range(events.qsize())]
        return [event.kind for event in found if event is not None]

    assert "change" in run(scenario())


def test_officials_clients_retries_tell_once(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It repeats a request by itself, after its time limit."""
    predict = Session._predict

    def predict_slowly(self: Session, hidden: Any) -> Any:
        time.sleep(0.05)
        return predict(self, hidden)

    monkeypatch.setattr(Session, "_predict", predict_slowly)
    with listen(make()) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", timeout=0.4, max_retries=1)
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": "My cat is called Mio."}],
                extra_body=ANN,
                max_tokens=200,
            )
        time.sleep(0.5)
    assert said(tmp_path) == ["My cat is called Mio."]
    assert ledger(tmp_path)[-1].finish is None


def test_a_repeated_key_is_answered_with_the_same_reply(make: Make, tmp_path: Path) -> None:
    keyed = {"Idempotency-Key": "k1"}

    async def scenario() -> list[httpx2.Response]:
        async with serve(make()) as client:
            talk = chat("Hi", **ANN, temperature=1)
            answers = [await client.post(CHAT, json=talk, headers=keyed) for _ in range(2)]
            reply(await client.post(CHAT, json=chat("Bye", **ANN)))
            streamed = await client.post(CHAT, json=talk | {"stream": True}, headers=keyed)
        async with serve(make()) as client:  # after a restart, and another turn
            answers.append(await client.post(CHAT, json=talk, headers=keyed))
            answers += await asyncio.gather(
                *(client.post(CHAT, json=talk, headers={"Idempotency-Key": "k2"}) for _ in "ab")
            )
            other = await client.post(CHAT, json=chat("Ho", **ANN), headers=keyed)
        return [*answers, streamed, other]

    *answers, fourth, fifth, streamed, other = run(scenario())
    assert len({reply(answer) for answer in answers}) == 1
    assert len({answer.json()["usage"]["completion_tokens"] for answer in answers}) == 1
    assert reply(fourth) == reply(fifth)
    for answer in (streamed, other):
        assert answer.status_code == 422
        assert answer.json()["error"]["code"] == "idempotency_key_reused"
    assert said(tmp_path) == ["Hi", "Bye", "Hi"]


def test_a_repeated_key_after_a_hang_up(make: Make, tmp_path: Path) -> None:
    """The reply was broken off: it is drawn anew, and nothing is told twice."""

    async def scenario() -> str:
        app = make()
        async with serve(app) as client:
            talk, keyed = chat("Hi", **ANN, max_tokens=50), {"Idempotency-Key": "k1"}
            with listen_once(app):
                cut = asyncio.create_task(client.post(CHAT, json=talk, headers=keyed))
                await asyncio.sleep(0)
                await cut
            return reply(await client.post(CHAT, json=talk, headers=keyed))

    class listen_once:
        """Within, every turn is stopped after its first token."""

        def __init__(self, app: Any) -> None:
            self._engine = app.state.server.engine

        def __enter__(self) -> None:
            start = self._start = self._engine.start

            def start_and_stop(steps: Any, *arguments: Any, **options: Any) -> Any:
                return start(_cut(steps), *arguments, **options)

            self._engine.start = start_and_stop

        def __exit__(self, *_: object) -> None:
            self._engine.start = self._start

    def _cut(steps: Any) -> Any:
        for progress in steps:
            yield progress
            if progress.num_drawn:
                steps.close()
                return

    whole = run(scenario())
    told, answered = ledger(tmp_path)
    assert (told.said, answered.said) == ("Hi", whole)
    assert answered.finish in ("stop", "length")


def test_a_text_is_gone_on_with_once(make: Make, tmp_path: Path) -> None:
    body = {"model": "tiny", "prompt": "Once", "max_tokens": 3, **ANN}

    async def scenario() -> list[str]:
        async with serve(make()) as client:
            answers = list[str]()
            for headers in ({}, {"x-stainless-retry-count": "1"}, {}):
                answer = await client.post("/v1/completions", json=body, headers=headers)
                answers.append(answer.json()["choices"][0]["text"])
            return answers

    first, again, other = run(scenario())
    assert first == again
    assert said(tmp_path) == ["Once", "Once"]
    assert ledger(tmp_path)[-1].said == other
