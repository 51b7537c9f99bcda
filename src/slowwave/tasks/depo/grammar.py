"""The two ways in which Depo is written in tokens, both as one table.

A node goes by a code, 0..num_names-1. In the compact grammar that is its token; in the official one
(PhysicsLM4, "Depo1" names) it stands for a name of one token, 51..100, or of two, the first
in 1..50 and the last in 51..100. A question is `hop start answer` or `hop start marker answer`;
in unary it begins with k times the same hop.

Ids, compact: node 0..nodes-1, hop k at nodes+k-1, then padding if cycles differ in size.
Ids, compact in unary: node 0..nodes-1, the hop, padding.
Ids, official: padding 0, name tokens 1..100 as they are, hop k at 100+k, the marker after the hops.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from slowwave.tasks.depo import NUM_FIRST_TOKENS, NUM_LAST_TOKENS, DepoConfig
from slowwave.tasks.draws import Integers

ABSENT = -1  # no token here; padding once the tokens have moved together

_LAST_NAME_TOKEN = NUM_FIRST_TOKENS + NUM_LAST_TOKENS


@dataclasses.dataclass(frozen=True, slots=True)
class Grammar:
    """names: (num_names, W), the tokens of each node code, ABSENT before a shorter name.

    first_hop: the id of hop 1. unary_hops: the largest hop count, if it is said by as many of them.
    marker: what stands between question and answer, if anything. padding: None if nothing is ever
    padded.
    """

    names: Integers
    first_hop: int
    unary_hops: int | None
    marker: int | None
    padding: int | None
    vocab_size: int

    def context(self, edges: Integers) -> Integers:
        """Edges (B, E, 2) as codes, or ABSENT, to tokens (B, 2 E W), ABSENT where there is none."""
        return self._tokens(edges).reshape(len(edges), -1)

    def questions(self, hops: Integers, starts: Integers, answers: Integers) -> Integers:
        """Hops 1..K and codes, (B, F) each or ABSENT, to tokens (B, F, num_question_tokens)."""
        asked = hops != ABSENT
        if self.unary_hops is None:
            hop = np.where(asked, hops + self.first_hop - 1, ABSENT)[..., None]
        else:
            is_hop = np.arange(self.unary_hops) < hops[..., None]
            hop = np.where(is_hop, self.first_hop, ABSENT)
        parts = [hop, self._tokens(starts)]
        if self.marker is not None:
            parts.append(np.where(asked, self.marker, ABSENT)[..., None])
        return np.concatenate([*parts, self._tokens(answers)], axis=-1)

    @property
    def name_tokens(self) -> int:
        """W, the most tokens of a name."""
        return self.names.shape[1]

    @property
    def num_question_tokens(self) -> int:
        """The most tokens of a question and its answer."""
        return self.num_unscored_tokens + (self.marker is not None) + self.name_tokens

    @property
    def num_unscored_tokens(self) -> int:
        """Tokens of a question before the marker and the answer, which alone are predicted."""
        return (self.unary_hops or 1) + self.name_tokens

    def name(self, code: int) -> str:
        """A node's name for people: its tokens, joined by a dot."""
        return ".".join(str(token) for token in self.names[code].tolist() if token != ABSENT)

    def _tokens(self, codes: Integers) -> Integers:
        return np.where((codes == ABSENT)[..., None], ABSENT, self.names[codes])


def make_grammar(config: DepoConfig) -> Grammar:
    """The grammar and the ids that a config asks for."""
    if config.grammar == "official":
        firsts = range(1, NUM_FIRST_TOKENS + 1)
        lasts = range(NUM_FIRST_TOKENS + 1, _LAST_NAME_TOKEN + 1)
        one = [(ABSENT, last) for last in lasts]
        two = [(first, last) for first in firsts for last in lasts]
        marker = _LAST_NAME_TOKEN + config.hops + 1
        return Grammar(
            names=np.array(one + two),
            first_hop=_LAST_NAME_TOKEN + 1,
            unary_hops=None,
            marker=marker,
            padding=0,
            vocab_size=marker + 1,
        )
    is_unary = config.counting == "unary"
    has_small = config.min_nodes is not None and config.min_nodes < config.nodes
    is_padded = is_unary or has_small
    unpadded_size = config.nodes + (1 if is_unary else config.hops)
    return Grammar(
        names=np.arange(config.nodes)[:, None],
        first_hop=config.nodes,
        unary_hops=config.hops if is_unary else None,
        marker=None,
        padding=unpadded_size if is_padded else None,
        vocab_size=unpadded_size + is_padded,
    )
