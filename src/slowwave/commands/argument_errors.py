"""Wrong arguments in sentences: tyro's framed messages, and words that no option takes."""

from __future__ import annotations

import ast
import itertools
import re
import textwrap
from collections.abc import Callable, Sequence

from slowwave.wording import guess

_MISSING_VALUE = re.compile(r"Missing value for argument '(?P<name>.*?)'\. Expected \d+ values\.")
_CHOICE = re.compile(
    r"invalid choice '(?P<value>.*)' for argument '(?P<name>.*?)'\. "
    r"Expected one of (?P<known>\(.*\))\."
)
# tyro names options by their dashes and arguments in capitals; another name is that of a class.
_VALUE = re.compile(r"Error parsing (?P<name>--[^\s:]+|[A-Z_]+): (?P<fault>.*)")
_LAST_TRY = re.compile(r"no type matching .*<class '[^']*'>: (?P<fault>.*)")
_CLASS = re.compile(r"Error parsing [^\s:]+: (?P<fault>.*)")
_NUMBERS = (
    (re.compile(r"invalid literal for int\(\) with base 10: (.+)"), "a whole number"),
    (re.compile(r"could not convert string to float: (.+)"), "a number"),
    (re.compile(r"Could not find valid parse for arguments: \[(.+)\]"), "numbers"),
)


def explain_refusal(framed: str) -> str:
    """The sentence in a message of tyro's, which has a title, the message, a rule and hints."""
    lines = [
        line.rstrip(" \u2502").removeprefix("\u2502") for line in framed.strip().splitlines()[1:]
    ]
    body = itertools.dropwhile(_is_rule, lines)
    message = [*itertools.takewhile(lambda line: not _is_rule(line), body)]
    if message and message[0].strip().startswith("Missing from"):
        return _explain_missing(message[1:])
    text = " ".join(" ".join(message).split())
    if match := _MISSING_VALUE.fullmatch(text):
        return f"{match['name']} needs a value"
    if match := _CHOICE.fullmatch(text):
        known = list(map(str, ast.literal_eval(match["known"])))
        mend = guess(match["value"], known) or f"use {' or '.join(known)}"
        return f"{match['name']} is {match['value']!r}; {mend}"
    if match := _VALUE.fullmatch(text):
        return _explain_value(match["name"], match["fault"])
    match = _CLASS.fullmatch(text)
    return match["fault"] if match else text


def point_at_help(fault: str, prog: str) -> str:
    """A whole sentence; a question ends in its mark."""
    return f"{fault}{'' if fault.endswith('?') else ';'} see {prog} --help"


def explain_unknown(unknown: Sequence[str], list_options: Callable[[], Sequence[str]]) -> str:
    """What is wrong with arguments that no option takes."""
    options = [word.partition("=")[0] for word in unknown if word.startswith("-") and word != "-"]
    if not options:
        surplus = " ".join(unknown)
        return f"{surplus!r} is more than it takes (a text of several words goes in quotes)"
    known = list_options()
    name = options[0]
    return f"unknown option {name}; {guess(name, known)}".rstrip("; ")


def _explain_missing(lines: Sequence[str]) -> str:
    """Of names, each with a description below it that is indented deeper."""
    found: list[list[str]] = []
    for line in textwrap.dedent("\n".join(lines)).splitlines():
        if line.startswith(" "):
            found[-1].append(line.strip())
        elif line.strip():
            found.append([line.strip()])
    described = [
        f"{name} is missing ({' '.join(about).removesuffix('(required)').rstrip(' .')})"
        for name, *about in found
    ]
    return "; ".join(described)


def _explain_value(name: str, fault: str) -> str:
    if match := _LAST_TRY.fullmatch(fault):  # of an option that may also be None
        fault = match["fault"]
    for pattern, wanted in _NUMBERS:
        if match := pattern.fullmatch(fault):
            return f"{name} is {match[1]}; use {wanted}"
    return f"{name} {fault}"


def _is_rule(line: str) -> bool:
    return line.strip().startswith(("\u2500", "\u2570", "---"))
