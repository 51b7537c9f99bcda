"""Configs are strict: unknown keys, wrong types and missing files are one clear sentence."""

import dataclasses
from pathlib import Path

import pytest

from slowwave.config import Config, override, read_toml
from slowwave.experiment import ExperimentConfig


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
        ({"name": "a", "x": "b"}, r"^x: unknown key in Outer; remove it or check the spelling$"),
        ({"name": "a", "nmae": "b"}, r"^nmae: unknown key in Outer; did you mean name\?$"),
        (
            {"name": "a", "inner": {"sise": 1}},
            r"^inner\.sise: unknown key in Outer; did you mean size",
        ),
        ({"name": "a", "inner": {"size": "big"}}, r"inner\.size: .* got 'big'; correct"),
        ({"name": "a", "inner": {"size": 2.5}}, r"inner\.size: .* got 2\.5; correct"),
        ({"name": "a", "inner": {"size": 0}}, r"inner\.size is 0; use 1 or more$"),
        ({"name": "a", "names": ["b", 3]}, r"names\.1: .* got 3; correct"),
        ({"name": "a", "names": "b"}, r"^names: Input should be a valid list, got 'b'; correct"),
        ({"name": "a", "inner": 3}, r"^inner: is 3; use a table of its fields$"),
        ({"name": {"a": 1}}, r"^name: .*, got a table; correct the value$"),
        ({"name": list(range(999))}, r"^name: .*, got \[0, 1, .{,60}\.\.\.; correct the value$"),
        ({}, r"^name: is missing; give it$"),
        ({"inner": {"size": 3}, "names": ["b"] * 999}, r"^name: is missing; give it$"),
    ],
)
def test_wrong_entries_are_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Outer.from_dict(values)
    assert "\n" not in str(caught.value)


def test_an_entry_of_a_union_is_named_as_it_was_written() -> None:
    """pydantic puts the kind of task between, which is no place in a recipe."""
    depo = {"name": "depo", "nodes": 10}
    for changes, sentence in (
        ({"nods": 3}, "task.nods: unknown key in ExperimentConfig; did you mean nodes"),
        ({"nodes": "x"}, "task.nodes: Input should be a valid integer"),
        ({"nodes": 2}, "task.nodes is 2; use 6 or more"),
        ({"name": "nope"}, "task.name is 'nope'; use one of 'conversation', "),
        ({"depo": 3}, "task.depo: unknown key"),
    ):
        with pytest.raises(ValueError) as caught:
            ExperimentConfig.from_dict({"name": "a", "task": {**depo, **changes}})
        assert str(caught.value).startswith(sentence)
    with pytest.raises(ValueError, match=r"^task\.name: is missing; give it$"):
        ExperimentConfig.from_dict({"name": "a", "task": {}})


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
