"""Text to token ids and back: by bytes, or by a tokenizer file."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from slowwave.storage.control_tokens import NO_CONTROLS, Controls
from slowwave.storage.tokenizer_faults import find_id_faults, find_inexact_parts
from slowwave.storage.tokenizer_file import MEND, explain_panics, parse_tokenizer, read_content

if TYPE_CHECKING:
    import tokenizers

NUM_BYTES = 256
PIECE = 8192
"""Characters that are encoded at once, in about 5 ms."""
MARGIN = 128
"""Characters after a cut that were seen when it was chosen."""

_REPLACEMENT = "\ufffd"
_ANY_BYTES = 2**20
_MAX_OPEN = 3  # tokens that can wait for the end of a character, which has four bytes at most
# What inexact tokenizers change: case, spaces, accents made of two code points, unknown signs.
# Files are judged by what they say; this is for what another version of the package may make of it.
_PROBES = ("A", " A  b\t\n\n 12 don't e\u0301 \u00e9 \u212b \u4f60 \U0001f600 \x00 ")


class Tokenizer(Protocol):
    """Text as token ids, none of which is a control token; without `losses`, `decode(encode(text))`
    is that text."""

    @property
    def vocab_size(self) -> int:
        """The highest token id and one; ids below it may be without a token."""
        ...

    @property
    def fingerprint(self) -> str:
        """What tells tokenizers apart: equal for two that read and write alike."""
        ...

    @property
    def max_token_bytes(self) -> int:
        """No token stands for more bytes of UTF-8, so that a text has at least so many tokens."""
        ...

    @property
    def controls(self) -> Controls:
        """What some tokens mean to the model; none of them is read from a text."""
        ...

    @property
    def losses(self) -> tuple[str, ...]:
        """Why `decode(encode(text))` may be another text, a clause each; empty if it never is."""
        ...

    def encode(self, text: str) -> list[int]:
        """The token ids of a text; of an empty one none. Raises ValueError for surrogates."""
        ...

    def encode_in_pieces(self, text: str) -> Iterator[list[int]]:
        """The token ids of `encode`, some at a time, each in a few milliseconds."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids, with U+FFFD where their bytes are no UTF-8.

        An id without a token says nothing. Raises ValueError for one that is not in
        range(vocab_size).
        """
        ...


class ByteTokenizer:
    """Every byte of UTF-8 is a token."""

    vocab_size = NUM_BYTES
    fingerprint = "bytes"
    max_token_bytes = 1
    controls = NO_CONTROLS
    losses = ()

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer.encode`."""
        return list(_to_bytes(text))

    def encode_in_pieces(self, text: str) -> Iterator[list[int]]:
        """See `Tokenizer.encode_in_pieces`."""
        for start in range(0, len(text), PIECE):
            yield self.encode(text[start : start + PIECE])

    def decode(self, tokens: Sequence[int]) -> str:
        """See `Tokenizer.decode`."""
        _require_known(tokens, self.vocab_size)
        return bytes(tokens).decode("utf-8", errors="replace")


class FileTokenizer:
    """A tokenizer.json of the tokenizers package.

    exact: whether one is refused that is not byte-level BPE, so that decoding does not always give
    back the text. vocab_size: of a model that has more rows than there are tokens. content: the
    file, byte for byte, where it is not to be read from the path. Control tokens are never read
    from a text, so no text can have one. Raises ValueError, which says why, if the file cannot be
    read or used.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        exact: bool = True,
        vocab_size: int = 0,
        content: bytes | None = None,
    ) -> None:
        self.controls = NO_CONTROLS
        self.content = read_content(path) if content is None else content
        made = parse_tokenizer(path, self.content)
        self._tokenizer, vocabulary = made.tokenizer, made.vocabulary
        self._tokenizer.encode_special_tokens = True
        added = self._tokenizer.get_added_tokens_decoder()
        self.control_tokens = {
            each.content: number for number, each in added.items() if each.special
        }
        """The ids of control tokens (special ones, in the words of the package), by content."""
        if vocab_size and vocab_size < made.num_ids:
            raise ValueError(
                f"{path}: has {made.num_ids} tokens, the model {vocab_size}; use the tokenizer "
                "that the model was trained with"
            )
        self.vocab_size = max(vocab_size, made.num_ids)
        self.fingerprint = hashlib.sha256(self.content).hexdigest()
        faults = find_id_faults(self._tokenizer, made.added, vocabulary)
        if faults:
            raise ValueError(
                f"{path}: {faults[0]}; give every token an id of its own, added tokens those right "
                "after the others"
            )
        self.losses = self._find_losses(path, vocabulary)
        if exact and self.losses:
            raise ValueError(
                f"{path}: decoding does not give back the text that was encoded, for "
                f"{' and '.join(self.losses)}; name a byte-level BPE without that, or leave it out "
                "to read bytes"
            )
        # In the alphabet of byte-level BPE a byte is a character of one or two bytes. A token of
        # another kind may stand for any text that is not known.
        longest = max(
            map(_count_bytes, [*vocabulary, *(each.content for each in added.values())]), default=1
        )
        self.max_token_bytes = _ANY_BYTES if self.losses else longest

    def with_controls(self, controls: Controls) -> FileTokenizer:
        """The same tokenizer, for a model that uses its control tokens so."""
        twin = copy.copy(self)
        twin.controls = controls
        return twin

    def token_id(self, content: str) -> int:
        """The id of a token; raises ValueError if there is none of this content."""
        number = self._tokenizer.token_to_id(content)
        if number is None:
            raise ValueError(f"the tokenizer has no token {content!r:.80}; use one that it has")
        return number

    def encode_template(self, text: str) -> list[int]:
        """The token ids of a text of ours, in which control tokens are read as such.

        Not to be called while another thread encodes.
        """
        self._tokenizer.encode_special_tokens = False
        try:
            return _encode(self._tokenizer, text).ids
        finally:
            self._tokenizer.encode_special_tokens = True

    def find_beginning(self) -> list[int]:
        """The ids that the file puts in front of every text: that of a begin token, or none."""
        with explain_panics("the tokenizer cannot encode", MEND):
            whole = self._tokenizer.encode("a").ids
        plain = self.encode("a")
        starts = [i for i in range(len(whole)) if whole[i : i + len(plain)] == plain]
        return whole[: starts[0]] if starts else []

    def _find_losses(self, path: str | Path, vocabulary: dict[str, int]) -> tuple[str, ...]:
        told = find_inexact_parts(self._tokenizer, vocabulary)
        if not told:
            changed = [text for text in _PROBES if not self._gives_back(text, path)]
            told = [f"{text!r} comes back otherwise" for text in changed]
        return tuple(told)

    def _gives_back(self, text: str, path: str | Path) -> bool:
        try:
            return self.decode(self.encode(text)) == text
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer.encode`."""
        return [token for piece in self.encode_in_pieces(text) for token in piece]

    def encode_in_pieces(self, text: str) -> Iterator[list[int]]:
        """See `Tokenizer.encode_in_pieces`."""
        _to_bytes(text)
        return encode_in_pieces(self._tokenizer, text)

    def decode(self, tokens: Sequence[int]) -> str:
        """See `Tokenizer.decode`."""
        _require_known(tokens, self.vocab_size)
        return self._tokenizer.decode(list(tokens), skip_special_tokens=False)


def encode_in_pieces(
    tokenizer: tokenizers.Tokenizer, text: str, *, piece: int = PIECE, margin: int = MARGIN
) -> Iterator[list[int]]:
    """The token ids of a text, some at a time; of an empty one there are none.

    No step takes long, however long the text is: the tokenizers package takes a second for a
    million characters and keeps the interpreter for itself meanwhile, and its merges need more than
    linear time in the longest word.

    Together they are what the tokenizer makes of the whole: it splits a text into words before it
    encodes each by itself, and texts are cut between words alone, which a tokenizer finds from left
    to right and by what is near. A word as long as a piece is cut all the same, and has the tokens
    of its parts; decoding gives back the text there too.

    Raises ValueError if the tokenizer cannot encode the text, as some of its patterns may not.
    """
    start = 0
    while start < len(text):
        encoding = _encode(tokenizer, text[start : start + piece])
        stop = start + piece
        if stop >= len(text):
            yield encoding.ids
            return
        count, num_after = _find_cut(tokenizer, encoding, margin)
        if text[stop - num_after : stop] != tokenizer.decode(encoding.ids[count:]):
            count, num_after = len(encoding.ids), 0
        yield encoding.ids[:count]
        start = stop - num_after


def _encode(tokenizer: tokenizers.Tokenizer, text: str) -> tokenizers.Encoding:
    with explain_panics("the tokenizer cannot encode the text", "use another of the two"):
        return tokenizer.encode(text, add_special_tokens=False)


def _find_cut(
    tokenizer: tokenizers.Tokenizer, encoding: tokenizers.Encoding, margin: int
) -> tuple[int, int]:
    """The tokens before the last word that ends in front of the margin, and the characters after.

    All tokens and 0 if there is no such word.
    """
    ids, words = encoding.ids, encoding.word_ids
    for place in range(len(ids) - 1, 0, -1):
        if words[place] == words[place - 1]:
            continue
        num_after = len(tokenizer.decode(ids[place:]))
        if num_after >= margin:
            return place, num_after
    return len(ids), 0


class TextStream:
    """Decodes tokens as they come, and holds back what is not a whole character yet."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._said: list[int] = []  # the last ones: some decoders write the first token otherwise
        self._held: list[int] = []
        self._open = ""  # what they make, as long as it ends within a character

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while a character lacks bytes."""
        before, self._open = self._open, ""
        text = self._tokenizer.decode([*self._said, *self._held, token])
        # An id without a token says nothing, and no character waits for it.
        if before and text == before and not self._tokenizer.decode([token]):
            self._open = before
            return ""
        self._held.append(token)
        if not text.endswith(_REPLACEMENT):
            return self._say(len(self._held))
        if len(self._held) <= _MAX_OPEN:
            self._open = text
            return ""
        # Only the last tokens can be a character to be: what they do not change is certain.
        for count in range(_MAX_OPEN, 0, -1):
            certain, open_ = self._held[:-count], self._held[-count:]
            before = self._tokenizer.decode([*self._said, *certain])
            if before + self._tokenizer.decode(open_) == text:
                return self._say(len(certain))
        return ""

    def finish(self) -> str:
        """What is still held back, with U+FFFD for a character that stayed incomplete."""
        return self._say(len(self._held))

    def _say(self, count: int) -> str:
        """The text of the first `count` tokens held."""
        said, self._held = self._held[:count], self._held[count:]
        before = self._tokenizer.decode(self._said)
        text = self._tokenizer.decode([*self._said, *said])[len(before) :]
        self._said = said if text else [*self._said, *said]
        return text


def load_tokenizer(path: str | Path | None) -> ByteTokenizer | FileTokenizer:
    """The tokenizer of a file, or bytes if there is none; raises ValueError as FileTokenizer."""
    return ByteTokenizer() if path is None else FileTokenizer(path)


def _count_bytes(token: str) -> int:
    return len(token.encode())


def _to_bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("the text is no text: it has half of a surrogate pair; mend it") from None


def _require_known(tokens: Sequence[int], vocab_size: int) -> None:
    for token in tokens:
        if not 0 <= token < vocab_size:
            raise ValueError(
                f"token id {token} is out of range; use ids from 0 to {vocab_size - 1}, those of "
                "the tokenizer that made the text"
            )
