"""A sleep that keeps few keys and values of a window, for models with attention.

The window is read again, as if it were repeated right after itself, or something else is replayed
there. The queries of that reading say what is looked up; keys and values of the window make room
for few, which stand beside those of earlier windows and compete with them for the room there is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from slowwave.entries import PINNED, CompactKeyValues
from slowwave.models.backbone import HybridLM, Run
from slowwave.models.config import ModelConfig
from slowwave.models.flops import Pass
from slowwave.ops.attention import exact_rotation, rotate
from slowwave.ops.compaction import choose_best, fit_values, fit_weights, score_entries
from slowwave.ops.norm import wide_dtype
from slowwave.sleep.config import Compact, SleepConfig
from slowwave.sleep.consolidators.consolidator import Consolidator
from slowwave.sleep.consolidators.passes import PassesConsolidator
from slowwave.state import KeyValues, LayerState, MemoryState

LEAST_ENTRIES = 2
"""Of each head: one of them is the sink in the first window."""
OBSERVED = 32


class Reading(NamedTuple):
    """What a reading asked of one row: queries (R, H, Dh) of each attention layer.

    own_keys: (R, Hkv, Dh) of each, the reading's own; None if it read the window itself, whose
    keys are candidates.
    """

    queries: list[Tensor]
    own_keys: list[Tensor] | None
    weights: Tensor | None = None


class Looked(NamedTuple):
    """What n queries of a head found. scale: (n,), log of the sum over all that they saw.

    share: (n,), attention to the window. target: (n, Dh), what they read of it.
    """

    queries: Tensor
    scale: Tensor
    share: Tensor
    target: Tensor


class CompactConsolidator(Consolidator):
    """Attention layers keep few entries of the window; recurrent ones sleep as `others` says."""

    keeps_writes = True
    keeps_cache = False

    def __init__(self, sleep: SleepConfig) -> None:
        super().__init__(sleep)
        assert isinstance(sleep.consolidator, Compact)
        self.config, self.window = sleep.consolidator, sleep.window
        self.passes = PassesConsolidator(sleep) if self.config.others == "passes" else None

    def reads_hidden(self, sizes: ModelConfig) -> bool:
        """See `Consolidator.reads_hidden`."""
        return self.passes is not None and self.passes.reads_hidden(sizes)

    def plan(self, sizes: ModelConfig, window: int, *, carried: int, passes: int) -> list[Pass]:
        """See `Consolidator.plan`."""
        raise NotImplementedError

    def write(
        self, model: HybridLM, read: MemoryState, passes: int, run: Run, replay: Tensor | None = None
    ) -> Generator[MemoryState, None, tuple[LayerState, ...]]:
        """See `Consolidator.write`."""
        layers = read.layers
        if self.passes is not None:
            layers = yield from self.passes.write(model, read, passes, run)
        rows = [Row(self, model, read, i) for i in range(read.batch_size)]
        memories: list[list[CompactKeyValues]] = []
        slept = read
        for _ in range(passes - 1):
            for row, reading in zip(rows, self.look(model, read, slept, replay), strict=True):
                row.readings += reading
            memories = [row.compact() for row in rows]
            slept = with_entries(read.evict(), [*zip(*memories, strict=True)])
            slept = dataclasses.replace(slept, position=count_positions(read))
            yield slept
        turned = [row.turn(memory) for row, memory in zip(rows, memories, strict=True)]
        return with_entries(
            dataclasses.replace(read, layers=layers), [*zip(*turned, strict=True)]
        ).layers

    def position(self, read: MemoryState) -> Tensor | None:
        """See `Consolidator.position`."""
        begin = count_positions(read)
        return begin.clamp(max=self.config.span)

    def look(
        self, model: HybridLM, read: MemoryState, slept: MemoryState, replay: Tensor | None
    ) -> list[list[Reading]]:
        """The readings of each row that a pass makes: one, or none if none is asked for."""
        B = read.batch_size
        if self.config.score == "recent":
            return [[] for _ in range(B)]
        queries: list[Tensor] = []
        tokens, mask = read.window_tokens, read.window_mask
        if self.config.queries != "reread":
            begun = read.evict()
            model.run(model.embed(tokens), begun, mask=mask, queries=queries)
            newest = OBSERVED if self.config.queries == "recent" else tokens.shape[1]
            return [
                [Reading([_real(q[i], mask, i)[-newest:] for q in queries], None)]
                for i in range(B)
            ]
        if replay is not None:
            tokens, mask = replay, None
        _, after = model.run(model.embed(tokens), slept, mask=mask, queries=queries)
        own = [
            layer.keys[:, slept.window_fill :]
            for layer in after.layers
            if isinstance(layer, KeyValues)
        ]
        return [
            [Reading([_real(q[i], mask, i) for q in queries], [_real(k[i], mask, i) for k in own])]
            for i in range(B)
        ]


class Row:
    """One stream's window and entries, and what readings asked of them."""

    def __init__(self, owner: CompactConsolidator, model: HybridLM, read: MemoryState, i: int):
        self.config, self.window = owner.config, owner.window
        self.theta = model.config.rope_theta
        self.readings: list[Reading] = []
        state = read.row(i)
        layers = [layer for layer in state.layers if isinstance(layer, KeyValues)]
        mask = state.window_mask
        self.keys = [_real(layer.keys[0], mask, 0) for layer in layers]
        self.values = [_real(layer.values[0], mask, 0) for layer in layers]
        wide = wide_dtype(self.keys[0].dtype)
        self.keys = [each.to(wide) for each in self.keys]
        self.values = [each.to(wide) for each in self.values]
        self.begin = 0 if state.position is None else int(state.position)
        W = state.window_fill
        places = int(state.tokens_seen) - W + torch.arange(W, device=read.window_tokens.device)
        self.places = _real(places, mask, 0)
        self.old = [layer.compact or _no_entries(layer) for layer in layers]

    def compact(self) -> list[CompactKeyValues]:
        """Entries of each attention layer, keys as they are turned."""
        W = len(self.places)
        if W == 0:
            return self.old
        old_scores, new_scores, looked = self.look()
        counts = [len(each) for each in new_scores]
        L, H = len(self.keys), self.keys[0].shape[1]
        budget = max(round(self.config.ratio * W), LEAST_ENTRIES)
        chosen = self.choose(new_scores, budget, LEAST_ENTRIES)
        # old and new compete
        both = [torch.cat([o, n[c]]) for o, n, c in zip(old_scores, new_scores, chosen)]
        pinned = [each == PINNED for each in both]
        capacity = round(self.config.capacity * self.window)
        free = self.choose([e.masked_fill(p, -1) for e, p in zip(both, pinned)], capacity, 0)
        result = []
        for l in range(L):
            parts = []
            for h in range(H):
                j = l * H + h
                keep = pinned[j].clone()
                keep[free[j]] = True
                n_old = len(old_scores[j])
                stay = keep[:n_old].nonzero()[:, 0]
                new = chosen[j][keep[n_old:].nonzero()[:, 0]]
                parts.append(self.build(l, h, stay, new, both[j][keep], looked[j]))
            fields = [torch.cat(each)[None] for each in zip(*parts)]
            lengths = torch.tensor([[len(p[0]) for p in parts]])
            result.append(CompactKeyValues(*fields, lengths))
        return result

    def choose(self, scores, budget, least):
        if self.config.spread == "global":
            return choose_best(scores, budget * len(scores), least=least)
        return [choose_best([each], budget, least=0)[0] for each in scores]

    def look(self):
        olds, news, looked = [], [], []
        for l, (keys, values, old) in enumerate(zip(self.keys, self.values, self.old)):
            starts = (old.lengths.cumsum(1) - old.lengths)[0].tolist()
            sizes = old.lengths[0].tolist()
            for h, entries in enumerate(old.heads()):
                old_score = old.score[0, starts[h] : starts[h] + sizes[h]]
                n = sizes[h]
                v = values[:, h]
                if self.config.score == "recent":
                    olds.append(old_score)
                    score = self.places.to(old_score.dtype).clone()
                    looked.append(None)
                else:
                    A, found = self.attend(l, h, keys[:, h], v, entries)
                    score = score_entries(A[:, n:], v if self.config.by_value else None, self.config.score)
                    if n:
                        again = score_entries(A[:, :n], None, self.config.score)
                        if self.config.by_value:
                            again = again * (entries.values[0] - v.mean(0)).norm(dim=-1)
                        old_score = torch.where(old_score == PINNED, PINNED, torch.maximum(old_score * DECAY, again * AGAIN))
                    olds.append(old_score)
                    looked.append(found)
                if n == 0:
                    score[0] = PINNED
                news.append(score.float())
        return olds, news, looked

    def attend(self, l, h, keys, values, entries):
        cand = torch.cat([entries.keys[0], keys])
        bias = torch.cat([entries.bias[0], keys.new_zeros(len(keys))])
        n = entries.keys.shape[1]
        As, founds = [], []
        for reading in self.readings:
            H = self.keys[l].shape[1]
            q = reading.queries[l].unflatten(1, (H, -1))[:, h].to(cand.dtype) * cand.shape[-1] ** -0.5
            R, g, D = q.shape
            s = torch.einsum("rgd,jd->grj", q, cand) + bias
            if reading.own_keys is None:
                W = len(keys)
                causal = torch.ones(R, W, dtype=torch.bool).tril(W - R)
                causal = torch.cat([torch.ones(R, n, dtype=torch.bool), causal], 1)
                s = s.masked_fill(~causal, -torch.inf)
                lse = s.logsumexp(-1)
            else:
                o = torch.einsum("rgd,jd->grj", q, reading.own_keys[l][:, h].to(cand.dtype))
                o = o.masked_fill(~torch.ones(R, R, dtype=torch.bool).tril(), -torch.inf)
                lse = torch.logaddexp(s.logsumexp(-1), o.logsumexp(-1))
            A = (s - lse[..., None]).exp().flatten(0, 1)
            if reading.weights is not None:
                A = A * reading.weights.repeat(g)[:, None]
            As.append(A)
            founds.append(Looked(q.transpose(0, 1).flatten(0, 1), lse.flatten(), A[:, n:].sum(1), A[:, n:] @ values))
        return torch.cat(As), Looked(*(torch.cat(each) for each in zip(*founds)))

    def build(self, l, h, stay, new, scores, found):
        old = self.old[l]
        start = int(old.lengths[0, :h].sum())
        stay = stay + start
        keys, values = self.keys[l][new, h], self.values[l][new, h]
        bias = keys.new_zeros(len(new))
        if self.config.fits and found is not None and len(new):
            kept = (found.queries @ keys.mT - found.scale[:, None]).exp()
            weights = fit_weights(kept, found.share)
            values = fit_values(kept, found.share, weights, found.target, values)
            bias = weights.log()
        position = self.begin + new
        return (
            torch.cat([old.keys[0, stay], keys]),
            torch.cat([old.values[0, stay], values]),
            torch.cat([old.bias[0, stay], bias]),
            scores,
            torch.cat([old.position[0, stay], position]),
            torch.cat([old.place[0, stay], self.places[new]]),
        )

    def turn(self, memory):
        end = self.begin + len(self.places)
        excess = max(end - self.config.span, 0)
        out = []
        for m in memory:
            pinned = m.score == PINNED
            floor = int(m.position.masked_fill(~pinned, -1).max()) + 1 if m.position.numel() else 0
            position = torch.where(pinned, m.position, torch.minimum(m.position, (m.position - excess).clamp(min=floor)))
            rot = exact_rotation(position - m.position, m.keys.shape[-1], self.theta, m.keys.dtype)
            out.append(dataclasses.replace(m, keys=rotate(m.keys[:, :, None], rot)[:, :, 0], position=position))
        return out


DECAY, AGAIN = 1.0, 1.0


def _no_entries(layer: KeyValues) -> CompactKeyValues:
    B, _, H, D = layer.keys.shape
    dev = layer.keys.device
    wide = wide_dtype(layer.keys.dtype)
    f = torch.zeros(B, 0, D, dtype=wide, device=dev)
    i = torch.zeros(B, 0, dtype=torch.int64, device=dev)
    return CompactKeyValues(f, f, f[..., 0], f[..., 0].float(), i, i, torch.zeros(B, H, dtype=torch.int64, device=dev))


def _real(tensor: Tensor, mask: Tensor | None, i: int) -> Tensor:
    return tensor if mask is None else tensor[mask[i]]


def count_positions(read: MemoryState) -> Tensor:
    real = torch.full_like(read.tokens_seen, read.window_fill) if read.window_mask is None else read.window_mask.sum(1)
    return real if read.position is None else read.position + real


def with_entries(state: MemoryState, memories) -> MemoryState:
    given = iter(memories)
    layers = tuple(
        dataclasses.replace(layer, compact=CompactKeyValues.stack(next(given))) if isinstance(layer, KeyValues) else layer
        for layer in state.layers
    )
    return dataclasses.replace(state, layers=layers)
