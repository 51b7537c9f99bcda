"""Configuration: frozen dataclasses, read strictly from TOML, overridden by dotted keys.

Every other config of the package derives from `Config`. This module imports no torch, so that
`slowwave --help` stays quick.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import tomllib
from pathlib import Path
from typing import Any, Self, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

Kind = TypeVar("Kind")

MOST_DIFFERENCES = 3
MOST_LETTERS = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all configs: immutable, keyword-only, unknown keys forbidden.

    Subclasses raise `ValueError` from `__post_init__` on contradictions, naming the field, the
    value and the mend.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Builds and checks a config; raises `ValueError` in one sentence on any wrong entry."""
        return validate(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """The config as plain dictionaries, lists and scalars; `from_dict` reads it back."""
        return _adapter(type(self)).dump_python(self, mode="json")


def read_toml(path: str | Path) -> dict[str, Any]:
    """Reads a TOML file; raises `ValueError` naming the file if it is missing or malformed."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; name an existing TOML recipe") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML ({error}); mend the file") from None


def override(values: dict[str, Any], dotted: dict[str, Any]) -> dict[str, Any]:
    """Returns a copy of nested `values` with dotted keys (`"sleep.passes"`) set anew."""
    result = dict(values)
    for key, value in dotted.items():
        head, _, rest = key.partition(".")
        if not rest:
            result[head] = value
            continue
        section = result.get(head, {})
        if not isinstance(section, dict):
            raise ValueError(f"{key}: {head} is not a section; check the dotted name")
        result[head] = override(cast(dict[str, Any], section), {rest: value})
    return result


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested `values` with dotted keys, as `override` takes them; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(cast(dict[str, Any], value), f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def describe_differences(here: dict[str, Any], there: dict[str, Any], where: str) -> str:
    """Where two nested configs differ, by dotted name: "train.steps is 100 here and 200 `where`".

    The first few differences, and how many more there are; "" if there are none. Of sections that
    differ in their `name`, which are of different kinds, that is all that is said.
    """
    mine, theirs = flatten(here), flatten(there)
    keys = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
    renamed = {key.removesuffix("name") for key in keys if key.endswith(".name")}
    named = [
        key
        for key in keys
        if key.endswith(".name") or not any(key.startswith(section) for section in renamed)
    ]
    told = [
        f"{key} is {_show(mine.get(key))} here and {_show(theirs.get(key))} {where}"
        for key in itertools.islice(named, MOST_DIFFERENCES)
    ]
    more = len(named) - len(told)
    return ", ".join(told) + (f", and {more} more" if more else "")


def validate(kind: type[Kind], values: Any, *, remedy: str = "") -> Kind:
    """Plain values as a dataclass; raises `ValueError` in one sentence on any wrong entry.

    remedy: what to do about any of them, such as "restore the file".
    """
    try:
        return _adapter(kind).validate_python(values)
    except ValidationError as error:
        raise ValueError(_one_sentence(error, kind, remedy)) from None


def _show(value: Any) -> str:
    """A setting as a person would write it, cut where it is long."""
    if value is None:
        return "not set"
    return _shorten(value if isinstance(value, str) else json.dumps(value))


def _shorten(text: str) -> str:
    """A text in one line of a sentence, whatever and however much it is."""
    line = "".join(sign if sign.isprintable() else "?" for sign in text[:MOST_LETTERS])
    return line if len(text) <= MOST_LETTERS else f"{line[:-1]}\u2026"


@functools.cache
def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _one_sentence(error: ValidationError, cls: type[Any], remedy: str) -> str:
    first = error.errors()[0]
    where = _shorten(".".join(str(part) for part in first["loc"])) or cls.__name__
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        fault, usual = f"unknown key in {cls.__name__}", "remove it or check the spelling"
    elif first["type"] == "missing":
        fault, usual = "missing", "add it"
    elif first["type"] == "value_error":  # which says what to do by itself
        message = first["msg"].removeprefix("Value error, ")
        return message if where == cls.__name__ else f"{where}: {message}"
    else:
        fault = f"{first['msg']}, got {_shorten(repr(first.get('input')))}"
        usual = "correct the value"
    return f"{where}: {fault}; {remedy or usual}"
