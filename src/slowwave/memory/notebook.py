"""What a session has in words beside its state: a block of notes, and episodes.

The endpoint is asked without any lock, for it takes its time; what it says is kept in a transaction
of its own if the ledger still has what it is about.
"""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from slowwave.memory import catalogue_notes
from slowwave.memory.catalogue import Catalogue, ask_to_wipe
from slowwave.memory.catalogue_notes import Version
from slowwave.memory.catalogue_reads import find_session, read_keyed_entries
from slowwave.memory.episodes import (
    MOST_COMPARED,
    MOST_STATEMENT,
    Episode,
    EpisodeKind,
    Found,
    ReadingReceipt,
    extract,
    tells,
    words_of,
)
from slowwave.memory.ledger import MODEL, TEMPLATE, Entry
from slowwave.memory.leftovers import Leftovers
from slowwave.memory.notes import Completes, Receipt, rewrite
from slowwave.memory.notes_config import NotesConfig
from slowwave.memory.turn import cut_text

GONE = "what it was about was forgotten meanwhile"
FORGOTTEN = "[forgotten]"
"""Stands where the words of a forgotten episode stood."""


class Written(NamedTuple):
    """What a sleep in words has come to: receipts of the notes, and of the messages read."""

    notes: list[Receipt]
    readings: list[ReadingReceipt]

    @property
    def outcome(self) -> str:
        """changed, unchanged or failed, as the sleep in all."""
        found = {receipt.outcome for receipt in self.notes}
        if "failed" in found or any(not each.is_read for each in self.readings):
            return "failed"
        is_changed = "changed" in found or any(each.num_found for each in self.readings)
        return "changed" if is_changed else "unchanged"

    @property
    def why(self) -> str:
        """What was left undone, in a sentence; "" if nothing was."""
        whys = [*(each.why for each in self.readings), *(each.why for each in self.notes)]
        return "; ".join(dict.fromkeys(why for why in whys if why))


class Recalled(NamedTuple):
    """What a session has in words, as one look found it."""

    block: str
    episodes: list[Episode]
    """Those in force."""
    said: list[tuple[Entry, str]]
    """The ledger, and what each entry says without the words of forgotten episodes."""


class _Seen(NamedTuple):
    """What the notes and episodes of a session were at a moment."""

    session: int
    ledger: dict[int, Entry]
    """By the ids of the entries."""
    versions: list[Version]
    episodes: list[Episode]
    readings: dict[int, ReadingReceipt]

    @property
    def block(self) -> str:
        return next((each.block for each in reversed(self.versions) if each.block), "")

    @property
    def num_slept(self) -> int:
        """Entries of the ledger that the notes have seen."""
        return max((each.place for each in self._ended), default=-1) + 1

    @property
    def corrections(self) -> list[Episode]:
        """Those in force that were made since what the notes were written from last."""
        since = max((each.time for each in self._ended), default=0.0)
        return [
            each
            for each in self.episodes
            if each.corrects and each.in_force and each.written > since
        ]

    @property
    def forgotten(self) -> set[int]:
        """Ids of the episodes whose words are not to be shown."""
        return {each.id for each in self.episodes if each.is_forgotten}

    @property
    def _ended(self) -> list[Version]:
        """The sleeps that looked at all that was said."""
        return [each for each in self.versions if each.receipt.outcome != "failed"]


class Notebook:
    """Notes and episodes of one session. Made by `Store.notebook`."""

    def __init__(self, catalogue: Catalogue, leftovers: Leftovers, name: str) -> None:
        self._catalogue, self._leftovers, self.name = catalogue, leftovers, name

    def block(self) -> str:
        """The notes as they are; "" if there are none."""
        return self._look().block

    def versions(self) -> list[Version]:
        """Every sleep in words, oldest first, with what it wrote."""
        return self._look().versions

    def episodes(
        self, *, kind: EpisodeKind | None = None, containing: str = "", all_: bool = False
    ) -> list[Episode]:
        """What was told, oldest first.

        containing: words of the statement or the source, in any case. all_: those too that are not
        in force, because a newer one stands against them.
        """
        word = containing.casefold()
        return [
            each
            for each in self._look().episodes
            if not each.is_forgotten
            and (all_ or each.in_force)
            and kind in (None, each.kind)
            and (word in each.statement.casefold() or word in each.source.casefold())
        ]

    def recall(self, stop: int | None = None) -> Recalled:
        """What a model that has no memory of its own is to be shown.

        stop: the end of the ledger that counts, and of what was made of it; all if not given.
        """
        seen = self._look()
        stop = len(seen.ledger) if stop is None else stop
        seen = seen._replace(versions=[each for each in seen.versions if each.place < stop])
        entries = [*seen.ledger.values()][:stop]
        return Recalled(
            seen.block,
            [each for each in seen.episodes if each.in_force and each.place < stop],
            [(entry, _blank(entry, place, seen.episodes)) for place, entry in enumerate(entries)],
        )

    def num_waiting(self) -> int:
        """Entries of the ledger, and corrections, that the notes have not seen."""
        seen = self._look()
        new = [*seen.ledger.values()][seen.num_slept :]
        return sum(map(_is_material, new)) + len(seen.corrections)

    def correct(self, id_: int, statement: str) -> Episode:
        """Puts a statement in the place of an episode's, which is kept and no longer in force.

        Raises ValueError if there is no such episode in force, or the statement is unfit.
        """
        statement = " ".join(statement.split())
        if not statement or len(statement) > MOST_STATEMENT:
            raise ValueError(
                f"the statement has {len(statement)} characters; use 1 to {MOST_STATEMENT}"
            )
        with self._catalogue.writing() as db:
            seen = self._look()
            old = _find(seen.episodes, id_)
            if not old.in_force:
                raise ValueError(f"episode {id_} is not in force; correct the one that is")
            entry = [*seen.ledger][old.place]
            found = Found(old.start, old.stop, old.kind, 1.0, statement)
            (new,) = catalogue_notes.insert_episodes(db, seen.session, entry, time.time(), [found])
            catalogue_notes.insert_link(db, new, old.id, "corrects")
            return _find(self._look().episodes, new)

    def forget(self, id_: int) -> None:
        """Forgets an episode, and the notes that have seen its words; these are not read again.

        The message stays in the ledger, until that forgets it. Raises ValueError if there is no
        such episode.
        """
        with self._catalogue.writing() as db:
            seen = self._look()
            old = _find(seen.episodes, id_)
            catalogue_notes.blank_episode(db, old.id)
            catalogue_notes.drop_versions(db, seen.session, [*seen.ledger][old.place])
            ask_to_wipe(db)
        self._leftovers.clear_rest()

    def sleep(
        self,
        endpoint: Completes,
        config: NotesConfig | None = None,
        *,
        on_receipt: Callable[[Receipt | ReadingReceipt], object] | None = None,
    ) -> Written:
        """Reads what is new for episodes, and rewrites the notes; a failure ends either.

        on_receipt: is told of each step that was kept. Raises ValueError if the session is gone, or
        another wrote its notes meanwhile.
        """
        config, told = config or NotesConfig(), on_receipt or (lambda _: None)
        written = Written([], [])
        if config.episodes:
            for receipt in self._read_new(endpoint):
                written.readings.append(receipt)
                told(receipt)
                if not receipt.is_read:
                    break
        for receipt in self._write_new(endpoint, config):
            written.notes.append(receipt)
            told(receipt)
            if receipt.outcome == "failed":
                break
        if not written.notes:
            size, why = len(self.block()), "nothing was said since the last sleep"
            nothing = Receipt(
                outcome="unchanged", why=why, characters_before=size, characters_after=size
            )
            written.notes.append(nothing)
        return written

    # Episodes.

    def _read_new(self, endpoint: Completes) -> Iterator[ReadingReceipt]:
        seen = self._look()
        waiting = [
            place
            for place, entry in enumerate(seen.ledger.values())
            if tells(entry)
            and words_of(entry).strip()
            and not (place in seen.readings and seen.readings[place].is_read)
        ]
        for place in waiting:
            id_, entry = [*seen.ledger.items()][place]
            earlier = [each for each in self._look().episodes if each.in_force]
            older = [each for each in earlier if each.place < place][-MOST_COMPARED:]
            statements = [each.statement for each in older]
            found, links, receipt = extract(endpoint, words_of(entry), statements)
            pairs = [(new, older[old].id) for new, old in links]
            receipt = self._keep_reading(id_, found, pairs, receipt)
            yield receipt
            if receipt.why == GONE:
                return

    def _keep_reading(
        self,
        id_: int,
        found: Sequence[Found],
        pairs: Sequence[tuple[int, int]],
        receipt: ReadingReceipt,
    ) -> ReadingReceipt:
        """pairs: places in what was found, with ids of the episodes that they contradict."""
        with self._catalogue.writing() as db:
            now = self._look()
            if id_ not in now.ledger:
                return dataclasses.replace(receipt, is_read=False, why=GONE)
            catalogue_notes.insert_reading(db, now.session, id_, receipt)
            ids = catalogue_notes.insert_episodes(db, now.session, id_, time.time(), found)
            left = {each.id for each in now.episodes}
            for new, old in pairs:
                if old in left:
                    catalogue_notes.insert_link(db, ids[new], old, "contradicts")
        return receipt

    # Notes.

    def _write_new(self, endpoint: Completes, config: NotesConfig) -> Iterator[Receipt]:
        began, seen = time.time(), self._look()
        for place, context in _cut(seen, config.context_characters):
            now, id_ = self._look(), [*seen.ledger][place]
            new, receipt = rewrite(endpoint, now.block, context, config)
            yield self._keep_version(seen, now, id_, began, new, receipt)

    def _keep_version(
        self, shown: _Seen, before: _Seen, id_: int, began: float, new: str, receipt: Receipt
    ) -> Receipt:
        """shown: what the context was cut from, at `began`. before: what the block was."""
        with self._catalogue.writing() as db:
            now = self._look()
            if id_ not in now.ledger or now.forgotten != shown.forgotten:
                size = len(before.block)
                return dataclasses.replace(
                    receipt, outcome="failed", why=GONE, characters_after=size
                )
            if now.versions != before.versions:
                raise ValueError(
                    f"the notes of {self.name!r} changed meanwhile; let it sleep again"
                )
            kept = new if receipt.outcome == "changed" else None
            # What is corrected from `began` on is for the next sleep.
            catalogue_notes.insert_version(db, now.session, id_, began, kept, receipt)
        return receipt

    def _look(self) -> _Seen:
        """Raises ValueError if the session is gone."""
        with self._catalogue.reading() as db:
            row = find_session(db, self.name)
            return _Seen(
                row.id,
                read_keyed_entries(db, row.head),
                catalogue_notes.read_versions(db, row.id, row.head),
                catalogue_notes.read_episodes(db, row.id, row.head),
                catalogue_notes.read_readings(db, row.id, row.head),
            )


def _find(episodes: Sequence[Episode], id_: int) -> Episode:
    for each in episodes:
        if each.id == id_ and not each.is_forgotten:
            return each
    raise ValueError(f"no episode {id_}; slowwave memory episodes NAME --all lists those there are")


def _is_material(entry: Entry) -> bool:
    """Whether notes are written about it: what was told and replied, but for what models begin
    with."""
    is_said = entry.kind != "sleep" and entry.role != "system" and entry.source != TEMPLATE
    return is_said and bool(words_of(entry).strip())


def _cut(seen: _Seen, most: int) -> Iterator[tuple[int, str]]:
    """What the notes have not seen, in pieces of about so many characters.

    Each with the place of the last entry that is in it. Corrections are in the first: it is done
    again as a whole until it is kept. A long entry is in several, and counts as
    seen with each: what fails in the middle of it is not tried again.
    """
    lines, size, last = [*_show_corrections(seen)], 0, -1
    for place, entry in enumerate(seen.ledger.values()):
        if place < seen.num_slept or not _is_material(entry):
            continue
        head = f"[{show_day(entry.time)}] {_name(entry)}: "
        for piece in cut_text(_blank(entry, place, seen.episodes), most):
            if size and size + len(piece) > most:
                yield last, "\n".join(lines)
                lines, size = [], 0
            lines.append(head + piece)
            size, last = size + len(piece), place
    if lines:
        yield len(seen.ledger) - 1 if last < 0 else last, "\n".join(lines)


def _show_corrections(seen: _Seen) -> Iterator[str]:
    """What was corrected by hand since the last sleep that came to its end."""
    for each in seen.corrections:
        old = [other.statement for other in seen.episodes if other.id in each.corrects]
        yield f"Correction: {each.statement} (in place of: {' / '.join(filter(None, old))})"


def _blank(entry: Entry, place: int, episodes: Sequence[Episode]) -> str:
    """What an entry says, without the words of its episodes that were forgotten."""
    words, shown, at = words_of(entry), "", 0
    for each in sorted(episodes, key=lambda each: each.start):
        if each.place == place and each.is_forgotten and each.stop > at:
            shown += f"{words[at : each.start]}{FORGOTTEN}"  # nothing where they overlap
            at = each.stop
    return shown + words[at:]


def _name(entry: Entry) -> str:
    return "assistant" if entry.is_models or entry.source == MODEL else entry.source


def show_day(seconds: float) -> str:
    """The date of a time in seconds since 1970, in UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()
