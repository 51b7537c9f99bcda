"""GSM-Infinite against a reader of tokens and text that shares no code with it."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import gsm_infinite_oracle as oracle
from slowwave.sleep.schedule import NO_LOSS
from slowwave.tasks.draws import SPLITS
from slowwave.tasks.gsm_infinite import NUM_CORE_NAMES, GsmInfiniteConfig
from slowwave.tasks.gsm_infinite.grammar import ANSWER_DIGITS, ANSWER_SLOT, PADDING
from slowwave.tasks.gsm_infinite.names import THEMES
from slowwave.tasks.gsm_infinite.task import GsmInfinite

LENGTHS = {"compact": (0, 300), "words": (0, 900)}


def make(**changes: Any) -> GsmInfinite:
    length = changes.setdefault("length", LENGTHS[changes.get("grammar", "compact")])
    changes.setdefault("context_tokens", length[1])
    return GsmInfinite(GsmInfiniteConfig(**changes))


def read(task: GsmInfinite, row: list[int]) -> oracle.Parsed:
    """What the tokens of a stream say, up to the answer slots."""
    tokens = [task.grammar.vocabulary[token] for token in row[:-ANSWER_DIGITS] if token != PADDING]
    question_end = tokens.index("?") + 1
    if task.config.question == "first":
        question, statements = tokens[:question_end], tokens[question_end:]
    else:
        start = len(tokens) - tokens[::-1].index(".")
        question, statements = tokens[start:], tokens[:start]
    parse = oracle.parse_compact if task.config.grammar == "compact" else oracle.parse_words
    return parse(statements, question)


configs = st.fixed_dictionaries(
    {
        "grammar": st.sampled_from(["compact", "words"]),
        "subset": st.sampled_from(["medium", "hard"]),
        "mode": st.sampled_from(["forward", "reverse", "mixed"]),
        "ops": st.tuples(st.integers(2, 9), st.integers(0, 3)).map(lambda o: (o[0], sum(o))),
        "places": st.integers(3, 8),
        "items": st.integers(2, 8),
        "question": st.sampled_from(["first", "last"]),
        "distractors": st.sampled_from(["none", "surface", "blended"]),
    }
)


@given(values=configs, split=st.sampled_from(SPLITS), index=st.integers(0, 2**62 - 1))
def test_answers_equal_the_oracle(values: dict[str, Any], split: str, index: int) -> None:
    task = make(**values)
    stream = task.batch(split, [index, index + 1]).stream
    assert stream.inputs.shape == (2, task.context_tokens + task.prediction_tokens)
    for row, targets, answers, groups in zip(
        stream.inputs.tolist(),
        stream.targets.tolist(),
        stream.answers.tolist(),
        stream.groups.tolist(),
        strict=True,
    ):
        parsed = read(task, row)
        found = oracle.answer(parsed)
        digits = f"{found.value:04}"[::-1]
        ids = [task.grammar.vocabulary.index(digit) for digit in digits]
        assert targets == [NO_LOSS] * (len(row) - 4) + ids
        assert row[-4:] == [ANSWER_SLOT, *ids[:3]]
        assert answers == [-1] * (len(row) - 4) + [0] * 4
        assert groups == [-1] * (len(row) - 4) + [found.operations] * 4
        assert task.config.ops[0] <= found.operations <= task.config.ops[1]
        is_reverse = any(not e.names and e.number is None for e in parsed.equations)
        assert task.config.mode == "mixed" or is_reverse == (task.config.mode == "reverse")

        # Nothing that the answer does not need can change it, whether one is left out or all are.
        subjects = {equation.subject for equation in parsed.equations}
        for dropped in [{name} for name in subjects - found.needed] + [subjects - found.needed]:
            assert oracle.answer(oracle.without(parsed, dropped)) == found


@given(values=configs, index=st.integers(0, 2**62))
def test_text_and_tokens_say_the_same(values: dict[str, Any], index: int) -> None:
    task = make(**values)
    example = task.example("test", index)
    assert oracle.parse_text(example.context, example.questions[0]) == read(
        task, list(example.tokens)
    )
    assert example.tokens == tuple(task.batch("test", [index]).stream.inputs[0].tolist())
    assert [task.grammar.vocabulary[token] for token in example.targets] == list(
        f"{int(example.answers[0]):04}"[::-1]
    )
    text = task.render(example)
    assert all(sentence in text for sentence in (*example.context, *example.questions))
    assert f"answer: {example.answers[0]}" in text
    is_first = task.config.question == "first"
    assert (text.index(example.questions[0]) < text.index(example.context[0])) == is_first


@pytest.mark.parametrize("subset", ["medium", "hard"])
def test_values_stay_within_bounds(subset: str) -> None:
    task = make(subset=subset, mode="mixed", ops=(2, 16), length=(0, 400))
    for row in task.batch("train", range(150)).stream.inputs.tolist():
        parsed = read(task, row)
        found = oracle.answer(parsed)
        for name, value in found.values.items():
            assert (1 if name[0] == "item" else 0) <= value <= 1000
        for equation in parsed.equations:
            assert len(equation.names) + (equation.number is not None) <= 4
            if equation.operation:
                assert (
                    equation.number
                    in {"plus": (1, 2, 3, 4), "times": (2, 3, 4)}[equation.operation]
                )


def test_reverse_answers_are_those_of_a_coin_and_a_number() -> None:
    stream = make(mode="reverse", ops=(2, 8)).batch("train", range(1000)).stream
    counts = Counter((stream.targets[:, -4] - 2).tolist())
    assert set(counts) == {1, 2, 3, 4}
    for answer, share in {1: 1 / 8, 2: 7 / 24, 3: 7 / 24, 4: 7 / 24}.items():
        assert counts[answer] / 1000 == pytest.approx(share, abs=4.5 * (share / 1000) ** 0.5)


def test_operations_are_uniform() -> None:
    groups = make(subset="hard", ops=(1, 8)).batch("train", range(1000)).stream.groups[:, -1]
    _, counts = groups.unique(return_counts=True)
    assert counts.shape == (8,)
    assert (counts - 125).abs().max() < 4.5 * 125**0.5


@pytest.mark.parametrize("grammar", ["compact", "words"])
@pytest.mark.parametrize("distractors", ["surface", "blended"])
def test_lengths_reach_their_target(grammar: str, distractors: str) -> None:
    length = (150, 250) if grammar == "compact" else (500, 900)
    task = make(grammar=grammar, distractors=distractors, length=length, context_tokens=1000)
    context = task.batch("train", range(300)).stream.inputs[:, :1000]
    counts = (context != PADDING).sum(dim=1)
    assert length[0] <= counts.min() <= counts.max() <= length[1]
    # Uniform, but for the last distractor, which ends it above the target.
    assert counts.double().mean() == pytest.approx(sum(length) / 2, abs=0.1 * length[1])
    starts = (context != PADDING).int().argmax(dim=1)
    assert torch.equal(starts, 1000 - counts)


def test_a_last_question_is_no_part_of_the_context() -> None:
    """The same problem, the question moved: the seeds differ, so by what is read."""
    task = make(question="last", subset="hard", themes=("zoo",))
    stream = task.batch("train", range(100)).stream
    assert task.prediction_tokens == 4 + ANSWER_DIGITS  # average, item, place, question mark
    asked = stream.inputs[:, task.context_tokens :]
    mark = task.grammar.vocabulary.index("?")
    assert (asked[:, 3] == mark).all()
    assert (stream.inputs[:, : task.context_tokens] != mark).all()


def core_names(theme: str) -> tuple[set[str], set[str]]:
    names = THEMES[theme]
    return set(names.places[:NUM_CORE_NAMES]), set(names.items[:NUM_CORE_NAMES])


@pytest.mark.parametrize("subset", ["medium", "hard"])
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_surface_distractors_can_be_told_apart(subset: str, mode: str) -> None:
    places, items = core_names("school")
    values = {"subset": subset, "mode": mode, "themes": ("school",), "length": (400, 600)}
    task = make(distractors="surface", **values)
    for row in task.batch("train", range(40)).stream.inputs.tolist():
        parsed = read(task, row)
        apart = [e for e in parsed.equations if e.subject[2] not in places]
        assert all(e.number is None and 1 <= len(e.names) <= 2 for e in apart)
        assert all(e.subject[1] not in items for e in apart)
        assert len({e.subject[2] for e in apart}) >= 3
        kinds = {"item", "average"} if subset == "hard" else {"item"}
        assert {e.subject[0] for e in apart} == kinds
        assert all(place in places for _, _, place in oracle.answer(parsed).needed)
        # What they refer to is the core, or the total of another distractor place.
        for equation in apart:
            for kind, _, place in equation.names:
                assert place in places or (kind == "total" and place != equation.subject[2])


@pytest.mark.parametrize("subset", ["medium", "hard"])
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_blended_distractors_look_like_what_is_needed(subset: str, mode: str) -> None:
    places, items = core_names("zoo")
    values = {"subset": subset, "mode": mode, "themes": ("zoo",), "ops": (4, 8)}
    task = make(distractors="blended", length=(150, 250), **values)
    needed_forms: Counter[str] = Counter()
    other_forms: Counter[str] = Counter()
    shared_places = 0
    for row in task.batch("train", range(300)).stream.inputs.tolist():
        parsed = read(task, row)
        needed = oracle.answer(parsed).needed
        assert {e.subject[2] for e in parsed.equations} <= places
        assert {e.subject[1] for e in parsed.equations if e.subject[1]} <= items
        needed_places = {place for _, _, place in needed}
        for equation in parsed.equations:
            if equation.subject[0] in ("total", "grand"):
                continue
            has_number = equation.number is not None or not equation.names
            form = f"{has_number}{len(equation.names)}{equation.sign}"
            if equation.subject in needed:
                needed_forms[form] += 1
            else:
                other_forms[form] += 1
                shared_places += equation.subject[2] in needed_places
    assert shared_places > 0.05 * sum(other_forms.values())
    # The core's own unneeded statements come in published forms, which differ a little.
    for form, count in other_forms.items():
        share = count / sum(other_forms.values())
        assert needed_forms[form] / sum(needed_forms.values()) == pytest.approx(share, abs=0.12)


def read_contents(task: GsmInfinite, split: str, count: int) -> set[frozenset[str]]:
    """The cores: all statements about core places, and the question."""
    cores: set[frozenset[str]] = set()
    for row in task.batch(split, range(count)).stream.inputs.tolist():
        parsed = read(task, row)
        theme = next(name for name in THEMES if parsed.question[2] in THEMES[name].places)
        places, _ = core_names(theme)
        core = [str(e) for e in parsed.equations if e.subject[2] in places]
        cores.add(frozenset([*core, str(parsed.question)]))
    return cores


def test_no_core_is_in_two_splits() -> None:
    """Whatever distractors, grammar and place of the question: the core alone decides."""
    tiny = {"subset": "hard", "ops": (1, 1), "places": 1, "items": 1, "themes": ("zoo",)}
    tasks = [
        make(**tiny),
        make(**tiny, question="last"),
        make(**tiny, distractors="surface", length=(40, 80)),
    ]
    drawn = {split: [read_contents(task, split, 500) for task in tasks] for split in SPLITS}
    seen = {split: set.union(*cores) for split, cores in drawn.items()}
    assert sum(map(len, seen.values())) == len(set.union(*seen.values()))
    # The same ones come up in all tasks, so that a core that moved would have been seen.
    for cores in drawn.values():
        assert min(len(cores[0] & other) for other in cores[1:]) > 0


def test_names_are_uniform_inside_a_split() -> None:
    task = make(themes=("movies",), ops=(2, 2))
    asked = Counter(
        read(task, row).question[2]
        for row in task.batch("test", range(1200)).stream.inputs.tolist()
    )
    assert set(asked) == core_names("movies")[0]
    assert max(abs(count - 50) for count in asked.values()) < 4.5 * 50**0.5


def test_a_constant_answer_scores_its_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slowwave.tasks.gsm_infinite.task._FLOOR_EXAMPLES", 600)
    task = make(subset="hard", mode="mixed", ops=(1, 3), places=4)
    stream = task.batch("test", range(600)).stream
    parsed = [read(task, row) for row in stream.inputs.tolist()]
    groups = stream.groups[:, -1].tolist()
    answers = [oracle.answer(each).value for each in parsed]
    modes = [
        "reverse" if any(not e.names and e.number is None for e in each.equations) else "forward"
        for each in parsed
    ]
    expected: dict[str, float] = {"constant": Counter(answers).most_common(1)[0][1] / 600}
    for op in (1, 2, 3):
        for suffix in ("", " forward", " reverse"):
            inside = [
                answer
                for answer, group, mode in zip(answers, groups, modes, strict=True)
                if group == op and suffix in ("", f" {mode}")
            ]
            expected[f"op {op}{suffix}"] = Counter(inside).most_common(1)[0][1] / len(inside)
    assert task.floors() == pytest.approx(expected)


def test_floors_are_near_the_published_ones() -> None:
    """Section 4.3 of the paper, in percent."""
    floors = make(mode="mixed", ops=(2, 8)).floors()
    for op, share in {2: 30, 4: 25, 6: 18, 8: 17}.items():
        assert 100 * floors[f"op {op}"] == pytest.approx(share, abs=4)
    for op, share in {4: 28, 6: 22, 8: 22}.items():
        either = (floors[f"op {op} forward"] + floors[f"op {op} reverse"]) / 2
        assert 100 * either == pytest.approx(share, abs=5)
    assert set(make(ops=(2, 3)).floors()) == {"constant", "op 2", "op 3"}


def test_a_batch_is_made_faster_than_it_is_trained_on() -> None:
    task = make(subset="hard", ops=(1, 4), distractors="blended", length=(40, 64))
    task.batch("train", range(64))
    began = time.perf_counter()
    task.batch("train", range(64, 128))
    assert time.perf_counter() - began < 1  # a fortieth of that where nothing else runs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": (0, 40)}, r"^task.length is \(0, 40\); let it end with 47 or more, as 8 op"),
        ({"length": (0, 54), "mode": "mixed"}, "let it end with 55 or more"),
        ({"length": (0, 80), "grammar": "words"}, r"task.length is \(0, 80\); let it end with"),
        (
            {"length": (100, 5000), "distractors": "surface"},
            "let it end with 1440 or less, all that distractors may amount to",
        ),
        ({"length": (100, 5000), "distractors": "blended"}, "let it end with 2280 or less"),
        ({"length": (100, 110), "distractors": "blended"}, "leave 15 between, which one distr"),
    ],
)
def test_impossible_lengths_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make(**changes)
    assert "\n" not in str(error.value)


@given(
    values=st.fixed_dictionaries(
        {
            "subset": st.sampled_from(["medium", "hard"]),
            "mode": st.sampled_from(["forward", "reverse"]),
            "places": st.integers(1, 3),
            "items": st.integers(1, 3),
            "op": st.integers(1, 16),
        }
    )
)
def test_every_size_that_is_allowed_has_problems(values: dict[str, Any]) -> None:
    op = values.pop("op")
    try:
        task = make(ops=(op, op), **values)
    except ValueError as error:
        assert "task.ops is" in str(error)
        return
    assert oracle.answer(read(task, task.batch("train", [0]).stream.inputs[0].tolist()))


def test_the_tightest_length_fits() -> None:
    """At the very bound that a config may have, for every split and many problems."""
    for grammar, most in (("compact", 55), ("words", 198)):
        with pytest.raises(ValueError, match=f"end with {most} or more"):
            make(grammar=grammar, mode="reverse", length=(0, most - 1))
        task = make(grammar=grammar, mode="reverse", length=(0, most))
        for row in task.batch("train", range(200)).stream.inputs.tolist():
            oracle.answer(read(task, row))


def test_names_tell_where_they_begin() -> None:
    for theme in THEMES.values():
        for name in (*theme.places, *theme.items):
            assert " in " not in name and not set(name) & set(",.?")
        assert all(name[0].isupper() for name in theme.places)
        assert all(name[0].islower() for name in theme.items)
