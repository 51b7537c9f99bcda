"""A tiny chat endpoint on this machine that answers by a script, and notes what it was asked."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from slowwave.memory.endpoint import Endpoint
from slowwave.memory.notes_config import EndpointConfig


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a request gets: bytes as they are. delay: seconds before each of the pieces."""

    content: bytes = b""
    status: int = 200
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0
    is_cut: bool = False
    pieces: tuple[bytes, ...] = ()


def say(text: str | None, *calls: tuple[str, Any], tokens: tuple[int, int] = (7, 3)) -> Answer:
    """A completion; calls: functions with their arguments, as JSON or as they are."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {
                "id": f"call-{i}",
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": value if isinstance(value, str) else json.dumps(value),
                },
            }
            for i, (name, value) in enumerate(calls)
        ]
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    return Answer(json.dumps(body).encode())


def refuse(status: int, message: str, *headers: tuple[str, str]) -> Answer:
    """An error in OpenAI's form."""
    return Answer(json.dumps({"error": {"message": message}}).encode(), status, headers=headers)


@dataclasses.dataclass
class Script:
    """What an endpoint says. url: its own. asked: bodies of the requests, with their headers."""

    url: str = ""
    answers: list[Answer] = dataclasses.field(default_factory=list)
    rule: Callable[[dict[str, Any]], Answer] | None = None
    """Answers where no answer is left."""
    asked: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    headers: list[dict[str, str]] = dataclasses.field(default_factory=list)
    paths: list[str] = dataclasses.field(default_factory=list)
    pauses: list[float] = dataclasses.field(default_factory=list)

    def next(self, body: dict[str, Any]) -> Answer:
        if self.answers:
            return self.answers.pop(0)
        return self.rule(body) if self.rule else refuse(500, "the script is at its end")

    def endpoint(self, **fields: Any) -> Endpoint:
        """A client, which notes its pauses and does not make them."""
        config = EndpointConfig(**{"url": self.url, "model": "m", "seconds": 60.0, **fields})
        return Endpoint(config, pause=self.pauses.append)


@contextlib.contextmanager
def scripted(
    answers: Sequence[Answer] = (), rule: Callable[[dict[str, Any]], Answer] | None = None
) -> Iterator[Script]:
    """An endpoint that lives as long."""
    script = Script(answers=[*answers], rule=rule)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(json.loads(content))

        def do_GET(self) -> None:
            self.reply({})

        def reply(self, body: dict[str, Any]) -> None:
            script.asked.append(body)
            script.headers.append(dict(self.headers))
            script.paths.append(self.path)
            answer = script.next(body)
            time.sleep(answer.delay)
            content = b"".join(answer.pieces) or answer.content
            with contextlib.suppress(OSError):  # a client that gave up
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.kind)
                self.send_header("Content-Length", str(len(content) + answer.is_cut))
                for name, value in answer.headers:
                    self.send_header(name, value)
                self.end_headers()
                for piece in answer.pieces or (answer.content,):
                    self.wfile.write(piece)
                    self.wfile.flush()
                    time.sleep(answer.delay)

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    script.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


PLACES = {"Rome": "Ann lives in Rome.", "Lima": "Ann lives in Lima.", "tea": "Ann likes tea."}


def obey(body: dict[str, Any]) -> Answer:
    """A model that notes every place it reads of, and knows that nobody lives in two."""
    system, user = (message["content"] for message in body["messages"])
    if system.startswith("List what the message"):
        found = [
            {"kind": "preference" if word == "tea" else "fact", "confidence": 0.9, "quote": word}
            | {"statement": statement}
            for word, statement in PLACES.items()
            if word in user
        ]
        return say("\n".join(map(json.dumps, found)) or "NONE")
    if system.startswith("Below are numbered"):
        old, new = user.split("new:\n")
        pairs = [
            f"{b.split()[0]} contradicts {a.split()[0]}"
            for a in old.splitlines()
            for b in new.splitlines()
            if "lives" in a and "lives" in b and a.split(" ", 1)[1] != b.split(" ", 1)[1]
        ]
        return say("\n".join(pairs) or "NONE")
    if system.startswith("Below are a source"):
        count = sum(line[:1].isdigit() for line in user.split("</source>")[1].splitlines())
        return say("\n".join(f"{number} yes" for number in range(1, count + 1)))
    text, notes = user.split("</text>")
    lines = [line for line in notes.splitlines() if line.startswith("Ann")]
    lines += [say_ for word, say_ in PLACES.items() if word in text and say_ not in lines]
    new = "\n".join(lines)
    is_new = bool(new) and new not in notes
    calls = [("rethink_memory", {"new_memory": new})] if is_new else []
    return say(None, *calls, ("finish_rethinking_memory", {}))
