"""Replies as OpenAI's clients expect them, whole and in chunks."""

from __future__ import annotations

import dataclasses
import time
import uuid
from typing import Any

from slowwave.serving.turns import Turn


class Shape:
    """The replies to one request; each method returns a JSON object."""

    kind = ""
    prefix = ""

    def __init__(self, model: str) -> None:
        self._common = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, turn: Turn) -> dict[str, Any]:
        """All at once."""
        choice = {"index": 0, **self._whole(text), **_ending(turn)}
        usage = describe_usage(turn)
        memory = describe_memory(turn)
        return {**self._common, "object": self.kind, "choices": [choice], "usage": usage, **memory}

    def opening(self) -> list[dict[str, Any]]:
        """What comes before the first piece."""
        return []

    def piece(self, text: str) -> dict[str, Any]:
        """A piece of the reply."""
        return self._chunk({**self._part(text), "logprobs": None, "finish_reason": None})

    def ending(self, turn: Turn) -> dict[str, Any]:
        """The last chunk, with what became of the memory."""
        return {**self._chunk({**self._part(""), **_ending(turn)}), **describe_memory(turn)}

    def usage(self, turn: Turn) -> dict[str, Any]:
        """The chunk after the last, for those who asked for it."""
        return {**self._chunk(None), "usage": describe_usage(turn)}

    def _chunk(self, choice: dict[str, Any] | None) -> dict[str, Any]:
        choices = [] if choice is None else [{"index": 0, **choice}]
        return {**self._common, "object": self._chunk_kind(), "choices": choices}

    def _chunk_kind(self) -> str:
        return self.kind

    def _whole(self, text: str) -> dict[str, Any]:
        raise NotImplementedError

    def _part(self, text: str) -> dict[str, Any]:
        raise NotImplementedError


class ChatShape(Shape):
    """Of /v1/chat/completions."""

    kind = "chat.completion"
    prefix = "chatcmpl"

    def opening(self) -> list[dict[str, Any]]:
        """Who speaks."""
        delta = {"role": "assistant", "content": ""}
        return [self._chunk({"delta": delta, "logprobs": None, "finish_reason": None})]

    def _chunk_kind(self) -> str:
        return "chat.completion.chunk"

    def _whole(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _part(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}


class TextShape(Shape):
    """Of /v1/completions."""

    kind = "text_completion"
    prefix = "cmpl"

    def _whole(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _part(self, text: str) -> dict[str, Any]:
        return {"text": text}


def describe_usage(turn: Turn) -> dict[str, Any]:
    """Tokens: those of the prompt, of which some were remembered, and those of the reply."""
    outcome = turn.outcome
    prompt = outcome.num_told + outcome.num_remembered
    return {
        "prompt_tokens": prompt,
        "completion_tokens": outcome.num_drawn,
        "total_tokens": prompt + outcome.num_drawn,
        "prompt_tokens_details": {"cached_tokens": outcome.num_remembered},
    }


def describe_memory(turn: Turn) -> dict[str, Any]:
    """Where a named memory stands after the turn, and the sleeps in it."""
    status, name = turn.outcome.status, turn.memory
    if status is None or name is None:
        return {}
    return {
        "memory": {
            "name": name,
            "tokens_seen": status.tokens_seen,
            "num_sleeps": status.num_sleeps,
            "window_fill": status.window_fill,
            "window": status.window,
            "sleeps": [dataclasses.asdict(report) for report in turn.outcome.sleeps],
        }
    }


def _ending(turn: Turn) -> dict[str, Any]:
    return {"logprobs": None, "finish_reason": turn.outcome.finish}
