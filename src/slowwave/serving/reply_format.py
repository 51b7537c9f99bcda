"""Replies as OpenAI's clients expect them, of chats and of texts, whole and in chunks."""

from __future__ import annotations

import dataclasses
import time
import uuid
from typing import Any

from slowwave.serving.turns import Turn

UNFINISHED = {"logprobs": None, "finish_reason": None}


class ReplyFormat:
    """The JSON objects of the reply that a turn makes.

    model: its name as the client gave it. is_chat: of /v1/chat/completions, not /v1/completions.
    """

    def __init__(self, turn: Turn, *, model: str, is_chat: bool) -> None:
        self._turn, self._is_chat = turn, is_chat
        self._common = {
            "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str) -> dict[str, Any]:
        """The reply at once."""
        message = {"role": "assistant", "content": text, "refusal": None}
        content = {"message": message} if self._is_chat else {"text": text}
        return {
            **self._common,
            "object": "chat.completion" if self._is_chat else "text_completion",
            "choices": [{"index": 0, **content, **self._finish()}],
            **self._usage(),
            **self._memory(),
        }

    def opening(self) -> list[dict[str, Any]]:
        """The chunks before the first text: of a chat, the role."""
        delta = {"delta": {"role": "assistant", "content": ""}}
        return [self._chunk({**delta, **UNFINISHED})] if self._is_chat else []

    def chunk(self, text: str) -> dict[str, Any]:
        """A chunk with a part of the text."""
        return self._chunk({**self._delta(text), **UNFINISHED})

    def ending(self) -> dict[str, Any]:
        """The last chunk, with the state of the memory."""
        return {**self._chunk({**self._delta(""), **self._finish()}), **self._memory()}

    def usage_chunk(self) -> dict[str, Any]:
        """The chunk after the last, for clients that asked for it."""
        return {**self._chunk(None), **self._usage()}

    def _chunk(self, choice: dict[str, Any] | None) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self._is_chat else "text_completion"
        choices = [] if choice is None else [{"index": 0, **choice}]
        return {**self._common, "object": kind, "choices": choices}

    def _delta(self, text: str) -> dict[str, Any]:
        if not self._is_chat:
            return {"text": text}
        return {"delta": {"content": text} if text else {}}

    def _finish(self) -> dict[str, Any]:
        return {"logprobs": None, "finish_reason": self._turn.outcome.finish}

    def _usage(self) -> dict[str, Any]:
        outcome = self._turn.outcome
        prompt = outcome.num_told + outcome.num_remembered
        return {
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": outcome.num_drawn,
                "total_tokens": prompt + outcome.num_drawn,
                "prompt_tokens_details": {"cached_tokens": outcome.num_remembered},
            }
        }

    def _memory(self) -> dict[str, Any]:
        """The state of a named memory after the turn, and the sleeps in it."""
        status, name = self._turn.outcome.status, self._turn.memory
        if status is None or name is None:
            return {}
        return {
            "memory": {
                "name": name,
                "tokens_seen": status.tokens_seen,
                "num_sleeps": status.num_sleeps,
                "window_fill": status.window_fill,
                "window": status.window,
                "sleeps": [dataclasses.asdict(report) for report in self._turn.outcome.sleeps],
            }
        }
