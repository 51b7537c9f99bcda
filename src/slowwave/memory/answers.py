"""What a memory says when it is asked, on a copy that is thrown away."""

from __future__ import annotations

import torch
from torch import Tensor

from slowwave.runtime.config import Sampling
from slowwave.runtime.model_folder import Talker
from slowwave.runtime.reply_text import ReplyText
from slowwave.runtime.sampling import draw, make_generator
from slowwave.sleep.stream import read_stream
from slowwave.state import MemoryState


@torch.inference_mode()
def answer(talker: Talker, state: MemoryState, question: str, *, max_new_tokens: int) -> str:
    """The greedy reply to a question, as a session at this state would give it.

    A copy whose window fills sleeps as the settings say, and no gate is asked. Raises ValueError if
    the question is empty.
    """
    chat, sampling = talker.chat, Sampling()
    stops, marks = ([chat.end], chat.marks) if chat else ([], ())
    text, generator = ReplyText(talker.tokenizer, stops, marks=marks), make_generator(sampling, 0)
    logits, state = _read(talker, state, _write_prompt(talker, question))

    for _ in range(max_new_tokens):
        token = draw(logits[-1], sampling, generator, text.forbids)
        logits, state = _read(talker, state, [token])
        text.push(token)
        if text.is_stopped:
            break
    text.finish()
    return text.shown


@torch.inference_mode()
def measure_answer(talker: Talker, state: MemoryState, question: str, expected: str) -> Tensor:
    """NLL (T,) of the tokens of the expected answer, read in place of a reply."""
    prompt = _write_prompt(talker, question)
    tokens = talker.tokenizer.encode(expected)
    logits, _ = _read(talker, state, prompt + tokens)
    return measure_tokens(logits[len(prompt) - 1 : -1], tokens)


def measure_tokens(logits: Tensor, tokens: list[int]) -> Tensor:
    """NLL (T,), in nats, of tokens under logits (T, vocab)."""
    targets = torch.tensor(tokens, device=logits.device)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def contains(reply: str, expected: str) -> bool:
    """Whether a reply is right: it contains the answer as written, but for spaces at its ends."""
    return expected.strip() in reply


def _write_prompt(talker: Talker, question: str) -> list[int]:
    return talker.tokenizer.encode(talker.chat.format_user(question) if talker.chat else question)


def _read(talker: Talker, state: MemoryState, tokens: list[int]) -> tuple[Tensor, MemoryState]:
    """Logits (T, vocab) after every token, and the state."""
    ids = torch.tensor([tokens], device=talker.model.device)
    hidden, state = read_stream(talker.model, ids, state, talker.sleep)
    return talker.model.logits(hidden)[0], state
