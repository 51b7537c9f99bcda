"""Rows of the public GSM-Infinite: read, solved, written again; malformed ones refused.

Where SLOWWAVE_REFERENCE_DATA names a folder that holds gsm_infinite_sample.jsonl, output of the
public generator (Infini-AI-Lab/gsm_infinite), its rows are read too and set beside ours.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import gsm_infinite_oracle as oracle
from slowwave.tasks.gsm_infinite import GsmInfiniteConfig
from slowwave.tasks.gsm_infinite.grammar import question_phrases, statement_phrases, to_text
from slowwave.tasks.gsm_infinite.names import THEMES
from slowwave.tasks.gsm_infinite.official import (
    OfficialRow,
    find_difference,
    parse_problem,
    read_official,
)
from slowwave.tasks.gsm_infinite.problem import NO_ITEM, Expression, Kind, Problem, Quantity, solve
from slowwave.tasks.gsm_infinite.task import GsmInfinite

REFERENCE = Path(os.environ.get("SLOWWAVE_REFERENCE_DATA", "")) / "gsm_infinite_sample.jsonl"
needs_reference = pytest.mark.skipif(
    not os.environ.get("SLOWWAVE_REFERENCE_DATA") or not REFERENCE.is_file(),
    reason="SLOWWAVE_REFERENCE_DATA names no folder that holds gsm_infinite_sample.jsonl",
)

# Names that hold the words around them: an item " in " and " and ", a place " in " and "the".
TWIST = "film about twins lost in fog and snow"
GALA = "Lanterns in the Rain Gala"
ROW = {
    "template": "movie_festival_awards",
    "problem": (
        f"The number of {TWIST} in {GALA} equals 2 plus the difference between the total number of "
        f"movies in Oak Street and the average number of nominations per {TWIST} in Oak Street. "
        f"The average number of nominations per {TWIST} in Oak Street equals 3. "
        f"The number of dull drama in Oak Street equals 7. "
    ),
    "question": f"How many {TWIST} does {GALA} have?",
    "answer": 6,
    "op": 6,
}


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def to_texts(problem: Problem) -> tuple[str, str]:
    statements = [to_text(statement_phrases(problem, s)) for s in problem.statements]
    return " ".join(statements), to_text(question_phrases(problem))


def test_a_row_is_read_and_solved(tmp_path: Path) -> None:
    solved = {key: value for key, value in ROW.items() if key != "answer"}
    solved["solution"] = "Define this and that. Answer: 6."
    path = write(tmp_path, "", json.dumps(ROW), "  ", json.dumps(solved), "")
    first, second = read_official(path)
    assert (first.line, second.line) == (2, 4)
    assert first.problem == second.problem
    assert (first.answer, first.operations) == (second.answer, second.operations) == (6, 6)

    problem = first.problem
    assert problem.theme == "movies"
    assert problem.places == (GALA, "Oak Street")
    assert problem.items == (TWIST, "dull drama")
    assert problem.question == Quantity(Kind.ITEM, 0, 0)
    total, average = Quantity(Kind.TOTAL, 1, NO_ITEM), Quantity(Kind.AVERAGE, 1, 0)
    assert problem.statements[0].expression == Expression(2, "plus", (total, average), "difference")
    assert not problem.is_reverse
    assert find_difference(first) is None
    assert to_texts(problem) == (str(ROW["problem"]).strip(), ROW["question"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answer": 5}, r"answer and op are stated as \(5, 6\) and come out as \(6, 6\)"),
        ({"op": 4}, r"answer and op are stated as \(6, 4\) and come out as \(6, 6\)"),
        (
            {"problem": f"The number of {TWIST} in {GALA} equals the number of {TWIST} in {GALA}."},
            "a needed quantity depends on itself",
        ),
    ],
)
def test_differences_are_told(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    (row,) = read_official(write(tmp_path, json.dumps(ROW | changes)))
    difference = find_difference(row)
    assert difference is not None
    with pytest.raises(ValueError, match=f"^line 1: {sentence}"):
        raise ValueError(difference)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"template": "moon_base"}, "template is 'moon_base'; use one of crazy_zootopia, "),
        ({"template": None}, "template is None; give a string"),
        ({"problem": 3}, "problem is 3; give a string"),
        ({"op": "6"}, "op is '6'; give an integer"),
        ({"answer": True}, "answer is True; give an integer"),
        ({"answer": 6.0}, "answer is 6.0; give an integer"),
        ({"problem": "The number of dull drama in Oak Street equals 7"}, "problem ends with "),
        ({"problem": ""}, "problem ends with ''; end each"),
        ({"problem": "Some drama in Oak Street equals 7."}, "the statement 'Some drama "),
        ({"problem": "The number of drama in Oak Street is 7."}, ".* says neither 'equals' nor"),
        ({"problem": "The number of drama in oak street equals 7."}, ".* is no quantity of this"),
        ({"problem": "The number of teachers equals 7."}, ".* is no quantity of this template"),
        ({"problem": "The number of drama in Oak Street equals seven."}, "'seven' is no quantity"),
        ({"problem": "The number of drama in Oak Street equals 7 minus 2."}, ".* is no quantity"),
        (
            {
                "problem": "The number of drama in Oak Street equals the sum of the total number "
                "of movies in Pine Street."
            },
            ".* combines 1 quantities; a sum has two or more, a difference two",
        ),
        ({"question": "How many drama in Oak Street?"}, "question is 'How many drama in Oak "),
        ({"question": "How many drama does oak street have?"}, "question is 'How many drama "),
        ({"question": "What is love?"}, "'love' is no quantity of this template"),
    ],
)
def test_malformed_rows_are_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    path = write(tmp_path, json.dumps(ROW), json.dumps(ROW | changes))
    with pytest.raises(ValueError, match=rf"rows\.jsonl: line 2: {sentence}") as error:
        read_official(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["template", "problem", "question", "op", "answer"])
def test_missing_fields_are_refused(tmp_path: Path, name: str) -> None:
    row = {key: value for key, value in ROW.items() if key != name}
    with pytest.raises(ValueError, match=f"line 1: {name} is missing; give it$"):
        read_official(write(tmp_path, json.dumps(row)))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "not JSON; write one JSON object a line"),
        ("[" * 100_000, "not JSON; write one JSON object a line"),
        ("[1]", "a list; write one JSON object a line"),
        (json.dumps({**ROW, "solution": "no"} | {"answer": None}), "answer is None; give an int"),
        (
            json.dumps({k: v for k, v in ROW.items() if k != "answer"} | {"solution": "Six."}),
            "solution does not end with an answer; end it with 'Answer: N.'",
        ),
    ],
)
def test_malformed_lines_are_refused(tmp_path: Path, line: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"line 3: {sentence}"):
        read_official(write(tmp_path, json.dumps(ROW), json.dumps(ROW), line))


def test_what_is_no_file_of_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file; name a JSON Lines file"):
        read_official(tmp_path / "nowhere.jsonl")
    with pytest.raises(ValueError, match="no line holds a problem"):
        read_official(write(tmp_path, "", " "))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8 text"):
        read_official(tmp_path / "binary")


def test_our_problems_are_rows(tmp_path: Path) -> None:
    """Every sentence of ours is read by the reader of theirs, and says the same."""
    config = GsmInfiniteConfig(
        subset="hard", mode="mixed", ops=(1, 8), distractors="surface", length=(150, 250)
    )
    task = GsmInfinite(config)
    theme_of = {name: theme for theme, words in THEMES.items() for name in words.places}
    lines: list[str] = []
    for index in range(60):
        example = task.example("test", index)
        place = oracle.parse_text(example.context, example.questions[0]).question[2]
        lines.append(
            json.dumps(
                {
                    "template": THEMES[theme_of[place]].official_name,
                    "problem": " ".join(example.context) + " ",
                    "question": example.questions[0],
                    "answer": int(example.answers[0]),
                    "op": int(task.batch("test", [index]).stream.groups[0, -1]),
                }
            )
        )
    rows = read_official(write(tmp_path, *lines))
    assert [find_difference(row) for row in rows] == [None] * 60
    texts = [to_texts(row.problem) for row in rows]
    assert texts == [
        (json.loads(line)["problem"].strip(), json.loads(line)["question"]) for line in lines
    ]


@needs_reference
def test_public_rows_are_solved_as_stated() -> None:
    rows = read_official(REFERENCE)
    assert len(rows) == 128
    for row, line in zip(rows, REFERENCE.read_text("utf-8").splitlines(), strict=True):
        sample = json.loads(line)
        assert find_difference(row) is None
        assert row.problem.is_reverse == (sample["mode"] == "forwardreverse")
        assert to_texts(row.problem) == (sample["problem"].strip(), sample["question"])
        # Named by position alone, the problem is as good.
        theme = row.problem.theme
        parsed = parse_problem(theme, sample["problem"], sample["question"])
        assert solve(parsed.statements, parsed.question).answer == sample["answer"]


def forms(problems: Iterable[Problem]) -> Counter[str]:
    """Shares of the forms of expressions, the unknown left out."""
    counts: Counter[str] = Counter()
    for problem in problems:
        for _, expression in problem.statements:
            if expression is not None:
                number = "" if expression.number is None else "n"
                counts[f"{number}{expression.combination[0]}{len(expression.references)}"] += 1
    return counts


def drawn(
    subset: Literal["medium", "hard"], distractors: Literal["none", "surface"] = "none"
) -> list[Problem]:
    task = GsmInfinite(
        GsmInfiniteConfig(
            grammar="words",
            subset=subset,
            mode="mixed",
            ops=(1 if subset == "hard" else 2, 8),
            distractors=distractors,
            length=(0, 3000) if distractors == "none" else (1500, 2500),
            context_tokens=3000,
        )
    )
    problems: list[Problem] = []
    for index in range(300 if distractors == "none" else 40):
        example = task.example("train", index)
        place = oracle.parse_text(example.context, example.questions[0]).question[2]
        (theme,) = (name for name, words in THEMES.items() if place in words.places)
        problems.append(parse_problem(theme, " ".join(example.context), example.questions[0]))
    return problems


def published(context: str, subset: str | None = None) -> list[OfficialRow]:
    samples = map(json.loads, REFERENCE.read_text("utf-8").splitlines())
    return [
        row
        for row, sample in zip(read_official(REFERENCE), samples, strict=True)
        if sample["context"] == context and subset in (None, sample["subset"])
    ]


@needs_reference
@pytest.mark.parametrize("subset", ["medium", "hard"])
def test_cores_have_the_published_statistics(subset: Literal["medium", "hard"]) -> None:
    """Within what 64 public problems can tell."""
    ours, theirs = drawn(subset), [row.problem for row in published("short", subset)]
    sizes = [len(problem.statements) for problem in (*ours, *theirs)]
    mean, published_mean = np.mean(sizes[: len(ours)]), np.mean(sizes[len(ours) :])
    assert mean == pytest.approx(published_mean, rel=0.25)
    shares = [
        {form: count / sum(counts.values()) for form, count in counts.items()}
        for counts in (forms(ours), forms(theirs))
    ]
    assert set(shares[1]) <= set(shares[0])
    for form, share in shares[0].items():
        assert shares[1].get(form, 0) == pytest.approx(share, abs=0.06)


@needs_reference
def test_surface_distractors_have_the_published_forms() -> None:
    def distractor_forms(problem: Problem) -> Counter[str]:
        stated = {q.place for q, e in problem.statements if e is None or e.number is not None}
        rest = [s for s in problem.statements if s.quantity.place not in stated]
        return forms([Problem(problem.theme, (), (), tuple(rest), problem.question)])

    ours = sum(map(distractor_forms, drawn("medium", "surface")), Counter())
    theirs = sum((distractor_forms(row.problem) for row in published("long")), Counter())
    for form in ("s1", "s2", "d2"):
        share = ours[form] / sum(ours.values())
        assert theirs[form] / sum(theirs.values()) == pytest.approx(share, abs=0.06)
