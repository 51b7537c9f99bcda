"""The command that compares what memories keep of a model's context."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from slowwave.commands.arguments import parse, require_folder, split_setting
from slowwave.console import PlainConsole
from slowwave.lab.keep.texts import Test
from slowwave.sleep.config import Replayed
from slowwave.status_line import StatusLine
from slowwave.storage.json_files import write_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeepOptions:
    """Compare what memories keep of a model's context, beside full context, an empty memory,
    another's memory, and the newest tokens at equal bytes."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """A folder, a .gguf file, a name on the hub, or smollm2."""
    tests: tuple[Test, ...] = ("facts", "strangers", "continuation")
    """facts: dense facts of a text; strangers: ten people who tell, correct and ask; continuation:
    how a text goes on."""
    memories: tuple[str, ...] = ("compact", "kvzip", "h2o", "streaming")
    """Consolidators, names that stand for settings of compact, or lora: strangers' windows are
    evicted, and what they said is learned as a low-rank delta."""
    ratios: tuple[float, ...] = (8.0, 16.0, 32.0)
    """One in so many keys and values of a window stays."""
    passes: tuple[int, ...] = (2,)
    """N, all passes counted."""
    capacity: float | None = None
    """Room of all memory together, in windows; the consolidator's own if not given."""
    set: tuple[str, ...] = ()
    """Settings of all consolidators, such as fits=true."""
    window: int = 400
    """Tokens of a window; facts are read as one."""
    windows: tuple[int, ...] = (4, 8)
    """Windows that were slept on when a stranger asks, or a text goes on."""
    people: tuple[int, ...] = tuple(range(10))
    """Strangers, from 0 to 9."""
    texts: int = 6
    """Texts of twelve facts."""
    text: tuple[Path, ...] = ()
    """Files for continuation; Python's reference manual, which comes with Python, if not given."""
    places: int = 4
    """Where in the text a continuation begins, evenly."""
    replay: Replayed = "critic"
    """What of a stranger's window is read again."""
    form: Literal["auto", "template", "plain"] = "auto"
    """How a chat is written: by the model's template, or as a plain transcript."""
    replies: bool = False
    """Keep what was replied to each question, too."""
    out: Path | None = None
    """Folder for keep.json and keep.png; nothing is written if not given."""
    json: bool = False
    """Print one JSON document on stdout, and nothing else."""

    def __post_init__(self) -> None:
        for name in ("tests", "memories", "ratios", "passes", "windows", "people"):
            if not getattr(self, name):
                raise ValueError(f"--{name} is empty; give one or more")
        for name in ("window", "texts", "places"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} is {getattr(self, name)}; use 1 or more")
        if min(self.windows) < 1:
            raise ValueError(f"--windows has {min(self.windows)}; use 1 or more")
        if min(self.ratios) < 1:
            raise ValueError(f"--ratios has {min(self.ratios):g}; use 1 (all) or more")
        if wrong := [each for each in self.people if not 0 <= each < 10]:
            raise ValueError(f"--people has {wrong[0]}; use 0 to 9")


def bench_keep(arguments: list[str]) -> None:
    """slowwave bench keep MODEL [--memories compact kvzip] [--ratios 8 16] [--out DIR]"""
    options = parse(KeepOptions, arguments, prog="slowwave bench keep")
    require_folder("--out", options.out)
    rows: list[dict[str, Any]] = []
    with StatusLine() as status:
        status.show(f"loading {options.model}")
        from slowwave.lab.keep.memories import list_memories
        from slowwave.lab.keep.report import draw_keep, list_tables
        from slowwave.lab.keep.run import KeepTest, read_document, run_keep
        from slowwave.memory.talker import load
        from slowwave.storage.environment import describe_environment

        talker = load(options.model, form=options.form, say=status.say)
        if talker.chat is None and "strangers" in options.tests:
            raise ValueError(f"{options.model} has no chat; leave strangers out of --tests")
        memories = list_memories(
            talker,
            options.memories,
            ratios=options.ratios,
            passes=options.passes,
            capacity=options.capacity,
            changes=dict(map(split_setting, options.set)),
        )
        if "strangers" not in options.tests and all(each.dreams for each in memories):
            raise ValueError("lora learns what strangers told; add strangers to --tests")
        document = read_document(options.text) if "continuation" in options.tests else ""
        names = ("texts", "people", "windows", "window", "replay", "places")
        given = {name: getattr(options, name) for name in names}
        test = KeepTest(document=document, **given)
        record = {
            "model": options.model,
            "options": json.loads(json.dumps(dataclasses.asdict(options), default=str)),
            "rows": rows,
            "environment": describe_environment(seed=0),
        }
        for row in run_keep(talker, options.tests, memories, test, status.show):
            rows.append(row if options.replies else _without_replies(row))
            if not options.json:
                status.say(json.dumps(_without_replies(row)))
            if options.out is not None:  # after each, for the run may be interrupted
                write_json(options.out / "keep.json", record)
    if options.out is not None:
        draw_keep(rows, options.out, f"What memories keep: {Path(options.model).name}")
    if options.json:
        print(json.dumps(record))
        return
    console = PlainConsole()
    for table in list_tables(rows):
        console.print(table)


def _without_replies(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "replies"}
