"""The gated Hebbian rule: against its formula, Mamba-2's scan, and the chunks against it."""

import functools
import inspect
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from numerics import TOLERANCE, assert_close
from rule_inputs import Inputs, assert_all_close, draw, draw_mask, values_and_gradients
from slowwave.ops import linear
from slowwave.ops.gated_rules import HebbianBackend, gated_delta_rule, gated_hebbian_rule

BACKENDS: tuple[HebbianBackend, ...] = ("reference", "chunk")
results_of = functools.partial(values_and_gradients, gated_hebbian_rule)


def formula(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Equation 3 of arXiv 2605.26099, all writes to a token at once, S as (V, K) like there."""
    q, k, v, log_decay, beta, state = inputs
    B, T, H, K = q.shape
    G = v.shape[2]
    out, new_state = torch.zeros_like(v), torch.zeros_like(state)
    for b, g, t in itertools.product(range(B), range(G), range(T)):
        h = g * H // G
        S = log_decay[b, : t + 1, g].sum().exp() * state[b, g].T
        for j in range(t + 1):
            decay = log_decay[b, j + 1 : t + 1, g].sum().exp()
            S = S + decay * beta[b, j, g] * torch.outer(v[b, j, g], k[b, j, h])
        out[b, t, g] = S @ q[b, t, h] / K**0.5
        new_state[b, g] = S.T
    return out, new_state


@pytest.mark.parametrize(("H", "G"), [(1, 1), (2, 2), (2, 6), (1, 3)])
def test_reference_is_the_formula(H: int, G: int) -> None:
    inputs = draw(T=7, H=H, G=G)
    for actual, expected in zip(
        gated_hebbian_rule(*inputs, backend="reference"), formula(inputs), strict=True
    ):
        assert_close(actual, expected, 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("H", "G"), [(4, 4), (1, 4), (2, 4)])
@pytest.mark.parametrize("T", [5, 64, 150])
def test_is_mamba_2s_scan(T: int, H: int, G: int, backend: HebbianBackend) -> None:
    """With the step for the write strength; transformers' scan is in float32 whatever it gets."""
    mamba2 = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    scan = inspect.unwrap(mamba2.mamba2_chunk_scan)
    q, k, v, _, step, state = draw(T=T, H=H, G=G).to(torch.float32)
    A = -torch.arange(1.0, G + 1) / 8
    out, last = scan(
        v, step, A, k, q, 64, initial_states=state.mT.contiguous(), return_final_states=True
    )
    ours = gated_hebbian_rule(q, k, v, A * step, step, state, scale=1.0, backend=backend)
    assert_close(ours[0], out, 1e-5)
    assert_close(ours[1], last.mT, 1e-5)


def test_is_the_delta_rule_for_keys_that_do_not_meet() -> None:
    """Orthogonal keys have nothing to correct; the same key twice has."""
    inputs = draw(1, 8, H=1, G=2, K=8)
    apart = inputs._replace(k=torch.eye(8).double()[None, :, None], state=0 * inputs.state)
    for actual, expected in zip(
        gated_hebbian_rule(*apart), gated_delta_rule(*apart, backend="reference"), strict=True
    ):
        assert_close(actual, expected, 1e-12)
    same = apart._replace(k=apart.k[:, :1].expand(1, 8, 1, 8))
    assert not torch.allclose(gated_hebbian_rule(*same)[1], gated_delta_rule(*same)[1])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("T", [1, 2, 3, 63, 64, 65, 130])
def test_chunks_equal_the_reference(T: int, dtype: torch.dtype) -> None:
    inputs = draw(T=T).to(dtype)
    expected = results_of(inputs.to(torch.float64), backend="reference")
    actual = results_of(inputs)
    assert_all_close(actual, expected, TOLERANCE[dtype])
    assert actual["out"].dtype == dtype
    assert actual["new_state"].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@settings(max_examples=60)
@given(
    T=st.integers(1, 40),
    chunk_size=st.integers(1, 20),
    heads=st.sampled_from([(1, 1), (1, 3), (2, 2), (2, 4), (3, 6)]),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    rows=st.sampled_from([(1, 1), (3, 3), (4, 2), (6, 1)]),
    masked=st.booleans(),
    keep_writes=st.booleans(),
)
def test_chunks_equal_the_reference_for_any_shape(
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
    actual = results_of(inputs, chunk_size=chunk_size, **options)
    assert_all_close(actual, expected, 1e-12)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("T", "chunk_size"), [(2, 64), (5, 2), (9, 4)])
def test_gradients_match_finite_differences(T: int, chunk_size: int, masked: bool) -> None:
    inputs = draw(1, T, H=1, G=2, K=3, V=2)
    mask = draw_mask(1, T) if masked else None

    def rule(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return gated_hebbian_rule(*tensors, mask=mask, chunk_size=chunk_size)

    assert torch.autograd.gradcheck(rule, [tensor.requires_grad_() for tensor in inputs])


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=15)
@given(cuts=st.sets(st.integers(1, 69)))
def test_pieces_equal_one_call(backend: HebbianBackend, cuts: set[int]) -> None:
    inputs = draw(T=70)
    whole = gated_hebbian_rule(*inputs, backend=backend, chunk_size=16)
    outs: list[Tensor] = []
    rest = inputs
    for start, stop in itertools.pairwise([0, *sorted(cuts), 70]):
        out, state = gated_hebbian_rule(*rest.tokens(start, stop), backend=backend, chunk_size=16)
        outs.append(out)
        rest = rest._replace(state=state)
    assert_close(torch.cat(outs, dim=1), whole[0], 1e-12)
    assert_close(rest.state, whole[1], 1e-12)


@pytest.mark.parametrize("keep_writes", [True, False])
@pytest.mark.parametrize("T", [3, 70])
def test_rows_that_share_a_state_equal_rows_with_copies_of_it(T: int, keep_writes: bool) -> None:
    inputs = draw(6, T, states=2)
    copied = inputs._replace(state=inputs.state.repeat_interleave(3, dim=0))
    out, state = gated_hebbian_rule(*inputs, keep_writes=keep_writes)
    expected_out, expected_state = gated_hebbian_rule(*copied)
    assert_close(out, expected_out, 1e-12)
    if keep_writes:
        assert_close(state, expected_state, 1e-12)
    else:
        assert state is inputs.state


def test_no_state_means_zeros_and_scale_weighs_the_output() -> None:
    inputs = draw(T=70)
    empty = inputs._replace(state=torch.zeros_like(inputs.state))
    expected, _ = gated_hebbian_rule(*empty)
    assert torch.equal(gated_hebbian_rule(*inputs[:-1])[0], expected)
    assert_close(gated_hebbian_rule(*empty, scale=1.0)[0], expected * 8**0.5, 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_tokens_or_rows_change_nothing(backend: HebbianBackend) -> None:
    inputs = draw(T=5)
    out, state = gated_hebbian_rule(*inputs.tokens(0, 0), backend=backend)
    assert out.shape == (2, 0, 4, 6)
    assert torch.equal(state, inputs.state)
    out, state = gated_hebbian_rule(*(tensor[:0] for tensor in inputs), backend=backend)
    assert out.shape == (0, 5, 4, 6)
    assert state.shape == (0, 4, 8, 6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("T", [1, 64, 70])
def test_masked_call_leaves_the_state_bit_identical(T: int, backend: HebbianBackend) -> None:
    inputs = draw(T=T).to(torch.float32)
    mask = torch.zeros(2, T, dtype=torch.bool)
    _, state = gated_hebbian_rule(*inputs, mask=mask, backend=backend)
    assert torch.equal(state, inputs.state)


def test_masked_tokens_are_as_if_they_were_not_there() -> None:
    inputs, mask = draw(1, 70), draw_mask(1, 70)
    real = Inputs._make([*(tensor[:, mask[0]] for tensor in inputs[:-1]), inputs.state])
    out, state = gated_hebbian_rule(*inputs, mask=mask)
    expected_out, expected_state = gated_hebbian_rule(*real)
    assert_close(out[:, mask[0]], expected_out, 1e-12)
    assert_close(state, expected_state, 1e-12)


@pytest.mark.parametrize("strength", [0.0, 10.0, 1000.0])
def test_long_reads_stay_finite_and_exact(strength: float) -> None:
    """No decay at all, or decays so strong that their product underflows inside one chunk."""
    drawn = draw(1, 200)
    inputs = drawn._replace(log_decay=strength * drawn.log_decay).to(torch.float32)
    expected = results_of(inputs.to(torch.float64), backend="reference")
    assert_all_close(results_of(inputs), expected, 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_are_not_mutated(backend: HebbianBackend) -> None:
    inputs = draw(T=70)
    before = [tensor.clone() for tensor in inputs]
    gated_hebbian_rule(*inputs, mask=draw_mask(2, 70), backend=backend)
    for tensor, copy in zip(inputs, before, strict=True):
        assert torch.equal(tensor, copy)
        assert tensor._version == 0


@pytest.mark.parametrize("of", ["out", "state"])
def test_gradients_of_one_result_alone(of: str) -> None:
    inputs = draw(T=70)
    gradients: list[tuple[Tensor, ...]] = []
    for backend in BACKENDS:
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        out, state = gated_hebbian_rule(*leaves, backend=backend)
        wanted = (out if of == "out" else state).square().sum()
        gradients.append(
            torch.autograd.grad(wanted, leaves, allow_unused=True, materialize_grads=True)
        )
    for expected, actual in zip(*gradients, strict=True):
        assert_close(actual, expected, 1e-12)


@pytest.mark.parametrize("few", [0, 4, 100])
def test_the_rule_does_not_depend_on_how_small_products_are_taken(
    monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(linear, "FEW_ROWS", few)
    inputs = draw(T=11)
    expected = results_of(inputs, backend="reference")
    assert_all_close(results_of(inputs, chunk_size=5), expected, 1e-12)


# Torch's own tracing of an autograd.Function does what it warns of.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("writes_only", [False, True])
def test_chunks_can_be_compiled_whole(writes_only: bool) -> None:
    def rule(q: Tensor, k: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        out, state = gated_hebbian_rule(k if writes_only else q, k, *others, chunk_size=8)
        return out + q.sum(), state

    compiled = torch.compile(rule, backend="aot_eager", fullgraph=True)
    leaves = [tensor.requires_grad_() for tensor in draw(T=20)]
    results: list[list[Tensor]] = []
    for way in (rule, compiled):
        out, state = way(*leaves)
        results.append([out, state, *torch.autograd.grad(out.sum() + state.sum(), leaves)])
    for eager, traced in zip(*results, strict=True):
        assert_close(traced, eager, 1e-12)


def test_what_does_not_fit_is_refused_by_name() -> None:
    inputs = draw()
    with pytest.raises(ValueError, match=r"beta must have shape \(2, 10, 4\), got \(2, 10, 3\)"):
        gated_hebbian_rule(*inputs._replace(beta=inputs.beta[..., :3]))
    unknown: Any = "native"
    with pytest.raises(ValueError, match=r"backend must be one of reference, chunk, got 'native'"):
        gated_hebbian_rule(*inputs, backend=unknown)
