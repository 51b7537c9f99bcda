"""Configs are strict: unknown keys, wrong types and missing files are one clear sentence."""

import dataclasses
import os
from pathlib import Path

import pytest

from slowwave.config import Config, describe_differences, override, read_toml, validate
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
        ({"name": list(range(999))}, r"^name: .*, got \[0, 1, .{,60}\u2026; correct the value$"),
        ({}, r"^name: is missing; give it$"),
        ({"inner": {"size": 3}, "names": ["b"] * 999}, r"^name: is missing; give it$"),
    ],
)
def test_wrong_entries_are_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Outer.from_dict(values)
    assert "\n" not in str(caught.value)


def test_an_entry_of_a_union_is_named_as_it_was_written() -> None:
    depo = {"name": "depo", "nodes": 10}
    for changes, sentence in (
        ({"nods": 3}, "task.nods: unknown key in DepoConfig; did you mean nodes"),
        ({"nodes": "x"}, "task.nodes: Input should be a valid integer"),
        ({"nodes": 2}, "task.nodes is 2; use 6 or more"),
        ({"name": "nope"}, "task.name: unknown task 'nope'; use one of rule110, depo, "),
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


@pytest.mark.parametrize("text", ["x = " + "[" * 100_000, "x = " + "9" * 5000])
def test_toml_that_cannot_be_held_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"x\.toml: not valid TOML \(.*\); mend the file"):
        read_toml(path)


def test_toml_without_an_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.toml").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"x\.toml: larger than 16 MiB; name a TOML file"):
        read_toml(tmp_path / "x.toml")


def test_of_pipes_those_of_a_shell_alone_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.toml")
    with pytest.raises(ValueError, match=r"x\.toml: a pipe, which may never end; name a TOML file"):
        read_toml(tmp_path / "x.toml")
    end, start = os.pipe()
    os.write(start, b"x = 1\n")
    os.close(start)
    assert read_toml(f"/dev/fd/{end}") == {"x": 1}
    os.close(end)


def test_override_sets_dotted_keys_in_a_copy() -> None:
    values = {"name": "a", "inner": {"size": 3}}
    changed = override(values, {"inner.size": 4, "name": "b", "new.deep.key": 1})
    assert changed == {"name": "b", "inner": {"size": 4}, "new": {"deep": {"key": 1}}}
    assert values == {"name": "a", "inner": {"size": 3}}
    with pytest.raises(ValueError, match=r"name\.size: name is not a section"):
        override(values, {"name.size": 4})


# Two configs that differ.


def test_differences_are_named_alone() -> None:
    here = {"name": "a", "train": {"steps": 100, "stop_at": None, "compile": True}, "x": [1, 2]}
    there = {"name": "a", "train": {"steps": 200, "stop_at": 0.5, "compile": True}, "x": [1]}
    assert describe_differences(here, there, "in the run") == (
        "train.steps is 100 here and 200 in the run, train.stop_at is not set here and 0.5 in the "
        "run, x is [1, 2] here and [1] in the run"
    )
    assert describe_differences(here, here, "in the run") == ""


def test_of_many_differences_a_few_are_named() -> None:
    here, there = (dict.fromkeys("abcdef", value) for value in ("x" * 500, None))
    told = describe_differences(here, there, "there")
    assert told.endswith("and not set there, and 3 more")
    assert len(told) < 350


def test_of_another_kind_the_name_is_enough() -> None:
    here = {"task": {"name": "depo", "nodes": 7}, "train": {"steps": 1}}
    there = {"task": {"name": "rule110", "width": 9}, "train": {"steps": 2}}
    assert describe_differences(here, there, "there") == (
        "task.name is depo here and rule110 there, train.steps is 1 here and 2 there"
    )


def test_what_is_wrong_is_told_without_all_that_is_right() -> None:
    with pytest.raises(ValueError, match=r"^name: is missing; restore the file$"):
        validate(Outer, {"inner": {"size": 1}, "names": ["x" * 1000]}, remedy="restore the file")
    with pytest.raises(ValueError, match="restore the file") as caught:
        validate(Outer, ["x" * 1000], remedy="restore the file")
    assert len(str(caught.value)) < 200


def test_a_refusal_is_one_line_whatever_was_given() -> None:
    for values in ({"name": ["\n\x1b[2J" * 9999]}, {"\n\x1b[2J" * 9999: 1}):
        with pytest.raises(ValueError, match=r"name|unknown key") as refusal:
            Outer.from_dict(values)
        assert str(refusal.value).isprintable()
        assert len(str(refusal.value)) < 400
