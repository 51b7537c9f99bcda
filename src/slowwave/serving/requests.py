"""What clients may ask for, field by field."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from slowwave.generation.config import Sampling
from slowwave.serving.history import Message, Role
from slowwave.sleep.config import MOST_PASSES

# Fields of OpenAI's that a model here cannot follow, with the values that ask for nothing.
UNSUPPORTED: dict[str, Sequence[Any]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "reasoning_effort": (),
    "verbosity": (),
    "echo": (False,),
    "suffix": ("",),
}
# Those that change nothing here.
IDLE = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
)
MOST_MESSAGES = 4096
"""Recognising them may take time that grows with their square."""
LONGEST_NAME = 128
"""Characters of a source, and of the name of a memory or a snapshot."""
HIGHEST_TEMPERATURE = 100
Stops = Annotated[list[str], Field(max_length=16)]
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]


class Strict(BaseModel):
    """A body whose every field is known."""

    model_config = ConfigDict(extra="forbid")


class StreamOptions(BaseModel):
    """Of a stream."""

    include_usage: bool = False


class CompletionFields(Strict):
    """What chats and completions have in common."""

    model: str
    memory: str | None = None
    """Name of a memory, which is made if it is not there; None is one that is thrown away."""
    source: Name | None = None
    """Who says what is new, or what it is from."""
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=HIGHEST_TEMPERATURE)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    seed: int | None = None
    stop: str | Stops | None = None

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, fields: Any) -> Any:
        """Refuses by name what cannot be followed, and leaves out what changes nothing."""
        if not isinstance(fields, dict):
            return fields
        for name, idle in UNSUPPORTED.items():
            if fields.get(name) is not None and fields[name] not in idle:
                allowed = " or ".join(map(repr, idle))
                raise ValueError(
                    f"{name} is not supported here; leave it out"
                    + (f", or use {allowed}" if allowed else "")
                )
        return {k: v for k, v in fields.items() if k not in UNSUPPORTED and k not in IDLE}

    @property
    def stops(self) -> list[str]:
        """The stop texts, as a list."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk that tells the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self) -> Sampling:
        """How tokens are drawn: greedily without a temperature, and by any seed without one."""
        seed = secrets.randbits(32) if self.seed is None else self.seed
        return Sampling(
            temperature=self.temperature or 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k or 0,
            seed=seed,
        )


class TextPart(BaseModel):
    """A part of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    name: Name | None = None
    """Who said it, or what it is from; the request's source if not given."""

    def read(self, source: str | None) -> Message:
        """Role, text and source."""
        role: Role = "system" if self.role == "developer" else self.role
        parts = self.content if isinstance(self.content, list) else []
        text = self.content if isinstance(self.content, str) else "".join(p.text for p in parts)
        own = self.name or (source if role == "user" else None)
        return Message(role, text, own or "")


class ChatRequest(CompletionFields):
    """POST /v1/chat/completions"""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_completion_tokens: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _end_with_a_question(self) -> ChatRequest:
        last = self.messages[-1].role
        if last == "assistant":
            raise ValueError("the last of messages is by the assistant; end with one by the user")
        return self


class CompletionRequest(CompletionFields):
    """POST /v1/completions"""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]

    @property
    def text(self) -> str:
        """The prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


class CreateRequest(Strict):
    """POST /v1/memories"""

    name: Name


class ReadRequest(Strict):
    """POST /v1/memories/{name}/read"""

    text: str = Field(min_length=1)
    source: Name = "user"


class SleepRequest(Strict):
    """POST /v1/memories/{name}/sleep"""

    passes: int | None = Field(None, ge=1, le=MOST_PASSES)


class SnapshotRequest(Strict):
    """POST /v1/memories/{name}/snapshots"""

    name: Name


class RollbackRequest(Strict):
    """POST /v1/memories/{name}/rollback"""

    snapshot: Name


class ForkRequest(Strict):
    """POST /v1/memories/{name}/fork"""

    name: Name
    snapshot: Name | None = None


class ForgetRequest(Strict):
    """POST /v1/memories/{name}/forget"""

    sources: list[str] = []
    places: list[int] = []
    keep: list[int] = []
    dry_run: bool = False
