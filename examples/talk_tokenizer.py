"""Makes the tokenizer of recipes/talk.toml from what the task says; the same file every time.

    python examples/talk_tokenizer.py recipes/talk-tokenizer.json

A name must be the same tokens wherever it stands, so that it can be copied: capitalised words come
without the space before them, which belongs to the word before. Numbers are read two digits at a
time: each token of a value has to be recalled, so few are better than many.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from slowwave.tasks.conversation import ConversationConfig
from slowwave.tasks.conversation.turns import draw_script

VOCABULARY = 1280
CONVERSATIONS = 500
TURNS = 64
NUMBER_COPIES = 50

_PIECES = "|".join(
    (
        r"> ",
        r" ?\p{Ll}+(?: (?=\p{Lu}))?",
        r"\p{Lu}\p{Ll}*",
        r"'\p{Ll}+(?: (?=\p{Lu}))?",
        r" ?\p{N}{1,2}",
        r"[^\s\p{L}\p{N}']+(?:\n| (?=\p{Lu}))?",
    )
)


def train_tokenizer(conversations: int = CONVERSATIONS) -> str:
    """The tokenizer.json, as text: byte-level BPE, so that any text has tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = itertools.chain(read_lines(conversations), list_numbers())
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str(pretty=False)


def read_lines(conversations: int) -> Iterator[str]:
    """The lines of training conversations."""
    config = ConversationConfig()
    for index in np.arange(conversations, dtype=np.uint64)[:, None]:
        turns = draw_script(config, "train", index).turns()
        for turn in itertools.islice(turns, TURNS):
            yield turn.line
            yield turn.reply


def list_numbers() -> Iterator[str]:
    """Numbers of one and two digits, often enough that each becomes a token."""
    numbers = [*map(str, range(10)), *(f"{number:02d}" for number in range(100))]
    for number in numbers:
        yield from [number, f" {number}"] * NUMBER_COPIES


if __name__ == "__main__":
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write(train_tokenizer() + "\n")
