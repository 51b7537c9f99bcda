"""What a sleep would keep: the same questions before it and after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from slowwave.commands.arguments import parse, require_text
from slowwave.commands.memory_options import MemoryOptions, load_model
from slowwave.commands.printing import print_json
from slowwave.config import Config, read_toml
from slowwave.memory.config import Question
from slowwave.sleep.config import MOST_PASSES
from slowwave.status_line import StatusLine


@dataclasses.dataclass(frozen=True, kw_only=True)
class Questions(Config):
    """A file of questions."""

    questions: tuple[Question, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeOptions(MemoryOptions):
    """Ask questions of a point as it is, and of what sleeping on its window makes of it.

    Everything happens on copies: the memory stays as it is, and another process may have it open.
    """

    point: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="POINT")]
    """NAME, or NAME@SNAPSHOT."""
    model: Annotated[Path, tyro.conf.arg(metavar="MODEL")]
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
    from slowwave.commands.memory_tables import print_probe
    from slowwave.memory.questions import probe_point

    with options.open_store() as store, StatusLine() as status:
        store.entries(options.point)  # says what is wrong with the name before the model is loaded
        asked = probe_point(
            store,
            options.point,
            load_model(options.model),
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


RUN = {"probe": probe}
