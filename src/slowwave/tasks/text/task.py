"""Text: local files, byte by byte or through a tokenizer, every token to be predicted.

A stream is `context` tokens in a row from any place of a split, as they stand in one file. Ids:
bytes, or those of the tokenizer.

A file is cut into pieces of `piece` tokens, the last of which may be shorter. A hash of what a
piece says decides its split, so that no two splits share one, whatever files are called and however
many there are. Pieces of one split that adjoin in a file make a stretch.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from slowwave.sleep.objective import Batch, Labelled
from slowwave.storage.tokenizer import NUM_BYTES
from slowwave.storage.tokenizer_file import count_ids, explain_panics, read_tokenizer_file
from slowwave.tasks.base import Lines, Task, name_doublings
from slowwave.tasks.draws import SPLITS, Integers, Words, belongs_to, check_rows, keyed_hash
from slowwave.tasks.text import TextConfig

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LOOKED_AT = 8000  # bytes

Tokens = npt.NDArray[np.uint8 | np.int32]


class Text(Task[TextConfig]):
    """Each token is an answer of its own. Groups are how many tokens of its window have been read
    when it is predicted, from 2^i on: what attention sees of the text since the last sleep. Or they
    are the windows of the stream, the first one 1.

    Raises ValueError if files are missing or hold too little for a split, or if a tokenizer cannot
    be read.
    """

    config_class = TextConfig
    group_name = "token"

    def __init__(self, config: TextConfig) -> None:
        super().__init__(config)
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
        self.group_name = config.group
        self.groups = dict(enumerate(name_doublings(min(config.window, config.context))))
        if config.group == "window":
            count = -(-config.context // config.window)
            self.groups = {window: str(window + 1) for window in range(count)}

    def batch(self, split: str, indices: npt.ArrayLike) -> Batch:
        """Stream (B, context), no forked questions; see `Task.batch`."""
        places = self._draw_places(split, check_rows(split, indices))
        steps = np.arange(self.config.context + 1)
        tokens = self._corpus.tokens[places[:, None] + steps].astype(np.int64)
        if self.config.group == "window":
            groups = steps[:-1] // self.config.window
        else:
            read = 1 + steps[:-1] % self.config.window
            groups = np.frexp(read)[1].astype(np.int64) - 1
        shape = (len(tokens), self.config.context)
        labels = (np.broadcast_to(column, shape) for column in (steps[:-1], groups))
        return Batch(Labelled.from_arrays(tokens[:, :-1], tokens[:, 1:], *labels), None)

    def describe(self, split: str, index: int) -> tuple[Lines, Lines, Lines]:
        """See `Task.describe`; the context has one entry for each window."""
        tokens: list[int] = self.batch(split, [index]).stream.inputs[0].tolist()
        starts = range(0, len(tokens), self.config.window)
        windows = (self._decode(tokens[at : at + self.config.window]) for at in starts)
        return windows, (), ()

    def label(self, context: Sequence[str]) -> Lines:
        return (f"window {number}: {text!r}" for number, text in enumerate(context, start=1))

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


@dataclasses.dataclass(frozen=True, slots=True)
class Corpus:
    """tokens: (M,), all files one after another. num_bytes: what they are as text.

    starts, lengths: for every split, its stretches, as places in `tokens`.
    """

    tokens: Tokens
    num_bytes: int
    starts: dict[str, Integers]
    lengths: dict[str, Integers]


def read_corpus(entries: Sequence[str], piece: int, tokenizer: Tokenizer | None) -> Corpus:
    """Reads files, folders and patterns, byte by byte or through a tokenizer.

    Special tokens of the tokenizer are read from the text: a corpus may hold them, unlike what is
    told to a session. Raises ValueError if an entry leads to no file, or a tokenizer meets text
    that is not UTF-8 or that it has no tokens for.
    """
    files = find_files(entries)
    contents = [_read(file, tokenizer) for file in files]
    starts: dict[str, list[Integers]] = {split: [] for split in SPLITS}
    lengths: dict[str, list[Integers]] = {split: [] for split in SPLITS}
    place = 0
    for content in contents:
        hashes = piece_hashes(content, piece)
        for split in SPLITS:
            first, stop = _find_runs(belongs_to(split, hashes))
            starts[split].append(place + piece * first)
            lengths[split].append(np.minimum(piece * stop, len(content)) - piece * first)
        place += len(content)
    return Corpus(
        tokens=np.concatenate(contents),
        num_bytes=sum(file.stat().st_size for file in files),
        starts={split: np.concatenate(parts) for split, parts in starts.items()},
        lengths={split: np.concatenate(parts) for split, parts in lengths.items()},
    )


def find_files(entries: Sequence[str]) -> list[Path]:
    """The files that the entries name, each once.

    Of a folder all files in any depth, but for hidden ones and for those that hold a zero byte near
    their start, by which git too tells what is no text.
    """
    found: dict[Path, Path] = {}
    for entry in entries:
        files = [path for path in _expand(entry) if entry and path.is_file()]
        if not files:
            raise ValueError(
                f"task.files names {entry!r}, which leads to no file; name a file, a folder or a "
                "pattern such as docs/*.md"
            )
        found |= {path.resolve(): path for path in files}
    return list(found.values())


def piece_hashes(content: Tokens, piece: int) -> Words:
    """One word for each piece of a file, the last of which may be shorter."""
    digests = b"".join(
        hashlib.blake2b(content[start : start + piece].tobytes(), digest_size=8).digest()
        for start in range(0, len(content), piece)
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _expand(entry: str) -> Iterator[Path]:
    folder = Path(entry)
    if not folder.is_dir():
        yield from map(Path, sorted(glob.glob(entry, recursive=True)))
        return
    for path in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not is_hidden and not _is_binary(path):
            yield path


def _is_binary(file: Path) -> bool:
    with file.open("rb") as opened:
        return b"\0" in opened.read(LOOKED_AT)


def _read(file: Path, tokenizer: Tokenizer | None) -> Tokens:
    content = file.read_bytes()
    if tokenizer is None:
        return np.frombuffer(content, dtype=np.uint8)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file}: not UTF-8 ({error}); convert it, leave it out of task.files, or leave out "
            "task.tokenizer to read bytes"
        ) from None
    unread = f"{file}: task.tokenizer has no tokens for it"
    mend = "leave the file out of task.files, or name another tokenizer"
    with explain_panics(unread, mend):
        try:
            return np.array(tokenizer.encode(text, add_special_tokens=False).ids, dtype="<i4")
        except Exception as error:  # tokenizers raises nothing narrower
            raise ValueError(f"{unread} ({error}); {mend}") from None


def _find_runs(inside: npt.NDArray[np.bool_]) -> tuple[Integers, Integers]:
    """Where runs of True start, and where they stop."""
    steps = np.diff(inside.astype(np.int64), prepend=0, append=0)
    return np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
