"""Draws whole problems: core, names, distractors and the order of the statements."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from slowwave.tasks.config import GsmInfiniteConfig
from slowwave.tasks.gsm_infinite_core import Core, draw_core
from slowwave.tasks.gsm_infinite_distractors import draw_blended, draw_surface
from slowwave.tasks.gsm_infinite_grammar import Grammar
from slowwave.tasks.gsm_infinite_lengths import named_alike
from slowwave.tasks.gsm_infinite_names import NUM_CORE_NAMES, THEMES
from slowwave.tasks.gsm_infinite_naming import draw_names
from slowwave.tasks.gsm_infinite_problem import Problem, Statement
from slowwave.tasks.random_bits import Integers, Words
from slowwave.tasks.random_stream import RandomStream
from slowwave.tasks.splits import row_seeds


@dataclasses.dataclass(frozen=True, slots=True)
class Draw:
    """What is known of a problem before it has names. theme: a key of THEMES."""

    theme: str
    operations: int
    core: Core


def draw_cores(config: GsmInfiniteConfig, split: str, indices: Words) -> Iterator[Draw]:
    """The cores of the examples `indices` (B,), one by one; the same whatever is around them."""
    fewest, most = config.ops
    for seed in row_seeds(indices, config, split, "core").tolist():
        stream = RandomStream(seed)
        theme = stream.choose(config.themes)
        operations = fewest + stream.below(most - fewest + 1)
        heads = stream.is_heads()
        is_reverse = heads if config.mode == "mixed" else config.mode == "reverse"
        core = draw_core(stream, config, operations, is_reverse=is_reverse)
        yield Draw(theme, operations, core)


def draw_problems(
    config: GsmInfiniteConfig, grammar: Grammar, split: str, indices: Words
) -> list[tuple[Draw, Problem]]:
    """The examples `indices` (B,), with names that make each of them belong to the split."""
    draws = [_shorten(draw, config, grammar) for draw in draw_cores(config, split, indices)]
    names = draw_names(
        split,
        row_seeds(indices, config, split, "names"),
        [draw.theme for draw in draws],
        [draw.core for draw in draws],
    )
    seeds = row_seeds(indices, config, split, "distractors").tolist()
    return [
        (draw, _complete(RandomStream(seed), config, grammar, draw, chosen))
        for draw, chosen, seed in zip(draws, names, seeds, strict=True)
    ]


def _shorten(draw: Draw, config: GsmInfiniteConfig, grammar: Grammar) -> Draw:
    """Leaves out as many unneeded statements as do not fit, whatever the names will be."""
    core = draw.core
    widest = named_alike(draw.theme, max, core.question)
    left = config.length[1] - len(grammar.question(widest))
    left -= sum(len(grammar.statement(widest, statement)) for statement in core.needed)
    kept: list[Statement] = []
    for statement in core.unneeded:
        left -= len(grammar.statement(widest, statement))
        if left < 0:
            break
        kept.append(statement)
    return dataclasses.replace(draw, core=dataclasses.replace(core, unneeded=tuple(kept)))


def _complete(
    stream: RandomStream, config: GsmInfiniteConfig, grammar: Grammar, draw: Draw, names: Integers
) -> Problem:
    """Names, distractors and a random order."""
    core, theme = draw.core, THEMES[draw.theme]
    chosen_places, chosen_items = names.tolist()
    problem = Problem(
        draw.theme,
        (*(theme.places[name] for name in chosen_places), *theme.places[NUM_CORE_NAMES:]),
        (*(theme.items[name] for name in chosen_items), *theme.items[NUM_CORE_NAMES:]),
        (*core.needed, *core.unneeded),
        core.question,
    )
    distractors = _draw_distractors(stream, config, grammar, core, problem)
    statements = [*problem.statements, *distractors]
    stream.shuffle(statements)
    return dataclasses.replace(problem, statements=tuple(statements))


def _draw_distractors(
    stream: RandomStream, config: GsmInfiniteConfig, grammar: Grammar, core: Core, problem: Problem
) -> Iterator[Statement]:
    """As many as it takes to reach a target length, if they fit into the greatest."""
    if config.distractors == "none":
        return
    fewest, most = config.length
    target = fewest + stream.below(most - fewest + 1)
    length = len(grammar.question(problem))
    length += sum(len(grammar.statement(problem, statement)) for statement in problem.statements)
    if config.distractors == "surface":
        distractors = draw_surface(stream, config, core)
    else:
        distractors = draw_blended(stream, config, core)
    while length < target:
        statement = next(distractors)
        length += len(grammar.statement(problem, statement))
        if length > most:
            return
        yield statement
