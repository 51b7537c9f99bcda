"""Which keys and values of a stream's window stay beside those of earlier windows, and as what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from slowwave.entries import PINNED, Entries
from slowwave.ops.compaction import (
    choose_best,
    fit_values,
    fit_weights,
    measure_spread,
    score_entries,
)
from slowwave.sleep.config import Compact

LEAST_ENTRIES = 2
"""Of its window, for a head that competes with all others for room."""


class Candidates(NamedTuple):
    """What one KV head of one stream has: E entries from before the window, and W of its tokens.

    metric: (Dh, Dh), how values are measured where they are read. scale: of attention's scores.
    """

    old: Entries
    new: Entries
    metric: Tensor
    scale: float


class Reading(NamedTuple):
    """What a reading asked one KV head: the R queries of each query head of its group.

    queries: (H / Hkv, R, Dh). places: (R,) int64, of their tokens in what was read. keys: (T, Dh),
    those of all T tokens that were read; None if that was the window itself. A token sees no later
    one. weights: (R,), how much each query counts.
    """

    queries: Tensor
    places: Tensor
    keys: Tensor | None
    weights: Tensor
    stream_norm: Tensor


class Found(NamedTuple):
    """What n queries of a head found in the window.

    queries: (n, Dh), scaled. log_sum: (n,), of all that each saw. weights: (n,). share: (n,),
    attention to the window. target: (n, Dh), what was read of it. The last two are weighted.
    """

    queries: Tensor
    log_sum: Tensor
    weights: Tensor
    share: Tensor
    target: Tensor


def choose_entries(
    heads: Sequence[Candidates],
    readings: Sequence[Sequence[Reading]],
    config: Compact,
    capacity: int,
) -> list[Entries]:
    """What each KV head of each layer holds after a sleep, keys turned as they were.

    readings: of each head all that were made. capacity: entries of a head on average, pinned ones
    aside.
    """
    scored, found = zip(
        *(_score(*each, config) for each in zip(heads, readings, strict=True)), strict=True
    )
    budget = max(round(config.ratio * len(heads[0].new.place)), LEAST_ENTRIES)
    of_window = _keep_best([each.new.score for each in scored], budget, LEAST_ENTRIES, config)
    both = [
        Entries.join([each.old, each.new.take(index)])
        for each, index in zip(scored, of_window, strict=True)
    ]
    kept = _keep_best([each.score for each in both], capacity, 0, config)
    chosen = [entries.take(index) for entries, index in zip(both, kept, strict=True)]
    if not config.fits or config.score == "recent":
        return chosen
    is_new = [index >= len(each.old.place) for each, index in zip(scored, kept, strict=True)]
    return [_fit(*each) for each in zip(chosen, is_new, found, strict=True)]


def _keep_best(scores: Sequence[Tensor], count: int, least: int, config: Compact) -> list[Tensor]:
    """Places, in order, of pinned entries and of the best `count` a head beside them.

    What nobody looked up at all is not kept.
    """
    pinned = [each == PINNED for each in scores]
    free = [each.masked_fill(mask, -1) for each, mask in zip(scores, pinned, strict=True)]
    if config.spread == "global":
        best = choose_best(free, count * len(free), least=least)
    else:
        best = [choose_best([each], count, least=0)[0] for each in free]
    chosen = [mask.index_fill(0, index, True) for mask, index in zip(pinned, best, strict=True)]
    pairs = zip(chosen, scores, strict=True)
    return [(mask & (each > 0)).nonzero()[:, 0] for mask, each in pairs]


def _score(
    head: Candidates, readings: Sequence[Reading], config: Compact
) -> tuple[Candidates, Found | None]:
    """The head with what its entries are worth, and what was found in its window."""
    old, new = head.old, head.new
    if config.score == "recent":
        found, score = None, torch.cat([old.score, 1 + new.place.to(old.score)])
    else:
        looks = [_look(head, reading, config) for reading in readings]
        attention = torch.cat([weighted for weighted, _ in looks])
        parts = zip(*(look for _, look in looks), strict=True)
        found = Found(*map(torch.cat, parts)) if config.fits else None
        score = _measure(head, attention.detach(), config).to(old.score)
    was, worth = score.split([len(old.place), len(new.place)])
    worth = worth.clone()
    if not len(old.place):
        worth[0] = PINNED  # the sink
    was = torch.maximum(old.score, was)
    return head._replace(old=old._replace(score=was), new=new._replace(score=worth)), found


def _measure(head: Candidates, attention: Tensor, config: Compact) -> Tensor:
    """(E + W,) what all candidates are worth. attention: (n, E + W), weighted."""
    assert config.score != "recent"
    worth = score_entries(attention, config.score)
    if not config.by_value:
        return worth
    values = torch.cat([head.old.values, head.new.values]).detach()
    return worth * measure_spread(values, head.new.values.detach().mean(0), head.metric)


def _look(head: Candidates, reading: Reading, config: Compact) -> tuple[Tensor, Found]:
    """The weighted attention (n, E + W) of a reading's queries to the candidates, and the rest."""
    old, new, W = head.old, head.new, len(head.new.place)
    keys, bias = torch.cat([old.keys, new.keys]), torch.cat([old.bias, new.bias])
    queries = reading.queries.to(keys.dtype) * head.scale  # (H / Hkv, R, Dh)
    scores = queries @ keys.mT + bias
    if reading.keys is None:
        sees = _see(reading.places, W)
        scores = scores.masked_fill(
            ~torch.cat([sees.new_ones(len(sees), len(bias) - W), sees], 1), -torch.inf
        )
        log_sum = scores.logsumexp(-1)
    else:
        own = queries @ reading.keys.to(keys.dtype).mT
        own = own.masked_fill(~_see(reading.places, len(reading.keys)), -torch.inf)
        log_sum = torch.logaddexp(scores.logsumexp(-1), own.logsumexp(-1))
    weights = reading.weights / reading.stream_norm if config.by_value else reading.weights
    weights = weights.to(keys.dtype).detach().repeat(len(queries))
    attention = (scores - log_sum[..., None]).exp().flatten(0, 1) * weights[:, None]
    of_window = attention[:, len(bias) - W :]
    share, target = of_window.sum(1), of_window @ new.values
    return attention, Found(queries.flatten(0, 1), log_sum.flatten(), weights, share, target)


def _see(places: Tensor, count: int) -> Tensor:
    """(R, count) bool: which of the tokens those at some places see."""
    return torch.arange(count, device=places.device) <= places[:, None]


def _fit(entries: Entries, is_new: Tensor, found: Found) -> Entries:
    """With biases and values of the window's entries fitted to what was found in all of it.

    Pinned ones stay as they are, and the others make up for the rest.
    """
    fitted = (is_new & (entries.score != PINNED)).nonzero()[:, 0]
    pinned = (is_new & (entries.score == PINNED)).nonzero()[:, 0]
    if not len(fitted):
        return entries
    as_is = _attend(found, entries.keys[pinned])
    share, target = found.share - as_is.sum(1), found.target - as_is @ entries.values[pinned]
    kept = _attend(found, entries.keys[fitted])
    weights = fit_weights(kept, share)
    values = fit_values(kept, share, weights, target, entries.values[fitted])
    return entries._replace(
        values=entries.values.index_copy(0, fitted, values),
        bias=entries.bias.index_copy(0, fitted, weights.log()),
    )


def _attend(found: Found, keys: Tensor) -> Tensor:
    """Weighted attention (n, t) to keys (t, Dh) of the window."""
    scores = found.queries @ keys.mT - found.log_sum[:, None]
    return scores.exp() * found.weights[:, None]
