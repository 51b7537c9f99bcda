"""A server over damaged memories: each request is answered, and other owners' never suffer."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from damage import spoil_memory, spoil_rows
from serving_app import Make, chat, run, serve

ANN = "/v1/memories/ann"
REQUESTS: tuple[tuple[str, str, dict[str, Any] | None], ...] = (
    ("GET", "/v1/memories", None),
    ("GET", ANN, None),
    ("GET", f"{ANN}/ledger", None),
    ("GET", f"{ANN}/ledger?snapshot=monday", None),
    ("GET", f"{ANN}/sources", None),
    ("GET", f"{ANN}/window", None),
    ("GET", f"{ANN}/sleeps", None),
    ("GET", f"{ANN}/export", None),
    ("POST", f"{ANN}/read", {"text": "More."}),
    ("POST", "/v1/chat/completions", chat("Where?", memory="ann", max_tokens=3)),
    ("POST", f"{ANN}/sleep", {"passes": 2}),
    ("POST", f"{ANN}/fork", {"name": "bob", "snapshot": "monday"}),
    ("POST", f"{ANN}/snapshots", {"name": "tuesday"}),
    ("POST", f"{ANN}/forget", {"places": [1]}),
    ("POST", f"{ANN}/rollback", {"snapshot": "monday"}),
    ("DELETE", f"{ANN}/snapshots/monday", None),
    ("DELETE", ANN, None),
)


async def live(client: httpx2.AsyncClient) -> None:
    for path, body in (
        (f"{ANN}/read", {"text": "Ann lives in Lima.", "source": "notes"}),
        (f"{ANN}/snapshots", {"name": "monday"}),
        ("/v1/chat/completions", chat("Where?", memory="ann")),
        (f"{ANN}/sleep", {"passes": 2}),
        (f"{ANN}/read", {"text": "Bob."}),
    ):
        response = await client.post(path, json=body)
        assert response.status_code == 200, response.text


async def try_all(client: httpx2.AsyncClient) -> list[httpx2.Response]:
    return [await client.request(method, path, json=body) for method, path, body in REQUESTS]


def list_codes(responses: Iterable[httpx2.Response]) -> list[str]:
    """The codes of errors; asserts that each is one that was thought of."""
    codes = list[str]()
    for response in responses:
        if response.status_code >= 400:
            error = response.json()["error"]
            assert "\n" not in error["message"]
            assert error["code"] in (
                *("memory_damaged", "memory_not_found", "other_model", "name_taken"),
            ), response.text
            codes.append(error["code"])
    return codes


def test_damaged_memories(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memories, whole = tmp_path / "memories", tmp_path / "whole"

    async def make_memories() -> None:
        async with serve(make()) as client:
            await live(client)

    async def scenario() -> list[httpx2.Response]:
        async with serve(make()) as client:
            return await try_all(client)

    run(make_memories())
    shutil.copytree(memories, whole)
    assert list_codes(run(scenario())) == []
    found = set[str]()
    for seed in range(24):
        draw = random.Random(seed)
        shutil.rmtree(memories)
        shutil.copytree(whole, memories)
        if seed % 4:
            spoil_rows(memories / "catalogue.sqlite", draw)
        else:
            spoil_memory(draw.choice(sorted((memories / "states").iterdir())), draw)
        found |= {*list_codes(run(scenario()))}
    assert "memory_damaged" in found
