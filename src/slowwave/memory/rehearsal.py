"""What a sleep reads again in place of the window: what a user said, or what of it is worth it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from slowwave.memory.critic import find_critic
from slowwave.runtime.chat import Chat
from slowwave.runtime.model_folder import TalkingModel
from slowwave.sleep.config import Compact
from slowwave.sleep.consolidators.consolidator import Replay
from slowwave.sleep.surprise import measure_surprise
from slowwave.state import MemoryState

QUESTION = "What do you know about me? Say again everything I told you about myself."
LEAST_SURE = 0.3
"""A critic that is less sure of a message leaves it out."""


def rehearse(talker: TalkingModel, state: MemoryState) -> Replay | None:
    """What a sleep on the open window of one stream reads again; None for the window itself.

    With `sleep.consolidator.replay` user, the question above and what users said in the window;
    with critic, what of it the model finds worth remembering, which counts the more the surer it
    is. Without a user's message that is the window itself.
    """
    config = talker.sleep.consolidator
    if not isinstance(config, Compact) or talker.chat is None:
        return None
    if config.replay == "window" or config.queries != "reread" or config.score == "recent":
        return None
    (tokens,) = state.window_tokens.tolist()
    said = find_messages(talker, talker.chat, tokens)
    if not said:
        return None
    worth = [1.0] * len(said)
    if config.replay == "critic":
        texts = [talker.tokenizer.decode(tokens[each.start : each.stop]).strip() for each in said]
        worth = find_critic(talker.model, talker.tokenizer).judge(talker.model, texts)
    chosen = [pair for pair in zip(said, worth, strict=True) if pair[1] >= LEAST_SURE]
    return _write(talker, talker.chat, state, chosen)


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


def _write(
    talker: TalkingModel,
    chat: Chat,
    state: MemoryState,
    chosen: Sequence[tuple[range, float]],
) -> Replay:
    """The question, then messages as its answer. Each token counts as it was a surprise when the
    window was read."""
    tokenizer = talker.tokenizer
    asked = itertools.chain(*chat.encode(tokenizer, "user", QUESTION), chat.open_reply(tokenizer))
    replayed, counts = [*asked], list[float]()
    counts += [0.0] * len(replayed)
    line_end = tokenizer.encode("\n")
    for places, worth in chosen:
        # The token before a message leads to its first one, and its last one to nothing of it.
        first = max(places.start - 1, 0)
        read, tokens = (
            each[:, first : places.stop] for each in (state.window_hidden, state.window_tokens)
        )
        (nats,) = (worth**2 * measure_surprise(talker.model, read, tokens)).tolist()
        before = places.start - first
        counts[-1] = sum(nats[:before])
        counts += nats[before:] + [0.0] * len(line_end)
        replayed += [*tokens[0, before:].tolist(), *line_end]
    device = state.window_tokens.device
    return Replay(
        torch.tensor([replayed], device=device), None, torch.tensor([counts], device=device)
    )
