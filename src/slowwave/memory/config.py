"""What is asked of a memory, and the rule by which a gate accepts a sleep; torch-free."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from slowwave.config import Config, Many, read_toml
from slowwave.models.config import MOST_RANK
from slowwave.sleep.config import SleepConfig

MOST_NEW_TOKENS = 4096  # a gate may come with a stranger's session, and must come to an end


MOST_ANCHORS = 16
"""Lines of small talk in a step of a dream: as many as are built in."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question(Config):
    """Something to ask, and perhaps what should be in the reply."""

    question: str
    answer: str | None = None
    """A reply is right if it contains this as it is written, but for spaces at its ends."""

    def __post_init__(self) -> None:
        _check_text("question", self.question)
        if self.answer is not None:
            _check_text("answer", self.answer)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canary(Config):
    """A question whose answer a sleep must not lose."""

    question: str
    answer: str
    """As that of a Question; it is also read in place of a reply, to measure how likely it is."""

    def __post_init__(self) -> None:
        _check_text("question", self.question)
        _check_text("answer", self.answer)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GateConfig(Config):
    """What is measured of the memory with a sleep and without it, and by how much they may differ.

    A limit of None measures, but does not judge. Rises are those of the negative log-likelihood
    (NLL) in nats per token, so that a rise of r is perplexity times exp(r).
    """

    canaries: Many[Canary] = ()
    """Each is asked greedily on a copy of the memory."""
    held_out: Many[str] = ()
    """Texts that are read on copies of the memory. They are part of the config, and kept with the
    session; a few thousand tokens are enough, and every sleep reads them twice."""
    max_lost_canaries: float | None = 0.0
    """Share of the canaries that are right without the sleep and may be wrong with it."""
    max_canary_nll_rise: float | None = None
    """Limit for the mean over all canaries of the mean NLL of the answer's tokens."""
    max_median_rise: float | None = 0.14
    """Limit for the median NLL of held-out tokens, which tracks what is recalled. 0.14 is 15 % more
    perplexity, at which vbario/sleeping-llm rolls back."""
    max_mean_rise: float | None = None
    """Limit for their mean NLL, which a few rare tokens decide and which does not track what is
    recalled (arXiv 2605.24657)."""
    max_new_tokens: int = 64
    """How long the reply to a canary may be."""

    def __post_init__(self) -> None:
        for text in self.held_out:
            _check_text("held_out", text)
        share = self.max_lost_canaries
        if share is not None and not 0 <= share <= 1:
            raise ValueError(f"gate.max_lost_canaries is {share}; use a share from 0 to 1")
        for name in ("max_canary_nll_rise", "max_median_rise", "max_mean_rise"):
            limit = getattr(self, name)
            if limit is not None and not math.isfinite(limit):
                raise ValueError(f"gate.{name} is {limit}; use a number of nats per token, or none")
        if not 1 <= self.max_new_tokens <= MOST_NEW_TOKENS:
            raise ValueError(
                f"gate.max_new_tokens is {self.max_new_tokens!r:.80}; use 1 to {MOST_NEW_TOKENS}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DreamConfig(Config):
    """How a session dreams: what is replayed of its ledger, how it is learned, and its limits."""

    rank: int = 8
    """Of the change of every block's last feed-forward matrix."""
    steps: int = 300
    """Optimizer steps at most."""
    seconds: float | None = None
    """Training ends after the step in which these are over; None sets no limit. The ledger keeps
    the steps that were done, so that a replay does as many."""
    batch: int = 8
    """Questions of a step."""
    lr: float = 2e-3
    """Learning rate of AdamW, after a short warm-up."""
    enough: float = 0.05
    """Training ends where the mean NLL of the answers, over all of them once, is no higher."""
    anchors: int = 4
    """Lines of small talk in a step whose replies are held to those without the delta."""
    anchor_weight: float = 1.0
    """Weight of their divergence in the loss."""
    by_model: bool = False
    """Whether the model asks questions of its own too, beside those of templates."""
    least_statements: int = 3
    """With fewer of them there is too little to replay."""
    min_nll: float = 0.05
    """A statement that the model expects with a lower mean NLL is not worth learning."""
    max_nll: float = 7.0
    """A statement with a higher one is hardly language."""
    max_anchor_rise: float = 0.02
    """Share by which the NLL of held-out text, mean or median, may rise over that without any
    delta."""
    seed: int = 0
    """Draws fresh weights and the order of questions."""

    def __post_init__(self) -> None:
        for name, most in (("rank", MOST_RANK), ("steps", 10**5), ("batch", 256)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"dream.{name} is {getattr(self, name)!r:.80}; use 1 to {most}")
        if not 0 <= self.anchors <= MOST_ANCHORS:
            raise ValueError(f"dream.anchors is {self.anchors!r:.80}; use 0 to {MOST_ANCHORS}")
        if self.least_statements < 1:
            raise ValueError(f"dream.least_statements is {self.least_statements}; use 1 or more")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise ValueError(f"dream.seconds is {self.seconds}; use a time, or leave it out")
        if not 0 < self.lr <= 1:
            raise ValueError(f"dream.lr is {self.lr}; use a rate above 0, at most 1")
        for name in ("enough", "anchor_weight", "min_nll", "max_nll", "max_anchor_rise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"dream.{name} is {getattr(self, name)}; use 0 or more")


def read_gate(path: str | Path) -> GateConfig:
    """The gate that a TOML file describes.

    Beside the fields of GateConfig it may have `held_out_files`, paths seen from the folder that it
    lies in: their texts follow those of `held_out`. Raises ValueError, in a sentence that names the
    file, if one is missing or something in it is unfit.
    """
    path = Path(path)
    values = read_toml(path)
    files = values.pop("held_out_files", [])
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise ValueError(f"{path}: held_out_files is {files!r:.80}; use a list of paths")
    try:
        gate = GateConfig.from_dict(values)
        texts = tuple(_read_text(path.parent / name) for name in files)
        return dataclasses.replace(gate, held_out=gate.held_out + texts)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_dream(path: str | Path) -> DreamConfig:
    """How to dream, as a TOML file says; raises ValueError, in a sentence that names it."""
    values = read_toml(path)
    try:
        return DreamConfig.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def require_sleep(gate: GateConfig | None, sleep: SleepConfig) -> None:
    """Raises ValueError if there is a gate, but nothing that it could reject."""
    if gate is not None and sleep.eviction == "none":
        raise ValueError(
            "there is a gate, but sleep.eviction is none, which never sleeps; leave the gate out, "
            "or use all or sliding"
        )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; name a text file") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: no UTF-8; name a text file") from None


def _check_text(field: str, text: str) -> None:
    if not text.strip():
        raise ValueError(f"{field} is {text!r:.80}; use a text that says something")
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ValueError(f"{field} holds half of a surrogate pair, which is no text; mend it")
