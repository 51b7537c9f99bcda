"""The command that measures what notes save."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from slowwave.commands.arguments import parse, require_folder
from slowwave.console import PlainConsole
from slowwave.memory.notes_config import NotesConfig, read_notes_file
from slowwave.status_line import StatusLine
from slowwave.storage.json_files import write_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordsOptions:
    """Ask questions about word problems, with notes that were written before they came and without;
    by a scripted solver that never errs, or by a model at an endpoint."""

    endpoint: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """TOML file with a section [endpoint] (docs/notes.md); the scripted solver if not given."""
    foresees: tuple[Literal["stated", "derived", "total"], ...] = ("stated", "derived", "total")
    """Quantities that the scripted solver notes down."""
    problems: int = 16
    """Texts."""
    questions: tuple[int, ...] = (1, 2, 3, 5, 10)
    """Asked about each text."""
    budgets: tuple[int, ...] = (4, 16, 32, 64, 128)
    """Tokens of an answer, at most."""
    out: Path | None = None
    """Folder for words.json and words.png; nothing is written if not given."""
    json: bool = False
    """Print one JSON document on stdout, and nothing else."""

    def __post_init__(self) -> None:
        for name in ("questions", "budgets"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise ValueError(f"--{name} is {values}; give one or more, each 1 or more")
        if max(self.questions) > 20:
            raise ValueError(f"--questions has {max(self.questions)}; use 20 at most")
        if self.problems < 1:
            raise ValueError(f"--problems is {self.problems}; use 1 or more")


def bench_words(arguments: list[str]) -> None:
    """slowwave bench words [--endpoint notes.toml] [--out DIR]"""
    options = parse(WordsOptions, arguments, prog="slowwave bench words")
    require_folder("--out", options.out)
    settings = None if options.endpoint is None else read_notes_file(options.endpoint)
    rows: list[dict[str, Any]] = []
    with StatusLine() as status:
        status.show("drawing problems")
        from slowwave.lab.words.report import draw_words, make_table
        from slowwave.lab.words.run import draw_problems, run_words
        from slowwave.lab.words.solver import ScriptedSolver
        from slowwave.memory.endpoint import Endpoint
        from slowwave.memory.notes import Completes
        from slowwave.storage.environment import describe_environment

        def make(most_tokens: int | None) -> Completes:
            if settings is None:
                return ScriptedSolver(options.foresees, most_tokens)
            most = most_tokens or settings.endpoint.max_tokens
            return Endpoint(dataclasses.replace(settings.endpoint, max_tokens=most))

        rows += run_words(
            make,
            draw_problems(options.problems, max(options.questions)),
            counts=options.questions,
            budgets=options.budgets,
            notes=NotesConfig() if settings is None else settings.notes,
            say=status.show,
        )
    record = {
        "solver": "scripted" if settings is None else settings.endpoint.model,
        "options": json.loads(json.dumps(dataclasses.asdict(options), default=str)),
        "rows": rows,
        "environment": describe_environment(seed=0),
    }
    if options.out is not None:
        write_json(options.out / "words.json", record)
        draw_words(rows, options.out, f"Notes before questions: {record['solver']}")
    if options.json:
        print(json.dumps(record))
    else:
        PlainConsole().print(make_table(rows))
