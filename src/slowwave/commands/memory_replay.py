"""Commands that read with the model: forget, rebuild and resleep replay a ledger, dream learns from
it, probe asks."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from slowwave.commands.arguments import parse, require_text
from slowwave.commands.ledger_view import describe_traces, preview, show_preview
from slowwave.commands.memory import MemoryOptions, Model, Name, NewName, Point, load_model
from slowwave.commands.memory_tables import print_probe
from slowwave.commands.printing import describe_sleep, print_json, print_parts
from slowwave.config import Config, read_toml
from slowwave.memory.config import DreamConfig, Question, read_dream, read_gate
from slowwave.memory.names import check_name
from slowwave.sleep.config import MOST_PASSES
from slowwave.status_line import StatusLine

if TYPE_CHECKING:
    from slowwave.memory.sleep_report import SleepReport
    from slowwave.memory.store import Store
    from slowwave.memory.stored_session import StoredSession
    from slowwave.memory.text_session import TextSession
    from slowwave.memory.turn import Steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForgetOptions(MemoryOptions):
    """Forget all from some sources, or some entries, and replay the rest of the ledger.

    What the model said after the first of it may carry it, so it goes too, but for --keep: replies,
    and lines that a client sent as the model's. Shows what goes, then asks. slowwave memory show
    NAME has places and sources.
    """

    name: Name
    model: Model | None = None
    """Folder of its model, which reads the rest again; not needed if that runs elsewhere."""
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
    with options.open_store() as store:
        with _open(store, options) as session:
            forgetting = session.preview_forgetting(
                sources=options.source, places=options.place, keep=options.keep
            )
            shown = preview(forgetting, store.provenance(options.name))
            if not options.json:
                print_parts(*show_preview(shown))
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


def _open(store: Store, options: ForgetOptions) -> StoredSession | TextSession:
    """The session, with its model if that is one of this machine."""
    from slowwave.memory.owner import ELSEWHERE

    # What is wrong with the name is said before the model is loaded.
    if store.info(options.name).model == ELSEWHERE:
        return store.open_text(options.name)
    if options.model is None:
        raise ValueError("--model is missing; name the folder of the model that read the session")
    return store.open(options.name, load_model(options.model))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DreamOptions(MemoryOptions):
    """Learn what a session was told, as a low-rank delta of the weights of its own (docs/lora.md).

    A critic sifts what is replayed of the ledger, and a gate takes the delta whole or not at all.
    """

    name: Name
    model: Model
    """Folder of its model, which learns."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """TOML file of settings, such as rank and steps."""
    seconds: float | None = None
    """Time for training; that of the file if not given, else no limit."""
    by_model: bool = False
    """Let the model ask questions of its own too."""


def dream(arguments: list[str]) -> None:
    """slowwave memory dream NAME --model MODEL [--config FILE] [--seconds S] [--by-model]"""
    options = parse(DreamOptions, arguments, prog="slowwave memory dream")
    config = DreamConfig() if options.config is None else read_dream(options.config)
    if options.seconds is not None:
        config = dataclasses.replace(config, seconds=options.seconds)
    config = dataclasses.replace(config, by_model=options.by_model or config.by_model)
    with options.open_store() as store, StatusLine() as status:
        store.info(options.name)
        talker = load_model(options.model)
        with store.open(options.name, talker) as session:
            report = _show_steps(session.dream_by_step(config), status)
    options.tell({"session": options.name, "report": report}, describe_sleep(report))


def _show_steps(steps: Steps[SleepReport], status: StatusLine) -> SleepReport:
    """Takes all steps, and counts them."""
    number = 0
    with contextlib.closing(steps):
        while True:
            try:
                next(steps)
            except StopIteration as done:
                return done.value
            number += 1
            status.show(f"dreaming, step {number:,}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RebuildOptions(MemoryOptions):
    """Replay the ledger of a session wherever its state, or that of a snapshot, cannot be read."""

    name: Name
    model: Model
    """Folder of its model."""


def rebuild(arguments: list[str]) -> None:
    """slowwave memory rebuild NAME --model MODEL [--json]"""
    options = parse(RebuildOptions, arguments, prog="slowwave memory rebuild")
    with options.open_store() as store, StatusLine() as status:
        store.info(options.name)
        talker = load_model(options.model)
        rebuilt = store.rebuild(options.name, talker, on_read=status.count_read)
    line = f"rebuilt {', '.join(rebuilt)}" if rebuilt else "all states are sound"
    options.tell({"session": options.name, "rebuilt": rebuilt}, line)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResleepOptions(MemoryOptions):
    """Replay the ledger of a point with another model, into a new session."""

    point: Point
    name: NewName
    model: Model
    """Folder of the model that it is for."""
    gate: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """TOML file of what may reject the sleeps of the new session; that of the old one if not
    given."""


def resleep(arguments: list[str]) -> None:
    """slowwave memory resleep POINT NEW_NAME --model MODEL [--json]"""
    options = parse(ResleepOptions, arguments, prog="slowwave memory resleep")
    check_name("session", options.name)
    gate = None if options.gate is None else read_gate(options.gate)
    with options.open_store() as store, StatusLine() as status:
        store.entries(options.point)
        talker = load_model(options.model)
        info = store.resleep(
            options.point, options.name, talker, gate=gate, on_read=status.count_read
        )
    counts = {"tokens_seen": info.tokens_seen, "num_sleeps": info.num_sleeps}
    line = f"{info.name}: {info.tokens_seen:,} tokens, {info.num_sleeps:,} sleeps"
    options.tell({"session": info.name, **counts}, line)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Questions(Config):
    """A file of questions."""

    questions: tuple[Question, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeOptions(MemoryOptions):
    """Ask questions of a point as it is, and of what sleeping on its window makes of it.

    Everything happens on copies: the memory stays as it is, and another process may have it open.
    """

    point: Point
    model: Model
    """Folder of its model."""
    ask: Annotated[tuple[str, ...], tyro.conf.arg(metavar="QUESTION ...")] = ()
    """Questions."""
    questions: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """TOML file of more: [[questions]] with question, and perhaps the answer that is right."""
    passes: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")] = ()
    """Numbers of passes to sleep with; the model's own if not given."""
    max_new_tokens: int = 64
    """Tokens after which a reply ends at the latest."""


def probe(arguments: list[str]) -> None:
    """slowwave memory probe POINT --model MODEL --ask "Where is Ann?" [--passes 1 4] [--json]"""
    options = parse(ProbeOptions, arguments, prog="slowwave memory probe")
    questions = _gather(options)
    from slowwave.memory.questions import probe_state

    with options.open_store() as store, StatusLine() as status:
        store.entries(options.point)  # says what is wrong with the name before the model is loaded
        talker = load_model(options.model)
        asked = probe_state(
            talker,
            store.state(options.point, talker),
            _show_each(questions, status),
            passes=options.passes,
            max_new_tokens=options.max_new_tokens,
        )
    if options.json:
        print_json({"point": options.point, "asked": asked})
    else:
        print_probe(asked)


def _show_each(questions: Sequence[Question], status: StatusLine) -> Iterator[Question]:
    """The questions, shown as they are asked for."""
    for number, question in enumerate(questions):
        status.count("asking", number, len(questions), "questions")
        yield question


def _gather(options: ProbeOptions) -> list[Question]:
    unfit = [count for count in options.passes if not 1 <= count <= MOST_PASSES]
    if unfit:
        raise ValueError(f"--passes has {unfit[0]}; use 1 to {MOST_PASSES} for each")
    questions = [Question(question=require_text(text, "--ask")) for text in options.ask]
    if options.questions is not None:
        values = read_toml(options.questions)
        try:
            found = Questions.from_dict(values)
        except ValueError as error:
            raise ValueError(f"{options.questions}: {error}") from None
        questions += found.questions
    if not questions:
        raise ValueError("there is nothing to ask; give questions by --ask or --questions FILE")
    return questions
