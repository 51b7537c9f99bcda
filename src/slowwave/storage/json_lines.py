"""Files of JSON lines, an object each, read so that a damaged one is told by its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn, cast


def parse_lines(content: bytes, path: Path, *, drop_cut: bool = False) -> list[dict[str, Any]]:
    """The objects of a file's lines; raises ValueError naming file and line.

    drop_cut: a last line without its end is left out if it cannot be read. That is what a loss of
    power leaves of a line that was being written, zero bytes included.
    """
    *lines, last = content.split(b"\n")
    parsed = [_parse_line(line, f"{path}: line {number}") for number, line in enumerate(lines, 1)]
    try:
        return [*parsed, *([_parse_line(last, f"{path}: its last line")] if last else [])]
    except ValueError:
        if drop_cut:
            return parsed
        raise


def dump_lines(objects: list[dict[str, Any]]) -> bytes:
    """The lines of some objects; raises ValueError if one holds NaN or infinity."""
    return "".join(json.dumps(each, allow_nan=False) + "\n" for each in objects).encode()


def _parse_line(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON ({error}); restore the file") from None
    if not isinstance(value, dict):
        raise ValueError(f"{where} is no JSON object; restore the file")
    return cast(dict[str, Any], value)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
