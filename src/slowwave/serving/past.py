"""The past of a memory as JSON: its ledger, its sources, its sleeps, its window."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from slowwave.memory.catalogue_rows import LedgerPage
from slowwave.memory.ledger import Entry
from slowwave.memory.sleep_report import SleepReport
from slowwave.memory.store import Store
from slowwave.storage.tokenizer import Tokenizer

MOST_TOKENS = 2**18
"""Of the entries in one answer."""
READ_AT_ONCE = 64
"""Entries from the end of a ledger, where the window is looked for."""


def describe_ledger(store: Store, point: str, start: int, limit: int) -> dict[str, Any]:
    """Entries start..start + limit, each with the sleeps that consolidated it.

    Fewer of them, but at least one, where they have more than MOST_TOKENS together.
    """
    page = store.page(point, start, start + limit, most_tokens=MOST_TOKENS)
    window = _find_window(page)
    data = list[dict[str, Any]]()
    for place, (entry, begin, end) in enumerate(_place_tokens(page), page.place):
        told = {**_describe_entry(entry), "place": place}
        sleeps = [each for each in page.sleeps if max(begin, each.start) < min(end, each.stop)]
        numbers = [slept.report.number for slept in sleeps]
        data.append({**told, "sleeps": numbers, "in_window": max(begin, window) < end})
    return {"object": "list", "data": data}


def describe_sources(store: Store, point: str) -> dict[str, Any]:
    """How much each source said, in order of appearance."""
    return {"object": "list", "data": [source._asdict() for source in store.sources(point)]}


def describe_sleeps(store: Store, point: str, last: int) -> dict[str, Any]:
    """The last sleeps, each with the entry that it happened in."""
    data = [
        {
            **dataclasses.asdict(slept.report),
            "start": slept.start,
            "stop": slept.stop,
            "place": place,
            "time": time,
        }
        for _, place, time, slept in store.placed_sleeps(point, last)
    ]
    return {"object": "list", "data": data}


def describe_reports(reports: Iterable[SleepReport]) -> list[dict[str, Any]]:
    """Reports of sleeps, as every answer has them."""
    return [dataclasses.asdict(report) for report in reports]


def describe_window(
    store: Store, point: str, tokenizer: Tokenizer | None, limit: int
) -> dict[str, Any]:
    """The last tokens of the window, each with its text; None without the right tokenizer."""
    data = list[dict[str, Any]]()
    page = _read_window(store, point, limit)
    window = _find_window(page)
    for place, (entry, begin, _) in enumerate(_place_tokens(page), page.place):
        for token in entry.tokens[max(0, window - begin) :]:
            text = None
            if tokenizer is not None and token < tokenizer.vocab_size:
                text = tokenizer.decode([token])
            data.append({"text": text, "source": entry.source, "place": place})
    return {"object": "list", "data": data[-limit:]}


def _read_window(store: Store, point: str, limit: int) -> LedgerPage:
    """The end of a ledger that holds the window, or at least so many tokens of it."""
    count = READ_AT_ONCE
    while True:
        page = store.last_page(point, count)
        num_tokens = sum(len(entry.tokens) for entry in page.entries)
        if not page.place or page.sleeps or num_tokens >= limit:
            return page
        count *= 2


def _place_tokens(page: LedgerPage) -> Iterator[tuple[Entry, int, int]]:
    """Each entry with its tokens begin..end of the stream."""
    begin = page.start
    for entry in page.entries:
        yield entry, begin, begin + len(entry.tokens)
        begin += len(entry.tokens)


def _find_window(page: LedgerPage) -> int:
    """The first token of the window, or of the page if that is within; sleeps leave no gaps."""
    return max([page.start, *(slept.stop for slept in page.sleeps)])


def _describe_entry(entry: Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "source": entry.source,
        "time": entry.time,
        "text": entry.text,
        "role": entry.role,
        "said": entry.said if entry.role else entry.text,
        "num_tokens": len(entry.tokens),
    }
