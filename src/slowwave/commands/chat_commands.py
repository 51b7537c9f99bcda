"""The commands of a chat: lines that begin with /."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from slowwave.commands.chat_view import ChatView
from slowwave.commands.ledger_view import (
    count_lost,
    describe_loss,
    describe_traces,
    ledger_table,
    list_ledger,
    preview,
    show_preview,
)
from slowwave.commands.open_session import Opened, Stored
from slowwave.commands.printing import count, describe_sleep, show_bytes
from slowwave.memory.ledger import Entry
from slowwave.memory.sleep_report import Provenance, locate, place_sleeps
from slowwave.wording import guess

if TYPE_CHECKING:
    from rich.console import RenderableType

    from slowwave.memory.ledger import Entry
    from slowwave.memory.sleep_report import Provenance

LEDGER_ENTRIES = 20


class Command(NamedTuple):
    """A command of the chat."""

    usage: str
    about: str
    run: Callable[[Sequence[str]], None]


class ChatCommands:
    """The table of commands, for one session.

    confirm: reads the answer to a question; None if there are no more lines.
    """

    def __init__(self, opened: Opened, view: ChatView, confirm: Callable[[], str | None]) -> None:
        self._session, self._opened = opened.session, opened
        self._view, self._confirm = view, confirm
        self._commands = {
            "help": Command("", "list the commands", self._help),
            "status": Command("", "where the session stands", self._status),
            "sleep": Command("[N]", "sleep now, with N passes", self._sleep),
            "ledger": Command("[COUNT]", "the last entries, and what was slept on", self._ledger),
            "snapshot": Command("NAME", "give this moment a name", self._snapshot),
            "rollback": Command("NAME", "go back to a snapshot", self._rollback),
            "forget": Command(
                "PLACE... | source NAME [keep PLACE...]",
                "forget entries by their place in the ledger, or all from a source",
                self._forget,
            ),
            "quit": Command("", "end the chat, as exit and quit do", self._help),
        }

    def run(self, line: str) -> bool:
        """Runs the command of a line; returns whether the chat is over.

        Raises ValueError if there is no such command, or it cannot be done.
        """
        name, *words = line[1:].split() or [""]
        if name in ("quit", "exit"):
            return True
        if name not in self._commands:
            meant = guess(f"/{name}", [f"/{known}" for known in self._commands])
            raise ValueError(
                f"unknown command /{name}; {meant or '/help lists those there are;'} a space "
                "before the / says it to the model"
            )
        self._commands[name].run(words)
        return False

    def _help(self, words: Sequence[str]) -> None:
        from rich.table import Table

        _require_words("/help", words, 0)
        usages = {f"/{name} {c.usage}".strip(): c.about for name, c in self._commands.items()}
        table = Table.grid(padding=(0, 2))
        for usage, about in usages.items():
            table.add_row(usage, about)
        self._view.answer("help", usages, table)

    def _status(self, words: Sequence[str]) -> None:
        _require_words("/status", words, 0)
        status, stored = self._session.status(), self._opened.stored
        name = f"memory {stored.session.name!r}" if stored else "a conversation without memory"
        line = (
            f"{name}: {count(status.tokens_seen, 'token')}, {count(status.num_sleeps, 'sleep')}; "
            f"window {status.window_fill:,} of {status.window:,} tokens; "
            f"state {show_bytes(status.nbytes)}"
        )
        snapshots = stored.store.info(stored.session.name).snapshots if stored else ()
        marks = [mark.name for mark in snapshots]
        if marks:
            line += f"; snapshots {', '.join(marks)}"
        told = {"memory": stored.session.name if stored else None, "snapshots": marks}
        self._view.answer("status", told | dataclasses.asdict(status), line)

    def _sleep(self, words: Sequence[str]) -> None:
        _require_words("/sleep [N]", words, 0, 1)
        passes = _parse_number("/sleep", words[0]) if words else None
        if not self._session.status().window_fill:
            raise ValueError("nothing was said since the last sleep; say something first")
        report = self._session.sleep(passes)
        assert report is not None, "no reply is open"
        self._view.answer("sleep", report, describe_sleep(report))

    def _ledger(self, words: Sequence[str]) -> None:
        _require_words("/ledger [COUNT]", words, 0, 1)
        number = _parse_number("/ledger", words[0]) if words else LEDGER_ENTRIES
        entries, provenance = self._read_ledger()
        first = max(0, len(entries) - number)
        rows = list_ledger(entries, provenance, range(first, len(entries)))
        self._view.answer("ledger", rows, ledger_table(rows) if rows else "nothing was said yet")

    def _snapshot(self, words: Sequence[str]) -> None:
        stored, name = self._require_memory("/snapshot"), " ".join(words)
        snapshot = stored.session.snapshot(name)
        self._view.answer("snapshot", {"name": snapshot.name}, f"snapshot {name!r} is kept")

    def _rollback(self, words: Sequence[str]) -> None:
        stored, name = self._require_memory("/rollback"), " ".join(words)
        lost = count_lost(stored.store, stored.session.name, name)
        if not lost or self._ask("rollback", {"lost_entries": lost}, describe_loss(lost)):
            stored.session.rollback(name)
            self._answer_done("rollback", stored, f"back at {name!r}")
        else:
            self._view.answer("rollback", {"done": False}, "nothing was changed")

    def _forget(self, words: Sequence[str]) -> None:
        stored = self._require_memory("/forget")
        sources, places, keep = _parse_forget(words)
        session = stored.session
        forgetting = session.preview_forgetting(sources=sources, places=places, keep=keep)
        shown = preview(forgetting, stored.store.provenance(session.name))
        if self._ask("forget", {"preview": shown}, *show_preview(shown)):
            session.forget(forgetting, on_read=self._view.read_again)
            self._answer_done("forget", stored, "forgotten")
        else:
            self._view.answer("forget", {"done": False}, "nothing was forgotten")

    def _answer_done(self, command: str, stored: Stored, line: str) -> None:
        is_wiped = stored.store.is_wiped()
        document = {"done": True, "wiped": is_wiped}
        self._view.answer(command, document, f"{line}{describe_traces(is_wiped)}")

    def _ask(self, command: str, document: dict[str, object], *shown: RenderableType) -> bool:
        """Shows what would happen; returns whether the next line agrees."""
        self._view.answer(command, {"done": False, **document}, *shown)
        answer = self._confirm()
        return answer is not None and answer.strip().lower() in ("y", "yes")

    def _read_ledger(self) -> tuple[list[Entry], Provenance]:
        if stored := self._opened.stored:
            name = stored.session.name
            return stored.session.ledger(), stored.store.provenance(name)

        entries = self._session.entries
        slept = itertools.chain(*place_sleeps(entries, self._session.sleeps))
        return entries, locate(entries, slept)

    def _require_memory(self, command: str) -> Stored:
        if self._opened.stored is None:
            raise ValueError(
                f"{command} needs a memory, and this conversation has none; start it with "
                "--memory NAME"
            )
        return self._opened.stored


def _require_words(usage: str, words: Sequence[str], least: int, most: int | None = None) -> None:
    if not least <= len(words) <= (least if most is None else most):
        raise ValueError(f"{' '.join(words)!r} is not what follows; use {usage}")


def _parse_number(command: str, word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise ValueError(f"{command} {word}: use a number, 1 or more")
    return int(word)


def _parse_forget(words: Sequence[str]) -> tuple[list[str], list[int], list[int]]:
    """Sources, places and kept places of "3 4 keep 6" or "source letters keep 6"."""
    named, keep = [*words], list[str]()
    if "keep" in named[1:]:  # the last one: a source may have the word in its name
        at = len(named) - 1 - named[::-1].index("keep")
        named, keep = named[:at], named[at + 1 :]
    kept = [_parse_place(word) for word in keep]
    if named and named[0] == "source":
        return [" ".join(named[1:])], [], kept
    return [], [_parse_place(word) for word in named], kept


def _parse_place(word: str) -> int:
    if not word.isdecimal():
        raise ValueError(
            f"{word!r} is no place; use /forget 3 4, or /forget source NAME (/ledger shows both)"
        )
    return int(word)
