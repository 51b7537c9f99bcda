"""Configuration: frozen dataclasses, read strictly from TOML, overridden by dotted keys.

Every other config of the package derives from `Config`. This module imports no torch, so that
`slowwave --help` stays quick.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, cast, get_args, get_type_hints

from pydantic import ConfigDict, FailFast, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from slowwave.wording import guess

Kind = TypeVar("Kind")
Item = TypeVar("Item")
Many = Annotated[tuple[Item, ...], FailFast()]
"""Items of a file from elsewhere: the first wrong one ends it, for each would take a kilobyte."""

MOST_TOML_BYTES = 2**24
SHELL_PIPES = ("/dev", "/proc")
"""Where a shell names the output of a command, `<(...)`, which comes to an end."""
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
    if Path(path).is_fifo() and not any(map(Path(path).is_relative_to, SHELL_PIPES)):
        raise ValueError(f"{path}: a pipe, which may never end; name a TOML file")
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_TOML_BYTES + 1)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; name a TOML file that is there") from None
    if len(content) > MOST_TOML_BYTES:
        raise ValueError(f"{path}: larger than {MOST_TOML_BYTES >> 20} MiB; name a TOML file")
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
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


def find_differences(mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Where two flattened configs differ, by dotted name.

    Of sections that differ in their `name` or `kind`, that alone: their settings do not compare.
    """
    keys = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
    tags = [key for key in keys if key.endswith((".name", ".kind"))]
    sections = tuple(key.rpartition(".")[0] + "." for key in tags)
    return [key for key in keys if key in tags or not key.startswith(sections)]


def describe_differences(here: dict[str, Any], there: dict[str, Any], where: str) -> str:
    """Where two nested configs differ, by dotted name: "train.steps is 100 here and 200 `where`".

    The first few differences, and how many more there are; "" if there are none.
    """
    mine, theirs = flatten(here), flatten(there)
    named = find_differences(mine, theirs)
    told = [
        f"{key} is {_show(mine.get(key))} here and {_show(theirs.get(key))} {where}"
        for key in itertools.islice(named, MOST_DIFFERENCES)
    ]
    more = len(named) - len(told)
    return ", ".join(told) + (f", and {more} more" if more else "")


def import_object(path: str, kind: type[Kind]) -> type[Kind]:
    """The class at "module:Name", a subclass of `kind`; for tables that must import nothing."""
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name)
    assert issubclass(found, kind), f"{path} is no {kind.__name__}"
    return found


def validate(kind: type[Kind], values: Any, *, remedy: str = "", at: str = "") -> Kind:
    """Plain values as a dataclass; raises `ValueError` in one sentence on any wrong entry.

    remedy: what to do about any of them, such as "restore the file". at: the dotted name of the
    section that the values are, if they are one of others.
    """
    try:
        return _adapter(kind).validate_python(values)
    except ValidationError as error:
        raise ValueError(_one_sentence(error, kind, values, remedy, at)) from None


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


def _one_sentence(
    error: ValidationError, cls: type[Any], values: object, remedy: str, at: str
) -> str:
    first = error.errors()[0]
    path = _follow(first["loc"], values)
    where = ".".join([*filter(None, [at]), *map(str, path)]) or cls.__name__
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        mend = guess(str(path[-1]), _known_keys(cls, first["loc"]))
        mend = remedy or mend or "remove it or check the spelling"
        return f"{_shorten(where)}: unknown key in {cls.__name__}; {mend}"
    message = first["msg"].removeprefix("Value error, ").replace("valid tuple", "valid list")
    match first["type"]:
        case "value_error":
            is_named = not path or message.startswith((f"{where}.", f"{where}: "))
            return message if is_named else f"{where}: {message}"
        case "missing":
            return f"{where}: is missing; {remedy or 'give it'}"
        case "union_tag_not_found":
            return f"{where}.{_tag(first)}: is missing; {remedy or 'give it'}"
        case "union_tag_invalid":
            context = first.get("ctx", {})
            expected = context["expected_tags"]
            return f"{where}.{_tag(first)} is {context['tag']!r}; use one of {expected}"
        case "dataclass_type" | "model_attributes_type":
            return f"{where}: is {_quote(first['input'])}; {remedy or 'use a table of its fields'}"
        case _:
            return (
                f"{where}: {message}, got {_quote(first['input'])}; {remedy or 'correct the value'}"
            )


def _tag(error: ErrorDetails) -> str:
    """The field that tells the members of a union apart."""
    return error.get("ctx", {}).get("discriminator", "name").strip("'")


def _follow(loc: tuple[int | str, ...], values: object) -> list[int | str]:
    """Where an error is in `values`; pydantic also names the member of a union that was tried."""
    path: list[int | str] = []
    for number, part in enumerate(loc, start=1):
        inside = _items(values)
        is_tag = part in (inside.get("name"), inside.get("kind"))
        if is_tag and (number < len(loc) or part not in inside):
            continue
        path.append(part)
        values = inside.get(part)
    return path


def _items(values: object) -> dict[object, object]:
    if isinstance(values, dict):
        return cast(dict[object, object], values)
    return dict(enumerate(cast(list[object], values))) if isinstance(values, list | tuple) else {}


def _known_keys(cls: type[Any], loc: tuple[int | str, ...]) -> set[str]:
    """The fields of the config that the last part of `loc` was looked for in."""
    configs = [cls]
    for part in loc[:-1]:
        inner = [
            found
            for config in configs
            for found in _find_configs(get_type_hints(config).get(str(part)))
        ]
        tagged = [config for config in configs if getattr(config, "name", None) == part]
        configs = inner or tagged or configs
    return {field.name for config in configs for field in dataclasses.fields(config)}


def _find_configs(annotation: Any) -> list[type[Config]]:
    """The configs that a type is, or is made of."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [found for part in get_args(annotation) for found in _find_configs(part)]


def _quote(value: object) -> str:
    """A value that is small enough for a sentence."""
    if isinstance(value, dict):
        return "a table"
    return _shorten(repr(value))
