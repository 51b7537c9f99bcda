"""Questions with the answers that they should get, as tokens to train on and to measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.runtime.config import ChatFormat, Role
from slowwave.runtime.model_folder import TalkingModel
from slowwave.sleep.awake import ask_awake
from slowwave.sleep.schedule import NO_LOSS
from slowwave.state import MemoryState


class Asked(NamedTuple):
    """Questions with their answers: tokens (F, Q), and targets (F, Q), NO_LOSS elsewhere."""

    tokens: Tensor
    targets: Tensor

    @property
    def num_targets(self) -> list[int]:
        """Of every question."""
        return (self.targets != NO_LOSS).sum(1).tolist()


def encode_asked(talker: TalkingModel, pairs: Sequence[tuple[str, str]]) -> Asked:
    """Questions of a user with their answers, padded on the right; answers and what ends them are
    targets. The talker has a chat."""
    rows = [_encode_pair(talker, *pair) for pair in pairs]
    length = max(len(tokens) for tokens, _ in rows)
    tokens = torch.zeros(len(rows), length, dtype=torch.int64)
    targets = torch.full((len(rows), length), NO_LOSS)
    for i, (ids, start) in enumerate(rows):
        tokens[i, : len(ids)] = torch.tensor(ids)
        targets[i, start - 1 : len(ids) - 1] = tokens[i, start : len(ids)]
    return Asked(tokens.to(talker.model.device), targets.to(talker.model.device))


def predict_answers(
    talker: TalkingModel, state: MemoryState, asked: Asked
) -> tuple[Tensor, Tensor]:
    """Logits (T, vocab) at the targets of all questions, each on a copy of one stream's state, and
    the targets (T,)."""
    hidden = ask_awake(talker.model, asked.tokens[None], state, talker.sleep)[0]
    is_target = asked.targets != NO_LOSS
    return talker.model.logits(hidden[is_target]), asked.targets[is_target]


def measure_divergence(found: Tensor, expected: Tensor) -> Tensor:
    """How far logits (T, vocab) are from those expected: KL divergence in nats, a token each."""
    return F.kl_div(
        found.log_softmax(-1), expected.log_softmax(-1), reduction="batchmean", log_target=True
    )


def encode_message(talker: TalkingModel, role: Role, text: str) -> list[int]:
    """A message with all that the chat puts around it."""
    assert talker.chat is not None
    pieces = talker.chat.encode(talker.tokenizer, role, text)
    return [token for piece in pieces for token in piece]


def _encode_pair(talker: TalkingModel, question: str, answer: str) -> tuple[list[int], int]:
    """The tokens of a question and its answer, and the place where the answer begins."""
    chat, tokenizer = talker.chat, talker.tokenizer
    assert chat is not None
    told = encode_message(talker, "user", question)
    reply = encode_message(talker, "assistant", answer)
    start = len(told) + len(chat.open_reply(tokenizer))
    # A transcript's reply ends where the user's next line begins.
    mark = chat.user_mark.rstrip() if isinstance(chat, ChatFormat) and chat.assistant_mark else ""
    following = tokenizer.encode(mark)
    return [*told, *reply, *following], start
