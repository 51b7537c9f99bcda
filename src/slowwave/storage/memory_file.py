"""A `MemoryState` on disk, exact to the bit; docs/state-format.md describes the file.

Which tensors a file holds, and of which sizes, follows from model, sleep settings and a short
header. So all of it is checked before any memory is taken for it.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from torch import Tensor

from slowwave.config import Config, Many
from slowwave.entries import CompactKeyValues
from slowwave.models.backbone import HybridLM
from slowwave.models.config import MOST_RANK, LayerType
from slowwave.models.mixers.mixer import find_mixer
from slowwave.ops.norm import wide_dtype
from slowwave.sleep.awake import open_window
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.consolidate import find_band
from slowwave.state import Carried, KeyValues, LayerState, MemoryState
from slowwave.storage.checkpoint import fingerprint_model
from slowwave.storage.files import write_atomically
from slowwave.storage.json_files import parse_json
from slowwave.storage.tensor_file import (
    METADATA_KEY,
    NO_CHECKSUM,
    Sizes,
    TensorFile,
    dump_tensors,
    measure_sizes,
    open_tensors,
)

FORMAT = 4  # 1 had no checksum, 2 no compact entries, 3 no delta
MOST_TOKENS = 1 << 53
"""Tokens of a stream at most: what every reader of JSON reads exactly."""

MOST_COUNT = 1 << 63
"""No count that is told of in a sentence is longer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryHeader(Config):
    """What a memory file says of itself; sizes of tensors follow from it and the model."""

    format: int
    model: str
    """Fingerprint of the model that read it."""
    tokenizer: str
    """Fingerprint of the tokenizer that made the tokens."""
    layers: Many[LayerType]
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
    checksum: str | None = None
    """Of the whole file; None in format 1."""
    entries: Many[int] = ()
    """Compact entries of every layer, 0 where it keeps none; empty if no sleep kept any."""

    rank: int = 0
    """Of the changes of the model's matrices; 0 if there are none."""

    def __post_init__(self) -> None:
        if (self.checksum is None) != (self.format == 1):
            raise ValueError(
                f"checksum is {self.checksum!s:.80} in format {self.format}; restore it"
            )
        counts = (self.window_fill, self.tokens_seen, self.num_sleeps, self.carried or 0)
        counts += self.entries
        if min(counts) < 0 or self.batch_size < 1:
            raise ValueError("a count is negative; restore the file")
        if max(*counts, self.batch_size) > MOST_COUNT:
            raise ValueError("a count is too large; restore the file")
        # Every sleep evicted a token or more.
        if not self.window_fill + self.num_sleeps <= self.tokens_seen <= MOST_TOKENS:
            raise ValueError(
                f"tokens_seen is {self.tokens_seen} with {self.window_fill} in the window after "
                f"{self.num_sleeps} sleeps; restore the file"
            )
        if not 0 <= self.rank <= MOST_RANK:
            raise ValueError(f"rank is {self.rank!r:.80}, which no delta has; restore the file")
        self._require_entries()
        sleep = self.sleep
        if sleep.eviction != "none" and self.window_fill >= sleep.window:
            raise ValueError(
                f"window_fill is {self.window_fill} with sleep.window {sleep.window}, at which it "
                "would have slept; restore the file"
            )
        slides = sleep.reach is not None and self.num_sleeps > 0
        if slides != (self.carried is not None) or (self.carried_padded and not slides):
            raise ValueError(
                f"carried is {self.carried} after {self.num_sleeps} sleeps with sleep.eviction "
                f"{sleep.eviction}; restore the file"
            )
        if (self.carried or 0) > sleep.most_carried:
            raise ValueError(f"carried is {self.carried}, more than slides; restore the file")

    def _require_entries(self) -> None:
        if not self.entries:
            return
        keeps = [find_mixer(kind).keeps_entries for kind in self.layers]
        fits = len(self.entries) == len(keeps)
        if not fits or any(n for n, kept in zip(self.entries, keeps, strict=True) if not kept):
            raise ValueError(
                f"entries are {list(self.entries)!s:.80}, which its layers do not keep; restore "
                "the file"
            )


def save_memory(
    path: Path, state: MemoryState, model: HybridLM, *, tokenizer: str, sleep: SleepConfig
) -> None:
    """Writes a state atomically and privately; equal states make equal files.

    tokenizer: its fingerprint. Raises ValueError, and writes nothing, if the state is not one that
    reading a stream with this model and these settings leaves, or holds NaN or infinity.
    """
    header = _describe(state, model, tokenizer, sleep)
    tensors = state.tensors()
    expected = _outline(header, model).tensors()
    _compare("the state", measure_sizes(tensors), measure_sizes(expected))
    _check_values("the state", tensors, header, model)
    # Cloned: parts may share memory, or show a part of a buffer that has room to grow.
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    text = json.dumps(header.to_dict(), sort_keys=True, separators=(",", ":"))
    write_atomically(path, dump_tensors(plain, text), private=True)


def load_memory(
    path: Path,
    model: HybridLM,
    *,
    tokenizer: str,
    sleep: SleepConfig,
    batch_size: int = 1,
    follow: bool = True,
) -> MemoryState:
    """Reads what `save_memory` wrote, for the model's device; what is read on is as if never saved.

    follow: whether `path` may be a symbolic link. Raises ValueError, in a sentence that names the
    file, if it is missing, cut, foreign, damaged or of another format, does not belong to this
    model, tokenizer, sleep settings or batch size, or if its tensors are not what these make it
    hold.
    """
    with open_tensors(path, follow=follow) as file:
        header = _parse_header(file)
        _check_owner(path, header, model, tokenizer, sleep, batch_size)
        outline = _outline(header, model)
        names = outline.tensors()
        _compare(str(path), file.sizes, measure_sizes(names))
        found = file.read(header.checksum)
    # Copied, for their places in what was read would change how kernels round. A copy's truth
    # values are 0 and 1, whatever bytes the file has for them.
    tensors = {name: found[name].to(model.device, copy=True) for name in names}
    _check_values(str(path), tensors, header, model)
    place = {id(tensor): name for name, tensor in names.items()}

    def find(outlined: Tensor) -> Tensor:
        name = place.get(id(outlined))
        return outlined.to(model.device) if name is None else tensors[name]  # or a counter

    return outline.map(find)


def read_memory(path: Path, *, follow: bool = True) -> tuple[MemoryHeader, dict[str, Tensor]]:
    """What a memory file says of itself, and its tensors by name, without its model.

    follow: as in `load_memory`. Raises ValueError as that, but checks nothing against a model.
    """
    with open_tensors(path, follow=follow) as file:
        header = _parse_header(file)
        return header, file.read(header.checksum)


def read_header(path: Path) -> MemoryHeader:
    """What a memory file says of itself; raises as `read_memory`."""
    return read_memory(path)[0]


def read_fast_weights(path: Path, *, follow: bool = True) -> list[Tensor]:
    """(B, G, K, V) of every recurrent layer of a memory file, in order; raises as `read_memory`."""
    header, tensors = read_memory(path, follow=follow)
    layers = [i for i, layer in enumerate(header.layers) if find_mixer(layer).has_midterm]
    weights = [tensors.get(f"layers.{i}.fast_weights") for i in layers]
    found = [tensor for tensor in weights if tensor is not None and _is_fast_weights(tensor)]
    if len(found) < len(layers):
        raise ValueError(f"{path}: fast weights are missing, or are none; restore the file")
    return found


def _is_fast_weights(tensor: Tensor) -> bool:
    """Whether this could be (B, G, K, V) of some model."""
    is_number = tensor.dtype in (torch.float32, torch.float64)
    return is_number and tensor.ndim == 4 and bool(tensor.isfinite().all())


def _parse_header(file: TensorFile) -> MemoryHeader:
    path, metadata = file.path, file.metadata
    if metadata.keys() != {METADATA_KEY}:
        raise ValueError(f"{path}: a safetensors file, but not a memory file; name another")
    try:
        values = parse_json(metadata[METADATA_KEY])
        found = values["format"]
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{path}: not the header of a memory file; restore it") from None
    if type(found) is not int or not 1 <= found <= FORMAT:
        raise ValueError(
            f"{path}: format {found!r:.80}, but this slowwave reads formats 1 to {FORMAT}; use the "
            "slowwave that wrote it"
        )
    try:
        return MemoryHeader.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _describe(
    state: MemoryState, model: HybridLM, tokenizer: str, sleep: SleepConfig
) -> MemoryHeader:
    carried, band = state.carried, find_band(sleep)
    if carried is not None and band is not None and carried.band != band:
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
        tokens_seen=state.counters.tokens_seen,
        num_sleeps=state.counters.num_sleeps,
        checksum=NO_CHECKSUM,
        entries=_count_entries(state),
        rank=0 if state.delta is None else state.delta.rank,
    )


def _count_entries(state: MemoryState) -> tuple[int, ...]:
    if state.position is None:
        return ()
    compact = [layer.compact if isinstance(layer, KeyValues) else None for layer in state.layers]
    return tuple(0 if each is None else each.keys.shape[1] for each in compact)


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
    if header.layers != model.config.layers:
        layers = ", ".join(model.config.layers)
        raise ValueError(f"{path}: its layers are not those of its model, {layers}; restore it")
    if header.tokenizer != tokenizer:
        raise ValueError(f"{path}: its tokens are of another tokenizer; use that of its model")
    for field in dataclasses.fields(sleep):
        theirs, ours = getattr(header.sleep, field.name), getattr(sleep, field.name)
        if theirs != ours:
            raise ValueError(
                f"{path}: was read with sleep.{field.name} {theirs!s:.80}, not {ours}; go on with "
                "the settings it was read with"
            )
    if header.batch_size != batch_size:
        raise ValueError(
            f"{path}: holds {header.batch_size} streams, not {batch_size}; load it as a batch of "
            "that many"
        )
    num_tokens = header.window_fill + (header.carried or 0) + sum(header.entries)
    num_tokens *= header.batch_size
    if num_tokens > path.stat().st_size:
        raise ValueError(f"{path}: tells of {num_tokens} tokens, more than it can hold; restore it")


def _outline(header: MemoryHeader, model: HybridLM) -> MemoryState:
    """The state that the header tells of, but on the meta device, where tensors have no memory."""
    B, W, carried = header.batch_size, header.window_fill, header.carried or 0
    fresh = model.initial_state(1)

    def empty(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(B, *shape, dtype=dtype, device="meta")

    def mask(length: int, padded: bool) -> Tensor | None:
        return empty(length, dtype=torch.bool) if padded else None

    def outline_layers() -> tuple[LayerState, ...]:
        outlined = [layer.outline(B, carried + W) for layer in fresh.layers]
        if not header.entries:
            return tuple(outlined)
        each = zip(header.layers, outlined, header.entries, strict=True)
        return tuple(_outline_entries(*of_layer) for of_layer in each)

    noted = open_window(model, fresh, header.sleep).window_start if W else ()
    further = header.sleep.wake_passes - 1 if W else 0
    band = find_band(header.sleep)
    start = empty(dtype=torch.int64)
    hidden = empty(W, model.config.width, dtype=fresh.window_hidden.dtype)
    return MemoryState(
        layers=outline_layers(),
        window_tokens=empty(W, dtype=torch.int64),
        window_mask=mask(W, header.window_padded),
        window_hidden=hidden,
        tokens_seen=torch.full((B,), header.tokens_seen),
        num_sleeps=torch.full((B,), header.num_sleeps),
        carried=None
        if band is None or header.carried is None
        else Carried(carried, band, start, mask(carried, header.carried_padded)),
        window_start=tuple(None if layer is None else layer.outline(B, 0) for layer in noted),
        wake_layers=tuple(outline_layers() for _ in range(further)),
        position=start if header.entries else None,
        delta=model.initial_delta(B, header.rank, device="meta") if header.rank else None,
    )


def _outline_entries(kind: LayerType, layer: LayerState, count: int) -> LayerState:
    """The layer with `count` compact entries, if it keeps any."""
    if not find_mixer(kind).keeps_entries:
        return layer
    assert isinstance(layer, KeyValues)
    B, _, heads, size = layer.keys.shape
    compact = CompactKeyValues.empty(
        B, count, heads, size, dtype=wide_dtype(layer.keys.dtype), device=layer.keys.device
    )
    return dataclasses.replace(layer, compact=compact)


def _compare(source: str, found: Sizes, expected: Sizes) -> None:
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
    for name, tensor in tensors.items():
        _check_entries(source, name, tensor, header)


def _check_entries(source: str, name: str, tensor: Tensor, header: MemoryHeader) -> None:
    """Refuses counts and places that no entries have. name: of any tensor."""
    at, _, field = name.rpartition(".")
    if field in ("place", "position"):
        if bool(((tensor < 0) | (tensor > header.tokens_seen)).any()):
            raise ValueError(f"{source}: {name} is no place in the stream; restore the file")
    elif field == "lengths":
        count = header.entries[int(at.split(".")[-2])]
        if bool((tensor < 0).any()) or int(tensor.sum(1).max()) != count:
            raise ValueError(f"{source}: {name} are not of {count} entries; restore the file")
