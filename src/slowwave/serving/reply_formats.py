"""Replies as OpenAI's clients expect them: chats and texts, whole and in the chunks of a stream."""

from __future__ import annotations

import dataclasses
import time
import uuid
from typing import Any

from slowwave.serving.turns import Turn


class ReplyFormat:
    """The reply to one request; each method returns JSON objects. model: as the client named it.

    The class itself is abstract.
    """

    kind: str
    chunk_kind: str
    id_prefix: str

    def __init__(self, model: str) -> None:
        self._common = {
            "id": f"{self.id_prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, turn: Turn) -> dict[str, Any]:
        """The reply at once."""
        choice = {"index": 0, **self._message(text), **_ending(turn)}
        usage = _describe_usage(turn)
        memory = _describe_memory(turn)
        return {**self._common, "object": self.kind, "choices": [choice], "usage": usage, **memory}

    def opening(self) -> list[dict[str, Any]]:
        """The chunks before the first text."""
        return []

    def chunk(self, text: str) -> dict[str, Any]:
        """A chunk with a part of the text."""
        return self._chunk({**self._delta(text), "logprobs": None, "finish_reason": None})

    def ending(self, turn: Turn) -> dict[str, Any]:
        """The last chunk, with the state of the memory."""
        return {**self._chunk({**self._delta(""), **_ending(turn)}), **_describe_memory(turn)}

    def usage(self, turn: Turn) -> dict[str, Any]:
        """The chunk after the last, for clients that asked for it."""
        return {**self._chunk(None), "usage": _describe_usage(turn)}

    def _chunk(self, choice: dict[str, Any] | None) -> dict[str, Any]:
        choices = [] if choice is None else [{"index": 0, **choice}]
        return {**self._common, "object": self.chunk_kind, "choices": choices}

    def _message(self, text: str) -> dict[str, Any]:
        raise NotImplementedError

    def _delta(self, text: str) -> dict[str, Any]:
        raise NotImplementedError


class ChatReplyFormat(ReplyFormat):
    """Of /v1/chat/completions."""

    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"
    id_prefix = "chatcmpl"

    def opening(self) -> list[dict[str, Any]]:
        """The role."""
        delta = {"role": "assistant", "content": ""}
        return [self._chunk({"delta": delta, "logprobs": None, "finish_reason": None})]

    def _message(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _delta(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}


class TextReplyFormat(ReplyFormat):
    """Of /v1/completions."""

    kind = chunk_kind = "text_completion"
    id_prefix = "cmpl"

    def _message(self, text: str) -> dict[str, Any]:
        return {"text": text}

    _delta = _message


def _ending(turn: Turn) -> dict[str, Any]:
    return {"logprobs": None, "finish_reason": turn.outcome.finish}


def _describe_usage(turn: Turn) -> dict[str, Any]:
    outcome = turn.outcome
    prompt = outcome.num_told + outcome.num_remembered
    return {
        "prompt_tokens": prompt,
        "completion_tokens": outcome.num_drawn,
        "total_tokens": prompt + outcome.num_drawn,
        "prompt_tokens_details": {"cached_tokens": outcome.num_remembered},
    }


def _describe_memory(turn: Turn) -> dict[str, Any]:
    """The state of a named memory after the turn, and the sleeps in it."""
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
