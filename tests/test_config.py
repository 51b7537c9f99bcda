"""Configs are strict: unknown keys, wrong types and missing files are one clear sentence."""

import dataclasses
from pathlib import Path

import pytest

from slowwave.config import Config, override, read_toml


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner(Config):
    size: int = 2

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"inner.size is {self.size}; use 1 or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer(Config):
    name: str
    inner: Inner = dataclasses.field(default_factory=Inner)
    names: tuple[str, ...] = ()


def test_round_trip() -> None:
    config = Outer(name="a", inner=Inner(size=3), names=("b", "c"))
    assert config.to_dict() == {"name": "a", "inner": {"size": 3}, "names": ["b", "c"]}
    assert Outer.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "a", "nmae": "b"}, r"nmae: unknown key in Outer; remove it or check"),
        ({"name": "a", "inner": {"sise": 1}}, r"inner\.sise: unknown key"),
        ({"name": "a", "inner": {"size": "big"}}, r"inner\.size: .* got 'big'; correct"),
        ({"name": "a", "inner": {"size": 2.5}}, r"inner\.size: .* got 2\.5; correct"),
        ({"name": "a", "inner": {"size": 0}}, r"inner\.size is 0; use 1 or more$"),
        ({"name": "a", "names": ["b", 3]}, r"names\.1: .* got 3; correct"),
        ({}, "name"),
    ],
)
def test_wrong_entries_are_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Outer.from_dict(values)
    assert "\n" not in str(caught.value)


def test_configs_cannot_be_changed() -> None:
    config = Inner()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.size = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_toml(tmp_path: Path) -> None:
    good, bad, binary = (tmp_path / name for name in ("good.toml", "bad.toml", "binary.toml"))
    good.write_text('name = "a"\n[inner]\nsize = 3\n', encoding="utf-8")
    assert Outer.from_dict(read_toml(good)) == Outer(name="a", inner=Inner(size=3))
    bad.write_text("name = \n", encoding="utf-8")
    binary.write_bytes(b"\xff\xfe")
    for path in (bad, binary):
        with pytest.raises(ValueError, match=rf"{path.name}: not valid TOML .*; mend the file"):
            read_toml(path)
    with pytest.raises(ValueError, match=r"none\.toml: no such file"):
        read_toml(tmp_path / "none.toml")


def test_override_sets_dotted_keys_in_a_copy() -> None:
    values = {"name": "a", "inner": {"size": 3}}
    changed = override(values, {"inner.size": 4, "name": "b", "new.deep.key": 1})
    assert changed == {"name": "b", "inner": {"size": 4}, "new": {"deep": {"key": 1}}}
    assert values == {"name": "a", "inner": {"size": 3}}
    with pytest.raises(ValueError, match=r"name\.size: name is not a section"):
        override(values, {"name.size": 4})
