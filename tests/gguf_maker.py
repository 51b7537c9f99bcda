"""Small GGUF files, written by the gguf package, and heads of files that lie."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Array = np.ndarray[Any, Any]


def write_gguf(
    path: Path,
    tensors: Mapping[str, Array],
    *,
    kinds: Mapping[str, gguf.GGMLQuantizationType] | None = None,
    texts: Mapping[str, str | Sequence[str]] | None = None,
    numbers: Mapping[str, int | Sequence[int]] | None = None,
) -> Path:
    """A file with tensors, quantised where `kinds` names one, and values of metadata."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in (texts or {}).items():
        writer.add_string(key, value) if isinstance(value, str) else writer.add_array(key, value)
    for key, value in (numbers or {}).items():
        writer.add_uint32(key, value) if isinstance(value, int) else writer.add_array(key, value)
    for name, tensor in tensors.items():
        kind = (kinds or {}).get(name)
        data = tensor if kind is None else gguf.quantize(tensor, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_head(path: Path, *parts: bytes, num_tensors: int = 0, num_keys: int = 0) -> Path:
    """A file of the format's third version with so many tensors and keys, it says."""
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, num_tensors, num_keys) + b"".join(parts))
    return path


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def tensor_info(name: str, shape: Sequence[int], kind: int, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
