"""A GGUF file: its metadata, and its tensors by memory map.

The head is parsed here: the reader of the gguf package takes seconds for a vocabulary, and memory
without end where a count is a lie. What quantised blocks mean is known by that package alone.
"""

from __future__ import annotations

import math
import mmap
import struct
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from slowwave.storage.files import open_plain
from slowwave.wording import say_how_to_install

MAGIC, VERSIONS = b"GGUF", (2, 3)
MAX_RANK = 4
_STRING, _ARRAY = 8, 9
_NUMBERS = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    7: np.dtype("?"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
_FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


class Place(NamedTuple):
    """Where a tensor lies. shape: the last axis is the one that lies together."""

    kind: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


class GgufFile:
    """A GGUF file as weights, and what it says of its model. See `storage.weights.WeightSource`.

    metadata: by key; arrays of numbers are numpy's, those of texts are lists. Tensors are called as
    in the file ("blk.0.attn_q.weight"). Raises ValueError if the file is missing, cut, damaged or
    of a type that is not known, or the gguf package is missing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        _require_package(self.path)
        self._map = _map_file(self.path)
        try:
            head = _Head(self._map)
            self.metadata = head.read_metadata()
            self._places = head.read_places(self.metadata)
        except (ValueError, struct.error) as error:
            raise ValueError(
                f"{self.path}: truncated, or no GGUF file that can be read ({error}); fetch it "
                "again, or use another"
            ) from None

    @property
    def names(self) -> tuple[str, ...]:
        """See `WeightSource.names`."""
        return tuple(self._places)

    @property
    def num_bytes(self) -> int:
        """See `WeightSource.num_bytes`."""
        return sum(
            math.prod(place.shape) * _FLOATS.get(place.kind, torch.float32).itemsize
            for place in self._places.values()
        )

    def shape(self, name: str) -> tuple[int, ...]:
        """See `WeightSource.shape`."""
        return self._places[name].shape

    def read(self, name: str) -> Tensor:
        """See `WeightSource.read`."""
        kind, shape, start, nbytes = self._places[name]
        if kind in _FLOATS:
            count = math.prod(shape)
            plain = torch.frombuffer(self._map, dtype=_FLOATS[kind], count=count, offset=start)
            return plain.view(shape)
        blocks = np.frombuffer(self._map, np.uint8, count=nbytes, offset=start)
        return torch.from_numpy(_dequantize(blocks.reshape(*shape[:-1], -1), kind)).view(shape)


class _Head:
    """Reads a head from its begin on; nothing that it takes is larger than the file."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._place = data, 4
        if data[:4] != MAGIC:
            raise ValueError("it does not begin as one")
        (version,) = self._unpack("<I")
        if version not in VERSIONS:
            raise ValueError(f"its version is {version}, not 2 or 3")
        self._num_tensors, self._num_keys = self._unpack("<QQ")

    def read_metadata(self) -> dict[str, Any]:
        metadata = dict[str, Any]()
        for _ in range(self._num_keys):
            key = self._text()
            if key in metadata:
                raise ValueError(f"it has the key {key:.80} twice")
            metadata[key] = self._value(*self._unpack("<I"))
        return metadata

    def read_places(self, metadata: dict[str, Any]) -> dict[str, Place]:
        """To be called after `read_metadata`, of what it returned."""
        infos = dict[str, tuple[tuple[int, ...], int, int]]()
        for _ in range(self._num_tensors):
            name = self._text()
            (rank,) = self._unpack("<I")
            if not 1 <= rank <= MAX_RANK:
                raise ValueError(f"tensor {name:.80} has {rank} axes")
            *sizes, kind, offset = self._unpack(f"<{rank}QIQ")
            if name in infos:
                raise ValueError(f"it has tensor {name:.80} twice")
            infos[name] = tuple(reversed(sizes)), kind, offset
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 8 or alignment % 8:
            raise ValueError(f"general.alignment is {alignment!r:.80}, not a multiple of 8")
        begin = self._place + -self._place % alignment
        return {name: self._find(name, begin, *info) for name, info in infos.items()}

    def _find(self, name: str, begin: int, shape: tuple[int, ...], kind: int, offset: int) -> Place:
        named, block, block_bytes = _find_type(kind)
        if min(shape) < 1 or shape[-1] % block:
            raise ValueError(f"tensor {name:.80} has shape {shape}, which {named} cannot hold")
        nbytes = math.prod(shape) // block * block_bytes
        if offset % 8 or begin + offset + nbytes > len(self._data):
            raise ValueError(f"tensor {name:.80} lies outside of the file")
        return Place(named, shape, begin + offset, nbytes)

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            kind, count = self._unpack("<IQ")
            if kind == _STRING:
                return [self._text() for _ in range(count)]
            return self._numbers(kind, count)
        return self._numbers(kind, 1)[0].item()

    def _numbers(self, kind: int, count: int) -> np.ndarray[Any, Any]:
        if kind not in _NUMBERS:  # arrays of arrays too: no file has them
            raise ValueError(f"it has a value of type {kind}, which is not known")
        start = self._skip(count * _NUMBERS[kind].itemsize)
        return np.frombuffer(self._data, _NUMBERS[kind], count=count, offset=start).copy()

    def _text(self) -> str:
        (nbytes,) = self._unpack("<Q")
        start = self._skip(nbytes)
        return self._data[start : start + nbytes].decode()

    def _unpack(self, form: str) -> tuple[int, ...]:
        return struct.unpack_from(form, self._data, self._skip(struct.calcsize(form)))

    def _skip(self, nbytes: int) -> int:
        """The place before so many bytes, which are there."""
        start, self._place = self._place, self._place + nbytes
        if self._place > len(self._data):
            raise ValueError("it ends within its head")
        return start


def _require_package(path: Path) -> None:
    try:
        import gguf  # noqa: F401
    except ModuleNotFoundError:
        raise ValueError(
            f"{path}: the gguf package, which reads it, is not installed; "
            f"{say_how_to_install('models')}"
        ) from None


def _map_file(path: Path) -> mmap.mmap:
    try:
        with open_plain(path) as file:
            # Private to this process, so that torch may take it for its own; nothing is copied.
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; name one that exists") from None
    except ValueError as error:  # an empty file cannot be mapped
        raise ValueError(f"{path}: no GGUF file ({error}); name another") from None


@cache
def _find_type(kind: int) -> tuple[str, int, int]:
    """Name of a type, numbers in a block of it, and bytes; raises ValueError if it is not read."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if kind not in [known.value for known in GGMLQuantizationType]:
        raise ValueError(f"it has a tensor of type {kind}, which the gguf package does not know")
    known = GGMLQuantizationType(kind)
    block, block_bytes = GGML_QUANT_SIZES[known]
    if known.name not in _FLOATS:
        try:
            _dequantize(np.zeros((1, block_bytes), np.uint8), known.name)
        except NotImplementedError:
            raise ValueError(f"it has a tensor of type {known.name}, which is not read") from None
    return known.name, block, block_bytes


def _dequantize(blocks: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    from gguf import GGMLQuantizationType, dequantize

    with np.errstate(all="ignore"):  # scales of a damaged file may be infinite
        return dequantize(blocks, GGMLQuantizationType[kind])
