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

    queries: (H / Hkv, R, Dh). log_sums: (H / Hkv, R), of all that each saw. places: (R,) int64,
    where they are in the window, if that is what was read: they see no later token. None if it was
    read before. weights: (R,), how much each query counts. stream_norm: (), the length of the
    residual stream that the layer adds to. seen: entries that the queries saw in place of all
    candidates; None if they saw these.
    """

    queries: Tensor
    log_sums: Tensor
    places: Tensor | None
    weights: Tensor
    stream_norm: Tensor
    seen: Entries | None


class Found(NamedTuple):
    """What n queries of a head found in the window.

    queries: (n, Dh), scaled. offset: (n,), what makes the log of weighted attention of a score.
    share: (n,), weighted attention to the window. target: (n, Dh), what was read of it with that.
    """

    queries: Tensor
    offset: Tensor
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

    A key that no query looked up is not kept.
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
        asked = [_ask(head, reading, config) for reading in readings]
        log_attention = torch.cat([_look(head, *each) for each in asked])
        found = _find(head, asked, log_attention) if config.fits else None
        score = _measure(head, log_attention.detach(), config).to(old.score)
    was, worth = score.split([len(old.place), len(new.place)])
    worth = worth.clone()
    if not len(old.place):
        worth[0] = PINNED  # the sink
    was = torch.maximum(old.score, was)
    return head._replace(old=old._replace(score=was), new=new._replace(score=worth)), found


def _measure(head: Candidates, log_attention: Tensor, config: Compact) -> Tensor:
    """(E + W,) what all candidates are worth. log_attention: (n, E + W), weighted."""
    assert config.score != "recent"
    worth = score_entries(log_attention, config.score)
    if not config.by_value:
        return worth
    values = torch.cat([head.old.values, head.new.values]).detach()
    return worth * measure_spread(values, head.new.values.detach().mean(0), head.metric)


Asked = tuple[Tensor, Tensor, Tensor | None]
"""Queries (n, Dh), scaled, their offset (n,) as in `Found`, and places (n,) as in `Reading`."""


def _ask(head: Candidates, reading: Reading, config: Compact) -> Asked:
    queries = reading.queries.to(head.new.keys.dtype) * head.scale
    weights = reading.weights / reading.stream_norm if config.by_value else reading.weights
    log_sums = _sum_all(head, reading.seen, queries, reading.log_sums)
    offset = weights.detach().to(queries.dtype).log() - log_sums
    places = None if reading.places is None else reading.places.repeat(len(queries))
    return queries.flatten(0, 1), offset.flatten(), places


def _sum_all(head: Candidates, seen: Entries | None, queries: Tensor, log_sums: Tensor) -> Tensor:
    """The log of the sum over what queries saw, with all candidates in place of `seen`."""
    if seen is None:
        return log_sums
    of_seen, of_all = (
        (queries @ each.keys.mT + each.bias).logsumexp(-1)
        for each in (seen, Entries.join([head.old, head.new]))
    )
    others = -torch.expm1((of_seen - log_sums).clamp(max=0))
    tiny = torch.finfo(others.dtype).tiny
    return torch.logaddexp(log_sums + others.clamp(min=tiny).log(), of_all)


def _look(head: Candidates, queries: Tensor, offset: Tensor, places: Tensor | None) -> Tensor:
    """The log of weighted attention (n, E + W) to the candidates."""
    keys = torch.cat([head.old.keys, head.new.keys])
    bias = torch.cat([head.old.bias, head.new.bias])
    looked = queries @ keys.mT + bias + offset[:, None]
    if places is None:
        return looked
    of_old, of_new = looked.split([len(head.old.place), len(head.new.place)], dim=1)
    later = torch.arange(of_new.shape[1], device=places.device) > places[:, None]
    return torch.cat([of_old, of_new.masked_fill(later, -torch.inf)], dim=1)


def _find(head: Candidates, asked: Sequence[Asked], log_attention: Tensor) -> Found:
    of_window = log_attention[:, len(head.old.place) :].exp()
    queries, offset = (torch.cat(each) for each in list(zip(*asked, strict=True))[:2])
    return Found(queries, offset, of_window.sum(1), of_window @ head.new.values)


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
    return (found.queries @ keys.mT + found.offset[:, None]).exp()
