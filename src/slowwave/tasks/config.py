"""Which task is trained and scored, and how hard it is; torch-free."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field

from slowwave.config import Config
from slowwave.tasks.gsm_infinite_names import NUM_CORE_NAMES
from slowwave.wording import describe_range

# Smaller worlds leave a split without content of its own.
MIN_WIDTH = 6
MIN_COMPACT_NODES = 6

MAX_WIDTH = 64  # a state is one 64-bit word
NUM_OFFICIAL_NAMES = 50 + 50 * 50  # one token, and two
MAX_OPS = 16  # beyond it few problems keep all values below 1000
MAX_OFFICIAL_HOPS = 499  # the official id of hop k is 9000 + k, that of the answer marker 9500
MIN_RECALL_CONTENTS = 2**12  # values that the statements of a stream can take, all together
MAX_RECALL_IDS = 2**20
MAX_REAL_PEOPLE = 24  # beyond it conversations have to invent names


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
                self.counting == "token",
                "counting",
                self.counting,
                "use token, the official grammar has one for each hop count",
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecallConfig(Config):
    """Give the newest value of a key that was told some windows ago, or say that it is unknown."""

    name: Literal["recall"] = "recall"
    """Selects this task."""
    window: int = 32
    """Tokens L of a window; sleep.window must be the same."""
    windows: int = 8
    """Windows of a stream."""
    facts: int = 8
    """Statements "key value" in a window that tells any; filler takes the rest of its tokens."""
    told_every: int = 1
    """Of so many windows the first tells facts; the others are filler."""
    updates: int = 2
    """How many of them, after the first window, overwrite a fact of an earlier one, none twice."""
    keys: int = 64
    """Different keys; those of a stream are drawn anew for each."""
    values: int = 32
    """Different values."""
    distances: tuple[int, ...] = (1, 2, 4, 8)
    """How many windows ago a fact that is asked about was last told; 1 is the newest window."""
    questions: int = 32
    """Questions after the stream, each on its own copy of the state."""
    untold: float = 0.125
    """Share of questions about keys that were never told; "unknown" is right."""

    def __post_init__(self) -> None:
        for field in ("windows", "facts", "told_every", "questions"):
            _require(getattr(self, field) >= 1, field, getattr(self, field), "use 1 or more")
        _require(
            self.windows % self.told_every == 0,
            "told_every",
            self.told_every,
            f"use a divisor of windows = {self.windows}",
        )
        _require(
            self.window >= 2 * self.facts,
            "window",
            self.window,
            f"use at least {2 * self.facts} tokens, two for each of {self.facts} facts",
        )
        _require(
            0 <= 2 * self.updates < self.facts,
            "updates",
            self.updates,
            f"{describe_range(0, (self.facts - 1) // 2)}: less than half of facts = {self.facts}",
        )
        _require(0 <= self.untold < 1, "untold", self.untold, "use a share from 0 to below 1")
        told = self.told_keys
        _require(
            told + (self.untold > 0) <= self.keys <= MAX_RECALL_IDS,
            "keys",
            self.keys,
            f"{describe_range(told + (self.untold > 0), MAX_RECALL_IDS)}: a stream tells {told}",
        )
        _require(
            2 <= self.values <= MAX_RECALL_IDS,
            "values",
            self.values,
            f"use 2 to {MAX_RECALL_IDS}",
        )
        _require(
            told >= 12 or self.values**told >= MIN_RECALL_CONTENTS,
            "values",
            self.values,
            f"use more, or more windows or facts: {told} keys with {self.values} values leave a "
            "split without streams of its own",
        )
        _require(
            len(self.distances) >= 1
            and list(self.distances) == sorted(set(self.distances))
            and self.distances[0] >= 1
            and self.distances[-1] <= self.windows,
            "distances",
            self.distances,
            f"use one or more numbers from 1 to windows = {self.windows}, in rising order",
        )
        _require(
            all(distance % self.told_every == 0 for distance in self.distances),
            "distances",
            self.distances,
            f"use multiples of told_every = {self.told_every}, no other window tells a fact",
        )

    @property
    def told_keys(self) -> int:
        """Keys that a stream tells; an update tells none that is new."""
        return self.telling_windows * (self.facts - self.updates) + self.updates

    @property
    def telling_windows(self) -> int:
        """Windows that tell facts."""
        return self.windows // self.told_every


def _list_one(files: object) -> object:
    return (files,) if isinstance(files, str) else files


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(Config):
    """Predict every next token of local files, byte by byte or through a tokenizer."""

    name: Literal["text"] = "text"
    """Selects this task."""
    files: Annotated[tuple[str, ...], BeforeValidator(_list_one)] = ()
    """Files, folders and patterns such as docs/*.md, from where slowwave is called."""
    tokenizer: str | None = None
    """A tokenizer.json, which the tokenizers package reads; if not given, bytes are tokens."""
    window: int = 32
    """Tokens L of a window, by which the loss is reported; sleep.window must be the same."""
    context: int = 256
    """Tokens of a stream."""
    piece: int = 512
    """Tokens of a piece of a file, the whole of which belongs to one split."""

    def __post_init__(self) -> None:
        for field in ("window", "context"):
            _require(getattr(self, field) >= 1, field, getattr(self, field), "use 1 or more")
        _require(
            self.piece > self.context,
            "piece",
            self.piece,
            f"use {self.context + 1} or more, a stream and the token after it",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class GsmInfiniteConfig(Config):
    """Answer an arithmetic word problem whose statements come in any order, among distractors."""

    name: Literal["gsm_infinite"] = "gsm_infinite"
    """Selects this task."""
    grammar: Literal["compact", "words"] = "compact"
    """compact: one token for each name and sign. words: the words of the text, one token each."""
    themes: tuple[Literal["zoo", "school", "movies"], ...] = ("zoo", "school", "movies")
    """What the problems speak of; all are equally likely."""
    subset: Literal["medium", "hard"] = "medium"
    """medium: numbers of items, and their totals. hard: also averages per item."""
    mode: Literal["forward", "reverse", "mixed"] = "forward"
    """forward: what is asked follows from what is stated. reverse: its consequence is given, and it
    is asked. mixed: even odds."""
    ops: tuple[int, int] = (2, 8)
    """Fewest and most operations; uniform between."""
    places: int = 5
    """Most places of a problem without distractors."""
    items: int = 5
    """Most kinds of items of a problem without distractors."""
    question: Literal["first", "last"] = "first"
    """first: before the statements, in the context. last: after it, where the answer is given."""
    distractors: Literal["none", "surface", "blended"] = "none"
    """surface: statements without numbers about places and items of their own, as in the public
    benchmark. blended: in form and names like those that are needed."""
    length: tuple[int, int] = (0, 256)
    """Fewest and most tokens of a problem, question included; distractors are added up to a target
    that is uniform between."""
    context_tokens: int = 256
    """What every problem is padded to, on the left."""

    def __post_init__(self) -> None:
        low, high = self.ops
        fewest, most = self.length
        _require(
            len(self.themes) > 0 and len(set(self.themes)) == len(self.themes),
            "themes",
            self.themes,
            "name one or more, each once",
        )
        for name in ("places", "items"):
            value = getattr(self, name)
            _require(1 <= value <= NUM_CORE_NAMES, name, value, f"use 1 to {NUM_CORE_NAMES}")
        _require(1 <= low <= high, "ops", self.ops, "use 1 or more, the fewest first")
        _require(high <= MAX_OPS, "ops", self.ops, f"use at most {MAX_OPS}")
        _require(
            low >= 2 or self.subset == "hard",
            "ops",
            self.ops,
            "use 2 or more, medium has no problems of 1 operation (hard has)",
        )
        _require(
            2 * self.places * self.items * (2 if self.subset == "hard" else 1) >= high,
            "ops",
            self.ops,
            f"use fewer, or more places and items than {self.places} and {self.items}",
        )
        _require(0 <= fewest <= most, "length", self.length, "use 0 or more, the fewest first")
        _require(
            fewest == 0 or self.distractors != "none",
            "length",
            self.length,
            "start it with 0, or choose distractors, which alone can make problems longer",
        )
        _require(
            self.context_tokens >= most,
            "context_tokens",
            self.context_tokens,
            f"use the longest problem, {most}, or more",
        )


Relation = Literal[
    "name", "city", "job", "age", "phone", "colour", "food", "music", "dog", "cat", "horse",
    "code", "place",
]  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversationConfig(Config):
    """Chat in plain English: note facts, take corrections, answer later or say what is unknown."""

    name: Literal["conversation"] = "conversation"
    """Selects this task."""
    tokenizer: str | None = None
    """A tokenizer.json, which the tokenizers package reads; if not given, bytes are tokens."""
    window: int = 256
    """Tokens L of a window; sleep.window must be the same."""
    windows: int = 4
    """Windows of a stream; what the last turn leaves of them is padding that no pass sees."""
    relations: tuple[Relation, ...] = get_args(Relation)
    """What facts are about."""
    people: int = 6
    """People spoken of in a stream, beside the user."""
    invented: float = 0.5
    """Share of names of people, towns and pets that are invented, and so can only be copied."""
    told: float = 0.4
    """Share of turns that tell a new fact; what the shares leave over is small talk."""
    corrected: float = 0.1
    """Share of turns that tell another value of a known fact."""
    asked: float = 0.2
    """Share of turns that ask."""
    questions: int = 16
    """Questions after the stream, each on its own copy of the state."""
    question_tokens: int = 128
    """Tokens of such a question and the reply to it; longer ones are not asked."""
    untold: float = 0.2
    """Share of all questions about what was never told."""

    def __post_init__(self) -> None:
        for field in ("window", "windows", "people", "questions", "question_tokens"):
            _require(getattr(self, field) >= 1, field, getattr(self, field), "use 1 or more")
        _require(
            len(self.relations) > 0 and len(set(self.relations)) == len(self.relations),
            "relations",
            self.relations,
            "name one or more, each once",
        )
        _require(
            not set(self.relations) <= {"name"},
            "relations",
            self.relations,
            "add others, names alone leave a split without conversations of its own",
        )
        for field in ("told", "corrected", "asked"):
            share = getattr(self, field)
            _require(0 <= share <= 1, field, share, "use a share from 0 to 1")
        total = self.told + self.corrected + self.asked
        _require(
            total <= 1 + 1e-9,
            "asked",
            self.asked,
            f"use less, told, corrected and asked add up to {total:.3g}",
        )
        _require(
            self.people <= MAX_REAL_PEOPLE or self.invented >= 0.1,
            "people",
            self.people,
            f"use at most {MAX_REAL_PEOPLE}, or 0.1 or more for task.invented",
        )
        for field in ("invented", "untold"):
            share = getattr(self, field)
            _require(0 <= share < 1, field, share, "use a share from 0 to below 1")


TaskConfig = Annotated[
    ConversationConfig | Rule110Config | DepoConfig | GsmInfiniteConfig | RecallConfig | TextConfig,
    Field(discriminator="name"),
]


def _require(condition: bool, field: str, value: object, mend: str) -> None:
    if not condition:
        raise ValueError(f"task.{field} is {value!r}; {mend}")
