"""What is compiled: how it is built, found and refused, and that its delta rule minds no layout."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.ops import native
from slowwave.ops.gated_rules import gated_delta_rule
from slowwave.ops.norm import l2_norm


def draw(B: int, T: int, H: int = 2, G: int = 4, K: int = 8, V: int = 6) -> list[Tensor]:
    """Float32 inputs of `gated_delta_rule`, all contiguous."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    q, k = l2_norm(normal(B, T, H, K)), l2_norm(normal(B, T, H, K))
    log_decay, beta = -F.softplus(normal(B, T, G)), torch.sigmoid(normal(B, T, G))
    return [q, k, normal(B, T, G, V), log_decay, beta, normal(B, G, K, V)]


def gradients(inputs: list[Tensor], cotangent: Tensor) -> list[Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    out, state = gated_delta_rule(*leaves, backend="native", chunk_size=16)
    grads = torch.autograd.grad([out, state], leaves, [cotangent, torch.ones_like(state)])
    return [out, state, *grads]


def assert_all_equal(actual: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a, b)


def test_layout_in_memory_does_not_matter() -> None:
    inputs = draw(2, 40)
    expected = gradients(inputs, torch.ones(2, 40, 4, 6))
    q, k, v, log_decay, beta, state = inputs
    strided = [
        torch.cat([q, k], dim=2)[:, :, :2],
        k.transpose(1, 3).contiguous().transpose(1, 3),
        torch.cat([v, v], dim=-1)[..., :6],
        torch.stack([log_decay, beta])[0],
        beta.transpose(0, 1).contiguous().transpose(0, 1),
        state.mT.contiguous().mT,
    ]
    assert not any(tensor.is_contiguous() for tensor in strided if tensor is not strided[3])
    assert_all_equal(gradients(strided, torch.ones(()).expand(2, 40, 4, 6)), expected)


def test_number_of_threads_does_not_matter() -> None:
    inputs = draw(3, 40)
    cotangent = torch.randn(3, 40, 4, 6, generator=torch.Generator().manual_seed(1))
    expected = gradients(inputs, cotangent)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        actual = gradients(inputs, cotangent)
    finally:
        torch.set_num_threads(before)
    assert_all_equal(actual, expected)


@pytest.mark.parametrize("keep_writes", [True, False])
@pytest.mark.parametrize("T", [5, 40])
def test_torch_finds_nothing_wrong_with_the_operator(T: int, keep_writes: bool) -> None:
    leaves = tuple(tensor.requires_grad_() for tensor in draw(2, T))
    arguments = (*leaves, 0.5, 16, keep_writes, True)
    torch.library.opcheck(torch.ops.slowwave.delta_rule.default, arguments)


def test_a_state_without_gradient_of_its_own_gets_none() -> None:
    q, k, v, log_decay, beta, state = draw(2, 20)
    leaves = (q, k, v, log_decay, beta)
    for leaf in leaves:
        leaf.requires_grad_()
    out, _ = gated_delta_rule(q, k, v, log_decay, beta, state, backend="native")
    out.sum().backward()
    assert state.grad is None
    assert all(leaf.grad is not None for leaf in leaves)


def test_what_stands_in_the_way_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "_library", lambda: tmp_path / "missing.so")
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "no C++ compiler (CXX, or c++)" in (native.find_obstacle() or "")
    with pytest.raises(ValueError, match=r"'native' is not usable: there is no C.*use 'chunk'"):
        native._load_once.__wrapped__()
    monkeypatch.setattr("shutil.which", lambda name: "c++" if name == "c++" else None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert native.find_obstacle() == "ninja is not installed"


def test_a_failed_build_is_said_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sources = tmp_path / "native"
    sources.mkdir()
    (sources / "library.cpp").write_text("#error no compiler takes this\n")
    monkeypatch.setattr(native, "_SOURCES", sources)
    monkeypatch.setattr(native, "_library", lambda: tmp_path / "cache" / "rule.so")
    with pytest.raises(ValueError, match="backend 'native' could not be built in"):
        native._load_once.__wrapped__()
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64])
def test_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="'native' takes float32, float64 or bfloat16 on a CPU"):
        native.require(torch.zeros(1, dtype=dtype))


@pytest.mark.parametrize("built", [False, True])
def test_a_fresh_process_takes_what_another_has_built(built: bool, tmp_path: Path) -> None:
    script = "from slowwave.ops.native import is_ready; print(is_ready())"
    environment = dict(os.environ)
    if not built:
        environment["XDG_CACHE_HOME"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(built)


def test_what_cannot_be_looked_for_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No home, no right to read it, a library of another system: the answer is no, not an error."""
    foreign = tmp_path / "foreign.so"
    foreign.write_bytes(b"not a library")
    native._look_once.cache_clear()
    monkeypatch.setattr(native, "_load_once", functools.cache(native._load_once.__wrapped__))
    try:
        monkeypatch.setattr(native, "_library", lambda: foreign)
        assert not native.is_ready()
    finally:
        native._look_once.cache_clear()


OTHER_SET = """
import torch
from slowwave.models.config import ModelConfig
from slowwave.models.backbone import HybridLM
from slowwave.ops import native
from slowwave.ops.gated_rules import gated_delta_rule
from slowwave.ops.norm import l2_norm

native.load()
generator = torch.Generator().manual_seed(0)
draw = lambda *shape: torch.randn(*shape, generator=generator)
q, k = l2_norm(draw(2, 70, 2, 40)), l2_norm(draw(2, 70, 2, 40))
log_decay, beta = -draw(2, 70, 2).exp(), draw(2, 70, 2).sigmoid()
inputs = [q, k, draw(2, 70, 2, 72), log_decay, beta, draw(2, 2, 40, 72)]
results = []
for backend in ("reference", "native"):
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    out, state = gated_delta_rule(*leaves, backend=backend)
    results.append([out, state, *torch.autograd.grad(out.sum() + state.sum(), leaves)])
model = HybridLM(ModelConfig(vocab_size=9))
tokens = torch.arange(9)[None]
for grad in (True, False):
    with torch.set_grad_enabled(grad):
        state, logits = model.initial_state(1), []
        for piece in tokens.split([5, 1, 1, 2], dim=1):
            hidden, state = model.read(piece, state)
            logits.append(model.logits(hidden))
    results[not grad] += [torch.cat(logits, dim=1).detach(), *state.fast_weights]
for expected, actual in zip(*results, strict=True):
    assert (actual - expected).norm() <= 1e-5 * expected.norm()
print("agrees")
"""


@pytest.mark.parametrize("capability", ["avx2", "default"])
def test_other_instruction_sets_agree_with_the_reference(capability: str) -> None:
    """Narrower vectors are another library; torch picks one by the same variable."""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability}
    done = subprocess.run(
        [sys.executable, "-c", OTHER_SET], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "agrees"
