"""The gated delta rule: the reference against the paper's formula, the chunks against it."""

import functools
import itertools
import sys
import types
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from numerics import TOLERANCE, assert_close
from rule_inputs import Inputs, assert_all_close, draw, draw_mask, values_and_gradients
from slowwave.ops import gated_rules, linear, native
from slowwave.ops.gated_rules import gated_delta_rule

FAST = ("chunk", "native")
BACKENDS = ("reference", *FAST)
results_of = functools.partial(values_and_gradients, gated_delta_rule)
ODD_LENGTHS = (1, 2, 3, 63, 64, 65, 130)


def formula(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Section 2 of arXiv 2412.06464, one head and one token at a time, S as (V, K) like there."""
    q, k, v, log_decay, beta, state = inputs
    B, T, H, K = q.shape
    G = v.shape[2]
    out, new_state = torch.zeros_like(v), torch.zeros_like(state)
    for b in range(B):
        for g in range(G):
            h = g * H // G
            S = state[b, g].T
            for t in range(T):
                erase = torch.eye(K, dtype=S.dtype) - beta[b, t, g] * torch.outer(
                    k[b, t, h], k[b, t, h]
                )
                S = log_decay[b, t, g].exp() * S @ erase
                S = S + beta[b, t, g] * torch.outer(v[b, t, g], k[b, t, h])
                out[b, t, g] = S @ q[b, t, h] / K**0.5
            new_state[b, g] = S.T
    return out, new_state


@pytest.mark.parametrize(("H", "G"), [(1, 1), (2, 2), (2, 6), (1, 3)])
def test_reference_is_the_formula(H: int, G: int) -> None:
    inputs = draw(T=7, H=H, G=G)
    out, state = gated_delta_rule(*inputs, backend="reference")
    expected_out, expected_state = formula(inputs)
    assert_close(out, expected_out, 1e-12)
    assert_close(state, expected_state, 1e-12)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("T", ODD_LENGTHS)
def test_fast_backends_equal_the_reference(
    T: int, dtype: torch.dtype, backend: gated_rules.Backend
) -> None:
    inputs = draw(T=T).to(dtype)
    expected = results_of(inputs.to(torch.float64), backend="reference")
    actual = results_of(inputs, backend=backend)
    assert_all_close(actual, expected, TOLERANCE[dtype])
    assert actual["out"].dtype == dtype
    assert actual["new_state"].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=40)
@given(
    T=st.integers(1, 40),
    chunk_size=st.integers(1, 20),
    heads=st.sampled_from([(1, 1), (1, 3), (2, 2), (2, 4), (3, 6)]),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    rows=st.sampled_from([(1, 1), (3, 3), (4, 2), (6, 1)]),
    masked=st.booleans(),
    keep_writes=st.booleans(),
)
def test_fast_backends_equal_the_reference_for_any_shape(
    backend: gated_rules.Backend,
    T: int,
    chunk_size: int,
    heads: tuple[int, int],
    sizes: tuple[int, int],
    rows: tuple[int, int],
    masked: bool,
    keep_writes: bool,
) -> None:
    (H, G), (K, V), (B, states) = heads, sizes, rows
    inputs = draw(B, T, H=H, G=G, K=K, V=V, states=states)
    options = {"mask": draw_mask(B, T) if masked else None, "keep_writes": keep_writes}
    expected = results_of(inputs, backend="reference", **options)
    actual = results_of(inputs, backend=backend, chunk_size=chunk_size, **options)
    assert_all_close(actual, expected, 1e-12)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("T", "chunk_size"), [(2, 64), (5, 2), (9, 4)])
def test_gradients_match_finite_differences(
    T: int, chunk_size: int, masked: bool, backend: gated_rules.Backend
) -> None:
    inputs = draw(1, T, H=1, G=2, K=3, V=2)
    mask = draw_mask(1, T) if masked else None

    def rule(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return gated_delta_rule(*tensors, mask=mask, chunk_size=chunk_size, backend=backend)

    assert torch.autograd.gradcheck(rule, [tensor.requires_grad_() for tensor in inputs])


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=15)
@given(cuts=st.sets(st.integers(1, 69)))
def test_pieces_equal_one_call(backend: gated_rules.Backend, cuts: set[int]) -> None:
    inputs = draw(T=70)
    expected_out, expected_state = gated_delta_rule(*inputs, backend=backend, chunk_size=16)
    bounds = [0, *sorted(cuts), 70]
    outs: list[Tensor] = []
    piece_start = inputs
    for start, stop in itertools.pairwise(bounds):
        out, state = gated_delta_rule(
            *piece_start.tokens(start, stop), backend=backend, chunk_size=16
        )
        outs.append(out)
        piece_start = piece_start._replace(state=state)
    assert_close(torch.cat(outs, dim=1), expected_out, 1e-12)
    assert_close(piece_start.state, expected_state, 1e-12)


@pytest.mark.parametrize("keep_writes", [True, False])
@pytest.mark.parametrize("T", [3, 20, 70])
@pytest.mark.parametrize("backend", FAST)
def test_rows_that_share_a_state_equal_rows_with_copies_of_it(
    backend: gated_rules.Backend, T: int, keep_writes: bool
) -> None:
    inputs = draw(6, T, states=2)
    copied = inputs._replace(state=inputs.state.repeat_interleave(3, dim=0))
    out, state = gated_delta_rule(*inputs, backend=backend, keep_writes=keep_writes)
    expected_out, expected_state = gated_delta_rule(*copied, backend=backend)
    assert_close(out, expected_out, 1e-12)
    if keep_writes:
        assert_close(state, expected_state, 1e-12)
    else:
        assert state is inputs.state


def test_no_state_means_zeros_and_scale_weighs_the_output() -> None:
    inputs = draw(T=70)
    empty = inputs._replace(state=torch.zeros_like(inputs.state))
    expected, _ = gated_delta_rule(*empty)
    out, _ = gated_delta_rule(*inputs[:-1])
    assert torch.equal(out, expected)
    scaled, _ = gated_delta_rule(*empty, scale=1.0)
    assert_close(scaled, expected * 8**0.5, 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_tokens_change_nothing(backend: gated_rules.Backend) -> None:
    inputs = draw(T=5).tokens(0, 0)
    out, state = gated_delta_rule(*inputs, backend=backend)
    assert out.shape == (2, 0, 4, 6)
    assert torch.equal(state, inputs.state)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("T", [1, 3, 64, 70])
def test_masked_call_leaves_the_state_bit_identical(T: int, backend: gated_rules.Backend) -> None:
    inputs = draw(T=T).to(torch.float32)
    mask = torch.zeros(2, T, dtype=torch.bool)
    _, state = gated_delta_rule(*inputs, mask=mask, backend=backend)
    assert torch.equal(state, inputs.state)


def test_reference_skips_masked_tokens_to_the_bit() -> None:
    inputs = draw(1, 30).to(torch.float32)
    mask = draw_mask(1, 30)
    real = Inputs._make([*(tensor[:, mask[0]] for tensor in inputs[:-1]), inputs.state])
    out, state = gated_delta_rule(*inputs, mask=mask, backend="reference")
    expected_out, expected_state = gated_delta_rule(*real, backend="reference")
    assert torch.equal(out[:, mask[0]], expected_out)
    assert torch.equal(state, expected_state)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("strength", [0.0, 10.0, 1000.0])
def test_long_reads_stay_finite_and_exact(strength: float, backend: gated_rules.Backend) -> None:
    """No decay at all, or decays so strong that their product underflows inside one chunk."""
    drawn = draw(1, 200)
    inputs = drawn._replace(log_decay=strength * drawn.log_decay).to(torch.float32)
    expected = results_of(inputs.to(torch.float64), backend="reference")
    assert_all_close(results_of(inputs, backend=backend), expected, 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_are_not_mutated(backend: gated_rules.Backend) -> None:
    inputs = draw(T=70)
    before = [tensor.clone() for tensor in inputs]
    gated_delta_rule(*inputs, mask=draw_mask(2, 70), backend=backend)
    for tensor, copy in zip(inputs, before, strict=True):
        assert torch.equal(tensor, copy)
        assert tensor._version == 0


@pytest.mark.parametrize(
    ("field", "shape"),
    [
        ("k", (2, 10, 2, 7)),
        ("v", (2, 9, 4, 6)),
        ("log_decay", (2, 10, 3)),
        ("beta", (2, 10, 4, 1)),
        ("state", (2, 4, 6, 8)),
        ("state", (4, 4, 8, 6)),
    ],
)
def test_wrong_shapes_are_refused_by_name(field: str, shape: tuple[int, ...]) -> None:
    inputs = draw()._replace(**{field: torch.zeros(shape)})
    with pytest.raises(ValueError) as caught:
        gated_delta_rule(*inputs)
    assert str(caught.value).startswith(f"{field} must have shape")
    assert str(shape) in str(caught.value)


def test_wrong_mask_and_heads_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"mask must have shape \(2, 10\), got \(2, 9\)"):
        gated_delta_rule(*draw(), mask=torch.ones(2, 9, dtype=torch.bool))
    with pytest.raises(ValueError, match="value heads 3 must be a multiple of query heads 2"):
        gated_delta_rule(*draw(H=2, G=3))


def fake_fla(monkeypatch: pytest.MonkeyPatch, calls: list[dict[str, Any]]) -> None:
    """Puts a stand-in with fla's signature where the package would be, built on our reference."""

    def chunk_gated_delta_rule(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        beta: Tensor,
        scale: float | None = None,
        initial_state: Tensor | None = None,
        output_final_state: bool = False,
        use_qk_l2norm_in_kernel: bool = False,
        use_beta_sigmoid_in_kernel: bool = False,
        allow_neg_eigval: bool = False,
        state_v_first: bool = False,
        cu_seqlens: Tensor | None = None,
        cu_seqlens_cpu: Tensor | None = None,
        chunk_indices: Tensor | None = None,
        cp_context: object = None,
    ) -> tuple[Tensor, Tensor | None]:
        calls.append(locals().copy())
        out, state = gated_delta_rule(
            q, k, v, g, beta, initial_state, scale=scale, backend="reference"
        )
        return out, state if output_final_state else None

    module = types.ModuleType("fla.ops.gated_delta_rule")
    module.__dict__["chunk_gated_delta_rule"] = chunk_gated_delta_rule
    monkeypatch.setitem(sys.modules, "fla.ops.gated_delta_rule", module)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fla_gets_what_its_signature_asks_for(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    calls: list[dict[str, Any]] = []
    fake_fla(monkeypatch, calls)
    wide = draw(6, 9, states=2).to(torch.float32)
    inputs = wide._replace(v=wide.v.to(dtype))
    mask = draw_mask(6, 9)
    out, state = gated_delta_rule(*inputs, mask=mask, scale=0.3, backend="fla")
    expected_out, expected_state = gated_delta_rule(*inputs, mask=mask, scale=0.3)
    assert_close(out, expected_out, TOLERANCE[dtype])
    assert_close(state, expected_state, TOLERANCE[dtype])
    assert (out.dtype, state.dtype) == (dtype, torch.float32)
    (call,) = calls
    assert call["q"].dtype == call["k"].dtype == call["v"].dtype == dtype
    assert call["g"].dtype == call["beta"].dtype == torch.float32
    assert call["initial_state"].dtype == torch.float32
    assert call["initial_state"].shape == (6, 4, 8, 6)
    assert call["output_final_state"] is True
    normalised_or_squashed_again = (
        call["use_qk_l2norm_in_kernel"],
        call["use_beta_sigmoid_in_kernel"],
        call["allow_neg_eigval"],
    )
    assert normalised_or_squashed_again == (False, False, False)
    assert call["state_v_first"] is False


def test_fla_leaves_the_state_of_a_fork_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_fla(monkeypatch, [])
    inputs = draw(6, 9, states=2).to(torch.float32)
    _, state = gated_delta_rule(*inputs, backend="fla", keep_writes=False)
    assert state is inputs.state


def test_unusable_backends_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fla.ops.gated_delta_rule", None)
    with pytest.raises(ValueError, match=r"backend 'fla' is not usable .*\[cuda\]"):
        gated_delta_rule(*draw(), backend="fla")
    unknown: Any = "triton"
    with pytest.raises(ValueError, match=r"backend must be one of .* got 'triton'"):
        gated_delta_rule(*draw(), backend=unknown)


@pytest.mark.parametrize(("ready", "backend"), [(False, "chunk"), (True, "native")])
def test_auto_on_a_cpu_takes_what_has_been_built(
    monkeypatch: pytest.MonkeyPatch, ready: bool, backend: gated_rules.Backend
) -> None:
    monkeypatch.setattr(native, "is_ready", lambda: ready)
    inputs = draw(T=70).to(torch.float32)
    for auto, named in zip(
        gated_delta_rule(*inputs), gated_delta_rule(*inputs, backend=backend), strict=True
    ):
        assert torch.equal(auto, named)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [0, 2])
def test_no_rows_are_no_work(rows: int, backend: gated_rules.Backend) -> None:
    inputs = draw(2, 5)
    empty = Inputs._make([*(tensor[:0] for tensor in inputs[:-1]), inputs.state[:rows]])
    out, state = gated_delta_rule(*empty, backend=backend)
    assert out.shape == (0, 5, 4, 6)
    assert state.shape == (0, 4, 8, 6)


@pytest.mark.parametrize("backend", FAST)
def test_second_derivatives_are_refused_and_not_lost(backend: gated_rules.Backend) -> None:
    leaves = [tensor.requires_grad_() for tensor in draw(T=5)]
    out, _ = gated_delta_rule(*leaves, backend=backend)
    (gradient,) = torch.autograd.grad(out.square().sum(), leaves[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("of", ["out", "state"])
def test_gradients_of_one_result_alone(of: str, backend: gated_rules.Backend) -> None:
    inputs = draw(T=70)
    gradients: list[tuple[Tensor, ...]] = []
    for way in ("reference", backend):
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        out, state = gated_delta_rule(*leaves, backend=way)
        wanted = (out if of == "out" else state).square().sum()
        gradients.append(
            torch.autograd.grad(wanted, leaves, allow_unused=True, materialize_grads=True)
        )
    for actual, expected in zip(*reversed(gradients), strict=True):
        assert_close(actual, expected, 1e-12)


# Torch's own tracing of an autograd.Function does what it warns of.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("backend", FAST)
def test_fast_backends_can_be_compiled_whole(backend: gated_rules.Backend) -> None:
    def rule(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return gated_delta_rule(*tensors, backend=backend, chunk_size=8)

    compiled = torch.compile(rule, backend="aot_eager", fullgraph=True)
    leaves = [tensor.requires_grad_() for tensor in draw(T=20)]
    results: list[list[Tensor]] = []
    for way in (rule, compiled):
        out, state = way(*leaves)
        results.append([out, state, *torch.autograd.grad(out.sum() + state.sum(), leaves)])
    for eager, traced in zip(*results, strict=True):
        assert_close(traced, eager, 1e-12)


@pytest.mark.parametrize("few", [0, 4, 100])
def test_the_rule_does_not_depend_on_how_small_products_are_taken(
    monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(linear, "FEW_ROWS", few)
    inputs = draw(T=11)
    expected = results_of(inputs, backend="reference")
    assert_all_close(results_of(inputs, backend="chunk", chunk_size=5), expected, 1e-12)
