"""Local files as token ids, cut into pieces that belong to one split each.

A piece is `piece` tokens from a multiple of `piece` on, in one file; a hash of what it says decides
its split, so that no two splits share one, whatever files are called and however many there are.
Pieces of one split that adjoin in a file make a stretch.
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

from slowwave.storage.tokenizer import explain_panics
from slowwave.tasks.random_bits import Integers, Words
from slowwave.tasks.splits import SPLITS, belongs_to

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LOOKED_AT = 8000  # bytes

Tokens = npt.NDArray[np.uint8 | np.int32]


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
