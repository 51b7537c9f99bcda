"""What is compiled for the CPU at hand: builds and loads cpu/, and teaches its delta rule autograd.

It is built once, by `load`, into the user's cache folder; from then on it is simply there.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.bfloat16)

_SOURCES = Path(__file__).with_name("cpu")
_CPU_FLAGS = {
    "AVX512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"],
    "AVX2": ["-mavx2", "-mfma"],
}


def find_obstacle() -> str | None:
    """What keeps the extension from being built here; None if nothing does."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++")):
        return "no C++ compiler is installed"
    if importlib.util.find_spec("ninja") is None and shutil.which("ninja") is None:
        return "ninja is not installed"
    return None


@torch.compiler.assume_constant_result
def load() -> None:
    """Loads the extension; the first time on a machine this compiles it, in half a minute.

    Raises ValueError if it cannot be built.
    """
    _load_once()


@functools.cache
def _load_once() -> None:
    path = _library()
    if path.exists():
        torch.ops.load_library(path)
    else:
        _build(path)
    torch.library.register_fake("slowwave::delta_rule", _fake_forward)
    torch.library.register_fake("slowwave::delta_rule_backward", _fake_backward)
    torch.library.register_autograd(
        "slowwave::delta_rule", _backward, setup_context=_keep_for_backward
    )


@torch.compiler.assume_constant_result
def is_ready() -> bool:
    """Whether the extension is loaded; loads it if some process has built it before."""
    if _load_once.cache_info().currsize == 0 and _library().exists():
        _load_once()
    return _load_once.cache_info().currsize == 1


def can_read(x: Tensor) -> bool:
    """Whether the compiled operators without gradients can take tensors like `x` right now."""
    return (
        x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and x.dtype in DTYPES
        and is_ready()
    )


def require(v: Tensor) -> None:
    """Loads the extension, or raises ValueError if it cannot work on tensors like `v`."""
    if v.device.type != "cpu" or v.dtype not in DTYPES:
        raise ValueError(
            f"backend 'native' takes float32, float64 or bfloat16 on a CPU, v is {v.dtype} on "
            f"{v.device}; use 'auto'"
        )
    load()


@functools.cache
def _library() -> Path:
    """Where the compiled extension belongs: a name for every source, torch and instruction set."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    capability = torch.backends.cpu.get_cpu_capability()
    identity = "-".join([torch.__version__, platform.machine(), capability])
    texts = b"".join(path.read_bytes() for path in sorted(_SOURCES.iterdir()))
    digest = hashlib.sha256(identity.encode() + texts).hexdigest()[:16]
    return cache / "slowwave" / f"slowwave_{digest}.so"


def _build(path: Path) -> None:
    obstacle = find_obstacle()
    if obstacle is not None:
        raise ValueError(f"backend 'native' is not usable: {obstacle}; install it or use 'chunk'")
    from torch.utils.cpp_extension import load as build_and_load

    path.parent.mkdir(parents=True, exist_ok=True)
    # In a folder of its own: torch's lock outlives a build that is killed, and others would wait.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        try:
            build_and_load(
                name=path.stem,
                sources=[str(_SOURCES / "library.cpp")],
                extra_cflags=[
                    "-O3",
                    "-std=c++20",
                    *_CPU_FLAGS.get(torch.backends.cpu.get_cpu_capability(), []),
                ],
                build_directory=folder,
                is_python_module=False,
            )
        except RuntimeError as error:
            raise ValueError(f"backend 'native' could not be compiled: {error}") from None
        os.replace(Path(folder) / path.name, path)


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor,
    scale: float,
    chunk_size: int,
    keep_writes: bool,
) -> tuple[Tensor, Tensor]:
    """As `delta_rule_in_chunks`, by the loaded extension; v may be narrower than the rest."""
    inputs = (q, k, v, log_decay, beta, state)
    keep_starts = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    out, new_state, _ = torch.ops.slowwave.delta_rule(
        *inputs, scale, chunk_size, keep_writes, keep_starts
    )
    return out, new_state


def _fake_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor,
    scale: float,
    chunk_size: int,
    keep_writes: bool,
    keep_starts: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    B, T = q.shape[:2]
    num_starts = -(-T // min(chunk_size, T)) - 1 if keep_starts else 0
    return (
        torch.empty(v.shape, dtype=v.dtype, device=v.device),
        state.new_empty(B if keep_writes else 0, *state.shape[1:]),
        state.new_empty(B, state.shape[1], num_starts, *state.shape[2:]),
    )


def _fake_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor,
    *others: Any,
) -> tuple[Tensor, ...]:
    inputs = (q, k, v, log_decay, beta, state)
    return tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in inputs)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, scale, chunk_size, keep_writes, _ = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.options = (scale, chunk_size, keep_writes)


def _backward(ctx: Any, grad_out: Tensor, grad_state: Tensor, _: Tensor) -> tuple[Any, ...]:
    gradients = torch.ops.slowwave.delta_rule_backward(
        *ctx.saved_tensors, grad_out, grad_state, *ctx.options
    )
    return (*gradients, None, None, None, None)
