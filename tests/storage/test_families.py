"""Families compute what transformers computes: at every cut, from any state, with gradients."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from numerics import TOLERANCE, assert_close
from pretrained_models import NAMES, TensorSource, make_config, make_model
from slowwave.models.backbone import HybridLM
from slowwave.models.families.registry import read_pretrained_config
from slowwave.storage.pretrained import Pretrained, export_weights, open_pretrained, save_pretrained

FLOAT = TOLERANCE[torch.float32]
NUM_TOKENS = 70


@functools.cache
def load_both(name: str, std: float = 0.2) -> tuple[Any, HybridLM]:
    """A model of transformers, and the same of ours."""
    config = make_config(name)
    theirs = make_model(config, std)
    family, sizes = read_pretrained_config(config.to_dict(), "config.json")
    return theirs, Pretrained(family, sizes, TensorSource(theirs.state_dict())).load()


def draw_tokens(B: int = 2, T: int = NUM_TOKENS) -> Tensor:
    return torch.randint(3, 97, (B, T), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cut", [1, 3, 63, 64, 65])
@torch.no_grad()
def test_logits_are_those_of_transformers_from_a_populated_state(name: str, cut: int) -> None:
    theirs, ours = load_both(name)
    tokens = draw_tokens()
    expected = theirs(tokens).logits
    first, state = ours(tokens[:, :cut])
    rest, _ = ours(tokens[:, cut:], state)
    assert_close(torch.cat([first, rest], dim=1), expected, FLOAT)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_tokens_read_one_by_one_are_read_as_transformers_does(name: str) -> None:
    theirs, ours = load_both(name)
    tokens = draw_tokens(T=20)
    state, logits = ours.initial_state(2), list[Tensor]()
    for token in tokens.split(1, dim=1):
        logit, state = ours(token, state)
        logits.append(logit)
    assert_close(torch.cat(logits, dim=1), theirs(tokens).logits, FLOAT)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_left_padding_is_seen_by_neither(name: str) -> None:
    theirs, ours = load_both(name)
    tokens = draw_tokens()
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, :11] = False
    places = (mask.cumsum(1) - 1).clamp(min=0)
    expected = theirs(tokens, attention_mask=mask.long(), position_ids=places).logits
    hidden, _ = ours.read(tokens, ours.initial_state(2), mask=mask)
    assert_close(ours.logits(hidden)[mask], expected[mask], FLOAT)
    alone, _ = ours(tokens[1:, 11:])
    assert_close(ours.logits(hidden)[1:, 11:], alone, FLOAT)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_transformers(name: str) -> None:
    # With larger weights their float32 gradients are further from ours in float64 than that.
    theirs, ours = load_both(name, std=0.05)
    tokens = draw_tokens(T=NUM_TOKENS - 5)
    weight = torch.randn(2, NUM_TOKENS - 5, 97, generator=torch.Generator().manual_seed(2))
    (theirs(tokens).logits * weight).sum().backward()
    (ours(tokens)[0] * weight).sum().backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    source = TensorSource({name: grad for name, grad in expected.items() if grad is not None})
    rules = read_pretrained_config(make_config(name).to_dict(), "config.json")[0].rules(ours.config)
    found = dict(ours.named_parameters())
    for mine, pieces in rules.items():
        parts = [piece.view.take(source.read(piece.name)).flatten() for piece in pieces]
        grad = found[mine].grad
        assert grad is not None, mine
        assert_close(grad.flatten(), torch.cat(parts), FLOAT)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("llama", "qwen3"))])
def test_a_model_goes_back_to_transformers_form(name: str, tmp_path: Path) -> None:
    theirs, ours = load_both(name)
    save_pretrained(tmp_path, ours)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokens = draw_tokens()
    with torch.no_grad():
        assert_close(again(tokens).logits, theirs(tokens).logits, FLOAT)
    reread = open_pretrained(tmp_path)
    assert reread.sizes == ours.config
    for key, tensor in reread.load().state_dict().items():
        assert_close(tensor, ours.state_dict()[key], FLOAT)


def test_families_that_are_only_read_are_not_written(tmp_path: Path) -> None:
    _, ours = load_both("gemma3")
    with pytest.raises(ValueError, match="computes what none of llama"):
        save_pretrained(tmp_path, ours)


def test_export_writes_every_tensor_that_was_read() -> None:
    theirs, ours = load_both("qwen3_5")
    family, _ = read_pretrained_config(make_config("qwen3_5").to_dict(), "config.json")
    written, expected = dict(export_weights(family, ours)), theirs.state_dict()
    assert written.keys() == expected.keys()
    for name, tensor in written.items():
        assert_close(tensor, expected[name], FLOAT)
