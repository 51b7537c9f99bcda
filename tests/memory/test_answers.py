"""What is asked on a copy is what a session would say, and changes nothing."""

from __future__ import annotations

import pytest
import torch

from slowwave.memory.questions import answer, contains, measure_answer
from slowwave.memory.session import Session
from slowwave.memory.talker import Talker
from slowwave.memory.turn import finish, tell
from slowwave.runtime.config import Sampling

WINDOW = 12


@pytest.mark.parametrize("in_chat", [True, False])
@pytest.mark.parametrize("text", ["", "Ann.", "Ann lives in Lima.", "x" * (2 * WINDOW - 1)])
def test_an_answer_is_what_a_session_says(session: Session, text: str, in_chat: bool) -> None:
    if not in_chat:
        session.talker = session.talker._replace(chat=None)
    if text:
        session.read(text)
    fork = session.fork()
    for question in ("Where?", "Where does Ann live, and with whom?"):
        said = session.fork().generate(question, sampling=Sampling(), max_new_tokens=30)
        assert said
        assert answer(session.talker, session.state, question, max_new_tokens=30) == said
    # And the session goes on as if nobody had asked.
    assert session.generate("Go on.") == fork.generate("Go on.")
    pairs = zip(session.state.fast_weights, fork.state.fast_weights, strict=True)
    assert all(torch.equal(mine, other) for mine, other in pairs)


def test_an_answer_is_measured_token_by_token(session: Session) -> None:
    """Over a sleep: 7 tokens in the window, 9 of the question, 14 of the answer."""
    session.read("x" * (WINDOW + 7))
    measured = measure_answer(session.talker, session.state, "Where?", "in Lima or so.")
    fork = session.fork()
    hidden = fork.repeat(tell(fork.talker.tokenizer, "> Where?\n"))
    expected = list[float]()
    for token in b"in Lima or so.":
        assert hidden is not None
        expected.append(-float(fork._predict(hidden).log_softmax(0)[token]))
        hidden = finish(fork._read((token,)))
    assert measured.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_question_says_something(talker: Talker) -> None:
    state = talker.model.initial_state(1)
    with pytest.raises(ValueError, match="the message is empty; say something"):
        answer(talker, state, " ", max_new_tokens=3)


@pytest.mark.parametrize(
    ("reply", "expected", "is_right"),
    [
        ("She lives in Lima.", "Lima", True),
        ("She lives in Lima.", " Lima\n", True),
        ("She lives in lima.", "Lima", False),
        ("She lives in Li ma.", "Lima", False),
        ("Slimane", "lima", True),
    ],
)
def test_a_reply_is_right_if_it_contains_the_answer(
    reply: str, expected: str, is_right: bool
) -> None:
    assert contains(reply, expected) == is_right
