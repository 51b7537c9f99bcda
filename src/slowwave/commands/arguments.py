"""Arguments to options, or to one sentence that says what is wrong with them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from slowwave.commands.argument_errors import explain_refusal, explain_unknown, point_at_help

Options = TypeVar("Options")

HELP = ("-h", "--help")
REGISTRY = ConstructorRegistry()


def parse(
    options: type[Options], arguments: list[str], *, prog: str, default: Options | None = None
) -> Options:
    """Lets tyro parse; what it refuses becomes a one-sentence ValueError."""
    framed = io.StringIO()
    try:
        with contextlib.redirect_stderr(framed), _unwrapped(not set(HELP) & set(arguments)):
            parsed, unknown = _run_tyro(options, arguments, prog, default)
    except SystemExit as exit_:
        if not exit_.code:
            raise
        raise ValueError(point_at_help(explain_refusal(framed.getvalue()), prog)) from None
    if unknown:
        fault = explain_unknown(unknown, lambda: _list_options(options, prog, default))
        raise ValueError(point_at_help(fault, prog))
    return parsed


def require_folder(option: str, path: Path | None) -> None:
    """Raises ValueError if a folder to write into is a file, before hours of work end at it."""
    if path is not None and path.exists() and not path.is_dir():
        raise ValueError(f"{option} is {path}, a file; name a folder")


def split_setting(text: str) -> tuple[str, Any]:
    """The field and the value of field=value; what is no JSON is a text."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"--set {text!r} is not field=value; write it as steps=10")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


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
