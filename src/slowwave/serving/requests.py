"""The bodies of requests, field by field.

Lists are checked up to their first fault, and a text counts as a list of one where both are
allowed, so that an error names a place in the body as the client sent it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from slowwave.runtime.config import Role, Sampling
from slowwave.serving.errors import MOST_SHOWN, shorten
from slowwave.serving.history import Message
from slowwave.sleep.config import MOST_PASSES

# OpenAI's fields that are not served here, with the values that ask for nothing.
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
# OpenAI's fields that change nothing here.
IGNORED = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
)
# Fields of a message beside its text, which no model here reads.
UNREAD = ("tool_calls", "function_call", "audio", "images")
MOST_MESSAGES = 4096
LONGEST_NAME = 128
"""Characters of a source, and of the name of a memory or a snapshot."""
HIGHEST_TEMPERATURE = 100
MOST_NAMED = 2**14
"""Sources, places or replies that a request may name."""
MOST_STOP = 1024
"""Characters of a stop text, which is looked for at every token."""
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
Stop = Annotated[str, Field(max_length=MOST_STOP)]


def refuse(message: str, *field: str) -> PydanticCustomError:
    """An error of a field; field: the names of fields within it, down to the wrong one."""
    return PydanticCustomError("refused", "{message}", {"message": message, "field": [*field]})


def _list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Body(BaseModel):
    """A body without unknown fields; null counts as leaving an optional one out."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        known = cls.model_fields
        for name in fields:
            if name not in known:
                raise refuse("is not known here; leave it out", name)
        return {k: v for k, v in fields.items() if v is not None or known[k].is_required()}


class StreamOptions(BaseModel):
    """See OpenAI's."""

    include_usage: bool | None = None


class CompletionFields(Body):
    """The fields that chats and completions have in common."""

    model: str
    memory: str | None = None
    """Name of a memory, which is made if it is missing; None is one that is thrown away."""
    source: Name | None = None
    """Who says the new messages, or where the text is from."""
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=HIGHEST_TEMPERATURE)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    seed: int | None = None
    stop: Annotated[list[Stop], Field(max_length=16, fail_fast=True), BeforeValidator(_list)] = []

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, fields: Any, info: ValidationInfo) -> Any:
        """Refuses fields that are not served, and leaves out fields that change nothing.

        For a lenient server, whose context is a list, it leaves out the former and unknown ones
        too, and adds their names to the list.
        """
        if not isinstance(fields, dict):
            return fields
        ignored: list[str] | None = info.context
        for name, idle in UNSUPPORTED.items():
            if fields.get(name) is None or fields[name] in idle:
                continue
            if ignored is None:
                allowed = " or ".join(map(repr, idle))
                advice = "leave it out" + (f", or use {allowed}" if allowed else "")
                raise refuse(f"is not supported here; {advice}", name)
            ignored.append(name)
        left = {k: v for k, v in fields.items() if k not in UNSUPPORTED and k not in IGNORED}
        if ignored is None:
            return left
        ignored += [name for name in left if name not in cls.model_fields]
        return {k: v for k, v in left.items() if k in cls.model_fields}

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk that has the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(self) -> Sampling:
        """Greedy without a temperature; with a random seed where the request has none."""
        return Sampling(seed=secrets.randbits(32)).change(
            temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, seed=self.seed
        )


class TextPart(BaseModel):
    """A part of a message."""

    text: str

    @model_validator(mode="before")
    @classmethod
    def _require_text(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.get("type") != "text":
            kind = shorten(repr(fields.get("type")), MOST_SHOWN)
            raise refuse(f"is of type {kind}, and only 'text' can be read; leave it out")
        return fields


def _read_content(value: Any) -> Any:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if not isinstance(value, list | None):
        raise refuse("is neither a text nor a list of parts; use a text")
    return value or []


class ChatMessage(BaseModel):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[TextPart], Field(fail_fast=True), BeforeValidator(_read_content)] = []
    name: Name | None = None
    """Who said it, or where it is from; the request's source if not given."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unread(cls, fields: Any, info: ValidationInfo) -> Any:
        """Refuses fields that no model here reads; a lenient server gets their names instead."""
        if not isinstance(fields, dict):
            return fields
        for name in UNREAD:
            if not fields.get(name):
                continue
            if info.context is None:
                raise refuse("cannot be read here; leave it out", name)
            info.context.append(f"messages.{name}")
        is_refused = not fields.get("content") and isinstance(fields.get("refusal"), str)
        return {**fields, "content": fields["refusal"]} if is_refused else fields

    def read(self, source: str | None) -> Message:
        """Role, text and source."""
        role: Role = "system" if self.role == "developer" else self.role
        own = self.name or (source if role == "user" else None)
        return Message(role, "".join(part.text for part in self.content), own or "")


class ChatRequest(CompletionFields):
    """POST /v1/chat/completions"""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)
    max_completion_tokens: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _require_question(self) -> ChatRequest:
        if self.messages[-1].role == "assistant":
            raise ValueError("the last of messages is by the assistant; end with one by the user")
        return self


class CompletionRequest(CompletionFields):
    """POST /v1/completions"""

    prompt: Annotated[
        list[str], Field(min_length=1, max_length=1, fail_fast=True), BeforeValidator(_list)
    ]


class CreateRequest(Body):
    """POST /v1/memories"""

    name: Name


class ReadRequest(Body):
    """POST /v1/memories/{name}/read"""

    text: str = Field(min_length=1)
    source: Name = "user"


class SleepRequest(Body):
    """POST /v1/memories/{name}/sleep"""

    passes: int | None = Field(None, ge=1, le=MOST_PASSES)


class SnapshotRequest(Body):
    """POST /v1/memories/{name}/snapshots"""

    name: Name


class RollbackRequest(Body):
    """POST /v1/memories/{name}/rollback"""

    snapshot: Name


class ForkRequest(Body):
    """POST /v1/memories/{name}/fork"""

    name: Name
    snapshot: Name | None = None


class ForgetRequest(Body):
    """POST /v1/memories/{name}/forget"""

    sources: list[str] = Field([], max_length=MOST_NAMED, fail_fast=True)
    places: list[int] = Field([], max_length=MOST_NAMED, fail_fast=True)
    keep: list[int] = Field([], max_length=MOST_NAMED, fail_fast=True)
    dry_run: bool = False
