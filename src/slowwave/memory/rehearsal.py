"""What a sleep reads again in place of the window: what a user said, or what of it is worth it,
what a model remembers, or what it may be asked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from slowwave.memory.critic import find_critic
from slowwave.models.backbone import HybridLM
from slowwave.runtime.chat import Chat
from slowwave.runtime.model_folder import TalkingModel
from slowwave.sleep.config import Compact
from slowwave.sleep.consolidators.consolidator import Replay
from slowwave.sleep.surprise import measure_surprise
from slowwave.state import MemoryState

QUESTION = "What do you know about me? Say again everything I told you about myself."
LIKELY = (
    "What is my name?",
    "Where do I live?",
    "What do I do for work?",
    "Who is in my family, and what are they called?",
    "Which animals do I have, and what are their names?",
    "What do I like to eat and drink?",
    "What must I not eat?",
    "What do I do in my free time?",
    "How old am I, and when is my birthday?",
    "What have I planned, and when?",
    "What do I own?",
    "What do I dislike, or am I afraid of?",
)
"""Questions that people ask one who knows them."""
LEAST_SURE = 0.3
"""A critic that is less sure of a message leaves it out."""
MOST_RECITED = 96
"""Tokens of a recital."""
LEAST_GAIN = 0.5
"""Nats a token by which memory must make a recited sentence likelier for it to be believed."""


class Script:
    """Tokens to read again, and how much the query of each counts, in nats."""

    def __init__(self) -> None:
        self.tokens, self.nats = list[int](), list[float]()

    def add(self, tokens: Sequence[int], nats: Sequence[float] | None = None) -> None:
        """Tokens with what each counts; nothing if not given."""
        self.tokens += tokens
        self.nats += [0.0] * len(tokens) if nats is None else nats

    def make(self, device: torch.device) -> Replay:
        """What a consolidator takes."""
        tokens = torch.tensor([self.tokens], device=device)
        return Replay(tokens, None, torch.tensor([self.nats], device=device))


def rehearse(talker: TalkingModel, state: MemoryState) -> Replay | None:
    """What a sleep on the open window of one stream reads again; None for the window itself.

    With `sleep.consolidator.replay` user, the question above and what users said in the window;
    with critic, what of it the model finds worth remembering, which counts the more the surer it
    is; with recital, before that what it says itself when it is asked, as far as its memory makes
    that likelier. Without a user's message that is the window itself. With questions, those of
    `sleep.consolidator.questions`, or likely ones, each with the begin of a reply.
    """
    config, chat = talker.sleep.consolidator, talker.chat
    if not isinstance(config, Compact) or chat is None:
        return None
    if config.replay == "window" or config.queries != "reread" or config.score == "recent":
        return None
    script, device = Script(), state.window_tokens.device
    if config.replay == "questions":
        for question in config.questions or LIKELY:
            asked = _ask(talker, chat, question)
            script.add(asked, [1.0] * len(asked))
        return script.make(device)
    (tokens,) = state.window_tokens.tolist()
    said = find_messages(talker, chat, tokens)
    if not said:
        return None
    script.add(_ask(talker, chat, QUESTION))
    if config.replay == "recital":
        for sentence, nats in recite(talker, state, script.tokens):
            script.add(sentence, nats)
    worth = [1.0] * len(said)
    if config.replay == "critic":
        texts = [talker.tokenizer.decode(tokens[each.start : each.stop]).strip() for each in said]
        worth = find_critic(talker.model, talker.tokenizer).judge(talker.model, texts)
    line_end = talker.tokenizer.encode("\n")
    for places, sure in zip(said, worth, strict=True):
        if sure >= LEAST_SURE:
            _repeat(talker.model, state, script, places, sure)
            script.add(line_end)
    return script.make(device)


def find_messages(talker: TalkingModel, chat: Chat, tokens: Sequence[int]) -> list[range]:
    """Places of what users said in a window, the end of a message that begins before it as well."""
    spans = chat.split_turns(talker.tokenizer, tokens)
    said = [range(span.start, span.stop) for span in spans if span.role == "user"]
    first = spans[0] if spans else None
    if first is None or first.role != "assistant":
        return said
    controls = {*talker.tokenizer.controls.stops, *talker.tokenizer.controls.others}
    before = itertools.takewhile(lambda token: token not in controls, tokens[: first.start])
    rest = range(len([*before]))
    return [rest, *said] if 0 < len(rest) < first.start else said


def recite(
    talker: TalkingModel, state: MemoryState, question: Sequence[int]
) -> Iterator[tuple[list[int], list[float]]]:
    """Sentences that the model answers a question with, token ids, each with how little the token
    after it would be expected without a memory, in nats.

    Only those that the memory in `state` makes likelier; the others are made up.
    """
    model, device = talker.model, state.window_tokens.device
    hidden, now = model.read(torch.tensor([[*question]], device=device), state)
    said, known = list[int](), list[float]()
    while len(said) < MOST_RECITED:
        logs = model.logits(hidden[0, -1]).log_softmax(-1)
        token = int(logs.argmax())
        if token in talker.tokenizer.controls.stops:
            break
        said.append(token)
        known.append(float(logs[token]))
        hidden, now = model.read(torch.tensor([[token]], device=device), now)
    if not said:
        return
    guessed = _guess(talker, question, said)
    gained = (torch.tensor(known) - guessed).tolist()
    start = 0
    for stop in range(1, len(said) + 1):
        text = talker.tokenizer.decode(said[start:stop])
        if stop < len(said) and not text.rstrip(" ").endswith((".", "!", "?", "\n")):
            continue
        if sum(gained[start:stop]) >= LEAST_GAIN * (stop - start):
            # A query counts by the token that it leads to.
            yield said[start:stop], [*(-guessed[start + 1 : stop]).tolist(), 0.0]
        start = stop


def _guess(talker: TalkingModel, question: Sequence[int], said: Sequence[int]) -> Tensor:
    """Log-probabilities of an answer without a memory, (R,), on the CPU."""
    model = talker.model
    asked = torch.tensor([[*question, *said]], device=model.device)
    hidden, _ = model.read(asked, model.initial_state(1))
    logs = model.logits(hidden[0, len(question) - 1 : -1]).log_softmax(-1)
    return logs.gather(-1, asked[0, len(question) :, None])[:, 0].cpu()


def _ask(talker: TalkingModel, chat: Chat, question: str) -> list[int]:
    """A question of the user, and the begin of a reply."""
    asked = itertools.chain.from_iterable(chat.encode(talker.tokenizer, "user", question))
    return [*asked, *chat.open_reply(talker.tokenizer)]


def _repeat(
    model: HybridLM, state: MemoryState, script: Script, places: range, sure: float
) -> None:
    """Adds a message of the window. Each token counts as it was a surprise when it was read."""
    # The token before a message leads to its first one, and its last one to nothing of it.
    first = max(places.start - 1, 0)
    read, tokens = (
        each[:, first : places.stop] for each in (state.window_hidden, state.window_tokens)
    )
    (nats,) = (sure**2 * measure_surprise(model, read, tokens)).tolist()
    before = places.start - first
    script.nats[-1] = sum(nats[:before])
    script.add(tokens[0, before:].tolist(), nats[before:])
