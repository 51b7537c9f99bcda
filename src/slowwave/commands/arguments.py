"""Arguments to options, or to one sentence that says what is wrong with them."""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import json
import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from slowwave.wording import guess

Options = TypeVar("Options")

REGISTRY = ConstructorRegistry()

# Messages of tyro about a wrong argument.
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


def parse(
    options: type[Options], arguments: list[str], *, prog: str, default: Options | None = None
) -> Options:
    """Parses by tyro; raises ValueError, in one sentence, for arguments that it refuses."""
    framed = io.StringIO()
    try:
        with contextlib.redirect_stderr(framed), _unwrapped(not {"-h", "--help"} & set(arguments)):
            parsed, unknown = _run_tyro(options, arguments, prog, default)
    except SystemExit as exit_:
        if not exit_.code:
            raise
        raise ValueError(_point_at_help(_explain_refusal(framed.getvalue()), prog)) from None
    if unknown:
        fault = _explain_unknown(unknown, options, prog, default)
        raise ValueError(_point_at_help(fault, prog))
    return parsed


def require_folder(option: str, path: Path | None) -> None:
    """Raises ValueError if a folder to write into is a file, before hours of work end at it."""
    if path is not None and path.exists() and not path.is_dir():
        raise ValueError(f"{option} is {path}, a file; name a folder")


def split_setting(text: str) -> tuple[str, Any]:
    """The field and the value of field=value; a value that is not JSON is a text."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"--set {text!r} is not field=value; write it as steps=10")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def decode(content: bytes, where: str) -> str:
    """The text of UTF-8 bytes; raises ValueError naming `where` they are from."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: byte {error.start} is not UTF-8; convert the text to UTF-8"
        ) from None


def require_text(text: str, where: str) -> str:
    """An argument as it is; raises ValueError if its bytes were not UTF-8."""
    return decode(text.encode("utf-8", errors="surrogateescape"), where)


@REGISTRY.primitive_rule
def _require_path(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
    """Paths that are not empty: Python takes an empty one for the current directory."""
    if info.type is not Path:
        return None

    def read(words: list[str]) -> Path:
        if not words[0]:
            raise ValueError("is empty; name a file or a folder")
        return Path(words[0])

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


def _run_tyro(
    options: type[Options], arguments: list[str], prog: str, default: Options | None
) -> tuple[Options, list[str]]:
    parsed, unknown = tyro.cli(
        options,
        args=arguments,
        prog=prog,
        default=default,
        return_unknown_args=True,
        registry=REGISTRY,
    )
    return cast(Options, parsed), unknown


def _list_options(options: type[Any], prog: str, default: Any) -> list[str]:
    """All options, from the lines of the help that begin with one."""
    shown = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(shown), _unwrapped(True):
        _run_tyro(options, ["--help"], prog, default)
    lines = (line.strip("\u2502 ") for line in shown.getvalue().splitlines())
    heads = (line.split("  ")[0] for line in lines if line.startswith("-"))
    return [name for head in heads for name in re.findall(r"--[\w.-]+", head)]


@contextlib.contextmanager
def _unwrapped(is_wanted: bool) -> Iterator[None]:
    """Within, tyro breaks no line where the terminal ends, and so no word."""
    before = os.environ.get("COLUMNS")
    if is_wanted:
        os.environ["COLUMNS"] = "9999"
    try:
        yield
    finally:
        if is_wanted and before is None:
            del os.environ["COLUMNS"]
        elif is_wanted:
            os.environ["COLUMNS"] = before or ""


def _explain_refusal(framed: str) -> str:
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


def _point_at_help(fault: str, prog: str) -> str:
    """A whole sentence; a question ends in its mark."""
    return f"{fault}{'' if fault.endswith('?') else ';'} see {prog} --help"


def _explain_unknown(unknown: Sequence[str], options: type[Any], prog: str, default: Any) -> str:
    """The sentence about arguments that no option takes."""
    names = [word.partition("=")[0] for word in unknown if word.startswith("-") and word != "-"]
    if not names:
        surplus = " ".join(unknown)
        return f"{surplus!r} is more than it takes (a text of several words goes in quotes)"
    known = _list_options(options, prog, default)
    return f"unknown option {names[0]}; {guess(names[0], known)}".rstrip("; ")


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
