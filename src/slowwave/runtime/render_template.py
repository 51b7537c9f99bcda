"""Renders a chat template of a model, in a process of its own.

A template is a foreign program: Jinja's sandbox keeps it from files and attributes, the
limits of the process keep it from using time and memory without end. `python -m` this module reads
a job from its input and writes what `render_all` returns; both are JSON.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import signal
import sys
from typing import Any, NoReturn

from jinja2 import Environment, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_SECONDS = 1
"""Seconds of a processor that all of it may take, once all is imported."""
MOST_BYTES = 2**29
"""Address space."""
MOST_CHARACTERS = 2**16
"""Of one rendered conversation."""
TODAY = datetime.datetime(2024, 7, 26)
"""Templates that write the date write this one: a stream that is read again must be the same."""


class _Generation(Extension):
    """{% generation %} marks what a model wrote, for training; here it is without effect."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render_all(
    template: str, conversations: list[dict[str, Any]], variables: dict[str, Any]
) -> list[dict[str, str]]:
    """Each conversation as {"text": ...}, or {"error": ...} if the template refuses it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": TODAY.strftime}
    return [_render(environment, template, variables | each) for each in conversations]


def _render(
    environment: ImmutableSandboxedEnvironment, template: str, variables: dict[str, Any]
) -> dict[str, str]:
    try:
        text = environment.from_string(template).render(variables)
    except Exception as error:  # a template may raise whatever it likes, lack of memory too
        return {"error": f"{type(error).__name__}: {error}"[:200]}
    if len(text) > MOST_CHARACTERS:
        return {"error": f"it writes more than {MOST_CHARACTERS} characters"}
    return {"text": text}


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _limit() -> None:
    with contextlib.suppress(ModuleNotFoundError, AttributeError):  # the caller has a clock
        import resource

        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)  # whose signal ends a process
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))


def main() -> None:
    """Renders the job on standard input."""
    job = json.load(sys.stdin)
    _limit()
    json.dump(render_all(**job), sys.stdout)


if __name__ == "__main__":
    main()
