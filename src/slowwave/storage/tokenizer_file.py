"""A tokenizer.json as the tokenizers package reads it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from slowwave.storage.files import read_small
from slowwave.wording import say_how_to_install

if TYPE_CHECKING:
    import tokenizers

MEND = "name a tokenizer.json of the tokenizers package"
_MAX_UNUSED_IDS = 1_000_000  # and as many as there are tokens


class ParsedTokenizer(NamedTuple):
    """A tokenizer, and what takes long to ask it for where there are many tokens."""

    tokenizer: tokenizers.Tokenizer
    vocabulary: dict[str, int]
    """Its tokens but for added ones."""
    added: list[dict[str, Any]]
    """Added tokens, as the file has them."""

    @property
    def num_ids(self) -> int:
        """The highest id and one, which is more than there are tokens where ids have holes."""
        added = self.tokenizer.get_added_tokens_decoder()
        return 1 + max(max(self.vocabulary.values(), default=-1), max(added, default=-1))


def read_tokenizer_file(path: str | Path) -> tokenizers.Tokenizer:
    """Any tokenizer.json, as the tokenizers package reads it, that neither cuts, pads nor draws.

    Raises ValueError if the package is missing or cannot read the file.
    """
    return parse_tokenizer(path, read_content(path)).tokenizer


def count_ids(tokenizer: tokenizers.Tokenizer) -> int:
    """See `ParsedTokenizer.num_ids`."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    return ParsedTokenizer(tokenizer, vocabulary, []).num_ids


def read_content(path: str | Path) -> bytes:
    """The bytes of a file; raises ValueError, in the words for tokenizers, if there are none."""
    try:
        return read_small(Path(path))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read as a tokenizer ({error}); {MEND}") from None


def parse_tokenizer(path: str | Path, content: bytes) -> ParsedTokenizer:
    """See `read_tokenizer_file`. path: named by sentences."""
    try:
        from tokenizers import Tokenizer
        from tokenizers.models import BPE
    except ModuleNotFoundError:
        raise ValueError(
            f"{path}: the tokenizers package, which reads it, is not installed; "
            f"{say_how_to_install('text')}"
        ) from None
    unread = f"{path}: cannot be read as a tokenizer"
    with explain_panics(unread, MEND):
        try:
            values = json.loads(content)  # refuses what the package passes over
            tokenizer = Tokenizer.from_str(content.decode())
        except Exception as error:  # tokenizers raises nothing narrower
            raise ValueError(f"{unread} ({error}); {MEND}") from None
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    parsed = ParsedTokenizer(tokenizer, vocabulary, values.get("added_tokens", []))
    _require_near_ids(path, parsed)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if isinstance(tokenizer.model, BPE):
        tokenizer.model.dropout = None  # which skips merges at random
    return parsed


def _require_near_ids(path: str | Path, parsed: ParsedTokenizer) -> None:
    """Of ids far apart the package makes a table up to the highest."""
    count, highest = parsed.tokenizer.get_vocab_size(), parsed.num_ids - 1
    if highest > _MAX_UNUSED_IDS + 2 * count:
        raise ValueError(
            f"{path}: has id {highest} for one of {count} tokens; number them without such a gap"
        )


@contextlib.contextmanager
def explain_panics(sentence: str, mend: str) -> Iterator[None]:
    """Raises ValueError where the package fails on its own, which `except Exception` lets by."""
    try:
        yield
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":  # the class itself has no name to import
            raise
        raise ValueError(f"{sentence} ({error}); {mend}") from None
