"""The past of a memory is shown as it was, sleep by sleep and token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from serving_app import Make, chat, run, serve
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.runtime.config import ChatFormat
from slowwave.serving import past
from slowwave.serving.app import create_app
from slowwave.serving.past import READ_AT_ONCE, describe_window
from slowwave.sleep.config import SleepConfig

ANN = "/v1/memories/ann"


async def get(client: httpx2.AsyncClient, path: str) -> list[dict[str, Any]]:
    return (await client.get(path)).json()["data"]


async def live(client: httpx2.AsyncClient) -> None:
    """19 tokens of notes, 3 of a question with its marks, a reply, a sleep, 4 more of notes."""
    await client.post(f"{ANN}/read", json={"text": "Ann lives in Lima.\n", "source": "notes"})
    await client.post("/v1/chat/completions", json=chat("Where?", memory="ann"))
    await client.post(f"{ANN}/sleep", json={"passes": 2})
    await client.post(f"{ANN}/read", json={"text": "Bob.", "source": "notes"})


def test_sleeps_have_a_time_and_a_place(make: Make) -> None:
    async def scenario() -> tuple[list[dict[str, Any]], ...]:
        async with serve(make()) as client:
            await live(client)
            paths = ("ledger", "sleeps", "sleeps?last=1")
            return tuple([await get(client, f"{ANN}/{path}") for path in paths])

    ledger, sleeps, last = run(scenario())
    assert [entry["kind"] for entry in ledger] == ["told", "told", "reply", "sleep", "told"]
    assert last == sleeps[-1:]
    assert (last[0]["trigger"], last[0]["place"]) == ("asked", 3)
    for sleep in sleeps:
        assert sleep["time"] == ledger[sleep["place"]]["time"]
        if sleep["trigger"] == "full":
            before = sum(entry["num_tokens"] for entry in ledger[: sleep["place"]])
            assert before < sleep["stop"] <= before + ledger[sleep["place"]]["num_tokens"]
    slept = {sleep["number"]: (sleep["start"], sleep["stop"]) for sleep in sleeps}
    assert {number for entry in ledger for number in entry["sleeps"]} == set(slept)
    assert slept[1] == (0, 12) and ledger[0]["sleeps"] == [1, 2]


def test_a_ledger_tells_who_said_what_without_marks(make: Make) -> None:
    async def scenario() -> list[dict[str, Any]]:
        async with serve(make()) as client:
            await live(client)
            return await get(client, f"{ANN}/ledger")

    ledger = run(scenario())
    assert [entry["role"] for entry in ledger] == [None, "user", "assistant", None, None]
    assert (ledger[1]["said"], ledger[1]["text"]) == (
        "Where?",
        ChatFormat().write("user", "Where?"),
    )
    assert ledger[0]["said"] == ledger[0]["text"]
    assert ledger[2]["said"] + "\n" == ledger[2]["text"]


def test_sources_are_counted(make: Make) -> None:
    async def scenario() -> tuple[list[dict[str, Any]], ...]:
        async with serve(make()) as client:
            await live(client)
            return await get(client, f"{ANN}/sources"), await get(client, f"{ANN}/ledger")

    sources, ledger = run(scenario())
    assert [source["source"] for source in sources] == ["notes", "user", "model"]
    notes = sources[0]
    assert (notes["num_entries"], notes["num_tokens"]) == (2, 23)
    assert (notes["first"], notes["last"]) == (ledger[0]["time"], ledger[4]["time"])


def test_a_window_is_told_token_by_token(make: Make) -> None:
    async def scenario() -> tuple[list[dict[str, Any]], ...]:
        async with serve(make()) as client:
            await live(client)
            return await get(client, f"{ANN}/window"), await get(client, f"{ANN}/window?limit=2")

    window, last = run(scenario())
    assert [(token["text"], token["source"], token["place"]) for token in window] == [
        (letter, "notes", 4) for letter in "Bob."
    ]
    assert last == window[-2:]


def test_a_long_past_is_read_in_pieces(make: Make) -> None:
    """Each as a part of the whole; the window lies in the last entries, however short they are."""

    async def scenario() -> tuple[list[dict[str, Any]], ...]:
        async with serve(make()) as client:
            await live(client)
            for number in range(READ_AT_ONCE + 40):
                body = {"text": "a", "source": str(number % 3)}
                await client.post(f"{ANN}/read", json=body)
                if number == 30:
                    await client.post(f"{ANN}/sleep", json={"passes": 2})
            paths = ("ledger?limit=1000", "window", "ledger?start=20&limit=40")
            beyond = await get(client, f"{ANN}/ledger?start={2**64}")
            return *[await get(client, f"{ANN}/{path}") for path in paths], beyond

    ledger, window, middle, beyond = run(scenario())
    assert len(ledger) == 5 + READ_AT_ONCE + 40 + 1
    assert middle == ledger[20:60] and not beyond
    places = [token["place"] for token in window]
    assert places == [entry["place"] for entry in ledger if entry["in_window"]]
    assert [token["source"] for token in window] == [ledger[place]["source"] for place in places]
    slept = [entry for entry in ledger if entry["num_tokens"] and not entry["in_window"]]
    assert all(entry["sleeps"] for entry in slept)
    assert slept == [entry for entry in ledger if entry["sleeps"]]


def test_a_window_longer_than_its_last_entries(talker: Talker, tmp_path: Path) -> None:
    sleep = SleepConfig(window=4 * READ_AT_ONCE, passes=2)
    with (
        Store(tmp_path) as store,
        store.open("ann", talker._replace(sleep=sleep), create=True) as session,
    ):
        session.read("gone")
        session.sleep()
        for _ in range(2 * READ_AT_ONCE):
            session.read("a")
        whole = describe_window(store, "ann", talker.tokenizer, 1000)["data"]
        assert [token["place"] for token in whole] == [*range(2, 2 + 2 * READ_AT_ONCE)]
        assert describe_window(store, "ann", talker.tokenizer, 3)["data"] == whole[-3:]


def test_a_window_of_another_tokenizer_has_no_texts(
    make: Make, talker: Talker, tmp_path: Path
) -> None:
    class Foreign:
        fingerprint = "another"
        vocab_size = talker.tokenizer.vocab_size
        encode, decode = talker.tokenizer.encode, talker.tokenizer.decode

    async def scenario() -> list[dict[str, Any]]:
        async with serve(make()) as client:
            await client.post(f"{ANN}/read", json={"text": "Bob.", "source": "notes"})
        foreign = talker._replace(tokenizer=Foreign())  # pyright: ignore[reportArgumentType]
        app = create_app(foreign, model_name="tiny", memory_dir=tmp_path / "memories")
        async with serve(app) as client:
            return await get(client, f"{ANN}/window")

    assert [token["text"] for token in run(scenario())] == [None] * 4


def test_a_memory_is_made_empty_and_once(make: Make) -> None:
    async def scenario() -> tuple[httpx2.Response, ...]:
        async with serve(make()) as client:
            names = ("ann", "ann", "a/b", "-x")
            return tuple([await client.post("/v1/memories", json={"name": n}) for n in names])

    made, again, *unfit = run(scenario())
    assert made.status_code == 201
    assert (made.json()["name"], made.json()["num_entries"]) == ("ann", 0)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "name_taken")
    for name, answer in zip(("a/b", "-x"), unfit, strict=True):
        said = answer.json()["error"]["message"]
        assert (answer.status_code, f"name {name!r} is unfit; use" in said) == (400, True)


def test_a_ledger_of_long_entries_comes_in_pieces(
    make: Make, talker: Talker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is read that is not told; and each is told, however long it is."""
    with Store(tmp_path / "memories") as store, store.open("ann", talker, create=True) as ann:
        for length in (5, 5, 30, 1, 1, 12, 8):
            ann.read("x" * length)
    monkeypatch.setattr(past, "MOST_TOKENS", 20)

    async def scenario() -> list[list[int]]:
        found, start = list[list[int]](), 0
        async with serve(make()) as client:
            while data := await get(client, f"{ANN}/ledger?start={start}&limit=5"):
                found.append([entry["num_tokens"] for entry in data])
                assert [entry["place"] for entry in data] == list(range(start, start + len(data)))
                start += len(data)
        return found

    assert run(scenario()) == [[5, 5], [30], [1, 1, 12], [8]]
