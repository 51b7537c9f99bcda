"""What constant answers score on GSM-Infinite problems, of ours or of the public generator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple


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
