"""What can be reproduced: one TOML a figure in recipes/figures; torch-free."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal, get_args

from slowwave.config import Config, flatten, read_toml
from slowwave.experiment import TEST_EXAMPLES

Scale = Literal["mini", "paper"]

RECIPES = Path("recipes")
FOLDER = RECIPES / "figures"
SCALES: tuple[Scale, ...] = get_args(Scale)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunsConfig(Config):
    """Runs of one recipe: every combination of `each`, once a seed.

    `set` and `each` nest like the recipe (set = { train.steps = 100 }).
    """

    recipe: str
    """Name of the recipe, recipes/<recipe>.toml; its runs lie in results/<recipe>/."""
    name: str
    """Name of each run; {sleep.passes} stands for what the run has there."""
    set: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    """What all of these runs change of the recipe."""
    each: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    """Lists of what single runs change; all combinations are made."""
    seeds: int | None = None
    """Most seeds that these runs are worth; as many as are asked for if not given."""

    def __post_init__(self) -> None:
        _check_lists(self.each)
        if self.seeds is not None and self.seeds < 1:
            raise ValueError(f"seeds is {self.seeds}; use 1 or more, or leave it out")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetestsConfig(Config):
    """Tests of finished runs with their task changed: every combination of `each`.

    `set` and `each` hold fields of the task, as `slowwave eval --set` takes them.
    """

    name: str
    """Name of each test; {task.steps} stands for what the changed task has there."""
    set: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    """What all of these tests change."""
    each: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    """Lists of what single tests change; all combinations are made."""
    passes: tuple[int, ...] = ()
    """Numbers of passes to sleep with, beside the trained one."""
    examples: int = TEST_EXAMPLES
    """Test examples."""

    def __post_init__(self) -> None:
        _check_lists(self.each)
        if any(count < 1 for count in self.passes):
            raise ValueError(f"passes is {self.passes}; use 1 or more for each")
        if self.examples < 1:
            raise ValueError(f"examples is {self.examples}; use 1 or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetConfig(Config):
    """A number of the paper, and which runs at the paper's scale answer it."""

    what: str
    """The number in words."""
    where: dict[str, Any]
    """Settings of the runs, nested like a recipe."""
    value: float
    """What the paper has."""
    score: Literal["exact", "loss"] = "exact"
    """What it is: a share of right answers, or nats a labelled token."""
    group: str | None = None
    """The group of answers it is about (a hop count); all if not given."""
    tokens: float | None = None
    """Training tokens at which the validation examples are scored; the end's test score if not
    given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointsConfig(Config):
    """A curve of the paper: exact match by training tokens."""

    where: dict[str, Any]
    """Settings that tell this curve from the others, nested like a recipe."""
    tokens: tuple[float, ...]
    """Training tokens."""
    exact: tuple[float, ...]
    """Exact match there, 0 to 1."""

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.exact):
            raise ValueError(
                f"tokens has {len(self.tokens)} numbers and exact {len(self.exact)}; give as many "
                "of both"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FigureConfig(Config):
    """A figure of the paper, or a question of our own, by scale."""

    title: str
    """What comes out, or is asked, in a few words."""
    shows: str
    """What the figure shows, in one sentence."""
    source: str = ""
    """Where the paper's numbers come from; empty for questions of our own."""
    mini: tuple[RunsConfig, ...] = ()
    """Runs for two CPU cores."""
    paper: tuple[RunsConfig, ...] = ()
    """Runs of the paper's size."""
    bench: dict[Scale, str] = dataclasses.field(default_factory=dict[Scale, str])
    """What slowwave bench measures instead of runs, by scale."""
    probes: bool = False
    """Whether the fast weights of its runs are probed once they are trained."""
    curve_by: str = ""
    """Dotted setting that tells the curves of the figure apart; empty if it has none of its own."""
    question_cost: bool = False
    """Whether to draw what an answer costs by the questions asked of one context, in every way that
    the figure runs; it takes no finished run."""
    retests: tuple[RetestsConfig, ...] = ()
    """What every run is tested on once it is trained, beyond its own task."""
    retests_by: str = ""
    """Field of the task along which tests are drawn, a panel a trained N; if empty, each test has a
    panel by group."""
    targets: tuple[TargetConfig, ...] = ()
    """Numbers of the paper."""
    points: tuple[PointsConfig, ...] = ()
    """Curves of the paper."""

    @property
    def scales(self) -> list[Scale]:
        """The scales that there is something to run at."""
        return [scale for scale in SCALES if self.runs(scale) or scale in self.bench]

    def runs(self, scale: Scale) -> tuple[RunsConfig, ...]:
        """What is trained at a scale."""
        return self.mini if scale == "mini" else self.paper


def read_figures(folder: Path = FOLDER) -> dict[str, FigureConfig]:
    """All figures by name, those of the paper first.

    Raises ValueError if there are none (an installation brings no recipes), or on a wrong entry.
    """
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise ValueError(
            f"{folder}: no figures here; change to a checkout of slowwave, whose recipes say what "
            "to run"
        )
    figures: dict[str, FigureConfig] = {}
    for file in files:
        try:
            figures[file.stem] = FigureConfig.from_dict(read_toml(file))
        except ValueError as error:
            raise ValueError(f"{file}: {str(error).removeprefix(f'{file}: ')}") from None
    return dict(sorted(figures.items(), key=lambda item: not item[1].source))


def check_scale(figure: FigureConfig, name: str, scale: str) -> None:
    """Raises ValueError, which lists the scales that the figure has, if this is none of them."""
    if not figure.scales:
        raise ValueError(f"{name} has nothing to run yet; slowwave reproduce lists what there is")
    if scale not in figure.scales:
        raise ValueError(
            f"scale is {scale!r}, which {name} does not have; use {' or '.join(figure.scales)}"
        )


def _check_lists(each: dict[str, Any]) -> None:
    for key, values in flatten(each).items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"each.{key} is {values!r}; list what it takes, or use set")
