"""What a memory went through, as JSON: its ledger, its sources, its sleeps, its window."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Any

from slowwave.generation.chat import ChatFormat
from slowwave.memory.ledger import Entry
from slowwave.memory.provenance import Provenance, Slept, locate
from slowwave.memory.store import Store
from slowwave.serving.history import find_role, read_line
from slowwave.storage.tokenizer import Tokenizer


def describe_ledger(
    store: Store, point: str, chat: ChatFormat | None, start: int, limit: int
) -> dict[str, Any]:
    """Entries start..start + limit, each with the sleeps that consolidated it."""
    history = store.history(point)
    found, sleeps = _locate(history)
    sleepers = defaultdict[int, list[int]](list)
    for slept, spans in zip(sleeps, found.sleeps, strict=True):
        for place in dict.fromkeys(span.place for span in spans):
            sleepers[place].append(slept.report.number)
    in_window = {span.place for span in found.window}
    data = [
        {
            **_describe_entry(entry, chat),
            "place": place,
            "sleeps": sleepers[place],
            "in_window": place in in_window,
        }
        for place, (entry, _) in enumerate(history[start : start + limit], start)
    ]
    return {"object": "list", "data": data}


def describe_sources(store: Store, point: str) -> dict[str, Any]:
    """Who said how much, and what was read from where; in order of appearance."""
    sources = dict[str, dict[str, Any]]()
    for entry in store.entries(point):
        if entry.kind == "sleep":
            continue
        new = {"source": entry.source, "num_entries": 0, "num_tokens": 0, "first": entry.time}
        source = sources.setdefault(entry.source, new)
        source["num_entries"] += 1
        source["num_tokens"] += len(entry.tokens)
        source["last"] = entry.time
    return {"object": "list", "data": [*sources.values()]}


def describe_sleeps(store: Store, point: str, last: int) -> dict[str, Any]:
    """The last sleeps, each with the entry that it happened in."""
    data = [
        {
            **dataclasses.asdict(slept.report),
            "start": slept.start,
            "stop": slept.stop,
            "place": place,
            "time": entry.time,
        }
        for place, (entry, sleeps) in enumerate(store.history(point))
        for slept in sleeps
    ]
    return {"object": "list", "data": data[-last:]}


def describe_window(
    store: Store, point: str, tokenizer: Tokenizer | None, limit: int
) -> dict[str, Any]:
    """The last tokens of the window, each with its text, unless nobody can read them."""
    history = store.history(point)
    data = list[dict[str, Any]]()
    for place, start, stop in _locate(history)[0].window:
        entry = history[place][0]
        for token in entry.tokens[start:stop]:
            text = tokenizer.decode([token]) if tokenizer else None
            data.append({"text": text, "source": entry.source, "place": place})
    return {"object": "list", "data": data[-limit:]}


def _locate(history: list[tuple[Entry, list[Slept]]]) -> tuple[Provenance, list[Slept]]:
    sleeps = [slept for _, sleeps in history for slept in sleeps]
    return locate((entry for entry, _ in history), sleeps), sleeps


def _describe_entry(entry: Entry, chat: ChatFormat | None) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "source": entry.source,
        "time": entry.time,
        "text": entry.text,
        "role": find_role(entry, chat) if chat else None,
        "said": read_line(entry, chat) if chat else entry.text,
        "num_tokens": len(entry.tokens),
    }
