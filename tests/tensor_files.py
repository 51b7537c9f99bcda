"""Memory files that are changed, and sound all the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the header of the memory, and nothing else but the checksum."""
    values = json.loads(read_metadata(path))
    change(values)
    write_metadata(path, json.dumps(values, separators=(",", ":")))


def read_metadata(path: Path) -> str:
    with safetensors.safe_open(path, framework="pt") as file:
        return file.metadata()["slowwave"]


def write_metadata(path: Path, text: str) -> None:
    write_tensors(path, safetensors.torch.load(path.read_bytes()), text)


def replace_tensor(path: Path, name: str, change: Callable[[Tensor], Tensor | None]) -> None:
    found = safetensors.torch.load(path.read_bytes())
    changed = change(found.pop(name).clone()) if name in found else change(torch.zeros(1))
    if changed is not None:
        found[name] = changed
    write_tensors(path, found, read_metadata(path))


def write_tensors(path: Path, found: dict[str, Tensor], text: str) -> None:
    """A file with the checksum that docs/state-format.md describes, where the text has one."""
    content, mark = safetensors.torch.save(found, {"slowwave": text}), rb"checksum\":\""
    before, found_mark, after = content.partition(mark)
    if found_mark:
        digest = hashlib.blake2b(before + mark + b"0" * 64 + after[64:], digest_size=32)
        content = before + mark + digest.hexdigest().encode() + after[64:]
    path.write_bytes(content)
