"""What a memory says when it is asked, and what a sleep keeps of that; all on copies."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from slowwave.memory.config import Question
from slowwave.runtime.config import Sampling
from slowwave.runtime.model_folder import TalkingModel
from slowwave.runtime.reply import NO_RULES, ReplyText, draw, make_generator
from slowwave.sleep.consolidate import consolidate
from slowwave.sleep.stream import read_stream
from slowwave.state import MemoryState


@torch.inference_mode()
def answer(talker: TalkingModel, state: MemoryState, question: str, *, max_new_tokens: int) -> str:
    """The greedy reply to a question, as a session at this state would give it.

    A copy whose window fills sleeps as the settings say, and no gate is asked. Raises ValueError if
    the question is empty.
    """
    rules = talker.chat.reply_rules if talker.chat else NO_RULES
    text = ReplyText(talker.tokenizer, (), rules=rules)
    sampling, generator = Sampling(), make_generator(Sampling(), 0)
    logits, state = _read(talker, state, _write_prompt(talker, state, question))

    for _ in range(max_new_tokens):
        token = draw(logits[-1], sampling, generator, text.forbids)
        if text.ends_before(token):
            break
        logits, state = _read(talker, state, [token])
        text.push(token)
        if text.is_stopped:
            break
    text.finish()
    return text.shown


@torch.inference_mode()
def measure_answer(
    talker: TalkingModel, state: MemoryState, question: str, expected: str
) -> Tensor:
    """NLL (T,) of the tokens of the expected answer, read in place of a reply."""
    prompt = _write_prompt(talker, state, question)
    lead = talker.chat.reply_rules.lead if talker.chat else ""
    tokens = talker.tokenizer.encode(lead + expected)
    logits, _ = _read(talker, state, prompt + tokens)
    return measure_tokens(logits[len(prompt) - 1 : -1], tokens)


def measure_tokens(logits: Tensor, tokens: list[int]) -> Tensor:
    """NLL (T,), in nats, of tokens under logits (T, vocab)."""
    targets = torch.tensor(tokens, device=logits.device)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def contains(reply: str, expected: str) -> bool:
    """Whether a reply is right: it contains the answer as written, but for spaces at its ends."""
    return expected.strip() in reply


def _write_prompt(talker: TalkingModel, state: MemoryState, question: str) -> list[int]:
    chat, tokenizer = talker.chat, talker.tokenizer
    begin = [] if state.counters.tokens_seen else talker.begin("user" if chat else None)
    if chat is None:
        return [*begin, *tokenizer.encode(question)]
    asked = [token for piece in chat.encode(tokenizer, "user", question) for token in piece]
    return [*begin, *asked, *chat.open_reply(tokenizer)]


def _read(
    talker: TalkingModel, state: MemoryState, tokens: list[int]
) -> tuple[Tensor, MemoryState]:
    """Logits (T, vocab) after every token, and the state."""
    ids = torch.tensor([tokens], device=talker.model.device)
    hidden, state = read_stream(talker.model, ids, state, talker.sleep)
    return talker.model.logits(hidden)[0], state


MAX_NEW_TOKENS = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReply:
    """What was said after a sleep."""

    passes: int
    """N, all passes counted; 1 is plain eviction."""
    text: str
    is_right: bool | None
    """Whether it contains the expected answer; None if there is none."""
    is_same: bool
    """Whether it is the reply before the sleep, to the letter."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """A question, and what was said before a sleep and after it."""

    question: Question
    before: str
    was_right: bool | None
    """Whether `before` contains the expected answer; None if there is none."""
    after: tuple[ProbeReply, ...]
    """One for every number of passes."""


def probe_state(
    talker: TalkingModel,
    state: MemoryState,
    questions: Iterable[Question],
    *,
    passes: Sequence[int] = (),
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[ProbeResult]:
    """Asks each question before a sleep on the open window, and after one of each `passes`.

    Replies are greedy. passes: those of the settings, if none are given. No gate is asked. The
    state stays as it is. Raises ValueError if the window is empty, the settings forbid sleep, or an
    argument is unfit.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; use 1 or more")
    for n in passes:
        talker.sleep.require_passes(n)
    slept = dict[int, MemoryState]()
    for n in passes or [talker.sleep.passes]:
        with torch.inference_mode():
            slept[n] = consolidate(talker.model, state, passes=n, sleep=talker.sleep)

    def ask(memory: MemoryState, question: Question) -> str:
        return answer(talker, memory, question.question, max_new_tokens=max_new_tokens)

    asked = list[ProbeResult]()
    for question in questions:
        before = ask(state, question)
        replies = {n: ask(memory, question) for n, memory in slept.items()}
        asked.append(
            ProbeResult(
                question=question,
                before=before,
                was_right=_is_right(question, before),
                after=tuple(
                    ProbeReply(
                        passes=n,
                        text=text,
                        is_right=_is_right(question, text),
                        is_same=text == before,
                    )
                    for n, text in replies.items()
                ),
            )
        )
    return asked


def _is_right(question: Question, reply: str) -> bool | None:
    return None if question.answer is None else contains(reply, question.answer)
