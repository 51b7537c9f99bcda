"""A safetensors file that is known by its head before a tensor is read, and has a checksum.

docs/state-format.md describes the checksum.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from slowwave.storage.files import open_plain, read_rest
from slowwave.storage.json_files import parse_json

METADATA_KEY = "slowwave"
NO_CHECKSUM = "0" * 64
"""Stands in place of the checksum while it is taken."""
MAX_HEAD_NBYTES = 1 << 20
MAX_NAME, MAX_RANK, MAX_SIZE = 80, 8, 1 << 48
_MARK = rb"checksum\":\""  # before the checksum: JSON text within JSON text
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

Sizes = dict[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape of tensors by name."""


def measure_sizes(tensors: dict[str, Tensor]) -> Sizes:
    """The sizes of tensors in memory; raises ValueError if a file can hold none of their dtype."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise ValueError(f"tensor {name} is {tensor.dtype}, which no memory file holds")
    return {name: (_NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()}


def dump_tensors(tensors: dict[str, Tensor], text: str) -> bytes:
    """The content of a file. text: JSON, with NO_CHECKSUM where its checksum will be."""
    content = safetensors.torch.save(tensors, {METADATA_KEY: text})
    end = 8 + int.from_bytes(content[:8], "little")
    head, data = content[:end], memoryview(content)[end:]
    return b"".join([_set_checksum(head, NO_CHECKSUM, _digest(head, data)), data])


@dataclasses.dataclass(frozen=True)
class TensorFile:
    """A file of which the head was read."""

    path: Path
    metadata: dict[str, str]
    sizes: Sizes
    head: bytes
    file: BinaryIO

    def read(self, checksum: str | None) -> dict[str, Tensor]:
        """All tensors by name. checksum: what the head names; None if it is of a format without.

        Raises ValueError if any bit of the file is not as it was written, or is no tensor's.
        """
        data = read_rest(self.path, self.file)
        if checksum is not None:
            plain = _set_checksum(self.head, checksum, NO_CHECKSUM)
            if _digest(plain, data) != checksum:
                raise ValueError(
                    f"{self.path}: damaged, its checksum is of another content; restore it"
                )
        try:
            return safetensors.torch.load(self.head + data)
        except safetensors.SafetensorError as error:
            raise _refuse(self.path, str(error)) from None


@contextlib.contextmanager
def open_tensors(path: Path, *, follow: bool = True) -> Iterator[TensorFile]:
    """A file by its head, which tells how many bytes there must be.

    follow: see `open_plain`. Raises ValueError, in a sentence that names the file, if it is
    missing, cut or foreign.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_plain(path, follow=follow))
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file; name a memory file that exists") from None
        yield _read_head(path, file)


def _read_head(path: Path, file: BinaryIO) -> TensorFile:
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > size - 8:
        raise _refuse(path, "it does not begin as one")
    if length > MAX_HEAD_NBYTES:
        raise ValueError(f"{path}: its header is too long for a memory file; restore it")
    text = file.read(length)
    try:
        values = parse_json(text, most_keys=MAX_HEAD_NBYTES)
        metadata = values.pop("__metadata__", {})
        if not all(isinstance(part, str) for part in metadata.values()):
            raise ValueError("its metadata is no text")
        sizes = {name: _parse_size(name, spec) for name, spec in values.items()}
        nbytes = max((spec["data_offsets"][1] for spec in values.values()), default=0)
    except (AttributeError, KeyError, TypeError):
        raise _refuse(path, "its header is of another form") from None
    except ValueError as error:
        raise _refuse(path, str(error)) from None
    if nbytes != size - 8 - length:
        raise _refuse(path, f"its tensors take {nbytes} bytes, and {size - 8 - length} are there")
    return TensorFile(path, metadata, sizes, prefix + text, file)


def _parse_size(name: str, spec: Any) -> tuple[str, tuple[int, ...]]:
    dtype, shape, (start, stop) = spec["dtype"], spec["shape"], spec["data_offsets"]
    if not (name.isascii() and name.isprintable() and len(name) <= MAX_NAME):
        raise ValueError(f"tensor {name!r:.80} has a name that no memory holds")
    if dtype not in _DTYPES or not _is_shape(shape):
        raise ValueError(
            f"tensor {name!r:.80} is {dtype!r:.80} {shape!r:.80}; no memory holds that"
        )
    if stop - start != math.prod(shape) * _DTYPES[dtype].itemsize:
        raise ValueError(f"tensor {name} is of another size than it says")
    return dtype, tuple(shape)


def _is_shape(shape: Any) -> bool:
    """Whether there could be a tensor of this shape, empty ones included."""
    return (
        len(shape) <= MAX_RANK
        and all(type(n) is int and n >= 0 for n in shape)
        and math.prod(max(n, 1) for n in shape) <= MAX_SIZE
    )


def _digest(head: bytes, data: bytes | memoryview) -> str:
    digest = hashlib.blake2b(head, digest_size=len(NO_CHECKSUM) // 2)
    digest.update(data)
    return digest.hexdigest()


def _set_checksum(head: bytes, old: str, new: str) -> bytes:
    return head.replace(_MARK + old.encode(), _MARK + new.encode(), 1)


def _refuse(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{path}: truncated or not a memory file ({reason}); restore it, or name another"
    )
