"""When and how a model sleeps; torch-free."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, TypeAlias, cast, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from slowwave.config import Config, validate
from slowwave.models.config import ModelConfig

Eviction = Literal["all", "sliding", "none"]
KeptCache = Literal["last_pass", "first_pass"]
BetweenPasses = Literal["carry", "reset", "frozen"]
Recirculate = Literal["hidden", "normed", "normed+embedding", "embedding"]
Queries = Literal["reread", "window", "recent"]
Replayed = Literal["window", "user", "critic", "recital", "questions"]
Score = Literal["max", "rms", "mean", "recent"]
Spread = Literal["global", "uniform"]
Others = Literal["evict", "passes"]
LossWindows = Literal["paper", "sleep_after"]

LEAST_PENALTY, MOST_PENALTY = 1e-3, 1e6
MOST_PASSES = 64
"""Passes of a sleep, and of what predicts: those that a file from elsewhere asks for must end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsolidatorConfig(Config):
    """What writes a window into mid-term memory; see `slowwave.sleep.consolidators`."""

    path: ClassVar[str]
    """Where the consolidator is, "module:Name"."""
    most_passes: ClassVar[int]
    """Readings of a window that it has a use for, the first one counted."""

    def returns_to(self, sizes: ModelConfig) -> frozenset[int]:
        """Places of blocks whose state at the window's start it takes up again."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evict(ConsolidatorConfig):
    """Nothing but pass 1: the window is lost to attention (N = 1)."""

    path: ClassVar[str] = "slowwave.sleep.consolidators.consolidator:EvictConsolidator"
    most_passes: ClassVar[int] = 1

    kind: Literal["evict"] = "evict"

    def returns_to(self, sizes: ModelConfig) -> frozenset[int]:
        """See `ConsolidatorConfig.returns_to`."""
        return frozenset()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Passes(ConsolidatorConfig):
    """The paper: N passes, each reading what the one before put out."""

    path: ClassVar[str] = "slowwave.sleep.consolidators.passes:PassesConsolidator"
    most_passes: ClassVar[int] = MOST_PASSES

    kind: Literal["passes"] = "passes"
    kept_cache: KeptCache = "last_pass"
    """Under sliding eviction, the pass whose keys and values stay."""
    between_passes: BetweenPasses = "carry"
    """Fast weights that pass n starts from: those that pass n-1 left (carry, the paper), those that
    the window began with (reset), or those that pass 1 left (frozen). The last two are controls:
    passes 2 to N-1 then leave nothing but their hidden states."""
    recirculate: Recirculate = "hidden"
    """What pass n reads: the raw hidden states of pass n-1 (the paper), those states normed, normed
    with the embeddings added again, or the embeddings alone (a control without recirculation)."""

    def returns_to(self, sizes: ModelConfig) -> frozenset[int]:
        """See `ConsolidatorConfig.returns_to`."""
        core = sizes.span("core") if self.between_passes == "reset" else ()
        return frozenset((*core, *sizes.span("coda")))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ridge(ConsolidatorConfig):
    """Fast weights in closed form: the regression that N passes over fixed keys and values tend to.

    It reads the window once more, for the keys and values of pass 1: N = 2.
    """

    path: ClassVar[str] = "slowwave.sleep.consolidators.ridge:RidgeConsolidator"
    most_passes: ClassVar[int] = 2

    kind: Literal["ridge"] = "ridge"
    penalty: float = 1.0
    """How much the memory from before the window weighs against it, in tokens of write strength 1
    with one key; less trusts the window more."""

    def __post_init__(self) -> None:
        if not LEAST_PENALTY <= self.penalty <= MOST_PENALTY:
            raise ValueError(
                f"sleep.consolidator.penalty is {self.penalty}; use {LEAST_PENALTY} to "
                f"{MOST_PENALTY:,.0f}, float32 solves nothing else"
            )

    def returns_to(self, sizes: ModelConfig) -> frozenset[int]:
        """See `ConsolidatorConfig.returns_to`."""
        return frozenset(sizes.span("all"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compact(ConsolidatorConfig):
    """Few keys and values of each window, chosen by what a reader of it looks up.

    N = 2 reads the window again, or what is replayed in its place; every further reading sees what
    the one before left. Recurrent layers sleep as `others` says.
    """

    path: ClassVar[str] = "slowwave.sleep.consolidators.compact:CompactConsolidator"
    most_passes: ClassVar[int] = 8

    kind: Literal["compact"] = "compact"
    ratio: float = 0.125
    """Entries that a KV head keeps of each window on average, as a share of its tokens."""
    capacity: float = 1.0
    """Entries of a KV head on average that all memory together may take, in windows; the least
    worthy go. Pinned ones come on top."""
    queries: Queries = "reread"
    """What says which keys matter: a second reading, after the window, of the window or of what is
    replayed; the window's own queries; or those of its last 32 tokens alone."""
    replay: Replayed = "window"
    """What sessions read again where `queries` is reread: the window (for documents), what users
    said in it, after a question for that, or what of it the model finds worth remembering (for
    chats); a recital is what the model remembers itself, as far as memory makes that likelier, and
    then what users said; or `questions`. Streams without a chat read the window."""
    questions: tuple[str, ...] = ()
    """One's own, for `replay` questions; likely ones if none are given."""
    score: Score = "max"
    """How attention of many queries makes the worth of a key; recent asks no query, and the newest
    stay."""
    surprise: bool = True
    """Whether a query counts by the root of how little the token was expected that it led to."""
    by_value: bool = True
    """Whether a key is worth more the further its value is from the mean, where it is read."""
    spread: Spread = "global"
    """Whether all heads of all layers compete for room, or each has the same."""
    fits: bool = False
    """Whether biases and values of what stays are fitted to make up for what goes."""
    span: int = 4096
    """Rotary position that no window begins after: older keys are turned back instead."""
    others: Others = "evict"
    """How recurrent layers sleep: they keep what reading left, or N passes write into them."""

    def __post_init__(self) -> None:
        _require_range(self.ratio, "ratio", 1e-4, 1)
        _require_range(self.capacity, "capacity", self.ratio, 1e4)
        _require_range(self.span, "span", 1, 2**30)
        if not all(each.strip() for each in self.questions):
            raise ValueError("sleep.consolidator.questions has an empty one; leave it out")

    def returns_to(self, sizes: ModelConfig) -> frozenset[int]:
        """See `ConsolidatorConfig.returns_to`."""
        return Passes().returns_to(sizes) if self.others == "passes" else frozenset()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TTT(ConsolidatorConfig):
    """End-to-end test-time training (arXiv 2512.23675): gradient steps of the prime MLPs on the
    next-token loss of the window, a step a chunk.

    Each pass after the first goes over all chunks once: N = 2 is the paper's one step a chunk.
    """

    path: ClassVar[str] = "slowwave.sleep.consolidators.ttt:TTTConsolidator"
    most_passes: ClassVar[int] = 8

    kind: Literal["ttt"] = "ttt"
    chunk: int | None = None
    """Tokens of a step; the window if not given."""
    learning_rate: float = 1.0
    """Of plain gradient descent, on the mean loss of a chunk."""
    clip_norm: float = 1.0
    """Length of a stream's gradient, over all prime MLPs, above which it is scaled down to it."""

    def __post_init__(self) -> None:
        _require_range(2 if self.chunk is None else self.chunk, "chunk", 2, 2**20)
        _require_range(self.learning_rate, "learning_rate", 1e-6, 1e3)
        _require_range(self.clip_norm, "clip_norm", 1e-6, 1e6)

    def returns_to(self, sizes: ModelConfig) -> frozenset[int]:
        """See `ConsolidatorConfig.returns_to`; raises ValueError if no block has a prime MLP."""
        if not sizes.prime_blocks:
            raise ValueError(
                "sleep.consolidator is ttt, but model.prime_blocks is 0; use a model that was "
                "trained with prime MLPs, such as recipes/ttt-mini.toml, or another consolidator"
            )
        return frozenset(sizes.span("all"))


def _require_range(value: float, name: str, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"sleep.consolidator.{name} is {value}; use {least:g} to {most:g}")


Consolidator: TypeAlias = Evict | Passes | Ridge | Compact | TTT
KINDS: dict[str, type[Consolidator]] = {each.kind: each for each in get_args(Consolidator)}
_PLAIN = {"kind": "compact", "surprise": False, "by_value": False}
_EVEN = {**_PLAIN, "spread": "uniform"}
PRESETS: dict[str, dict[str, Any]] = {
    "h2o": {**_EVEN, "queries": "window", "score": "mean"},
    "snapkv": {**_EVEN, "queries": "recent", "score": "mean"},
    "kvzip": _PLAIN,
    "attention_matching": {**_EVEN, "score": "rms", "fits": True},
    "streaming": {**_EVEN, "score": "recent"},
    "last_window": {**_EVEN, "score": "recent", "ratio": 1.0, "capacity": 1.0},
}
"""Other methods as settings of compact, by the name that stands for them in place of a kind."""
MOVED = ("kept_cache", "between_passes", "recirculate")
"""Settings of the consolidator passes that older files have in `sleep` itself."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SleepConfig(Config):
    """A window of L tokens, read N times when it is full, then evicted."""

    window: int = 20
    """Window length L in tokens."""
    passes: int = 1
    """N, all passes counted; 1 is plain eviction."""
    consolidator: Consolidator = dataclasses.field(default_factory=Passes)
    """What writes the window into mid-term memory; its name alone is its `kind`."""
    eviction: Eviction = "all"
    """What attention loses after a sleep: all of the window; under sliding all but the newest L - 1
    tokens, so that every token sees itself and L - 1 before it (section 1.4 of the paper); none
    never evicts nor sleeps, whatever the window, and is full attention."""
    sinks: int = 0
    """Under sliding eviction, the first tokens of the stream (padding included) that stay in the
    cache for ever (attention sinks, arXiv 2309.17453). They keep the positions they were read at,
    not places in the cache: a key is then turned once, when it is read, however a stream is cut."""
    wake_passes: int = 1
    """How often what predicts is read: open windows, windows with loss and forked questions. The
    looping-at-wake baseline: pass m starts with the window or question again, from the state at its
    start, and reads what pass m-1 put out (see `Passes.recirculate`); logits come from the last
    pass."""
    at_turns: bool = False
    """Whether a session sleeps before a turn that the open window has no room for, if half of it is
    filled: windows then end between turns, and may be shorter than L."""
    loss_windows: LossWindows = "paper"
    """What becomes in training of a full window with loss: paper gives it one pass and evicts it,
    sleep_after scores it on pass 1 and then sleeps on it as on any other, as reading a stream does.
    Text, where every window has loss, needs sleep_after."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"sleep.window is {self.window!r:.80}; use 1 or more tokens")
        self.require_passes(self.passes, "sleep.passes")
        if not 1 <= self.wake_passes <= MOST_PASSES:
            raise ValueError(
                f"sleep.wake_passes is {self.wake_passes!r:.80}; use 1 to {MOST_PASSES}"
            )
        if self.eviction == "none" and self.passes > 1:
            raise ValueError(
                f"sleep.passes is {self.passes} with sleep.eviction none, which never sleeps; "
                "use 1 pass, or another eviction"
            )
        if isinstance(self.consolidator, Compact) and self.eviction == "sliding":
            raise ValueError(
                "sleep.eviction is sliding with sleep.consolidator compact, which keeps entries of "
                "its own; use all"
            )
        chunk = self.consolidator.chunk if isinstance(self.consolidator, TTT) else None
        if chunk is not None and chunk > self.window:
            raise ValueError(
                f"sleep.consolidator.chunk is {chunk} with sleep.window {self.window}; use no more"
            )
        if self.sinks < 0:
            raise ValueError(f"sleep.sinks is {self.sinks!r:.80}; use 0 or more tokens")
        kept = self.looping.kept_cache
        for name, value, default in (
            ("sinks", self.sinks, 0),
            ("consolidator.kept_cache", kept, "last_pass"),
        ):
            if self.reach is None and value != default:
                raise ValueError(
                    f"sleep.{name} is {value!s:.80} with sleep.eviction {self.eviction}, which "
                    f"keeps no cache; use {default}, or eviction sliding"
                )

    @property
    def reach(self) -> int | None:
        """How far attention sees across a sleep: a token itself and `reach` - 1 before it.

        It is the window or more; None where nothing of a slept window is seen.
        """
        return self.window if self.eviction == "sliding" else None

    @property
    def most_carried(self) -> int:
        """Tokens of slept windows that attention holds at most."""
        return 0 if self.reach is None else self.reach - 1 + self.sinks

    @property
    def looping(self) -> Passes:
        """How hidden states recirculate, asleep or awake: as said, or as in the paper."""
        return self.consolidator if isinstance(self.consolidator, Passes) else Passes()

    def require_passes(self, passes: int, name: str = "passes") -> None:
        """Raises ValueError if a sleep has no use for so many passes."""
        most = self.consolidator.most_passes
        if not 1 <= passes <= most:
            kind = (
                "" if most == MOST_PASSES else f" with sleep.consolidator {self.consolidator.kind}"
            )
            use = "1" if most == 1 else f"1 (plain eviction) to {most}"
            raise ValueError(f"{name} is {passes!r:.80}{kind}; use {use}")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_read_consolidator, handler(source))


def _read_consolidator(values: Any) -> Any:
    """Plain settings with their consolidator made, also as older files have it, or its name."""
    if not isinstance(values, dict):
        return values
    given = dict(cast(dict[str, Any], values))
    moved = {name: given.pop(name) for name in MOVED if name in given}
    chosen = given.get("consolidator", {})
    if not isinstance(chosen, dict):
        is_made = isinstance(chosen, ConsolidatorConfig)
        chosen = chosen.to_dict() if is_made else {"kind": chosen}
    inner = {"kind": "passes", **cast(dict[str, Any], chosen)}
    preset = PRESETS.get(str(inner["kind"]))
    if preset is not None:
        inner = {**preset, **inner, "kind": "compact"}
    kind = KINDS.get(str(inner["kind"]))
    if kind is None:
        names = ", ".join([*KINDS, *PRESETS])
        raise ValueError(f"sleep.consolidator.kind is {inner['kind']!r:.80}; use one of {names}")
    for name in moved:
        if name in inner:
            raise ValueError(
                f"sleep.{name} is sleep.consolidator.{name} now, which is given too; leave one out"
            )
        if kind is not Passes:
            raise ValueError(
                f"sleep.{name} is a setting of the consolidator passes, and "
                f"sleep.consolidator.kind is {kind.kind}; leave it out"
            )
    try:
        return {**given, "consolidator": validate(kind, {**moved, **inner})}
    except ValueError as error:
        is_named = str(error).startswith("sleep.")
        raise ValueError(f"{'' if is_named else 'sleep.consolidator.'}{error}") from None
