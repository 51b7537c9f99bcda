"""Which task is trained and scored, and how hard it is; torch-free."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import Field

from slowwave.config import Config

# Smaller worlds leave a split without content of its own.
MIN_WIDTH = 6
MIN_COMPACT_NODES = 6

MAX_WIDTH = 64  # a state is one 64-bit word
NUM_OFFICIAL_NAMES = 50 + 50 * 50  # one token, and two
MAX_OFFICIAL_HOPS = 499  # the official id of hop k is 9000 + k, that of the answer marker 9500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule110Config(Config):
    """Predict one cell of each of several cellular-automaton states, some steps ahead."""

    name: Literal["rule110"] = "rule110"
    """Selects this task."""
    width: int = 24
    """Cells of a state, on a ring; also the tokens of a state."""
    num_states: int = 4
    """Independent states in a stream; all are asked about at its end."""
    steps: int = 8
    """Steps t of Rule 110 between what is read and what is asked; 0 is plain recall."""

    def __post_init__(self) -> None:
        _require(
            MIN_WIDTH <= self.width <= MAX_WIDTH,
            "width",
            self.width,
            f"use {MIN_WIDTH} to {MAX_WIDTH} cells",
        )
        _require(self.num_states >= 1, "num_states", self.num_states, "use 1 or more")
        _require(self.steps >= 0, "steps", self.steps, "use 0 (recall) or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepoConfig(Config):
    """Name the node that lies k edges after a given one on a directed cycle (k-hop retrieval)."""

    name: Literal["depo"] = "depo"
    """Selects this task."""
    grammar: Literal["compact", "official"] = "compact"
    """compact: one token a node. official: names of one or two tokens, as in the Depo benchmark."""
    nodes: int = 10
    """Nodes of the cycle, hence edges in the stream; the largest number if min_nodes is given."""
    min_nodes: int | None = None
    """Fewest nodes of a training cycle; smaller ones are likelier. None: always `nodes`."""
    hops: int = 6
    """Largest hop count K; k is uniform in 1..K."""
    questions: int = 40
    """Questions about one cycle; the official grammar asks from distinct nodes."""
    layout: Literal["row", "forked"] = "forked"
    """row: one after another, earlier answers in sight. forked: each on its own copy of the state
    after the cycle."""

    def __post_init__(self) -> None:
        if self.grammar == "compact":
            _require(
                self.nodes >= MIN_COMPACT_NODES,
                "nodes",
                self.nodes,
                f"use {MIN_COMPACT_NODES} or more, fewer leave a split without cycles of its own",
            )
        else:
            _require(
                2 <= self.nodes <= NUM_OFFICIAL_NAMES,
                "nodes",
                self.nodes,
                f"use 2 to {NUM_OFFICIAL_NAMES}, the official grammar has no more names",
            )
            _require(
                self.questions <= self.nodes,
                "questions",
                self.questions,
                f"use at most nodes = {self.nodes}, official questions start at distinct nodes",
            )
            _require(
                self.hops <= MAX_OFFICIAL_HOPS,
                "hops",
                self.hops,
                f"use at most {MAX_OFFICIAL_HOPS}, the official grammar has no more hop tokens",
            )
        _require(
            self.min_nodes is None or 2 <= self.min_nodes <= self.nodes,
            "min_nodes",
            self.min_nodes,
            f"use 2 to nodes = {self.nodes}, or leave it out",
        )
        _require(self.hops >= 1, "hops", self.hops, "use 1 or more")
        _require(self.questions >= 1, "questions", self.questions, "use 1 or more")


TaskConfig = Annotated[Rule110Config | DepoConfig, Field(discriminator="name")]


def _require(condition: bool, field: str, value: object, mend: str) -> None:
    if not condition:
        raise ValueError(f"task.{field} is {value!r}; {mend}")
