"""Which messages of a user are worth remembering: the model itself is asked about each alone."""

from __future__ import annotations

import random
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from slowwave.models.backbone import HybridLM
from slowwave.storage.tokenizer import Tokenizer

QUESTION = "Does the message tell a lasting fact about its writer?"
BEGIN, END = 'Message: "', '"\nAnswer:'
# Examples to begin with, and others whose answers say where a model draws the line.
LASTING = (
    "My flat is on the third floor.",
    "I have two older sisters.",
    "I'm studying law in my second year.",
    "Call me Bo, everyone does.",
    "We keep chickens behind the house.",
    "I sold my boat a year ago.",
    "Milk upsets my stomach.",
    "My grandfather was a miner.",
    "I speak Welsh with my aunt.",
    "I broke my arm as a child.",
    "My husband works at sea.",
    "On Mondays I sing in a choir.",
    "I was born in a small village.",
    "My bicycle is called Thunder.",
    "I can't stand the smell of garlic.",
    "I teach swimming.",
    "I grew up with six brothers.",
    "My favourite season is spring.",
    "I have worn glasses since I was nine.",
)
PASSING = (
    "How far away is the sun?",
    "What a cold morning.",
    "Give me a tip for planting tomatoes.",
    "Why is the sky blue?",
    "That lecture was boring.",
    "Which river is the longest?",
    "Explain how magnets work.",
    "The shop was crowded today.",
    "What should I read next?",
    "Who discovered penicillin?",
    "What is the capital of Peru?",
    "Tell me about volcanoes.",
    "I need a title for an essay.",
    "Thanks, that was helpful.",
    "Could you say that again?",
    "There was a strange noise outside.",
    "Suggest a film for tonight.",
    "My computer is slow today.",
    "How many people live in China?",
)
LASTING_TOO = (
    "Our son is called Theo.",
    "I retired from the navy.",
    "I never eat cheese.",
    "My garden has an old pear tree.",
    "I swim before breakfast every day.",
    "Everyone knows me as Lou.",
    "I share a house with three friends.",
    "Heights scare me.",
)
PASSING_TOO = (
    "How do I fold a shirt?",
    "The bus did not come.",
    "Who painted this picture?",
    "Tell me a joke.",
    "It may snow tonight.",
    "How many legs has a spider?",
    "I could use some coffee now.",
    "What does this word mean?",
)
MOST_TOKENS = 128
"""Of a message that are looked at."""
MOST_AT_ONCE = 8
SHARPNESS = 2.0

_CRITICS: weakref.WeakKeyDictionary[HybridLM, Critic] = weakref.WeakKeyDictionary()


class Critic:
    """Asks a model about messages, each after the same examples, which are read once.

    What it answers is compared with what it answers about messages of both kinds that it was shown
    no answer for: models differ in how ready they are to say yes. The model is not kept, but given.
    """

    def __init__(self, model: HybridLM, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        examples = [(each, "Yes") for each in LASTING] + [(each, "No") for each in PASSING]
        random.Random(0).shuffle(examples)
        shown = "".join(f"{BEGIN}{each}{END} {answer}\n\n" for each, answer in examples)
        prompt = torch.tensor([tokenizer.encode(f"{QUESTION}\n\n{shown}{BEGIN}")])
        _, self.prompted = model.read(prompt.to(model.device), model.initial_state(1))
        self.answers = [tokenizer.encode(f" {answer}")[-1] for answer in ("Yes", "No")]
        lasting, passing = (self._answer(model, each).mean() for each in (LASTING_TOO, PASSING_TOO))
        self.middle, self.apart = (lasting + passing) / 2, (lasting - passing) / 2

    def judge(self, model: HybridLM, messages: Sequence[str]) -> list[float]:
        """How sure the model is that each is worth remembering, from 0 to 1."""
        if not messages:
            return []
        if self.apart <= 0:  # a model that does not understand the question
            return [1.0] * len(messages)
        apart = (self._answer(model, messages) - self.middle) / self.apart
        return torch.sigmoid(SHARPNESS * apart).tolist()

    def _answer(self, model: HybridLM, messages: Sequence[str]) -> Tensor:
        """Logit of yes less logit of no, for each message."""
        # Those of like length together, for the shorter ones are padded.
        order = sorted(range(len(messages)), key=lambda i: len(messages[i]))
        found = [
            self._answer_few(model, [messages[i] for i in order[start : start + MOST_AT_ONCE]])
            for start in range(0, len(order), MOST_AT_ONCE)
        ]
        return torch.cat(found)[torch.tensor(order).argsort()]

    def _answer_few(self, model: HybridLM, messages: Sequence[str]) -> Tensor:
        end = self.tokenizer.encode(END)
        asked = [[*self.tokenizer.encode(each)[:MOST_TOKENS], *end] for each in messages]
        longest = max(map(len, asked))
        padded = torch.tensor([[each + [0] * (longest - len(each)) for each in asked]])
        (hidden,) = model.ask(padded.to(model.device), self.prompted)
        last = torch.stack([row[len(each) - 1] for row, each in zip(hidden, asked, strict=True)])
        yes, no = model.logits(last)[:, self.answers].unbind(1)
        return yes - no


def find_critic(model: HybridLM, tokenizer: Tokenizer) -> Critic:
    """The critic of a model, which is made once."""
    if model not in _CRITICS:
        _CRITICS[model] = Critic(model, tokenizer)
    return _CRITICS[model]
