"""Peers do the same work as we do, or the comparison means nothing."""

import pytest
import torch
from torch import Tensor

from numerics import assert_close
from slowwave.bench import peers
from slowwave.bench.models import MODEL
from slowwave.bench.op import CASES, Case, draw_inputs, usable_rules
from slowwave.model.hybrid import HybridLM

CPU = torch.device("cpu")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_all_rules_agree_on_what_they_are_timed_with(case: Case) -> None:
    inputs = draw_inputs(case, CPU)
    rules = usable_rules(case, CPU)
    assert list(rules) == ["slowwave native", "slowwave chunk", "transformers"]
    expected: list[Tensor] = []
    for rule in rules.values():
        out, state = rule(*inputs)
        results = [out, state, *torch.autograd.grad([out.sum(), state.sum()], inputs)]
        expected = expected or results
        for mine, theirs in zip(results, expected, strict=True):
            assert_close(mine, theirs, 1e-5)


def test_the_hybrid_has_our_sizes() -> None:
    hybrid = peers.transformers_hybrid(MODEL, max_tokens=64)
    ours = HybridLM(MODEL)
    # Theirs has two norms a layer and the model's last as ours, and norms of queries and keys.
    norms_of_queries_and_keys = 2 * 2 * MODEL.width
    theirs = sum(parameter.numel() for parameter in hybrid.parameters())
    assert theirs == ours.num_parameters + norms_of_queries_and_keys


def test_the_hybrid_is_the_same_every_time_and_leaves_torch_alone() -> None:
    before = torch.random.get_rng_state()
    one, two = (peers.transformers_hybrid(MODEL, max_tokens=64) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    tokens = torch.arange(8)[None]
    assert torch.equal(one(tokens).logits, two(tokens).logits)
