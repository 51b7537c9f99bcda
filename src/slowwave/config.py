"""Configuration: frozen dataclasses, read strictly from TOML, overridden by dotted keys.

Every other config of the package derives from `Config`. This module imports no torch, so that
`slowwave --help` stays quick.
"""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from pathlib import Path
from typing import Any, Self, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError


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
        try:
            return _adapter(cls).validate_python(values)
        except ValidationError as error:
            raise ValueError(_one_sentence(error, cls)) from None

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


@functools.cache
def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _one_sentence(error: ValidationError, cls: type[Config]) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or cls.__name__
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{where}: unknown key in {cls.__name__}; remove it or check the spelling"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message if where == cls.__name__ else f"{where}: {message}"
    return f"{where}: {message}, got {first.get('input')!r}; correct the value"
