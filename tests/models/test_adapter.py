"""An adapter changes nothing before it is trained, and as much merged as beside the weights."""

import pytest
import torch

from numerics import TOLERANCE, assert_close
from slowwave.models.adapter import adapt, merge
from slowwave.models.backbone import HybridLM
from tiny_models import THREE_LAYERS

FLOAT = TOLERANCE[torch.float32]


def draw_tokens() -> torch.Tensor:
    return torch.randint(256, (2, 9), generator=torch.Generator().manual_seed(1))


def test_a_fresh_adapter_changes_no_bit() -> None:
    plain, adapted = HybridLM(THREE_LAYERS), HybridLM(THREE_LAYERS)
    adapt(adapted, 2, torch.Generator().manual_seed(0))
    assert torch.equal(adapted(draw_tokens())[0], plain(draw_tokens())[0])


def test_only_the_changes_are_trained() -> None:
    model = HybridLM(THREE_LAYERS)
    names = set(model.state_dict())
    changes = adapt(model, 2, torch.Generator().manual_seed(0))
    assert set(changes) == set(model.state_dict()) - names
    assert {name.rpartition(".")[2] for name in changes} == {"down", "up"}
    model(draw_tokens())[0].square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in changes), name


def test_merged_it_computes_the_same() -> None:
    model, plain = HybridLM(THREE_LAYERS), HybridLM(THREE_LAYERS)
    generator = torch.Generator().manual_seed(0)
    changes = adapt(model, 3, generator)
    with torch.no_grad():
        for change in changes.values():
            change.copy_(0.2 * torch.randn(change.shape, generator=generator))
    expected = model(draw_tokens())[0]
    before = plain(draw_tokens())[0]
    merge(plain, {name: change.detach() for name, change in changes.items()})
    assert_close(plain(draw_tokens())[0], expected, FLOAT)
    assert (expected - before).abs().max() > 0.1


@torch.no_grad()
def test_a_token_alone_is_read_with_the_changes() -> None:
    model = HybridLM(THREE_LAYERS)
    generator = torch.Generator().manual_seed(0)
    for change in adapt(model, 3, generator).values():
        change.copy_(0.2 * torch.randn(change.shape, generator=generator))
    expected, _ = model(draw_tokens())
    _, state = model(draw_tokens()[:, :8])
    actual, _ = model(draw_tokens()[:, 8:], state)
    assert_close(actual, expected[:, 8:], FLOAT)


def test_an_adapter_of_another_model_is_refused() -> None:
    model = HybridLM(THREE_LAYERS)
    down, up = torch.ones(2, 16), torch.ones(48, 2)
    with pytest.raises(ValueError, match=r"blocks\.9\.mlp\.up has no place in this model"):
        merge(model, {"blocks.9.mlp.up.down": down, "blocks.9.mlp.up.up": up})
    with pytest.raises(ValueError, match=r"blocks\.0\.mlp\.up has no place"):
        merge(model, {"blocks.0.mlp.up.down": down})
    with pytest.raises(ValueError, match=r"its weight of \(48, 16\); use the model"):
        merge(model, {"blocks.0.mlp.up.down": down, "blocks.0.mlp.up.up": torch.ones(47, 2)})
    with pytest.raises(ValueError, match="rank is 0; use 1 or more"):
        adapt(model, 0, torch.Generator())
