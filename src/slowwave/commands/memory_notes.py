"""Commands for what a memory has in words: notes, and episodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from slowwave.commands.arguments import parse, require_text
from slowwave.commands.memory import MemoryOptions, Name
from slowwave.commands.printing import (
    count,
    make_table,
    print_json,
    print_parts,
    printable,
    shorten,
    show_time,
    to_json,
)
from slowwave.memory.notes import Receipt
from slowwave.memory.notes_config import read_notes_file
from slowwave.status_line import StatusLine

if TYPE_CHECKING:
    from rich.table import Table

    from slowwave.memory.catalogue_notes import Version
    from slowwave.memory.episodes import Episode, ReadingReceipt
    from slowwave.memory.notebook import Written

SOURCE_LENGTH = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class NotesOptions(MemoryOptions):
    """Show the notes that were written in words about a session, or have them written now.

    docs/notes.md describes the file of settings. Another process may have the session open.
    """

    name: Name
    sleep: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Let the endpoint that this TOML file names read what is new, and rewrite the notes."""
    versions: bool = False
    """Show every sleep in words, and what it wrote."""


def notes(arguments: list[str]) -> None:
    """slowwave memory notes NAME [--sleep FILE] [--versions] [--json]"""
    options = parse(NotesOptions, arguments, prog="slowwave memory notes")
    settings = None if options.sleep is None else read_notes_file(options.sleep)
    written: Written | None = None
    with options.open_store() as store:
        book = store.notebook(options.name)
        if settings is not None:
            from slowwave.memory.endpoint import Endpoint

            with StatusLine() as status:
                status.show(f"asking {settings.endpoint.url}")
                endpoint = Endpoint(settings.endpoint)
                written = book.sleep(
                    endpoint, settings.notes, on_receipt=lambda each: status.show(_describe(each))
                )
        block, versions, num_waiting = book.block(), book.versions(), book.num_waiting()
    if options.json:
        told = {"notes": block, "num_waiting": num_waiting, "versions": versions}
        slept = written and {**written._asdict(), "outcome": written.outcome, "why": written.why}
        print_json({"session": options.name, **told, "sleep": slept})
        return
    if written is not None:
        lines = [_describe(each) for each in (*written.readings, *written.notes)]
        print_parts(*map(printable, lines), "")
    if options.versions:
        for version in versions:
            print_parts(*map(printable, _show_version(version)), "")
    print_parts(printable(block) or "no notes yet")
    if num_waiting:
        print_parts(f"\nnot yet slept on: {num_waiting:,} of what was said")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodesOptions(MemoryOptions):
    """List what a session was told as dated statements, correct one, or forget one.

    What is forgotten here stays in the ledger, but is neither listed nor read again; slowwave
    memory forget takes it out of the ledger as well.
    """

    name: Name
    kind: Literal["fact", "preference", "task", "assumption"] | None = None
    """Only those of this kind."""
    find: str = ""
    """Only those with this in the statement or the source, in upper or lower case."""
    all: bool = False
    """Those too that a newer one contradicts or corrects."""
    correct: Annotated[int | None, tyro.conf.arg(metavar="ID")] = None
    """Put the statement --to in the place of this one's, which is kept, and no longer in force."""
    to: str | None = None
    """The statement that is right."""
    forget: Annotated[int | None, tyro.conf.arg(metavar="ID")] = None
    """Forget this one."""
    yes: bool = False
    """Do not ask before something is forgotten."""

    def __post_init__(self) -> None:
        if (self.correct is None) != (self.to is None):
            raise ValueError("--correct ID and --to STATEMENT belong together; give both")
        if self.correct is not None and self.forget is not None:
            raise ValueError("--correct and --forget are two things; do one after the other")


def episodes(arguments: list[str]) -> None:
    """slowwave memory episodes NAME [--kind KIND] [--find TEXT] [--correct ID --to TEXT]"""
    options = parse(EpisodesOptions, arguments, prog="slowwave memory episodes")
    with options.open_store() as store:
        book = store.notebook(options.name)
        if options.correct is not None and options.to is not None:
            made = book.correct(options.correct, require_text(options.to, "--to"))
            line = f"episode {made.id} is in force in place of {options.correct}"
            options.tell({"session": options.name, "episode": to_json(made)}, line)
            return
        if options.forget is not None:
            options.confirm("Forget it, and the notes that may hold it?", yes=options.yes)
            book.forget(options.forget)
            told = {"session": options.name, "forgotten": options.forget}
            options.tell(told, f"episode {options.forget} is forgotten")
            return
        found = book.episodes(
            kind=options.kind, containing=require_text(options.find, "--find"), all_=options.all
        )
    if options.json:
        print_json({"session": options.name, "episodes": found})
    elif found:
        print_parts(_make_table(found))
    else:
        print_parts("no episodes")


def _make_table(found: Sequence[Episode]) -> Table:
    lines = [
        (
            str(each.id),
            show_time(each.time),
            shorten(each.source, SOURCE_LENGTH),
            str(each.place),
            each.kind,
            f"{each.confidence:.2f}",
            each.statement,
            _describe_links(each),
        )
        for each in found
    ]
    columns = ("id", "told", "source", "place", "kind", "sure", "statement", "against")
    return make_table(
        columns, lines, right=("id", "place", "sure"), wrapped=("statement", "against")
    )


def _describe_links(each: Episode) -> str:
    links = [f"contradicts {id_}" for id_ in each.contradicts]
    links += [f"corrects {id_}" for id_ in each.corrects]
    return ", ".join([*links, *([] if each.in_force else ["not in force"])])


def _describe(receipt: Receipt | ReadingReceipt) -> str:
    """A receipt in one line."""
    cost = f"{count(receipt.calls, 'call')}, {receipt.tokens_in:,} tokens in"
    cost += f", {receipt.tokens_out:,} out, {receipt.seconds:.1f} s"
    if isinstance(receipt, Receipt):
        size = f"{receipt.characters_before:,} to {receipt.characters_after:,} characters"
        line = f"notes {receipt.outcome}: {size}, {cost}"
    else:
        left = receipt.num_nonsense + receipt.num_unfounded
        line = f"message {'read' if receipt.is_read else 'not read'}: "
        line += f"{count(receipt.num_found, 'episode')}, {count(left, 'line')} dropped, {cost}"
    return f"{line}; {receipt.why}" if receipt.why else line


def _show_version(version: Version) -> list[str]:
    head = f"{show_time(version.time)}, up to place {version.place}: {_describe(version.receipt)}"
    return [head] if version.block is None else [head, version.block]
