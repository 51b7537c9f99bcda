"""A `MemoryState` on disk, exact to the bit; docs/state-format.md describes the file.

Which tensors a file holds, and of which sizes, follows from model, sleep settings and a short
header. So all of it is checked before any memory is taken for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from slowwave.config import Config
from slowwave.model.config import LayerType
from slowwave.model.hybrid import HybridLM
from slowwave.sleep.awake import open_window
from slowwave.sleep.config import SleepConfig
from slowwave.state import AttentionState, Band, Carried, DeltaState, LayerState, MemoryState
from slowwave.storage.files import write_atomically
from slowwave.storage.fingerprint import fingerprint_model

FORMAT = 1
METADATA_KEY = "slowwave"
MAX_HEADER_NBYTES = 1 << 20
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.bool: "BOOL",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryHeader(Config):
    """What a memory file says of itself; sizes of tensors follow from it and the model."""

    format: int
    model: str
    """Fingerprint of the model that read it."""
    tokenizer: str
    """Fingerprint of the tokenizer that made the tokens."""
    layers: tuple[LayerType, ...]
    sleep: SleepConfig
    batch_size: int
    window_fill: int
    window_padded: bool
    """Whether there is a `window_mask`."""
    carried: int | None
    """Tokens of slept windows in the cache; None before the first sleep, or if nothing slides."""
    carried_padded: bool
    tokens_seen: int
    num_sleeps: int

    def __post_init__(self) -> None:
        counts = (self.window_fill, self.tokens_seen, self.num_sleeps, self.carried or 0)
        if min(counts) < 0 or self.batch_size < 1:
            raise ValueError("a count is negative; restore the file")
        sleep = self.sleep
        if sleep.eviction != "none" and self.window_fill >= sleep.window:
            raise ValueError(
                f"window_fill is {self.window_fill} with sleep.window {sleep.window}, at which it "
                "would have slept; restore the file"
            )
        slides = sleep.eviction == "sliding" and self.num_sleeps > 0
        if slides != (self.carried is not None) or (self.carried_padded and not slides):
            raise ValueError(
                f"carried is {self.carried} after {self.num_sleeps} sleeps with sleep.eviction "
                f"{sleep.eviction}; restore the file"
            )
        if (self.carried or 0) > sleep.window - 1 + sleep.sinks:
            raise ValueError(f"carried is {self.carried}, more than slides; restore the file")


def save_memory(
    path: Path, state: MemoryState, model: HybridLM, *, tokenizer: str, sleep: SleepConfig
) -> None:
    """Writes a state atomically; equal states make equal files.

    tokenizer: its fingerprint. Raises ValueError, and writes nothing, if the state is not one that
    reading a stream with this model and these settings leaves, or holds NaN or infinity.
    """
    header = _describe(state, model, tokenizer, sleep)
    tensors = _name_tensors(state)
    expected = _name_tensors(_outline(header, model))
    _compare("the state", _sizes(tensors), _sizes(expected))
    _check_values("the state", tensors, header, model)
    # Cloned: parts may share memory, or show a part of a buffer that has room to grow.
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    text = json.dumps(header.to_dict(), sort_keys=True, separators=(",", ":"))
    write_atomically(path, safetensors.torch.save(plain, {METADATA_KEY: text}))


def load_memory(
    path: Path, model: HybridLM, *, tokenizer: str, sleep: SleepConfig, batch_size: int = 1
) -> MemoryState:
    """Reads what `save_memory` wrote, for the model's device; what is read on is as if never saved.

    Raises ValueError, in a sentence that names the file, if it is missing, cut, foreign or of
    another format, does not belong to this model, tokenizer, sleep settings or batch size, or if
    its tensors are not what these make it hold.
    """
    with _open(path) as file:
        header = _parse_header(path, file.metadata())
        _check_owner(path, header, model, tokenizer, sleep, batch_size)
        outline = _outline(header, model)
        names = _name_tensors(outline)
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        found = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
        _compare(str(path), found, _sizes(names))
        # Copied out of the file's pages, whose alignment would change how kernels round. A copy's
        # truth values are 0 and 1, whatever bytes the file has for them.
        device = model.device
        tensors = {name: file.get_tensor(name).to(device, copy=True) for name in names}
    _check_values(str(path), tensors, header, model)
    place = {id(tensor): name for name, tensor in names.items()}
    return outline.map(lambda tensor: tensors[place[id(tensor)]])


def read_header(path: Path) -> MemoryHeader:
    """What a memory file says of itself, without its model. Raises ValueError as `load_memory`."""
    with _open(path) as file:
        return _parse_header(path, file.metadata())


def read_fast_weights(path: Path) -> list[Tensor]:
    """(B, G, K, V) of every recurrent layer of a memory file, in order, without its model.

    Raises ValueError as `load_memory`, but checks nothing against a model.
    """
    with _open(path) as file:
        layers = enumerate(_parse_header(path, file.metadata()).layers)
        names = {f"layers.{i}.fast_weights" for i, layer in layers if layer != "attn"}
        if not names <= set(file.keys()):
            raise ValueError(f"{path}: fast weights are missing; restore the file")
        return [file.get_tensor(name) for name in sorted(names, key=lambda n: int(n.split(".")[1]))]


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    """The file by its header; safetensors checks that tensors fill the rest without gaps."""
    try:
        with path.open("rb") as raw:
            prefix = raw.read(9)
        size, begin = int.from_bytes(prefix[:8], "little"), prefix[8:]
        if begin not in (b"{", b""):  # with which every safetensors header begins
            raise ValueError(f"{path}: not a memory file; name one that a session was saved to")
        if begin and size > MAX_HEADER_NBYTES:
            raise ValueError(f"{path}: its header is too long for a memory file; restore it")
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; name a memory file that exists") from None
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: truncated or not a memory file ({error}); restore it") from None


def _parse_header(path: Path, metadata: dict[str, str] | None) -> MemoryHeader:
    if not metadata or metadata.keys() != {METADATA_KEY}:
        raise ValueError(f"{path}: a safetensors file, but not a memory file; name another")
    try:
        values: Any = json.loads(metadata[METADATA_KEY])
        found = values["format"]
    except (ValueError, RecursionError, TypeError, KeyError):
        raise ValueError(f"{path}: not the header of a memory file; restore it") from None
    if found != FORMAT:
        raise ValueError(
            f"{path}: format {found!r}, but this slowwave reads format {FORMAT}; use the slowwave "
            "that wrote it"
        )
    try:
        return MemoryHeader.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _describe(
    state: MemoryState, model: HybridLM, tokenizer: str, sleep: SleepConfig
) -> MemoryHeader:
    carried = state.carried
    if carried is not None and carried.band != Band(sleep.window, sleep.sinks):
        raise ValueError(
            f"the state slid with {carried.band}, sleep.window is {sleep.window} with "
            f"{sleep.sinks} sinks; save it with the settings it was read with"
        )
    return MemoryHeader(
        format=FORMAT,
        model=fingerprint_model(model),
        tokenizer=tokenizer,
        layers=model.config.layers,
        sleep=sleep,
        batch_size=state.batch_size,
        window_fill=state.window_fill,
        window_padded=state.window_mask is not None,
        carried=None if carried is None else carried.count,
        carried_padded=carried is not None and carried.mask is not None,
        tokens_seen=state.tokens_seen,
        num_sleeps=state.num_sleeps,
    )


def _check_owner(
    path: Path,
    header: MemoryHeader,
    model: HybridLM,
    tokenizer: str,
    sleep: SleepConfig,
    batch_size: int,
) -> None:
    if header.model != fingerprint_model(model):
        raise ValueError(f"{path}: the memory of another model; load it with the one that read it")
    if header.tokenizer != tokenizer:
        raise ValueError(f"{path}: its tokens are of another tokenizer; use that of its model")
    for field in dataclasses.fields(sleep):
        theirs, ours = getattr(header.sleep, field.name), getattr(sleep, field.name)
        if theirs != ours:
            raise ValueError(
                f"{path}: was read with sleep.{field.name} {theirs}, not {ours}; go on with the "
                "settings it was read with"
            )
    if header.batch_size != batch_size:
        raise ValueError(
            f"{path}: holds {header.batch_size} streams, not {batch_size}; load it as a batch of "
            "that many"
        )
    num_tokens = header.batch_size * (header.window_fill + (header.carried or 0))
    if num_tokens > path.stat().st_size:
        raise ValueError(f"{path}: tells of {num_tokens} tokens, more than it can hold; restore it")


def _outline(header: MemoryHeader, model: HybridLM) -> MemoryState:
    """The state that the header tells of, but on the meta device, where tensors have no memory."""
    B, W, carried = header.batch_size, header.window_fill, header.carried or 0
    fresh = model.initial_state(1)

    def resize(like: Tensor, *shape: int) -> Tensor:
        return torch.empty(B, *shape, dtype=like.dtype, device="meta")

    def mask(length: int, padded: bool) -> Tensor | None:
        return torch.empty(B, length, dtype=torch.bool, device="meta") if padded else None

    def resize_layer(layer: LayerState) -> LayerState:
        if isinstance(layer, DeltaState):
            return layer.map(lambda like: resize(like, *like.shape[1:]))
        return layer.map(lambda like: resize(like, carried + W, *like.shape[2:]))

    noted = open_window(model, fresh, header.sleep).window_start if W else ()
    further = header.sleep.wake_passes - 1 if W else 0
    band = Band(header.sleep.window, header.sleep.sinks)
    start = torch.empty(B, dtype=torch.int64, device="meta")
    return MemoryState(
        layers=tuple(resize_layer(layer) for layer in fresh.layers),
        window_tokens=resize(fresh.window_tokens, W),
        window_mask=mask(W, header.window_padded),
        window_hidden=resize(fresh.window_hidden, W, model.config.width),
        tokens_seen=header.tokens_seen,
        num_sleeps=header.num_sleeps,
        carried=None
        if header.carried is None
        else Carried(carried, band, start, mask(carried, header.carried_padded)),
        window_start=tuple(
            None if s is None else s.map(lambda like: resize(like, *like.shape[1:])) for s in noted
        ),
        wake_layers=tuple(
            tuple(resize_layer(layer) for layer in fresh.layers) for _ in range(further)
        ),
    )


def _name_tensors(state: MemoryState) -> dict[str, Tensor]:
    """Every tensor of the state by its name in the file."""
    tensors = {"window.tokens": state.window_tokens, "window.hidden": state.window_hidden}
    if state.window_mask is not None:
        tensors["window.mask"] = state.window_mask
    if state.carried is not None:
        tensors["carried.start"] = state.carried.start
        if state.carried.mask is not None:
            tensors["carried.mask"] = state.carried.mask
    stacks = {"layers": state.layers, "window_start": state.window_start}
    stacks |= {f"wake.{m}": layers for m, layers in enumerate(state.wake_layers, start=2)}
    for stack, layers in stacks.items():
        for i, layer in enumerate(layers):
            if isinstance(layer, AttentionState):
                tensors |= {f"{stack}.{i}.keys": layer.keys, f"{stack}.{i}.values": layer.values}
            elif layer is not None:
                tensors[f"{stack}.{i}.fast_weights"] = layer.fast_weights
                tensors[f"{stack}.{i}.conv_tail"] = layer.conv_tail
    return tensors


_Sizes = dict[str, tuple[str, tuple[int, ...]]]


def _sizes(tensors: dict[str, Tensor]) -> _Sizes:
    return {name: (_DTYPES[t.dtype], tuple(t.shape)) for name, t in tensors.items()}


def _compare(source: str, found: _Sizes, expected: _Sizes) -> None:
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            raise ValueError(f"{source}: tensor {name} is missing; read all with one setting")
        if name not in expected:
            raise ValueError(f"{source}: tensor {name} does not belong to it; restore the file")
        if found[name] != expected[name]:
            (dtype, shape), (wanted_dtype, wanted_shape) = found[name], expected[name]
            raise ValueError(
                f"{source}: tensor {name} is {dtype} {shape}, the model makes it {wanted_dtype} "
                f"{wanted_shape}; use the model and the precision that made it"
            )


def _check_values(
    source: str, tensors: dict[str, Tensor], header: MemoryHeader, model: HybridLM
) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(
                f"{source}: tensor {name} holds NaN or infinity; go back to an earlier state"
            )
    tokens = tensors["window.tokens"]
    if bool(((tokens < 0) | (tokens >= model.config.vocab_size)).any()):
        raise ValueError(
            f"{source}: the window holds a token out of 0 to {model.config.vocab_size - 1}; "
            "restore the file"
        )
    start = tensors.get("carried.start")
    if start is not None and bool(((start < 0) | (start > header.tokens_seen)).any()):
        raise ValueError(f"{source}: carried.start is no place in the stream; restore the file")
