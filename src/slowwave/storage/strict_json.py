"""JSON from elsewhere: read strictly, so that two readers of one text cannot read two things."""

from __future__ import annotations

import json
import math
import re
from typing import Any

MOST_KEYS = 64
"""No object of ours has more, and each that is unknown takes a kilobyte to be refused."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


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
