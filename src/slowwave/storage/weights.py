"""Weights that another program wrote: tensors by name, read one at a time by memory map.

A source is a folder of safetensors files, one such file, or a GGUF file. Pickle files run code when
they are opened, and never are.
"""

from __future__ import annotations

import math
from pathlib import Path, PureWindowsPath
from typing import Any, Protocol

import safetensors
from torch import Tensor

from slowwave.storage.files import open_plain
from slowwave.storage.json_files import read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_ITEM_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}


class WeightSource(Protocol):
    """Tensors of floating-point numbers by name."""

    @property
    def path(self) -> Path:
        """The folder or file that sentences name."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in order."""
        ...

    @property
    def num_bytes(self) -> int:
        """What all tensors take once they are read."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; raises KeyError for a name that is not among `names`."""
        ...

    def read(self, name: str) -> Tensor:
        """A tensor in the dtype of the file, quantised ones as float32.

        It may lie in the mapped file, at any alignment: copy it to keep it. Raises KeyError for a
        name that is not among `names`, ValueError if the file cannot be read.
        """
        ...


def open_weights(path: str | Path) -> WeightSource:
    """The weights at a path: a folder, a .safetensors file or a .gguf file.

    Raises ValueError naming what is missing, damaged, unknown or a pickle file. Tensors that are
    not of floating-point numbers are left out.
    """
    path = Path(path)
    if path.is_dir():
        return SafetensorsWeights(path, _find_shards(path))
    if path.suffix in PICKLES:
        raise _refuse_pickle(path, path.name)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; name a folder or a .gguf file")
    if path.suffix == ".gguf":
        from slowwave.storage.gguf_file import GgufFile  # needs an optional package

        return GgufFile(path)
    return SafetensorsWeights(path, {path: None})


class SafetensorsWeights:
    """Tensors of safetensors files. shards: files, and which tensors to take of each (None: all).

    Raises ValueError if a file or a tensor is missing, or a file is cut or foreign.
    """

    def __init__(self, path: Path, shards: dict[Path, list[str] | None]) -> None:
        self.path = path
        self._files: dict[str, Any] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.num_bytes = 0
        for shard, names in shards.items():
            self._add(shard, names)

    @property
    def names(self) -> tuple[str, ...]:
        """See `WeightSource.names`."""
        return tuple(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """See `WeightSource.shape`."""
        return self._shapes[name]

    def read(self, name: str) -> Tensor:
        """See `WeightSource.read`."""
        file = self._files[name]
        try:
            return file.get_tensor(name)
        except (safetensors.SafetensorError, OSError, RuntimeError, TypeError) as error:
            raise ValueError(f"{self.path}: tensor {name} cannot be read ({error})") from None

    def _add(self, shard: Path, names: list[str] | None) -> None:
        file = _open_shard(shard)
        held = set(file.keys())
        for name in sorted(held) if names is None else names:
            if name not in held:
                raise ValueError(
                    f"{shard}: lacks tensor {name:.200}, which {INDEX} says is there; fetch the "
                    "files of one version again"
                )
            part = file.get_slice(name)
            item_bytes = _ITEM_BYTES.get(part.get_dtype())
            if item_bytes is not None:
                self._files[name], self._shapes[name] = file, tuple(part.get_shape())
                self.num_bytes += item_bytes * math.prod(part.get_shape())


def _open_shard(path: Path) -> Any:
    try:
        with open_plain(path):  # of a pipe or a folder the package says nothing that helps
            return safetensors.safe_open(path, framework="pt")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; fetch it, the model is not whole") from None
    except (safetensors.SafetensorError, OSError, RuntimeError) as error:
        raise ValueError(
            f"{path}: truncated or not a safetensors file ({error}); fetch it again"
        ) from None


def _find_shards(folder: Path) -> dict[Path, list[str] | None]:
    """The files of a folder, and the names of the tensors to take of each."""
    if (folder / WEIGHTS).exists():
        return {folder / WEIGHTS: None}
    if (folder / INDEX).exists():
        return _read_index(folder)
    present = sorted(file.name for file in folder.iterdir() if file.is_file())
    for name in present:
        if name.endswith(PICKLES):
            raise _refuse_pickle(folder, name)
    for name in present:
        if name.endswith(".gguf"):
            raise ValueError(f"{folder}: has no {WEIGHTS}; name the file {folder / name} itself")
    raise ValueError(f"{folder}: has no {WEIGHTS} and no {INDEX}; name the folder of a model")


def _read_index(folder: Path) -> dict[Path, list[str] | None]:
    path = folder / INDEX
    index = read_json(path)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{path}: has no weight_map from tensors to files; fetch it again")
    shards = dict[Path, list[str] | None]()
    for name, file in sorted(places.items()):
        if not _is_file_name(file):
            raise ValueError(
                f"{path}: puts tensor {name:.200} into {file!r:.200}, which is no .safetensors "
                "file of this folder; fetch it again"
            )
        names = shards.setdefault(folder / file, [])
        assert names is not None  # None is all, and an index names each
        names.append(name)
    return shards


def _is_file_name(file: object) -> bool:
    """Whether it names a file beside the index, on any system."""
    if not isinstance(file, str) or not file.endswith(".safetensors"):
        return False
    return PureWindowsPath(file).name == file and file.isprintable()


def _refuse_pickle(path: Path, name: str) -> ValueError:
    return ValueError(
        f"{path}: {name} is a pickle file, which can run code and is never opened; convert the "
        "model to safetensors"
    )
