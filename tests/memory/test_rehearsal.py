"""What a sleep reads again: which tokens, how much each counts, and who decides."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from byte_tokenizer import ByteTokenizer
from slowwave.memory import critic as critics
from slowwave.memory import rehearsal
from slowwave.memory.critic import Critic, find_critic
from slowwave.memory.rehearsal import QUESTION, find_messages, recite, rehearse
from slowwave.memory.talker import Talker
from slowwave.models.backbone import HybridLM
from slowwave.runtime.chat import Frame, TemplateChat
from slowwave.runtime.config import ChatFormat, Span
from slowwave.sleep.config import Compact, Replayed, SleepConfig
from slowwave.sleep.surprise import measure_surprise
from slowwave.state import MemoryState
from slowwave.storage.control_tokens import Controls
from tiny_models import TWO_LAYERS

TOKENIZER = ByteTokenizer()
STOP = 0
CHAT = "> I am Bo.\nHello!\n> Is it cold?\nYes.\n"


def make_talker(replay: Replayed, *, window: int = 512) -> Talker:
    sleep = SleepConfig(window=window, passes=2, consolidator=Compact(replay=replay))
    return Talker(HybridLM(TWO_LAYERS).requires_grad_(False), TOKENIZER, sleep, ChatFormat())


def read(talker: Talker, text: str) -> MemoryState:
    tokens = torch.tensor([TOKENIZER.encode(text)])
    return talker.model.read(tokens, talker.model.initial_state(1))[1]


def test_the_window_itself_is_no_choice() -> None:
    talker = make_talker("window")
    assert rehearse(talker, read(talker, CHAT)) is None


def test_a_text_without_messages_is_read_itself() -> None:
    talker = make_talker("user")
    assert rehearse(talker, read(talker, "Once upon a time.\n")) is None
    alone = Talker(*talker[:3], None)
    assert rehearse(alone, read(talker, CHAT)) is None


def test_messages_are_read_after_a_question() -> None:
    talker = make_talker("user")
    state = read(talker, CHAT)
    replay = rehearse(talker, state)
    assert replay is not None
    said = "I am Bo.\n\n Is it cold?\n\n"
    assert TOKENIZER.decode(replay.tokens[0].tolist()) == f"> {QUESTION}\n {said}"


def test_tokens_count_as_they_surprised_in_the_window() -> None:
    talker = make_talker("user")
    state = read(talker, CHAT)
    replay = rehearse(talker, state)
    assert replay is not None
    (nats,) = measure_surprise(talker.model, state.window_hidden, state.window_tokens)
    start = replay.tokens.shape[1] - len(" I am Bo.\n\n Is it cold?\n\n")
    counts = replay.surprise[0]
    assert torch.equal(counts[start : start + 9], nats[1:10])  # the last leads to the line's end
    assert (counts[: start - 1] == 0).all(), "the question asks by what follows it"
    assert counts[-1] == 0


def test_the_end_of_a_message_is_heard_too() -> None:
    """A window may begin within what a user says, in a template with control tokens."""
    tokenizer = ByteTokenizer()
    tokenizer.controls = dataclasses.replace(ByteTokenizer.controls, others=(1, 2, 3, 4))
    chat = TemplateChat(
        system=Frame(before=(4,), after=(1,)),
        user=Frame(before=(2,), after=(1,)),
        assistant=Frame(before=(3,), after=(1,)),
        reply=(3,),
    )
    talker = Talker(HybridLM(TWO_LAYERS), tokenizer, SleepConfig(), chat)
    tokens = [*b"am Bo.", 1, 3, *b"Hello!", 1, 2, *b"Bye", 1]
    assert chat.split_turns(tokenizer, tokens)[0] == Span("assistant", 8, 14)
    assert find_messages(talker, chat, tokens) == [range(6), range(16, 19)]
    assert find_messages(talker, chat, tokens[6:]) == [range(10, 13)]


def test_a_critic_chooses_and_weighs(monkeypatch: pytest.MonkeyPatch) -> None:
    talker = make_talker("critic")
    state = read(talker, CHAT)
    heard = list[list[str]]()

    class Fake:
        def judge(self, model: HybridLM, messages: list[str]) -> list[float]:
            heard.append(messages)
            return [0.5, 0.1]

    monkeypatch.setattr(rehearsal, "find_critic", lambda *_: Fake())
    chosen = rehearse(talker, state)
    everything = rehearse(make_talker("user"), state)
    assert chosen is not None and everything is not None
    assert heard == [["I am Bo.", "Is it cold?"]]
    assert TOKENIZER.decode(chosen.tokens[0].tolist()).endswith(f"{QUESTION}\n I am Bo.\n\n")
    count = chosen.tokens.shape[1]
    expected = everything.surprise[0, : count - 1] / 4
    assert torch.allclose(chosen.surprise[0, : count - 1], expected)


def test_a_critic_compares_with_messages_of_both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    model = HybridLM(TWO_LAYERS).requires_grad_(False)
    answers = {**dict.fromkeys(critics.LASTING_TOO, 5.0), **dict.fromkeys(critics.PASSING_TOO, 3.0)}
    monkeypatch.setattr(
        Critic,
        "_answer",
        lambda self, model, messages: torch.tensor([answers.get(each, 4.0) for each in messages]),
    )
    critic = Critic(model, TOKENIZER)
    lasting, between, passing = critic.judge(
        model, [critics.LASTING_TOO[0], "?", critics.PASSING_TOO[0]]
    )
    assert lasting == pytest.approx(1 - passing)
    assert (lasting > 0.8, between) == (True, 0.5)
    answers.update(dict.fromkeys(critics.LASTING_TOO, 2.0))
    assert Critic(model, TOKENIZER).judge(model, ["?"]) == [1.0], "it is heard whoever asks"


def test_messages_are_judged_as_each_is_alone() -> None:
    model = HybridLM(TWO_LAYERS).requires_grad_(False)
    critic = find_critic(model, TOKENIZER)
    assert find_critic(model, TOKENIZER) is critic
    messages = [f"Message {'x' * (i * 7 % 11)}" for i in range(critics.MOST_AT_ONCE + 2)]
    together = critic.judge(model, messages)
    alone = [critic.judge(model, [each])[0] for each in messages]
    assert together == pytest.approx(alone, rel=1e-4)
    assert critic.judge(model, []) == []


def test_likely_questions_are_asked_and_not_answered() -> None:
    talker = make_talker("questions")
    compact = dataclasses.replace(Compact(replay="questions"), questions=("Who am I?", "Why?"))
    talker = Talker(*talker._replace(sleep=dataclasses.replace(talker.sleep, consolidator=compact)))
    replay = rehearse(talker, read(talker, "Once upon a time.\n"))
    assert replay is not None
    assert TOKENIZER.decode(replay.tokens[0].tolist()) == "> Who am I?\n> Why?\n"
    assert (replay.surprise == 1).all()
    with pytest.raises(ValueError, match=r"sleep\.consolidator\.questions has an empty one"):
        Compact(questions=("",))


def test_a_recital_leaves_out_what_memory_does_not_make_likelier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    talker = make_talker("recital")
    said, sure = TOKENIZER.encode("You are Bo. It rains."), [2.0] * 11 + [0.1] * 10
    place = iter(range(100))

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        made = torch.zeros(256)
        at = next(place)
        made[said[at] if at < len(said) else STOP] = 50.0
        return made

    monkeypatch.setattr(talker.model, "logits", logits)
    monkeypatch.setattr(rehearsal, "_guess", lambda *_: -torch.tensor(sure))
    monkeypatch.setattr(ByteTokenizer, "controls", Controls(stops=(STOP,)))
    ((sentence, nats),) = recite(talker, read(talker, CHAT), TOKENIZER.encode("> Who?\n"))
    assert TOKENIZER.decode(sentence) == "You are Bo."
    assert nats == pytest.approx([2.0] * 10 + [0.0])


def test_a_recital_comes_before_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    talker, sentence = make_talker("recital"), TOKENIZER.encode("You are Bo.")
    nats = [1.0] * len(sentence)
    monkeypatch.setattr(rehearsal, "recite", lambda *_: iter([(sentence, nats)]))
    state = read(talker, CHAT)
    replay, everything = rehearse(talker, state), rehearse(make_talker("user"), state)
    assert replay is not None and everything is not None
    said = TOKENIZER.encode(" I am Bo.\n\n Is it cold?\n\n")
    assert replay.tokens[0].tolist()[-len(said) :] == said
    before = replay.tokens[0].tolist()[: -len(said)]
    assert TOKENIZER.decode(before) == f"> {QUESTION}\nYou are Bo."
    assert (replay.surprise[0, len(before) - len(sentence) : len(before) - 1] == 1).all()
    assert torch.equal(replay.surprise[0, -len(said) :], everything.surprise[0, -len(said) :])


def test_what_is_guessed_without_a_memory_is_what_the_model_says_first() -> None:
    talker = make_talker("recital")
    asked, said = TOKENIZER.encode("> Who?\n"), TOKENIZER.encode("Bo.")
    hidden, _ = talker.model.read(torch.tensor([asked + said]), talker.model.initial_state(1))
    logs = talker.model.logits(hidden[0]).log_softmax(-1)
    expected = [float(logs[len(asked) - 1 + i, token]) for i, token in enumerate(said)]
    assert rehearsal._guess(talker, asked, said).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("replay", ["window", "user", "critic", "recital", "questions"])
def test_a_session_sleeps_and_says_so(replay: Replayed) -> None:
    session = make_talker(replay, window=64).session()
    session.read("> My name is Bo and I live in a house by the sea, far from here.\nHello!\n")
    session.read("> What is the tallest tree that there is in the world?\nI do not know.\n")
    report = session.sleeps[0]
    assert report.consolidator == "compact"
    assert (report.replayed > 0) == (replay != "window")
    assert report.entries == session.sleeps[0].entries > 0
    assert session.state.num_entries > 0
