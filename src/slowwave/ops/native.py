"""What is compiled for the CPU at hand: builds and loads cpu/.

It is built once, by `load`, into the user's cache folder; from then on it is simply there.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.bfloat16)

_LOCK = threading.RLock()
_SOURCES = Path(__file__).with_name("cpu")
_FLAGS = ("-O3", "-std=c++20", "-fopenmp")
_CPU_FLAGS = {
    "AVX512": (
        *("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"),
        "-mprefer-vector-width=512",
    ),
    "AVX2": ("-mavx2", "-mfma"),
}


def find_obstacle() -> str | None:
    """What keeps the extension from being built here; None if nothing does."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    if not compiler or shutil.which(compiler[0]) is None:
        return f"there is no C++ compiler (CXX, or c++), looked for {' '.join(compiler)!r}"
    if importlib.util.find_spec("ninja") is None and shutil.which("ninja") is None:
        return "ninja is not installed"
    return None


@torch.compiler.assume_constant_result
def load() -> None:
    """Loads the extension; the first time on a machine this compiles it, in half a minute.

    Raises ValueError if it cannot be built.
    """
    with _LOCK:
        _load_once()
        _look_once.cache_clear()


@functools.cache
def _load_once() -> None:
    path = _library()
    if path.exists():
        torch.ops.load_library(path)
    else:
        _build(path)
    _teach_autograd()


@torch.compiler.assume_constant_result
def is_ready() -> bool:
    """Whether the extension is loaded; loads it if some process had built it before this one asked.

    The answer stays, so that a process computes in one way from beginning to end, until it calls
    `load` itself.
    """
    return _look_once()


@functools.cache
def _look_once() -> bool:
    with _LOCK:
        try:
            if _load_once.cache_info().currsize == 0 and _library().exists():
                _load_once()
        except (OSError, RuntimeError):  # no home, no right to read, built for another system
            return False
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


def can_train(x: Tensor) -> bool:
    """Whether the compiled operators that have gradients can take tensors like `x`."""
    return x.device.type == "cpu" and x.dtype in DTYPES and x.numel() > 0 and is_ready()


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
    """Where the compiled extension belongs: a name for every source, torch and set of flags."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    system = [platform.machine(), *platform.libc_ver()]
    identity = " ".join([torch.__version__, *system, *_flags()])
    texts = b"".join(path.read_bytes() for path in sorted(_SOURCES.iterdir()))
    digest = hashlib.sha256(identity.encode() + texts).hexdigest()[:16]
    return cache / "slowwave" / f"slowwave_{digest}.so"


def _flags() -> list[str]:
    """For the instruction set that torch found, so that a shared cache serves other machines."""
    return [*_FLAGS, *_CPU_FLAGS.get(torch.backends.cpu.get_cpu_capability(), ())]


def _build(path: Path) -> None:
    obstacle = find_obstacle()
    if obstacle is not None:
        raise ValueError(f"backend 'native' is not usable: {obstacle}; install it or use 'chunk'")
    from torch.utils.cpp_extension import load as build_and_load

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own: torch's lock outlives a build that is killed, others would wait.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            build_and_load(
                name=path.stem,
                sources=[str(_SOURCES / "library.cpp")],
                extra_cflags=_flags(),
                build_directory=folder,
                is_python_module=False,
            )
            os.replace(Path(folder) / path.name, path)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"backend 'native' could not be built in {path.parent}: {error}; use 'chunk'"
        ) from None


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
    """As `rule_in_chunks`, by the loaded extension."""
    inputs = (q, k, v, log_decay, beta, state)
    keep_starts = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    out, new_state, _ = torch.ops.slowwave.delta_rule(
        *inputs, scale, chunk_size, keep_writes, keep_starts
    )
    return out, new_state


def _teach_autograd() -> None:
    """Registers gradients, and the shapes that torch.compile asks for, of what is compiled."""
    torch.library.register_fake("slowwave::delta_rule", _fake_rule)
    torch.library.register_fake("slowwave::delta_rule_backward", _fake_gradients)
    torch.library.register_autograd(
        "slowwave::delta_rule", _rule_backward, setup_context=_keep_for_rule
    )
    torch.library.register_fake("slowwave::delta_inputs", _fake_inputs)
    torch.library.register_fake("slowwave::delta_inputs_backward", _fake_input_gradients)
    torch.library.register_autograd(
        "slowwave::delta_inputs", _inputs_backward, setup_context=_keep_for_inputs
    )


def _fake_rule(
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


def _fake_gradients(
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


def _keep_for_rule(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    *tensors, scale, chunk_size, keep_writes, _ = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.options = (scale, chunk_size, keep_writes)


@torch.autograd.function.once_differentiable
def _rule_backward(
    ctx: Any, grad_out: Tensor | None, grad_state: Tensor | None, _: Tensor | None
) -> tuple[Any, ...]:
    kept = ctx.saved_tensors  # once: a checkpointed pass hands them out no second time
    v, state = kept[2], kept[5]
    grad_out = torch.zeros_like(v) if grad_out is None else grad_out
    grad_state = state.new_empty(0) if grad_state is None else grad_state
    gradients = torch.ops.slowwave.delta_rule_backward(*kept, grad_out, grad_state, *ctx.options)
    return (*gradients, None, None, None, None)


def _fake_inputs(
    x: Tensor, kernel: Tensor, tail: Tensor, keys: int, K: int
) -> tuple[Tensor, Tensor]:
    B, T, channels = x.shape
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.new_empty(B, T, keys, dtype=wide), x.new_empty(B, T, channels - keys)


def _fake_input_gradients(
    x: Tensor, kernel: Tensor, tail: Tensor, grad_keys: Tensor, grad_values: Tensor, K: int
) -> tuple[Tensor, Tensor, Tensor]:
    grad_kernel = grad_keys.new_empty(kernel.shape)
    return x.new_empty(x.shape), grad_kernel, tail.new_empty(tail.shape)


def _keep_for_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _, ctx.K = inputs
    ctx.save_for_backward(*tensors)


@torch.autograd.function.once_differentiable
def _inputs_backward(ctx: Any, grad_keys: Tensor, grad_values: Tensor) -> tuple[Any, ...]:
    x, kernel, tail = ctx.saved_tensors
    gradients = torch.ops.slowwave.delta_inputs_backward(
        x, kernel, tail, grad_keys, grad_values, ctx.K
    )
    return (*gradients, None, None)
