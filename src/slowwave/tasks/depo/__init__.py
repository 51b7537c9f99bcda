"""Depo: read the shuffled edges of a directed cycle, then name the node that lies k edges on."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from slowwave.tasks import TaskConfig

MIN_COMPACT_NODES = 6  # smaller worlds leave a split without content of its own
NUM_FIRST_TOKENS = 50
NUM_LAST_TOKENS = 50
NUM_OFFICIAL_NAMES = NUM_LAST_TOKENS + NUM_FIRST_TOKENS * NUM_LAST_TOKENS  # one token, and two
MAX_OFFICIAL_HOPS = 499  # the official id of hop k is 9000 + k, that of the answer marker 9500


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepoConfig(TaskConfig):
    """Name the node that lies k edges after a given one on a directed cycle (k-hop retrieval)."""

    name: Literal["depo"] = "depo"
    """Selects this task."""
    unseeded: ClassVar[tuple[str, ...]] = ("padding", "counting")
    grammar: Literal["compact", "official"] = "compact"
    """compact: one token a node. official: names of one or two tokens, as in the Depo benchmark."""
    nodes: int = 10
    """Nodes of the cycle, hence edges in the stream; the largest number if min_nodes is given."""
    min_nodes: int | None = None
    """Fewest nodes of a training cycle; smaller ones are likelier. None: always `nodes`."""
    hops: int = 6
    """Largest hop count K; k is uniform in 1..K."""
    counting: Literal["token", "unary"] = "token"
    """How a compact question says k. token: one token for each k. unary: the same token k times, so
    that a model can be asked for more hops than it was trained on."""
    questions: int = 40
    """Questions about one cycle; the official grammar asks from distinct nodes, and so fewer of a
    cycle that has fewer."""
    layout: Literal["row", "forked"] = "forked"
    """row: one after another, earlier answers in sight. forked: each on its own copy of the state
    after the cycle."""
    padding: Literal["tokens", "masked"] = "tokens"
    """What stands left of a short cycle and right of the last answer. tokens: ordinary tokens, read
    like others. masked: nothing that any pass sees; it only takes up room in its window."""

    def __post_init__(self) -> None:
        if self.grammar == "compact":
            self.require(
                self.nodes >= MIN_COMPACT_NODES,
                "nodes",
                f"use {MIN_COMPACT_NODES} or more, fewer leave a split without cycles of its own",
            )
        else:
            self.require(
                2 <= self.nodes <= NUM_OFFICIAL_NAMES,
                "nodes",
                f"use 2 to {NUM_OFFICIAL_NAMES}, the official grammar has no more names",
            )
            self.require(
                self.questions <= self.nodes,
                "questions",
                f"use at most nodes = {self.nodes}, official questions start at distinct nodes",
            )
            self.require(
                self.counting == "token",
                "counting",
                "use token, the official grammar has one for each hop count",
            )
            self.require(
                self.hops <= MAX_OFFICIAL_HOPS,
                "hops",
                f"use at most {MAX_OFFICIAL_HOPS}, the official grammar has no more hop tokens",
            )
        self.require(
            self.min_nodes is None or 2 <= self.min_nodes <= self.nodes,
            "min_nodes",
            f"use 2 to nodes = {self.nodes}, or leave it out",
        )
        self.require(self.hops >= 1, "hops", "use 1 or more")
        self.require(self.questions >= 1, "questions", "use 1 or more")
