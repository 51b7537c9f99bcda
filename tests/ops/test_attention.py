"""Attention in the window: both ways of computing it against a loop, and rotary positions."""

import pytest
import torch
from torch import Tensor

from numerics import TOLERANCE, assert_close
from slowwave.ops import attention
from slowwave.ops.attention import Rope, rotate, rotation, window_rotation, windowed_attention
from slowwave.state import Band

EXPLICIT, FUSED = 10**6, 0


def draw(B: int, T: int, W: int, H: int, kv_heads: int, size: int = 6) -> list[Tensor]:
    """q (B, T, H, Dh), keys and values (B, W, Hkv, Dh)."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(B, T, H, size), (B, W, kv_heads, size), (B, W, kv_heads, size)]
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


def loop(
    q: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, band: Band | None = None
) -> Tensor:
    """The definition, one query at a time."""
    (B, T, H, size), (W, kv_heads) = q.shape, keys.shape[1:3]
    out = torch.zeros_like(q)
    for b in range(B):
        for t in range(T):
            own = W - T + t
            seen = [j for j in range(own + 1) if key_mask is None or key_mask[b, j] or j == own]
            if band is not None:
                seen = [j for j in seen if own - j < band.reach or j < band.sinks]
            for h in range(H):
                group = h * kv_heads // H
                scores = keys[b, seen, group] @ q[b, t, h] / size**0.5
                out[b, t, h] = scores.softmax(0) @ values[b, seen, group]
    return out


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("short_window", [EXPLICIT, FUSED])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("H", "kv_heads"), [(2, 2), (4, 2), (3, 1)])
@pytest.mark.parametrize(("T", "W"), [(1, 1), (7, 7), (1, 9), (3, 9)])
def test_is_the_loop(
    monkeypatch: pytest.MonkeyPatch,
    T: int,
    W: int,
    H: int,
    kv_heads: int,
    dtype: torch.dtype,
    masked: bool,
    short_window: int,
    grad: bool,
) -> None:
    monkeypatch.setattr(attention, "SHORT_WINDOW", short_window)
    q, keys, values = (tensor.to(dtype) for tensor in draw(2, T, W, H, kv_heads))
    generator = torch.Generator().manual_seed(1)
    key_mask = torch.rand(2, W, generator=generator) < 0.6 if masked else None
    with torch.set_grad_enabled(grad):
        out = windowed_attention(q, keys, values, key_mask)
    expected = loop(q.double(), keys.double(), values.double(), key_mask)
    assert_close(out, expected, TOLERANCE[dtype])
    assert out.dtype == dtype


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("short_window", [EXPLICIT, FUSED])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("band", [Band(1, 0), Band(3, 0), Band(3, 2), Band(20, 0)])
@pytest.mark.parametrize(("T", "W"), [(1, 9), (4, 9), (7, 7)])
def test_a_band_ends_what_is_seen(
    monkeypatch: pytest.MonkeyPatch,
    T: int,
    W: int,
    band: Band,
    masked: bool,
    short_window: int,
    grad: bool,
) -> None:
    monkeypatch.setattr(attention, "SHORT_WINDOW", short_window)
    q, keys, values = draw(2, T, W, 4, 2)
    key_mask = torch.arange(2 * W).view(2, W) % 3 != 0 if masked else None
    with torch.set_grad_enabled(grad):
        out = windowed_attention(q, keys, values, key_mask, band)
    assert_close(out, loop(q, keys, values, key_mask, band), 1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_both_ways_have_the_same_gradients(monkeypatch: pytest.MonkeyPatch, masked: bool) -> None:
    q, keys, values = (tensor.requires_grad_() for tensor in draw(2, 5, 8, 4, 2))
    key_mask = torch.arange(16).view(2, 8) % 3 != 0 if masked else None
    cotangent = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(2)).double()
    gradients: list[tuple[Tensor, ...]] = []
    for short_window in (EXPLICIT, FUSED):
        monkeypatch.setattr(attention, "SHORT_WINDOW", short_window)
        out = windowed_attention(q, keys, values, key_mask)
        gradients.append(torch.autograd.grad(out, [q, keys, values], cotangent))
    for explicit, fused in zip(*gradients, strict=True):
        assert_close(explicit, fused, 1e-12)


@pytest.mark.parametrize("short_window", [EXPLICIT, FUSED])
def test_what_masked_keys_hold_is_unseen(
    monkeypatch: pytest.MonkeyPatch, short_window: int
) -> None:
    monkeypatch.setattr(attention, "SHORT_WINDOW", short_window)
    q, keys, values = draw(1, 2, 6, 2, 2)
    key_mask = torch.tensor([[False, True, False, True, True, True]])
    expected = windowed_attention(q, keys, values, key_mask)
    hidden = ~key_mask[0]
    keys[:, hidden], values[:, hidden] = 1e6, -1e6
    assert torch.equal(windowed_attention(q, keys, values, key_mask), expected)


def test_a_query_whose_keys_are_all_masked_stays_finite() -> None:
    q, keys, values = draw(1, 3, 3, 2, 2)
    out = windowed_attention(q, keys, values, torch.zeros(1, 3, dtype=torch.bool))
    assert_close(out, values, 1e-12)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rotation_turns_pairs_in_the_complex_plane(dtype: torch.dtype, grad: bool) -> None:
    x = torch.randn(2, 5, 3, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    positions = torch.tensor([[0, 1, 2, 7, 40], [3, 3, 0, 100, 5]])
    first, second = x.double().chunk(2, dim=-1)
    frequencies = torch.tensor([500.0 ** (-2 * j / 8) for j in range(4)], dtype=torch.float64)
    turned = torch.complex(first, second) * torch.exp(1j * positions[..., None, None] * frequencies)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    strided = torch.cat([x, x], dim=2)[:, :, :3]
    with torch.set_grad_enabled(grad):
        rotary = rotation(positions, Rope(8, 500.0), wide)
        for out in (rotate(x, rotary), rotate(strided, rotary)):
            assert_close(out, torch.cat([turned.real, turned.imag], dim=-1), TOLERANCE[dtype])
            assert out.dtype == dtype


def test_scores_depend_on_relative_positions_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 4, 2, 8, generator=generator, dtype=torch.float64) for _ in range(2))

    def scores(offset: int) -> Tensor:
        positions = torch.arange(4)[None] + offset
        rotary = rotation(positions, Rope(8, 10_000.0), torch.float64)
        turned = [rotate(x, rotary) for x in (q, k)]
        return torch.einsum("bthd,bshd->bhts", *turned)

    assert_close(scores(1000), scores(0), 1e-12)
    assert not torch.allclose(scores(0), torch.einsum("bthd,bshd->bhts", q, k))


def test_angles_of_a_window_are_those_of_its_places_whoever_asked_first() -> None:
    """Remembered from inference, they still serve training."""
    place = (3, 8, Rope(6, 123.0), torch.float64, torch.device("cpu"))
    with torch.inference_mode():
        window_rotation(*place)
    remembered = window_rotation(*place)
    expected = rotation(torch.arange(3, 8)[None], Rope(6, 123.0), torch.float64)
    for actual, angles in zip(remembered, expected, strict=True):
        assert torch.equal(actual, angles)
    x = torch.ones(1, 5, 1, 6, dtype=torch.float64, requires_grad=True)
    rotate(x, remembered).sum().backward()
