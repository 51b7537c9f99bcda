"""Text: local files, byte by byte or through a tokenizer, every token to be predicted.

A stream is `context` tokens in a row from any place of a split, as they stand in one file; of which
files, and how they are split, see `text_corpus`. Ids: bytes, or those of the tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from slowwave.storage.tokenizer import NUM_BYTES, count_ids, read_tokenizer_file
from slowwave.tasks.base import Batch, Example, Labelled, name_range
from slowwave.tasks.config import TextConfig
from slowwave.tasks.random_bits import Integers, keyed_hash
from slowwave.tasks.splits import SPLITS, check_indices, check_split
from slowwave.tasks.text_corpus import read_corpus


class Text:
    """Each token is an answer of its own. Groups are how many tokens of its window have been read
    when it is predicted, from 2^i on: what attention sees of the text since the last sleep.

    Raises ValueError if files are missing or hold too little for a split, or if a tokenizer cannot
    be read.
    """

    group_name = "token"

    def __init__(self, config: TextConfig) -> None:
        self.config = config
        if not config.files:
            raise ValueError(
                "task.files is empty; name files, folders or patterns, such as docs/*.md"
            )
        self._tokenizer = (
            None if config.tokenizer is None else read_tokenizer_file(config.tokenizer)
        )
        self._corpus = read_corpus(config.files, config.piece, self._tokenizer)
        self._check_size()
        self.vocab_size = NUM_BYTES if self._tokenizer is None else count_ids(self._tokenizer)
        self.bytes_per_token = self._corpus.num_bytes / len(self._corpus.tokens)
        self.context_tokens = 0
        self.prediction_tokens = config.context
        longest = min(config.window, config.context)
        self.group_values = tuple(range(longest.bit_length()))
        self.group_labels = tuple(
            name_range(2**group, min(2 ** (group + 1) - 1, longest)) for group in self.group_values
        )

    def batch(self, split: str, indices: npt.ArrayLike) -> Batch:
        """Stream (B, context), no forked questions; see `Task.batch`."""
        check_split(split)
        places = self._draw_places(split, check_indices(indices))
        steps = np.arange(self.config.context + 1)
        tokens = self._corpus.tokens[places[:, None] + steps].astype(np.int64)
        read = 1 + steps[:-1] % self.config.window
        groups = np.frexp(read)[1].astype(np.int64) - 1
        shape = (len(tokens), self.config.context)
        labels = (np.broadcast_to(column, shape) for column in (steps[:-1], groups))
        return Batch(Labelled.from_arrays(tokens[:, :-1], tokens[:, 1:], *labels), None)

    def example(self, split: str, index: int) -> Example:
        """See `Task.example`; the context has one entry for each window."""
        stream = self.batch(split, [index]).stream
        tokens: list[int] = stream.inputs[0].tolist()
        window = self.config.window
        return Example(
            split=split,
            index=index,
            tokens=tuple(tokens),
            targets=tuple(stream.targets[0].tolist()),
            context=tuple(
                self._decode(tokens[start : start + window])
                for start in range(0, len(tokens), window)
            ),
            questions=(),
            answers=(),
        )

    def render(self, example: Example) -> str:
        """See `Task.render`."""
        windows = enumerate(example.context, start=1)
        return "\n".join(
            [
                f"text {example.split} {example.index}",
                *(f"  window {number}: {text!r}" for number, text in windows),
            ]
        )

    def is_correct(self, example: Example, output: Sequence[int]) -> bool:
        """See `Task.is_correct`."""
        return tuple(output) == example.targets

    def floors(self) -> dict[str, float]:
        """constant: the share of the test split's most common token."""
        corpus = self._corpus
        counts = np.zeros(self.vocab_size, dtype=np.int64)
        for start, length in zip(corpus.starts["test"], corpus.lengths["test"], strict=True):
            stretch = corpus.tokens[start : start + length]
            counts += np.bincount(stretch, minlength=self.vocab_size)
        return {"constant": float(counts.max() / counts.sum())}

    def _draw_places(self, split: str, indices: npt.NDArray[np.uint64]) -> Integers:
        """Where streams start, (B,): any place that leaves room for one in its stretch.

        The draw depends on no file name, so that a corpus may move.
        """
        room = self._room(split)
        ends = np.cumsum(room)
        words = keyed_hash(indices, "text", self.config.context, split, "places")
        drawn = (words % np.uint64(ends[-1])).astype(np.int64)
        stretch = np.searchsorted(ends, drawn, side="right")
        return self._corpus.starts[split][stretch] + drawn - (ends - room)[stretch]

    def _room(self, split: str) -> Integers:
        """Places of every stretch of a split at which a stream can start."""
        return np.maximum(self._corpus.lengths[split] - self.config.context, 0)

    def _check_size(self) -> None:
        for split in SPLITS:
            if not self._room(split).any():
                raise ValueError(
                    f"task.files holds {len(self._corpus.tokens)} tokens, of which the {split} "
                    f"split has no {self.config.context + 1} in a row; give more text, or lower "
                    f"task.piece = {self.config.piece} and task.context"
                )

    def _decode(self, tokens: list[int]) -> str:
        if self._tokenizer is None:
            return bytes(tokens).decode("utf-8", errors="replace")
        return self._tokenizer.decode(tokens, skip_special_tokens=False)
