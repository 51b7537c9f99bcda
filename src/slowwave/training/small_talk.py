"""Small talk with the replies of the model itself, as it was before it was trained."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import NamedTuple

import torch

from slowwave.runtime.asked import encode_message
from slowwave.runtime.model_folder import TalkingModel
from slowwave.storage.json_files import read_json, write_json
from slowwave.tasks.introductions.conversation import Exchange, read_words

MOST_TOKENS = 32
"""Of a reply."""
HELD_OUT = 1 / 16
"""Share of small talk that no step trains on."""
ROWS = 32
"""Replies that are written at once."""


class SmallTalk(NamedTuple):
    """Exchanges that are trained on, and others."""

    train: list[Exchange]
    validation: list[Exchange]


def provide_small_talk(talker: TalkingModel, count: int, folder: Path) -> SmallTalk:
    """So many exchanges, those in small_talk.json of the folder if it has them already."""
    path = folder / "small_talk.json"
    requests = draw_requests(count)
    held = read_json(path) if path.exists() else None
    if not held or [said for said, _ in held] != requests:
        held = [*zip(requests, write_replies(talker, requests), strict=True)]
        write_json(path, held)
    exchanges = [(str(said), str(reply)) for said, reply in held]
    first = round(len(exchanges) * HELD_OUT) or 1
    return SmallTalk(exchanges[first:], exchanges[:first])


def draw_requests(count: int) -> list[str]:
    """What users say in small talk, always the same of it. Raises ValueError if there is less."""
    requests = read_words().requests
    if not 2 <= count <= len(requests):
        raise ValueError(f"adapter.small_talk is {count}; use 2 to {len(requests)}")
    return random.Random(json.dumps(["small talk", count])).sample(requests, count)


@torch.no_grad()
def write_replies(talker: TalkingModel, requests: list[str]) -> list[str]:
    """The model's likeliest reply to each request alone, up to its last whole sentence."""
    replies: list[str] = []
    for start in range(0, len(requests), ROWS):
        replies += _write_rows(talker, requests[start : start + ROWS])
    return replies


def _write_rows(talker: TalkingModel, requests: list[str]) -> list[str]:
    model, tokenizer = talker.model, talker.tokenizer
    prompts = [_encode_prompt(talker, request) for request in requests]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(each)) + each for each in prompts], device=model.device)
    mask = torch.tensor([[i >= width - len(each) for i in range(width)] for each in prompts])
    hidden, state = model.read(ids, model.initial_state(len(requests)), mask=mask.to(model.device))
    rows: list[list[int]] = [[] for _ in requests]
    for _ in range(MOST_TOKENS):
        drawn = model.logits(hidden[:, -1]).argmax(-1)
        for row, token in zip(rows, drawn.tolist(), strict=True):
            row.append(token)
        hidden, state = model.read(drawn[:, None], state)
    ends = {*tokenizer.controls.stops, *tokenizer.controls.others}
    return [cut_reply(tokenizer.decode(_until(row, ends))) for row in rows]


def _encode_prompt(talker: TalkingModel, request: str) -> list[int]:
    assert talker.chat is not None
    said = encode_message(talker, "user", request)
    return [*talker.begin("user"), *said, *talker.chat.open_reply(talker.tokenizer)]


def _until(tokens: list[int], ends: set[int]) -> list[int]:
    """The tokens before the first of some."""
    return tokens[: next((i for i, token in enumerate(tokens) if token in ends), len(tokens))]


def cut_reply(text: str) -> str:
    """The first line as far as its sentences are whole; all of the line if none is."""
    line = text.strip().partition("\n")[0].strip()
    whole = re.match(r".*[.!?](?=\s|$)", line)
    return whole[0] if whole else line or "I see."
