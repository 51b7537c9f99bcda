"""JSON that people and other programs may have changed: read with every fault told by its place.

Files of ours may be read by another reader too: `parse_json` takes no text that two of them could
read as two things.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn, cast

from slowwave.storage.files import read_small, write_atomically

MOST_KEYS = 64
"""No object of ours has more, and each that is unknown takes a kilobyte to be refused."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads a JSON file; raises ValueError naming the file if it is missing or malformed."""
    try:
        content = read_small(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path}: no such file; name a folder that holds one") from None
    try:
        return json.loads(content.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}); restore the file") from None


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


def parse_json(text: str | bytes, *, most_keys: int = MOST_KEYS) -> Any:
    """The value of a JSON text in UTF-8, whose objects have so many keys at most.

    Raises ValueError, in half a sentence, if it is malformed or nested too deeply, names a key
    twice, or holds a number that is not finite or half of a surrogate pair.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        value = json.loads(
            text,
            object_pairs_hook=lambda pairs: _unite(pairs, most_keys),
            parse_float=_parse_float,
            parse_constant=_parse_float,
        )
        if _SURROGATE.search(text):  # most of them are pairs, which are fine
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    except UnicodeError:
        raise ValueError("its JSON holds what is no text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"its JSON is malformed ({error})") from None
    return value


def _unite(pairs: list[tuple[str, Any]], most_keys: int) -> dict[str, Any]:
    if len(pairs) > most_keys:
        raise ValueError(f"its JSON has {len(pairs)} keys in one place")
    united = dict(pairs)
    if len(united) < len(pairs):
        raise ValueError("its JSON names a key twice")
    return united


def _parse_float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError("its JSON holds a number that is not finite")
    return value
