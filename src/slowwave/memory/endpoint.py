"""A client of chat endpoints in OpenAI's form, on the standard library alone.

A few long calls need no pool of connections and no further package. What is sent elsewhere than
named would take the key along, so redirects are refused, not followed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import http.client
import ipaddress
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from slowwave.memory.notes_config import EndpointConfig

Fault = Literal["down", "slow", "limited", "failing", "refused", "nonsense", "key"]
"""Why there is no reply: nobody there; too late; turned away (429); 5xx; another status; not JSON
of a chat; a key that is missing or not accepted."""

MOST_BYTES = 2**24
"""Of a reply."""
MOST_QUOTED = 200
"""Characters of an endpoint's own words in a sentence."""
FIRST_WAIT_SECONDS = 0.5
"""The pause before the first repetition, where the endpoint asks for none; each next is twice as
long."""


class EndpointError(ValueError):
    """There is no reply; one sentence says why. It never holds the key.

    status: of HTTP, where there was an answer. wait_seconds: how long it asked to be left alone.
    """

    def __init__(
        self,
        fault: Fault,
        message: str,
        *,
        status: int | None = None,
        wait_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.fault, self.status, self.wait_seconds = fault, status, wait_seconds


@dataclasses.dataclass(frozen=True)
class ToolCall:
    """A function that a reply calls; arguments: as they came, JSON or not."""

    id: str
    name: str
    arguments: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
    """A reply. The tokens are what the endpoint says, 0 where it says nothing."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    """Tries and pauses included."""
    tries: int = 1


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **fields: Any) -> None:
        """See HTTPRedirectHandler: None leaves the answer as it is, an error."""


class Endpoint:
    """Sends requests, and repeats them where that may help. pause: waits for so many seconds."""

    def __init__(
        self, config: EndpointConfig, *, pause: Callable[[float], object] = time.sleep
    ) -> None:
        self.config, self._pause = config, pause
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if _is_loopback(urlsplit(config.url).hostname or ""):
            handlers.append(urllib.request.ProxyHandler({}))  # no proxy leads back to this machine
        self._opener = urllib.request.build_opener(*handlers)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.config.url!r} model={self.config.model!r}>"

    def complete(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = ()
    ) -> Completion:
        """The reply to a conversation; raises EndpointError."""
        config = self.config
        body: dict[str, Any] = {"model": config.model, "messages": [*messages]}
        if config.max_tokens is not None:
            body["max_tokens"] = config.max_tokens
        if config.temperature is not None:
            body["temperature"] = config.temperature
        if tools:
            body["tools"] = [*tools]
        began, content = time.monotonic(), json.dumps(body).encode()
        answer, tries = self._insist(lambda: self._call(content))
        return dataclasses.replace(answer, seconds=time.monotonic() - began, tries=tries)

    @contextlib.contextmanager
    def open(
        self, path: str, content: bytes | None = None, kind: str = "application/json"
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer to one request below the endpoint's url, whatever its status says.

        content: the body, of a POST; None is a GET. Raises EndpointError if there is no answer, or
        no key.
        """
        url = f"{self.config.url.rstrip('/')}{path}"
        request = urllib.request.Request(url, content, self._headers(content is not None, kind))
        with self._explaining():
            try:
                answer = self._opener.open(request, timeout=self.config.seconds)
            except urllib.error.HTTPError as error:
                answer = error  # an answer too, which `status` tells from a good one
            with answer:
                yield cast(http.client.HTTPResponse, answer)

    def read_key(self) -> str | None:
        """The key, which is looked up each time and kept nowhere; None if none is named."""
        name = self.config.key_env
        if not name:
            return None
        key = os.environ.get(name, "").strip()
        if not key:
            raise EndpointError(
                "key",
                f"the environment variable {name}, which endpoint.key_env names, is not set; set "
                "it to the key",
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise EndpointError(
                "key", f"the environment variable {name} holds no key, but other text; mend it"
            )
        return key

    def _headers(self, has_body: bool, kind: str) -> dict[str, str]:
        key = self.read_key()
        headers = {"Accept": "*/*", "User-Agent": "slowwave"}
        if has_body:
            headers["Content-Type"] = kind
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def _insist(self, call: Callable[[], Completion]) -> tuple[Completion, int]:
        """What a call returns, and how many tries it took."""
        wait = FIRST_WAIT_SECONDS
        for tries in range(1, self.config.retries + 2):
            try:
                return call(), tries
            except EndpointError as error:
                if error.fault not in ("limited", "failing", "down"):
                    raise
                asked = error.wait_seconds
                is_too_long = asked is not None and asked > self.config.most_wait_seconds
                if tries > self.config.retries or is_too_long:
                    raise
                self._pause(min(self.config.most_wait_seconds, wait if asked is None else asked))
                wait *= 2
        raise AssertionError("the last try returns or raises")

    def _call(self, content: bytes) -> Completion:
        until = time.monotonic() + self.config.seconds
        with self.open("/chat/completions", content) as answer:
            found = self._receive(answer, until)
            kind = answer.headers.get("Content-Type", "")
        if answer.status != 200:
            raise self.refusal(answer.status, answer.headers.get("Retry-After"), found)
        self.require_no_page(kind, found)
        try:
            return _read_completion(json.loads(found))
        except (ValueError, RecursionError):
            raise self.nonsense("something that is no chat completion in JSON") from None

    def require_no_page(self, kind: str, content: bytes) -> None:
        """Raises EndpointError if an answer of a content type is a web page."""
        if "html" in kind.lower() or content[:256].lstrip()[:1] == b"<":
            raise self.nonsense(
                "a web page in place of JSON; endpoint.url may lack its end, mostly /v1"
            )

    def _receive(self, answer: http.client.HTTPResponse, until: float) -> bytes:
        found = bytearray()
        while part := answer.read1(2**16):
            found += part
            if time.monotonic() > until:
                raise self._slow()
            if len(found) > MOST_BYTES:
                raise self.nonsense(f"more than {MOST_BYTES >> 20} MiB")
        return bytes(found)

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, urllib.error.URLError, OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, TimeoutError):
                raise self._slow() from None
            if isinstance(reason, http.client.HTTPException) and not isinstance(reason, OSError):
                raise self.nonsense("something that is no HTTP, or breaks off") from None
            words = getattr(reason, "strerror", None) or type(reason).__name__
            raise EndpointError(
                "down",
                f"{self.config.url}: cannot be reached ({self._quote(str(words))}); start what "
                "serves there, or mend endpoint.url",
            ) from None

    def _slow(self) -> EndpointError:
        return EndpointError(
            "slow",
            f"{self.config.url}: no whole reply within {self.config.seconds:g} seconds; raise "
            "endpoint.seconds, or name a faster model",
        )

    def nonsense(self, what: str) -> EndpointError:
        """An answer that cannot be used."""
        return EndpointError("nonsense", f"{self.config.url}: answers with {what}")

    def refusal(self, status: int, retry_after: str | None, content: bytes) -> EndpointError:
        """What a status other than 200 means, with the header Retry-After and the body."""
        url, wait = self.config.url, read_retry_after(retry_after)
        if status == 429:
            asked = "" if wait is None else f" for {wait:g} seconds"
            told = f"{url}: takes no more requests{asked} (429); try again later"
            return EndpointError("limited", told, status=status, wait_seconds=wait)
        if status >= 500:
            told = f"{url}: fails ({status}{self._read_words(content)}); try again later"
            return EndpointError("failing", told, status=status, wait_seconds=wait)
        if status in (401, 403):  # whose words may quote the key
            name = self.config.key_env
            advice = f"mend the key in {name}" if name else "name its variable by endpoint.key_env"
            told = f"{url}: does not accept the key ({status}); {advice}"
            return EndpointError("key", told, status=status)
        if 300 <= status < 400:
            told = f"{url}: leads elsewhere ({status}); give the address that it leads to"
            return EndpointError("refused", told, status=status)
        told = f"{url}: refuses the request ({status}{self._read_words(content)})"
        return EndpointError("refused", told, status=status)

    def _read_words(self, content: bytes) -> str:
        """The message in an error's JSON, with a colon in front; "" if there is none."""
        try:
            error = json.loads(content)["error"]
            words = error if isinstance(error, str) else error["message"]
        except (ValueError, RecursionError, LookupError, TypeError):
            return ""
        return f": {self._quote(words)}" if isinstance(words, str) and words.strip() else ""

    def _quote(self, words: str) -> str:
        """An endpoint's words in one line, without the key."""
        with contextlib.suppress(EndpointError):
            if key := self.read_key():
                words = words.replace(key, "***")
        line = "".join(sign if sign.isprintable() else " " for sign in words)
        return line if len(line) <= MOST_QUOTED else f"{line[: MOST_QUOTED - 1]}\u2026"


def read_retry_after(value: str | None) -> float | None:
    """Seconds that a header Retry-After asks for, as a number or as a date; None if it is none."""
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        seconds = float(value)
        return seconds if 0 <= seconds < float("inf") else None
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def read_text(content: Any) -> str:
    """The text of a message, which may be in parts; "" if it has none. It can be encoded."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    return content.encode("utf-8", "replace").decode() if isinstance(content, str) else ""


def _read_completion(answer: Any) -> Completion:
    """Raises ValueError if it is none."""
    try:
        message = answer["choices"][0]["message"]
        content, calls = message.get("content"), message.get("tool_calls") or []
        called = tuple(_read_call(call) for call in calls)
    except (LookupError, TypeError, AttributeError):
        raise ValueError("no chat completion") from None
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Completion(
        text=read_text(content),
        calls=called,
        tokens_in=_read_count(usage.get("prompt_tokens")),
        tokens_out=_read_count(usage.get("completion_tokens")),
    )


def _read_call(call: Any) -> ToolCall:
    function = call["function"]
    arguments = function["arguments"]
    if not isinstance(arguments, str):  # some servers send the object itself
        arguments = json.dumps(arguments)
    return ToolCall(str(call.get("id") or function["name"]), str(function["name"]), arguments)


def _read_count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 2**40 else 0


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
