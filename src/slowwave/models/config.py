"""Sizes of a hybrid model; torch-free."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from slowwave.config import Config

MOST_RANK = 256
"""Of a delta (`MemoryState.delta`); beyond it, it would be as large as a small model."""
LayerType = Literal["attn", "local", "gdn", "hebbian", "jet"]
MIXERS: dict[LayerType, str] = {
    "attn": "slowwave.models.mixers.attention:Attention",
    "local": "slowwave.models.mixers.attention:LocalAttention",
    "gdn": "slowwave.models.mixers.recurrent:GatedDeltaNet",
    "hebbian": "slowwave.models.mixers.recurrent:GatedHebbian",
    "jet": "slowwave.models.mixers.jet:JetLayer",
}
"""Where the mixer of each layer type is; its module is imported when a model is built."""
InitialWeights = Literal["scaled", "small"]
Part = Literal["all", "trunk", "core", "coda", "prefix", "suffix"]
Norms = Literal["before", "after", "both"]
QueryKeyNorm = Literal["none", "head", "all"]
Activation = Literal["silu", "gelu"]

MOST_SIZE = 2**20
MOST_IDS = 2**24
MOST_LAYERS = 4096
MOST_TAPS = 64
MOST_DECAY = 1e6
"""Far above any model, and what memory is asked for before its weights are looked at."""


def _require(condition: bool, field: str, value: object, mend: str) -> None:
    if not condition:
        raise ValueError(f"model.{field} is {value!r}; {mend}")


def _require_within(field: str, value: float, least: float, most: float) -> None:
    _require(value >= least, field, value, f"use {least} or more")
    _require_at_most(field, value, most)


def _require_at_most(field: str, value: float, most: float) -> None:
    _require(value <= most, field, value, f"use {most:,.0f} or less")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling(Config):
    """Rotary positions of a model that was trained on for longer contexts than it began with.

    Frequencies are divided by `factor`. With an original length that holds for those which turn
    less than `low_turns` times in it, those above `high_turns` stay, and between the two they mix
    (Llama 3.1).
    """

    factor: float
    original_length: int | None = None
    """Tokens of the contexts that the model was trained with first; None divides all alike."""
    low_turns: float = 1.0
    high_turns: float = 4.0

    def __post_init__(self) -> None:
        _require(self.factor >= 1, "traits.rope_scaling.factor", self.factor, "use 1 or more")
        length = self.original_length
        if length is not None:
            _require_within("traits.rope_scaling.original_length", length, 1, MOST_IDS)
            apart = 0 < self.low_turns < self.high_turns
            _require(apart, "traits.rope_scaling.low_turns", self.low_turns, "use less than high")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traits(Config):
    """What families of pretrained models do otherwise than slowwave's own recipes."""

    norm_eps: float = 1e-6
    """Added to the mean square in the norms of blocks, queries, keys and the last one."""
    attn_norms: Norms = "before"
    """Where the norms of an attention block stand: before mixer and feed-forward, after each of
    them, or both (Gemma 3). Recurrent blocks have them before."""
    qkv_bias: bool = False
    """Whether queries, keys and values have biases (Qwen 2)."""
    qk_norm: QueryKeyNorm = "none"
    """Norms of queries and keys before they are turned: none, of every head, or of all heads
    together (OLMo)."""
    attn_gate: bool = False
    """Whether a sigmoid gate weighs what attention reads (Qwen 3.5)."""
    attn_scale: float | None = None
    """Factor of the scores; 1 / sqrt(head size) if not given."""
    rotary_share: float = 1.0
    """Share of a head that positions turn; 0 for none (NoPE)."""
    rope_scaling: RopeScaling | None = None
    local_window: int = 512
    """How far a "local" layer sees: a token itself and so many less one before it."""
    local_rope_theta: float = 10_000.0
    """Base of the rotary positions of "local" layers."""
    activation: Activation = "silu"
    """Of the feed-forward gate; gelu is its approximation by tanh."""
    embedding_scale: float = 1.0
    """Factor of the embeddings."""
    out_norm_eps: float = 1e-5
    """As norm_eps, of the gated norm of recurrent layers."""
    tied_embeddings: bool = False
    """Whether the logits come from the embeddings' own matrix."""
    context_length: int | None = None
    """Tokens of the longest context that the model was trained with, where that is known."""

    def __post_init__(self) -> None:
        for name in ("norm_eps", "out_norm_eps", "embedding_scale", "local_rope_theta"):
            value = getattr(self, name)
            _require(0 < value < math.inf, f"traits.{name}", value, "use a positive number")
        _require(
            0 <= self.rotary_share <= 1, "traits.rotary_share", self.rotary_share, "use 0 to 1"
        )
        scale = self.attn_scale
        _require(scale is None or 0 < scale < math.inf, "traits.attn_scale", scale, "use above 0")
        for name in ("local_window", "context_length"):
            _require_within(f"traits.{name}", getattr(self, name) or 1, 1, MOST_IDS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """A stack of blocks, one mixer each.

    "attn" is softmax attention, "local" the same over the nearest tokens alone. The others are
    recurrent: "gdn" is Gated DeltaNet, "hebbian" the same without the delta correction (gated
    linear attention, the rule of Mamba-2), "jet" the same with a convolution of the values alone,
    whose kernel every token makes for itself.
    """

    vocab_size: int = 0
    """Number of token ids; 0 lets the task say."""
    width: int = 96
    """Model width D."""
    layers: tuple[LayerType, ...] = ("attn", "gdn", "attn", "gdn")
    """The mixer of every block, in order."""
    prelude: int = 0
    """First blocks that sleep does not loop: they are read once, on pass 1."""
    coda: int = 0
    """Last blocks that sleep does not loop: it reads them once, after the last pass."""
    mlp_hidden: int = 256
    """Hidden width of the SwiGLU feed-forward layers."""
    prime_blocks: int = 0
    """Last blocks with a prime MLP before their own, whose weights `sleep.consolidator` ttt changes
    in every stream for itself."""
    prime_hidden: int | None = None
    """Hidden width of prime MLPs; mlp_hidden if not given."""
    attn_heads: int = 3
    """Query heads H of an attention layer."""
    attn_kv_heads: int | None = None
    """Key/value heads of an attention layer; attn_heads if not given."""
    attn_head_dim: int | None = None
    """Size of an attention head; width / attn_heads if not given."""
    rope_theta: float = 10_000.0
    """Base of the rotary positions."""
    delta_heads: int = 3
    """Query/key heads H of a recurrent layer."""
    delta_value_heads: int | None = None
    """Value heads G of a recurrent layer, a multiple of delta_heads; delta_heads if not given."""
    key_dim: int = 32
    """Key size K of a recurrent head."""
    value_dim: int = 32
    """Value size V of a recurrent head."""
    conv_width: int = 4
    """Taps of the convolution in a recurrent layer."""
    max_beta: float = 1.0
    """Largest write strength: 1, or 2 to allow negative eigenvalues (arXiv 2411.12537)."""
    initial_decay: float = 16.0
    """Fresh decay rates A of the recurrent heads are uniform up to it; less forgets more slowly."""
    initial_weights: InitialWeights = "scaled"
    """Scale of fresh weights: scaled to the width, or small everywhere; see `HybridLM`."""
    traits: Traits = Traits()
    """What a pretrained model does otherwise; a model of one's own leaves it out."""

    def __post_init__(self) -> None:
        self._require_sizes()
        for name in ("prelude", "coda"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "use 0 or more blocks")
        _require(
            self.prelude + self.coda < len(self.layers),
            "prelude",
            self.prelude,
            f"with model.coda = {self.coda} leave one of {len(self.layers)} blocks between or more",
        )
        self._require_primes()
        _require(0 < self.max_beta <= 2, "max_beta", self.max_beta, "use a value in (0, 2]")
        _require(self.rope_theta > 0, "rope_theta", self.rope_theta, "use a positive base")
        kv_heads = self.kv_heads
        _require(
            kv_heads >= 1 and self.attn_heads % kv_heads == 0,
            "attn_kv_heads",
            kv_heads,
            f"use a divisor of attn_heads = {self.attn_heads}",
        )
        _require(
            self.attn_head_dim is not None or self.width % self.attn_heads == 0,
            "attn_heads",
            self.attn_heads,
            f"use a divisor of width = {self.width} or set attn_head_dim",
        )
        _require(
            self.head_dim >= 2 and self.head_dim % 2 == 0,
            "attn_head_dim",
            self.head_dim,
            "use an even size, rotary positions turn pairs",
        )
        share = self.traits.rotary_share
        _require(
            share == 0 or self.rotary_dim >= 2,
            "traits.rotary_share",
            share,
            f"use a share that turns two or more of attn_head_dim = {self.head_dim}",
        )
        _require(
            self.value_heads >= 1 and self.value_heads % self.delta_heads == 0,
            "delta_value_heads",
            self.value_heads,
            f"use a multiple of delta_heads = {self.delta_heads}",
        )

    def _require_primes(self) -> None:
        count, most = self.prime_blocks, len(self.layers)
        _require(0 <= count <= most, "prime_blocks", count, f"use 0 to {most}, the blocks")
        behind = {self.layers[i] for i in self.span("suffix")[1:]} - {"attn", "local"}
        _require(
            not behind,
            "prime_blocks",
            count,
            f"with {', '.join(sorted(behind))} behind the first of them use fewer, or attn and "
            "local there: training needs gradients of gradients, which recurrent rules lack",
        )

    def _require_sizes(self) -> None:
        for name in ("width", "mlp_hidden", "attn_heads", "delta_heads", "key_dim", "value_dim"):
            _require_within(name, getattr(self, name), 1, MOST_SIZE)
        for name in ("attn_kv_heads", "attn_head_dim", "delta_value_heads"):
            _require_at_most(name, getattr(self, name) or 0, MOST_SIZE)
        _require_within("prime_hidden", self.prime_width, 1, MOST_SIZE)
        _require_within("vocab_size", self.vocab_size, 0, MOST_IDS)
        _require_within("conv_width", self.conv_width, 2, MOST_TAPS)
        _require_within("initial_decay", self.initial_decay, 1e-3, MOST_DECAY)
        count = len(self.layers)
        _require(count >= 1, "layers", self.layers, "name at least one mixer")
        if count > MOST_LAYERS:
            raise ValueError(f"model.layers has {count:,} mixers; use {MOST_LAYERS:,} or fewer")

    @property
    def head_dim(self) -> int:
        """Size of an attention head."""
        return self.width // self.attn_heads if self.attn_head_dim is None else self.attn_head_dim

    @property
    def rotary_dim(self) -> int:
        """How much of an attention head positions turn, an even number."""
        return int(self.head_dim * self.traits.rotary_share) // 2 * 2

    @property
    def kv_heads(self) -> int:
        """Key/value heads of an attention layer."""
        return self.attn_heads if self.attn_kv_heads is None else self.attn_kv_heads

    @property
    def prime_width(self) -> int:
        """Hidden width of a prime MLP."""
        return self.mlp_hidden if self.prime_hidden is None else self.prime_hidden

    @property
    def looped_part(self) -> Part:
        """What sleep loops; "all" rather than a core that is everything, which compiles once."""
        return "core" if self.prelude or self.coda else "all"

    def span(self, part: Part) -> range:
        """Places of the blocks of a part; the trunk is the prelude and the core together.

        The suffix are the blocks with prime MLPs, the prefix those before.
        """
        first_of_coda = len(self.layers) - self.coda
        first_of_suffix = len(self.layers) - self.prime_blocks
        return {
            "all": range(len(self.layers)),
            "trunk": range(first_of_coda),
            "core": range(self.prelude, first_of_coda),
            "coda": range(first_of_coda, len(self.layers)),
            "prefix": range(first_of_suffix),
            "suffix": range(first_of_suffix, len(self.layers)),
        }[part]

    @property
    def value_heads(self) -> int:
        """Value heads G of a recurrent layer."""
        return self.delta_heads if self.delta_value_heads is None else self.delta_value_heads
