"""Episodes out of a model's replies: what is dropped, and that every span is of the source."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from scripted_endpoint import refuse, say, scripted
from slowwave.memory.episodes import (
    EPISODE_KINDS,
    MOST_EPISODES,
    MOST_STATEMENT,
    Found,
    extract,
    read_found,
    read_links,
)

WORDS = "I moved to Lima in May. I like tea, I think."
LIMA = {
    **{"kind": "fact", "confidence": 0.9, "quote": "moved to Lima"},
    "statement": "The user lives in Lima.",
}


def line(**changes: object) -> str:
    return json.dumps({**LIMA, **changes})


def test_lines_become_episodes_with_the_places_of_their_words() -> None:
    tea = line(kind="preference", confidence=1, quote="I like tea", statement=" Likes\ntea. ")
    found, num_nonsense, num_unfounded = read_found(f"```json\n{line()},\n\n{tea}\n```", WORDS)
    assert found == [
        Found(2, 15, "fact", 0.9, "The user lives in Lima."),
        Found(24, 34, "preference", 1.0, "Likes tea."),
    ]
    assert [WORDS[each.start : each.stop] for each in found] == ["moved to Lima", "I like tea"]
    assert (num_nonsense, num_unfounded) == (0, 0)
    assert read_found("NONE.", WORDS) == ([], 0, 0)


def test_nonsense_is_dropped_and_counted() -> None:
    nonsense = [
        *("Here they are:", "{", "[1]", "null", "[" * 10_000, '"text"', "{}"),
        *(line(kind="feeling"), line(kind=["fact"]), line(confidence=1.5), line(confidence=True)),
        *(line(confidence="high"), line(quote=""), line(quote=3), line(statement=" ")),
        line(statement="x" * (MOST_STATEMENT + 1)),
        line(statement="\ud800"),
        line(confidence=0.5).replace("0.5", "NaN"),
    ]
    found, num_nonsense, num_unfounded = read_found("\n".join([*nonsense, line()]), WORDS)
    assert (len(found), num_nonsense, num_unfounded) == (1, len(nonsense), 0)


def test_words_that_the_source_lacks_are_dropped_and_counted() -> None:
    reply = "\n".join([line(quote="moved to Rome"), line(quote="Moved to Lima"), line()])
    found, num_nonsense, num_unfounded = read_found(reply, WORDS)
    assert (len(found), num_nonsense, num_unfounded) == (1, 0, 2)


def test_no_message_has_more_than_so_many() -> None:
    reply = "\n".join(line(statement=f"Number {i}.") for i in range(MOST_EPISODES + 5))
    assert [*map(len, read_found(reply, WORDS)[:1]), read_found(reply, WORDS)[1]] == [32, 5]


@given(
    st.lists(
        st.builds(
            lambda *values: json.dumps(dict(zip(LIMA, values, strict=True))),
            st.sampled_from([*EPISODE_KINDS, "other", None]),
            st.floats() | st.none(),
            st.text(alphabet="ab ", max_size=3) | st.integers(),
            st.text(max_size=5),
        )
        | st.text(),
        max_size=6,
    ),
    st.text(alphabet="ab ", max_size=12),
)
def test_every_span_is_in_the_source(lines: list[str], words: str) -> None:
    found, *_ = read_found("\n".join(lines), words)
    for each in found:
        assert 0 <= each.start < each.stop <= len(words)
        assert 0 <= each.confidence <= 1
        assert each.kind in EPISODE_KINDS
        assert each.statement.strip()


def test_links_are_of_new_to_older_ones() -> None:
    reply = (
        "3 contradicts 1\n- 4 contradicts 2\n3 contradicts 1\n1 contradicts 2\n3 contradicts 4\n"
    )
    assert read_links(reply + "9 contradicts 1\n3 agrees with 2", 2, 2) == [(0, 0), (1, 1)]


def test_what_is_found_is_held_against_what_was_told_before() -> None:
    with scripted([say(line()), say("2 contradicts 1")]) as script:
        found, links, receipt = extract(script.endpoint(), WORDS, ["The user lives in Rome."])
    assert (len(found), links) == (1, [(0, 0)])
    assert (receipt.calls, receipt.tokens_in, receipt.num_found, receipt.is_read) == (
        2,
        14,
        1,
        True,
    )
    assert WORDS in script.asked[0]["messages"][1]["content"]
    assert (
        "1 The user lives in Rome.\nnew:\n2 The user lives in Lima."
        in (script.asked[1]["messages"][1]["content"])
    )


def test_failures_are_in_the_receipt() -> None:
    with scripted([refuse(404, "no model"), say(line()), refuse(404, "no model")]) as script:
        found, links, receipt = extract(script.endpoint(), WORDS, ["Old."])
        assert (found, links, receipt.is_read) == ([], [], False)
        assert "no model" in receipt.why
        found, links, receipt = extract(script.endpoint(), WORDS, ["Old."])
    assert (len(found), links, receipt.is_read) == (1, [], True)
    assert "not held against what was told before" in receipt.why
