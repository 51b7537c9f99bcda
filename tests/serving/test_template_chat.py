"""A server of a model that has a chat template: the whole conversation comes each time, and is
told once; a reply is counted as it was drawn."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import httpx2
import pytest

from chat_templates import GEMMA3, SMOLLM2, Published
from serving_app import Make, chat, run, serve
from slowwave.memory.ledger import TEMPLATE
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker
from slowwave.models.backbone import HybridLM
from slowwave.runtime.chat_template import SpecialTexts, compile_template
from slowwave.sleep.config import SleepConfig
from slowwave.storage.tokenizer import FileTokenizer
from tiny_models import TWO_LAYERS
from tokenizer_maker import make_chat

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ANN = {"memory": "ann"}


@pytest.fixture(params=[SMOLLM2, GEMMA3], ids=["smollm2", "gemma3"])
def talker(request: pytest.FixtureRequest) -> Talker:
    published: Published = request.param
    tokenizer = FileTokenizer("a", content=make_chat(*published.controls).to_str().encode())
    texts = SpecialTexts(published.bos, published.eos)
    form, controls = compile_template(published.text, tokenizer, texts, where="a")
    config = dataclasses.replace(TWO_LAYERS, vocab_size=tokenizer.vocab_size)
    sleep = SleepConfig(window=24, passes=2)
    return Talker(HybridLM(config, seed=1), tokenizer.with_controls(controls), sleep, form)


def reply(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def said(folder: Path) -> list[str]:
    with Store(folder / "memories") as store:
        entries = [entry for entry in store.entries("ann") if entry.source != TEMPLATE]
    return [entry.said if entry.role else entry.given for entry in entries]


def test_a_conversation_is_told_once(make: Make, tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        async with serve(make()) as client:
            system = {"role": "system", "content": "Be brief."}
            talk, replies = chat("My cat is Mio.", **ANN), list[str]()
            for text in ("Who?", "And who?", ""):
                messages = [system, *talk["messages"]]
                replies.append(reply(await client.post(CHAT, json=talk | {"messages": messages})))
                talk["messages"] += [
                    {"role": "assistant", "content": replies[-1]},
                    {"role": "user", "content": text},
                ]
            return replies

    replies = run(scenario())
    found, told = said(tmp_path), ["Be brief.", "My cat is Mio.", "Who?", "And who?"]
    assert [each for each in found if each not in replies] == told
    assert len(found) == len(told) + len(replies)


@pytest.mark.parametrize("is_chat", [True, False])
def test_the_first_turn_can_be_retried(make: Make, tmp_path: Path, is_chat: bool) -> None:
    """By a client that says so, and one that sends the same key: counts are the same."""
    path = CHAT if is_chat else TEXT
    text = {"model": "tiny", "prompt": "My cat is Mio.", "max_tokens": 9, **ANN}
    body = chat("My cat is Mio.", **ANN) if is_chat else text

    async def scenario() -> list[dict[str, int]]:
        async with serve(make()) as client:
            key = {"Idempotency-Key": "k1"}
            retry = {"x-stainless-retry-count": "1"}
            answers = [
                await client.post(path, json=body),
                await client.post(path, json=body, headers=retry),
                await client.post(path, json=body, headers=retry | key),
                await client.post(path, json=body, headers=key),
            ]
            assert all(answer.status_code == 200 for answer in answers), answers[0].text
            return [answer.json()["usage"] for answer in answers]

    usages = run(scenario())
    counts = {usage["completion_tokens"] for usage in usages}
    assert counts == {9}
    assert said(tmp_path)[0] == "My cat is Mio."
    assert len(said(tmp_path)) == 2
