"""`slowwave bench words`: questions answered with notes and without, and what both cost.

As in sleep-time compute (arXiv 2504.13171, section 5.3): tokens of an answer count ten times as
much as those of a sleep, for a user waits for them, and a sleep is shared by all questions about
its context.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from slowwave.memory.notes import Completes, rewrite
from slowwave.memory.notes_config import NotesConfig
from slowwave.tasks.gsm_infinite import GsmInfiniteConfig
from slowwave.tasks.gsm_infinite.stateful import (
    GUESSES,
    StatefulProblem,
    StatefulQuestion,
    draw_stateful,
)
from slowwave.tasks.gsm_infinite.task import GsmInfinite

Row = dict[str, Any]
Make = Callable[[int | None], Completes]
"""An endpoint whose replies have so many tokens at most."""
AWAKE_WEIGHT = 10
"""What a token of an answer costs, in tokens of a sleep."""
TASK = GsmInfiniteConfig(ops=(12, 14), length=(0, 640), context_tokens=640)
PROMPT = """Answer the question about the text with one number. The notes may have what is asked,
or a part of it; work out the rest, a short sentence a step. End with: The answer is N."""
_NUMBER = re.compile(r"-?\d[\d,]*")


def draw_problems(count: int, questions: int) -> list[StatefulProblem]:
    """The first contexts that have so many questions."""
    task, found, index = GsmInfinite(TASK), list[StatefulProblem](), 0
    while len(found) < count:
        try:
            found.append(draw_stateful(task, "test", index, questions))
        except ValueError:
            if index > 100 * (count + 1):
                raise
        index += 1
    return found


def run_words(
    make: Make,
    problems: Sequence[StatefulProblem],
    *,
    counts: Sequence[int],
    budgets: Sequence[int],
    notes: NotesConfig,
    say: Callable[[str], object],
) -> Iterator[Row]:
    """A row for each budget, with notes and without, and each number of questions; `unwritten` are
    texts on which no notes could be written. Raises EndpointError if there is no answer.

    counts: how many of a context's questions are asked. budgets: tokens of an answer at most.
    """
    blocks: list[str] = []
    slept = unwritten = 0
    for place, problem in enumerate(problems):
        say(f"notes on text {place + 1} of {len(problems)}")
        block, receipt = rewrite(make(None), "", problem.context, notes)
        blocks.append(block)
        slept += receipt.tokens_out
        unwritten += receipt.outcome == "failed"
    for budget in budgets:
        for has_notes in (False, True):
            asked: list[list[tuple[StatefulQuestion, bool, int]]] = []
            for place, (problem, block) in enumerate(zip(problems, blocks, strict=True)):
                say(f"{budget} tokens, notes: {has_notes}, text {place + 1} of {len(problems)}")
                shown = block if has_notes else ""
                asked.append(
                    [
                        (question, *ask(make(budget), problem.context, shown, question))
                        for question in problem.questions[: max(counts)]
                    ]
                )
            for count in counts:
                found = [each for rows in asked for each in rows[:count]]
                sleep = slept / len(problems) if has_notes else 0.0
                yield _sum_up(found, sleep, count) | {
                    "budget": budget,
                    "notes": has_notes,
                    "unwritten": unwritten if has_notes else 0,
                }


def ask(
    endpoint: Completes, context: str, block: str, question: StatefulQuestion
) -> tuple[bool, int]:
    """Whether the answer is right, and how many tokens it took; raises EndpointError."""
    notes = block or "[empty]"
    said = f"<text>\n{context}\n</text>\n\n<notes>\n{notes}\n</notes>\n\nQuestion: {question.text}"
    messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": said}]
    reply = endpoint.complete(messages)
    numbers = _NUMBER.findall(reply.text.rpartition("answer is")[2])
    is_right = bool(numbers) and numbers[-1].replace(",", "") == str(question.answer)
    return is_right, reply.tokens_out


def _sum_up(found: Sequence[tuple[StatefulQuestion, bool, int]], sleep: float, count: int) -> Row:
    """sleep: tokens of a context's notes. cost: of a question, in tokens of a sleep."""
    right, asked = Counter[str](), Counter[str]()
    for question, is_right, _ in found:
        asked[question.guess] += 1
        right[question.guess] += is_right
    answer = sum(tokens for *_, tokens in found) / len(found)
    kinds = [guess for guess in GUESSES if asked[guess]]
    return {
        "questions": count,
        "right": {guess: right[guess] for guess in kinds},
        "of": {guess: asked[guess] for guess in kinds},
        "sleep_tokens": round(sleep, 1),
        "answer_tokens": round(answer, 2),
        "cost": round(sleep / count + AWAKE_WEIGHT * answer, 1),
    }
