"""GSM-Infinite: read an arithmetic word problem among distractors, answer with a bare number.

Section 4.3 of the paper: a generator of our own of the kind of problem that the public one makes
(Infini-AI-Lab/gsm_infinite). `problem` has what sentences mean, `grammar` how they are written. A
stream is the context, padded on the left, and then the slots that predict the digits of the answer;
a question that comes last stands between the two, padded on the left as well. Padding is made of
ordinary tokens, which no mask hides.

Distractors are statements that nothing needs, added to make a problem longer. surface: as in the
public generator. They never state a number, their places are never those of the core and their
items come from lists of their own, so that a reader who never calculates can leave them out.
blended: about places and items of the core's own lists, the core's own among them, and each in the
form of a statement that is needed; only following the question tells them apart.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from slowwave.sleep.objective import NONE, Batch, Labelled
from slowwave.tasks.base import Example, Lines, Task
from slowwave.tasks.draws import Integers, RandomStream, Words, check_rows, row_seeds
from slowwave.tasks.gsm_infinite import (
    NUM_CORE_NAMES,
    NUM_OTHER_ITEMS,
    NUM_OTHER_PLACES,
    GsmInfiniteConfig,
)
from slowwave.tasks.gsm_infinite.core import (
    Core,
    Operands,
    draw_core,
    draw_expression,
    stated_kinds,
    totals_of,
)
from slowwave.tasks.gsm_infinite.grammar import (
    ANSWER_DIGITS,
    ANSWER_SLOT,
    PADDING,
    answer_digits,
    check_lengths,
    make_grammar,
    most_question_tokens,
    named_alike,
    question_phrases,
    statement_phrases,
    to_text,
)
from slowwave.tasks.gsm_infinite.names import THEMES, draw_names
from slowwave.tasks.gsm_infinite.problem import NO_ITEM, Kind, Problem, Quantity, Statement

_FLOOR_EXAMPLES = 4096


class GsmInfinite(Task[GsmInfiniteConfig]):
    """Each answer is a whole example: all of its digits must be right. Groups are the numbers of
    operations. Raises ValueError if problems cannot have the lengths of the config."""

    config_class = GsmInfiniteConfig
    group_name = "op"

    def __init__(self, config: GsmInfiniteConfig) -> None:
        super().__init__(config)
        self.grammar = make_grammar(config)
        check_lengths(config, self.grammar)
        self.vocab_size = len(self.grammar.vocabulary)
        self.context_tokens = config.context_tokens
        self._question_tokens = 0
        if config.question == "last":
            self._question_tokens = most_question_tokens(config, self.grammar)
        self.prediction_tokens = self._question_tokens + ANSWER_DIGITS
        self.groups = {count: str(count) for count in range(config.ops[0], config.ops[1] + 1)}

    def batch(self, split: str, indices: npt.ArrayLike) -> Batch:
        """Stream (B, context_tokens + prediction_tokens), no forked questions; see `Task.batch`."""
        drawn = self._draw(split, indices)
        digits = [answer_digits(draw.core.answer) for draw, _ in drawn]
        inputs = np.array(
            [
                [*self._read(problem), ANSWER_SLOT, *row[:-1]]
                for (_, problem), row in zip(drawn, digits, strict=True)
            ]
        )
        targets = np.zeros_like(inputs)
        targets[:, -ANSWER_DIGITS:] = digits
        answers = np.full_like(inputs, NONE)
        answers[:, -ANSWER_DIGITS:] = 0
        operations = np.array([draw.operations for draw, _ in drawn])
        groups = np.broadcast_to(operations[:, None], inputs.shape)
        return Batch(Labelled.from_arrays(inputs, targets, answers, groups), None)

    def draw_problem(self, split: str, index: int) -> Problem:
        """The problem that an example is of, with all that it states."""
        ((_, problem),) = self._draw(split, [index])
        return problem

    def describe(self, split: str, index: int) -> tuple[Lines, Lines, Lines]:
        ((draw, problem),) = self._draw(split, [index])
        statements = (to_text(statement_phrases(problem, s)) for s in problem.statements)
        return statements, (to_text(question_phrases(problem)),), (str(draw.core.answer),)

    def render(self, example: Example) -> str:
        ((draw, _),) = self._draw(example.split, [example.index])
        mode = "reverse" if draw.core.is_reverse else "forward"
        title = (
            f"gsm_infinite {example.split} {example.index}: {draw.operations} operations, {mode}"
        )
        lines = [*example.context]
        lines.insert(0 if self.config.question == "first" else len(lines), *example.questions)
        return "\n  ".join([title, *lines, f"answer: {example.answers[0]}"])

    def floors(self) -> dict[str, float]:
        """What constant answers score on 4,096 test examples; see `constant_floors`."""
        return dict(_test_floors(self.config))

    def _draw(self, split: str, indices: npt.ArrayLike) -> list[tuple[Draw, Problem]]:
        """Problems with names that make each of them belong to the split."""
        config, rows = self.config, check_rows(split, indices)
        draws = [self._shorten(draw) for draw in draw_cores(config, split, rows)]
        names = draw_names(
            split,
            row_seeds(rows, config, split, "names"),
            [draw.theme for draw in draws],
            [draw.core for draw in draws],
        )
        seeds = row_seeds(rows, config, split, "distractors").tolist()
        return [
            (draw, self._complete(RandomStream(seed), draw, chosen))
            for draw, chosen, seed in zip(draws, names, seeds, strict=True)
        ]

    def _shorten(self, draw: Draw) -> Draw:
        """Leaves out as many unneeded statements as do not fit, whatever the names will be."""
        core = draw.core
        widest = named_alike(draw.theme, max, core.question)
        left = self.config.length[1] - self._count_tokens(widest, core.needed)
        kept: list[Statement] = []
        for statement in core.unneeded:
            left -= len(self.grammar.statement(widest, statement))
            if left < 0:
                break
            kept.append(statement)
        return dataclasses.replace(draw, core=dataclasses.replace(core, unneeded=tuple(kept)))

    def _complete(self, stream: RandomStream, draw: Draw, names: Integers) -> Problem:
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
        statements = [*problem.statements, *self._draw_distractors(stream, core, problem)]
        stream.shuffle(statements)
        return dataclasses.replace(problem, statements=tuple(statements))

    def _draw_distractors(
        self, stream: RandomStream, core: Core, problem: Problem
    ) -> Iterator[Statement]:
        """As many as it takes to reach a target length, if they fit into the greatest."""
        if self.config.distractors == "none":
            return
        draw = draw_surface if self.config.distractors == "surface" else draw_blended
        distractors = draw(stream, stated_kinds(self.config), core)
        fewest, most = self.config.length
        target = fewest + stream.below(most - fewest + 1)
        length = self._count_tokens(problem, problem.statements)
        while length < target:
            statement = next(distractors)
            length += len(self.grammar.statement(problem, statement))
            if length > most:
                return
            yield statement

    def _count_tokens(self, problem: Problem, statements: Iterable[Statement]) -> int:
        """Of the question and the statements."""
        lengths = (len(self.grammar.statement(problem, statement)) for statement in statements)
        return len(self.grammar.question(problem)) + sum(lengths)

    def _read(self, problem: Problem) -> list[int]:
        """What is read before the answer slots."""
        written = (self.grammar.statement(problem, statement) for statement in problem.statements)
        statements = [*itertools.chain.from_iterable(written)]
        question = self.grammar.question(problem)
        if self.config.question == "first":
            return _pad_left([*question, *statements], self.context_tokens)
        return [
            *_pad_left(statements, self.context_tokens),
            *_pad_left(question, self._question_tokens),
        ]


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


def draw_surface(stream: RandomStream, kinds: tuple[Kind, ...], core: Core) -> Iterator[Statement]:
    """Statements about three or four other places, and about more once these are used up.

    Each refers to two quantities of the core, or to one, now and then with the total of another
    distractor place.
    """
    quantities = _quantities(core, kinds)
    places = list(range(NUM_CORE_NAMES, NUM_CORE_NAMES + NUM_OTHER_PLACES))
    items = range(NUM_CORE_NAMES, NUM_CORE_NAMES + NUM_OTHER_ITEMS)
    stream.shuffle(places)
    in_use: list[int] = []
    while len(in_use) < len(places):
        group = places[len(in_use) :][: 1 if in_use else 3 + stream.below(2)]
        in_use += group
        about = [
            Quantity(kind, *pair) for pair in itertools.product(group, items) for kind in kinds
        ]
        stream.shuffle(about)
        for quantity in about:
            references = [stream.choose(quantities)]
            if stream.is_heads():
                references.append(stream.choose(quantities))
            elif stream.below(8) == 0:
                elsewhere = [place for place in in_use if place != quantity.place]
                references.append(Quantity(Kind.TOTAL, stream.choose(elsewhere), NO_ITEM))
            operands = Operands(has_number=False, references=tuple(references))
            yield Statement(quantity, draw_expression(stream, operands))


def draw_blended(stream: RandomStream, kinds: tuple[Kind, ...], core: Core) -> Iterator[Statement]:
    """Statements about the core's own places and items, joined by more of the same lists whenever
    half of all pairs is in use, so that the core's are as crowded as the others.

    A place whose total is needed takes no more items.
    """
    quantities = _quantities(core, kinds)
    forms = [_form(statement) for statement in core.needed[: -1 if core.is_reverse else None]]
    in_use = {(q.place, q.item) for q in quantities if q.item != NO_ITEM}
    places = sorted({place for place, _ in in_use} - core.closed_places)
    items = sorted({item for _, item in in_use})
    more_places = [p for p in range(NUM_CORE_NAMES) if p not in {place for place, _ in in_use}]
    more_items = [item for item in range(NUM_CORE_NAMES) if item not in items]
    free = [pair for pair in itertools.product(places, items) if pair not in in_use]
    while True:
        while 2 * len(free) <= len(places) * len(items) and (more_places or more_items):
            if more_places and (len(places) <= len(items) or not more_items):
                place = more_places.pop(stream.below(len(more_places)))
                places.append(place)
                free += [(place, item) for item in items]
                quantities += totals_of(place, kinds)
            else:
                item = more_items.pop(stream.below(len(more_items)))
                items.append(item)
                free += [(place, item) for place in places]
        if not free:
            return
        pair = free.pop(stream.below(len(free)))
        for kind in kinds:
            form = stream.choose(forms)
            references = tuple(stream.choose(quantities) for _ in form.references)
            yield Statement(
                Quantity(kind, *pair),
                draw_expression(stream, Operands(form.has_number, references)),
            )
        quantities += [Quantity(kind, *pair) for kind in kinds]


def _quantities(core: Core, kinds: tuple[Kind, ...]) -> list[Quantity]:
    """All that distractors may refer to: what is stated, and the totals."""
    statements = (*core.needed, *core.unneeded)
    stated = list(dict.fromkeys(s.quantity for s in statements if not s.quantity.kind.parts))
    places = sorted({quantity.place for quantity in stated})
    return [*stated, *(total for place in places for total in totals_of(place, kinds))]


def _form(statement: Statement) -> Operands:
    """The operands of a statement; the unknown counts as what it is in a forward problem."""
    expression = statement.expression
    if expression is None:
        return Operands(has_number=True, references=())
    return Operands(expression.number is not None, expression.references)


class Outcome(NamedTuple):
    """What floors depend on."""

    operations: int
    is_reverse: bool
    answer: int


def constant_floors(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """The share of the most frequent answer: of all problems ("constant"), of those of each number
    of operations ("op 4") and, if both modes occur, of these in each mode ("op 4 reverse")."""
    outcomes = list(outcomes)
    floors = {"constant": _best_share(outcomes)}
    is_mixed = len({outcome.is_reverse for outcome in outcomes}) > 1
    for operations in sorted({outcome.operations for outcome in outcomes}):
        of_op = [outcome for outcome in outcomes if outcome.operations == operations]
        floors[f"op {operations}"] = _best_share(of_op)
        for mode in ("forward", "reverse") if is_mixed else ():
            of_mode = [outcome for outcome in of_op if outcome.is_reverse == (mode == "reverse")]
            if of_mode:
                floors[f"op {operations} {mode}"] = _best_share(of_mode)
    return floors


def _best_share(outcomes: list[Outcome]) -> float:
    ((_, count),) = Counter(outcome.answer for outcome in outcomes).most_common(1)
    return count / len(outcomes)


def _pad_left(tokens: list[int], length: int) -> list[int]:
    assert len(tokens) <= length, f"{len(tokens)} tokens where {length} are the most"
    return [PADDING] * (length - len(tokens)) + tokens


@functools.lru_cache
def _test_floors(config: GsmInfiniteConfig) -> dict[str, float]:
    indices = np.arange(_FLOOR_EXAMPLES, dtype=np.uint64)
    return constant_floors(
        Outcome(draw.operations, draw.core.is_reverse, draw.core.answer)
        for draw in draw_cores(config, "test", indices)
    )
