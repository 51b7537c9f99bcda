"""Arguments to options, or to one sentence that says what is wrong with them."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from typing import Any, TypeVar, cast

import tyro

Options = TypeVar("Options")


def parse(
    options: type[Options], arguments: list[str], *, prog: str, default: Options | None = None
) -> Options:
    """Lets tyro parse; its framed error messages become one-sentence ValueErrors."""
    framed = io.StringIO()
    try:
        with contextlib.redirect_stderr(framed):
            parsed = tyro.cli(options, args=arguments, prog=prog, default=default)
            return cast(Options, parsed)
    except SystemExit as exit_:
        if not exit_.code:
            raise
    # A title, the message, a rule, hints: framed by box characters or, without them, by rules.
    lines = [line.strip("\u2502 ") for line in framed.getvalue().strip().splitlines()[1:]]
    body = itertools.dropwhile(_is_rule, lines)
    message = itertools.takewhile(lambda line: not _is_rule(line), body)
    raise ValueError(f"{' '.join(message)}; see {prog} --help")


def split_setting(text: str) -> tuple[str, Any]:
    """The field and the value of field=value; what is no JSON is a text."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text!r} has no '='; write it as field=value")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def _is_rule(line: str) -> bool:
    return line.startswith(("\u2500", "\u2570", "---"))
