"""Problems by hand: what follows, what counts as an operation, and what is no problem."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowwave.tasks.gsm_infinite.problem import (
    NO_ITEM,
    Expression,
    Kind,
    Quantity,
    Statement,
    solve,
)

A, B, C = (Quantity(Kind.ITEM, 0, item) for item in range(3))
D = Quantity(Kind.ITEM, 1, 0)
PER_A, PER_B = (Quantity(Kind.AVERAGE, 0, item) for item in range(2))
TOTAL = Quantity(Kind.TOTAL, 0, NO_ITEM)
GRAND_TOTAL = Quantity(Kind.GRAND_TOTAL, 0, NO_ITEM)


def equals(quantity: Quantity, number: int) -> Statement:
    return Statement(quantity, Expression(number))


def same_as(quantity: Quantity, other: Quantity) -> Statement:
    return Statement(quantity, Expression(references=(other,)))


def test_a_forward_problem() -> None:
    statements = [
        Statement(D, Expression(3, "times", (A, TOTAL), "difference")),
        Statement(B, Expression(2, "plus", (A,))),
        equals(A, 9),
        Statement(C, Expression(None, None, (A, B, A))),
        equals(PER_A, 5),
    ]
    assert solve(statements, C).answer == 29
    assert solve(statements, C).operations == 1 + 2 + 3
    assert solve(statements, TOTAL).answer == 9 + 11 + 29
    assert solve(statements, TOTAL).operations == 1 + 2 + 3 + 3
    found = solve(statements, D)
    assert found.answer == 3 * (9 - 49)
    assert found.operations == 6 + 3 + 3
    assert found.values == {A: 9, B: 11, C: 29, TOTAL: 49, D: -120}


def test_grand_totals_weigh_items_by_their_averages() -> None:
    statements = [equals(A, 2), equals(PER_A, 5), equals(B, 3), equals(PER_B, 4), equals(D, 7)]
    found = solve(statements, GRAND_TOTAL)
    assert (found.answer, found.operations) == (22, 4 + 4)
    assert solve(statements[:3], GRAND_TOTAL).answer == 10  # what is not mentioned is 0


def test_a_total_of_nothing_is_zero() -> None:
    found = solve([equals(A, 2)], Quantity(Kind.TOTAL, 5, NO_ITEM))
    assert (found.answer, found.operations) == (0, 0)


def test_a_reverse_problem() -> None:
    statements = [
        Statement(A, None),
        Statement(B, Expression(2, "times", (A,))),
        equals(TOTAL, 12),
        Statement(A, None),  # the public generator may print it twice
    ]
    found = solve(statements, A)
    assert (found.answer, found.operations) == (4, 1 + 2 + 2)
    assert found.values == {A: 4, B: 8, TOTAL: 12}


def test_the_value_of_a_derived_quantity_may_be_given() -> None:
    statements = [equals(B, 7), Statement(A, None), Statement(B, Expression(4, "plus", (A,)))]
    found = solve(statements, A)
    assert (found.answer, found.operations) == (3, 1 + 2)


def test_the_unknown_itself_may_be_given() -> None:
    found = solve([Statement(A, None), equals(A, 4), same_as(D, A)], A)
    assert (found.answer, found.operations) == (4, 1)


def test_unknowns_may_be_multiplied() -> None:
    statements = [Statement(A, None), same_as(PER_A, A), equals(GRAND_TOTAL, 49)]
    assert solve(statements, A).answer == 7


@given(
    unknown=st.integers(1, 1000),
    factor=st.integers(1, 5),
    added=st.integers(0, 50),
    squared=st.booleans(),
)
def test_roots_equal_those_found_by_trying(
    unknown: int, factor: int, added: int, squared: bool
) -> None:
    """factor x^2 + added, or factor x + added, at every x up to a thousand."""
    value = factor * unknown ** (2 if squared else 1) + added
    statements = [
        Statement(A, None),
        Statement(PER_A, Expression(None, None, (A,)) if squared else Expression(1)),
        Statement(D, Expression(factor, "times", (GRAND_TOTAL,))),
        Statement(Quantity(Kind.ITEM, 2, 0), Expression(added, "plus", (D,))),
        equals(Quantity(Kind.ITEM, 2, 0), value),
    ]
    assert solve(statements, A).answer == unknown


def test_long_chains_need_no_deep_stack() -> None:
    chain = [Quantity(Kind.ITEM, place, 0) for place in range(5000)]
    statements = [equals(chain[0], 3)]
    statements += [same_as(later, earlier) for earlier, later in itertools.pairwise(chain)]
    found = solve(statements, chain[-1])
    assert (found.answer, found.operations) == (3, 5000)


@pytest.mark.parametrize(
    ("statements", "question", "message"),
    [
        ([same_as(A, B), same_as(B, A)], A, "depends on itself"),
        ([same_as(A, A)], A, "depends on itself"),
        ([same_as(A, TOTAL)], A, "depends on itself"),
        ([equals(A, 1), equals(A, 2)], A, "stated twice"),
        ([Statement(A, None), Statement(B, None), equals(TOTAL, 3)], A, "two quantities only"),
        ([Statement(A, None), same_as(B, A)], A, "0 values are given"),
        ([Statement(A, None), equals(TOTAL, 3), equals(A, 2)], A, "2 values are given"),
        ([Statement(A, None), equals(TOTAL, 3)], TOTAL, "not about the unknown"),
        ([Statement(A, None), equals(B, 2), equals(TOTAL, 2)], A, "0 values of the unknown fit"),
        (
            [
                Statement(A, None),
                Statement(D, Expression(None, None, (A, A), "difference")),
                equals(D, 0),
            ],
            A,
            "1000 values of the unknown fit",
        ),
    ],
)
def test_what_is_no_problem_is_refused(
    statements: list[Statement], question: Quantity, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        solve(statements, question)
