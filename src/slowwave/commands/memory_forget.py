"""Forgetting: the session becomes one that was never given what goes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from slowwave.commands.arguments import parse
from slowwave.commands.memory_options import MemoryOptions, load_model
from slowwave.commands.printing import print_json
from slowwave.status_line import StatusLine


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForgetOptions(MemoryOptions):
    """Forget all from some sources, or some entries, and replay the rest of the ledger.

    What the model said after the first of it may carry it, so it goes too, but for --keep: replies,
    and lines that a client sent as the model's. Shows what goes, then asks. slowwave memory show
    NAME has places and sources.
    """

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Name of the session."""
    model: Annotated[Path, tyro.conf.arg(metavar="MODEL")]
    """Folder of its model, which reads the rest again."""
    source: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Forget all that is from these."""
    place: Annotated[tuple[int, ...], tyro.conf.arg(metavar="PLACE ...")] = ()
    """Forget the entries at these places of the ledger."""
    keep: Annotated[tuple[int, ...], tyro.conf.arg(metavar="PLACE ...")] = ()
    """Places of what the model said to keep, though it came after what goes."""
    yes: bool = False
    """Do not ask."""
    dry_run: bool = False
    """Only show what would go."""


def forget(arguments: list[str]) -> None:
    """slowwave memory forget NAME --model MODEL [--source S] [--place N] [--keep N] [--yes]"""
    options = parse(ForgetOptions, arguments, prog="slowwave memory forget")
    from slowwave.commands.forget_view import describe_traces, preview
    from slowwave.commands.memory_tables import print_preview

    with options.open_store() as store:
        store.info(options.name)  # says what is wrong with the name before the model is loaded
        talker = load_model(options.model)
        with store.open(options.name, talker) as session:
            forgetting = session.preview_forgetting(
                sources=options.source, places=options.place, keep=options.keep
            )
            shown = preview(forgetting, store.provenance(options.name))
            if not options.json:
                print_preview(shown)
            if not options.dry_run:
                options.confirm("Forget it?", yes=options.yes)
                with StatusLine() as status:
                    session.forget(forgetting, on_read=status.count_read)
        info, is_wiped = store.info(options.name), store.is_wiped()
    if options.json:
        left = {"num_entries": info.num_entries, "tokens_seen": info.tokens_seen}
        done = {"done": not options.dry_run, "wiped": is_wiped}
        print_json({**done, "preview": shown, "session": info.name, **left})
    elif not options.dry_run:
        print(f"forgotten{describe_traces(is_wiped)}")


RUN = {"forget": forget}
