"""Replies are those of a session, whoever else talks; OpenAI's own client takes them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from serving_app import Make, chat, listen, run, serve
from slowwave.memory.replay import replay
from slowwave.memory.session import Session
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.runtime.config import Sampling
from slowwave.serving.config import ServeConfig
from slowwave.serving.monitoring import Key


async def post(client: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def say(client: httpx2.AsyncClient, *texts: str, **fields: Any) -> dict[str, Any]:
    return await post(client, "/v1/chat/completions", chat(*texts, **fields))


def reply(answer: dict[str, Any]) -> str:
    return answer["choices"][0]["message"]["content"]


# One conversation.


def test_replies_are_those_of_a_session(make: Make, talker: Talker, tmp_path: Path) -> None:
    async def scenario() -> list[dict[str, Any]]:
        async with serve(make()) as client:
            return [await say(client, text, memory="ann") for text in ("My cat is Mio.", "Who?")]

    first, second = run(scenario())
    alone = talker.session()
    assert reply(first) == alone.generate("My cat is Mio.", max_new_tokens=9)
    assert [report["number"] for report in first["memory"]["sleeps"]] == list(
        range(1, alone.state.counters.num_sleeps + 1)
    )
    assert reply(second) == alone.generate("Who?", max_new_tokens=9)
    memory, status = second["memory"], alone.status()
    assert memory["name"] == "ann"
    for counter in ("tokens_seen", "num_sleeps", "window_fill", "window"):
        assert memory[counter] == getattr(status, counter)
    assert first["usage"] == {
        "prompt_tokens": len("> My cat is Mio.\n"),
        "completion_tokens": 9,
        "total_tokens": len("> My cat is Mio.\n") + 9,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    with Store(tmp_path / "memories") as store, store.open("ann", talker) as kept:
        assert_same(kept, alone)


def assert_same(session: Session, other: Session) -> None:
    """To the bit."""
    tensors: list[list[Any]] = [[], []]
    session.state.map(lambda tensor: (tensors[0].append(tensor), tensor)[1])
    other.state.map(lambda tensor: (tensors[1].append(tensor), tensor)[1])
    assert session.status().tokens_seen == other.status().tokens_seen
    assert all(mine.equal(theirs) for mine, theirs in zip(*tensors, strict=True))


def test_without_a_memory_nothing_is_kept(make: Make, talker: Talker, tmp_path: Path) -> None:
    async def scenario() -> list[dict[str, Any]]:
        async with serve(make()) as client:
            talk = ("I am Ann.", "Hello.", "Who am I?")
            answers = [await say(client, *talk) for _ in range(2)]
            assert (await client.get("/v1/memories")).json()["data"] == []
            return answers

    first, second = run(scenario())
    alone = talker.session()
    alone.read("> I am Ann.\n")
    alone.read("Hello.\n", source="model")
    assert reply(first) == reply(second) == alone.generate("Who am I?", max_new_tokens=9)
    assert first["usage"]["prompt_tokens"] == len("> I am Ann.\nHello.\n> Who am I?\n")
    assert "memory" not in first


def test_history_that_is_sent_again_is_not_read_again(make: Make, talker: Talker) -> None:
    async def scenario() -> list[dict[str, Any]]:
        async with serve(make()) as client:
            talk, answers = ["I am Ann."], list[dict[str, Any]]()
            for text in ("Who am I?", "Sure?", ""):
                answers.append(await say(client, *talk, memory="ann"))
                talk += [reply(answers[-1]), text]
            return answers

    answers = run(scenario())
    alone = talker.session()
    said = 0
    for answer, text in zip(answers, ("I am Ann.", "Who am I?", "Sure?"), strict=True):
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == said
        assert reply(answer) == alone.generate(text, max_new_tokens=9)
        assert answer["usage"]["prompt_tokens"] == said + len(f"> {text}\n")
        said = alone.state.counters.tokens_seen
    assert said


def test_sources(make: Make, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serve(make()) as client:
            body = chat("Hello.", memory="ann", source="letters")
            body["messages"].insert(0, {"role": "system", "content": "Be brief."})
            body["messages"].insert(1, {"role": "user", "content": "Hi.", "name": "Bob"})
            await post(client, "/v1/chat/completions", body)

    run(scenario())
    with Store(tmp_path / "memories") as store:
        told = [(entry.text, entry.source) for entry in store.entries("ann")[:3]]
    assert told == [("# Be brief.\n", "system"), ("> Hi.\n", "Bob"), ("> Hello.\n", "letters")]


def test_draws(make: Make, talker: Talker) -> None:
    async def scenario() -> list[str]:
        async with serve(make()) as client:
            drawn = {"temperature": 1.0, "top_p": 0.9, "max_tokens": 12}
            return [
                reply(await say(client, "Hello", **drawn, **seed))
                for seed in ({"seed": 3}, {"seed": 3}, {"seed": 4}, {}, {})
            ]

    replies = run(scenario())
    wanted = Sampling(temperature=1.0, top_p=0.9, seed=3)
    alone = talker.session().generate("Hello", max_new_tokens=12, sampling=wanted)
    assert replies[0] == replies[1] == alone
    assert len(set(replies)) == 4


def test_a_reply_ends_at_a_stop_text(make: Make, talker: Talker) -> None:
    whole = talker.session().generate("Hello", max_new_tokens=20)
    stop = whole[4:6]

    async def scenario() -> dict[str, Any]:
        async with serve(make()) as client:
            return await say(client, "Hello", stop=[stop], max_completion_tokens=20)

    answer = run(scenario())
    assert (reply(answer), answer["choices"][0]["finish_reason"]) == (whole[:4], "stop")


def test_a_completion_reads_its_prompt_as_it_is(make: Make, talker: Talker) -> None:
    async def scenario() -> list[dict[str, Any]]:
        body = {"model": "tiny", "prompt": "Once upon", "max_tokens": 7}
        async with serve(make()) as client:
            kept = {**body, "memory": "tale"}
            return [await post(client, "/v1/completions", each) for each in (body, kept, kept)]

    passing, first, second = run(scenario())
    alone = talker._replace(chat=None).session()
    said = [alone.generate("Once upon", max_new_tokens=7) for _ in range(2)]
    assert [answer["choices"][0]["text"] for answer in (passing, first, second)] == [said[0], *said]
    assert passing["object"] == "text_completion"
    assert passing["usage"]["prompt_tokens"] == 9


# Many.


def test_memories_never_mix(make: Make, talker: Talker, tmp_path: Path) -> None:
    """Twelve at once, each with replies and a state as if it were alone."""
    texts = (
        "My name is number {}.",
        "I like {} and tea, and what is more, long sentences.",
        "Who?",
    )

    async def talk(client: httpx2.AsyncClient, number: int) -> list[str]:
        said: list[str] = []
        for text in texts:
            said.append(reply(await say(client, text.format(number), memory=f"m{number}")))
        return said

    async def scenario() -> list[list[str]]:
        async with serve(make()) as client:
            return await asyncio.gather(*(talk(client, number) for number in range(12)))

    replies = run(scenario())
    with Store(tmp_path / "memories") as store:
        for number, said in enumerate(replies):
            alone = talker.session()
            expected = [alone.generate(text.format(number), max_new_tokens=9) for text in texts]
            assert said == expected
            with store.open(f"m{number}", talker) as kept:
                assert_same(kept, alone)
                assert_same(kept, replay(lambda: talker.session(), kept.ledger()))


def test_turns_of_one_memory_are_taken_in_order(make: Make, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serve(make()) as client:
            turns: list[asyncio.Task[Any]] = []
            for number in range(8):
                turns.append(asyncio.create_task(say(client, f"No {number}.", memory="ann")))
                await asyncio.sleep(0.002)
            await asyncio.gather(*turns)

    run(scenario())
    with Store(tmp_path / "memories") as store:
        told = [entry.text for entry in store.entries("ann") if entry.kind == "told"]
    assert told == [f"> No {number}.\n" for number in range(8)]


def test_few_memories_are_open_at_a_time(make: Make, talker: Talker) -> None:
    async def scenario() -> list[str]:
        app = make(config=ServeConfig(max_open_sessions=2))
        async with serve(app) as client:
            said = list[str]()
            for text in ("Hello", "Again"):
                for name in "abcd":
                    said.append(reply(await say(client, text, memory=name)))
                    assert len(app.state.server.sessions) <= 2
            return said

    said = run(scenario())
    alone = talker.session()
    expected = [alone.generate(text, max_new_tokens=9) for text in ("Hello", "Again")]
    assert said == [expected[0]] * 4 + [expected[1]] * 4


# Streams and OpenAI's client.


def test_a_stream_is_the_reply_in_pieces(make: Make, talker: Talker) -> None:
    async def scenario() -> str:
        async with serve(make()) as client:
            asked = {"stream": True, "stream_options": {"include_usage": True}, "memory": "ann"}
            response = await client.post("/v1/chat/completions", json=chat("Hello there", **asked))
            assert response.headers["content-type"].startswith("text/event-stream")
            return response.text

    parts = run(scenario()).split("\n\n")
    assert parts.pop() == ""
    assert parts.pop() == "data: [DONE]"
    assert ": sleeping" in parts
    chunks = [json.loads(part.removeprefix("data: ")) for part in parts if part[0] == "d"]
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]]
    assert "".join(pieces) == talker.session().generate("Hello there", max_new_tokens=9)
    assert sum(map(bool, pieces)) > 2
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [c["choices"][0]["finish_reason"] for c in chunks[-3:-1]] == [None, "length"]
    assert chunks[-2]["memory"]["num_sleeps"] == len(chunks[-2]["memory"]["sleeps"]) == 2
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["completion_tokens"]) == ([], 9)
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_a_stream_that_waits_keeps_its_connection(make: Make) -> None:
    async def scenario() -> str:
        app = make(config=ServeConfig(keep_alive_seconds=0.05))
        async with serve(app) as client:
            body = chat("Hello", memory="ann", stream=True)
            async with app.state.server.use_stored(Key("", "ann"), create=True):
                asked = asyncio.create_task(client.post("/v1/chat/completions", json=body))
                await asyncio.sleep(0.3)
            return (await asked).text

    parts = run(scenario()).split("\n\n")
    assert parts[1] == parts[2] == ": waiting"
    assert parts[-2] == "data: [DONE]"


def test_the_official_client_works_unchanged(make: Make, talker: Talker) -> None:
    alone = talker.session()
    expected = [alone.generate(text, max_new_tokens=9) for text in ("I am Ann.", "Who am I?")]
    with listen(make()) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        assert [model.id for model in client.models.list()] == ["tiny"]
        options: dict[str, Any] = {"model": "tiny", "max_tokens": 9}
        options["extra_body"] = {"memory": "ann"}
        whole = client.chat.completions.create(
            messages=[{"role": "user", "content": "I am Ann."}], **options
        )
        assert whole.choices[0].message.content == expected[0]
        assert whole.usage and whole.usage.prompt_tokens_details
        assert whole.usage.prompt_tokens_details.cached_tokens == 0
        assert whole.memory["name"] == "ann"  # pyright: ignore[reportAttributeAccessIssue]
        stream = client.chat.completions.create(
            messages=[{"role": "user", "content": "Who am I?"}],
            stream=True,
            stream_options={"include_usage": True},
            **options,
        )
        chunks = list(stream)
        pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
        assert "".join(pieces) == expected[1]
        assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 9
        text = client.completions.create(model="tiny", prompt="Once", max_tokens=3)
        assert text.usage and text.usage.completion_tokens == 3
        with pytest.raises(openai.NotFoundError, match="model 'gpt' is not here; use 'tiny', or"):
            client.completions.create(model="gpt", prompt="Once")
