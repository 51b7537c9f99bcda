"""Appending is concatenation, whatever happens to older and to forked tensors."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from slowwave.ops import append as module
from slowwave.ops.append import append

MODES = [torch.enable_grad, torch.no_grad, torch.inference_mode]
Mode = Callable[[], AbstractContextManager[object]]


def draw(T: int, seed: int = 0, B: int = 2) -> Tensor:
    return torch.randn(B, T, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mode", MODES)
@given(
    history=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 40)), min_size=1, max_size=30)
)
def test_any_tree_of_appends_is_concatenation(mode: Mode, history: list[tuple[int, int]]) -> None:
    """Each entry grows one of the tensors that there are; all of them stay what they were."""
    grown, expected = [draw(0)], [draw(0)]
    with mode():
        for seed, (which, T) in enumerate(history):
            place, new = which % len(grown), draw(T, seed)
            grown.append(append(grown[place], new))
            expected.append(torch.cat([expected[place], new], dim=1))
    for actual, wanted in zip(grown, expected, strict=True):
        assert torch.equal(actual, wanted)


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_token_costs_a_token(mode: Mode) -> None:
    """A thousand appends move the window a few times, not a thousand times."""
    with mode():
        tensor = draw(1)
        places: set[int] = set()
        for seed in range(1000):
            tensor = append(tensor, draw(1, seed))
            places.add(tensor.data_ptr())
    assert len(places) < 8
    assert tensor.untyped_storage().nbytes() <= 2 * tensor.nbytes + 24 * module.LEAST_ROOM


def test_gradients_flow_to_both_sides() -> None:
    past, new = draw(3).requires_grad_(), draw(2, 1).requires_grad_()
    append(past, new).sum().backward()
    assert past.grad is not None
    assert new.grad is not None


def test_tensors_cross_between_modes() -> None:
    with torch.inference_mode():
        first = append(append(draw(2), draw(1, 1)), draw(1, 2))
    with torch.no_grad():
        second = append(first, draw(1, 3))
    with torch.inference_mode():
        third = append(second, draw(1, 4))
    parts = [draw(2), *(draw(1, seed) for seed in (1, 2, 3, 4))]
    assert torch.equal(third, torch.cat(parts, dim=1))


def test_what_is_kept_does_not_keep_more() -> None:
    """A slice of something large is copied; neither its memory nor its owner's changes stay."""
    large = draw(50)
    with torch.no_grad():
        kept = append(draw(0), large[:, 10:12])
        large.zero_()
    assert kept.untyped_storage().nbytes() == kept.nbytes
    assert kept.any()


def test_other_dtypes_are_promoted_as_by_concatenation() -> None:
    with torch.no_grad():
        assert append(draw(2).double(), draw(2)).dtype == torch.float64


def test_a_place_is_given_once() -> None:
    with torch.no_grad():
        room = getattr(append(draw(3), draw(1)), module._ROOM)
        assert room.claim(4, 6)
        assert not room.claim(4, 5)
        assert not room.claim(6, 10**6)


def test_growing_leaves_versions_alone() -> None:
    """Autograd may have kept an older tensor: it must not look changed to it."""
    with torch.no_grad():
        older = append(draw(3), draw(1))
        before = older._version
        append(older, draw(5))
    assert older._version == before


def test_copies_and_files_go_without_the_room(tmp_path: Path) -> None:
    with torch.no_grad():
        grown = append(draw(3), draw(1))
        copied = copy.deepcopy(grown)
        torch.save(grown, tmp_path / "grown.pt")
        loaded = torch.load(tmp_path / "grown.pt", weights_only=False)
        for other in (copied, loaded):
            assert torch.equal(append(other, draw(2)), append(grown, draw(2)))
