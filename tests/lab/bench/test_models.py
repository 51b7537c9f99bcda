"""Peers do the same work as we do, or the comparison means nothing."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor

from numerics import assert_close
from slowwave.lab.bench import models, read
from slowwave.lab.bench.models import MODEL, draw_tokens
from slowwave.lab.bench.op import CASES, Case, draw_inputs, find_obstacles, make_rule
from slowwave.models.backbone import HybridLM
from slowwave.state import KeyValues

CPU = torch.device("cpu")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_all_rules_agree_on_what_they_are_timed_with(case: Case) -> None:
    inputs = draw_inputs(case, CPU)
    workers = [name for name, obstacle in find_obstacles(CPU).items() if obstacle is None]
    ours = ["native", "chunk", "reference"]
    assert workers == [*ours, "transformers chunk", "transformers recurrent"]
    expected: list[Tensor] = []
    for worker in workers:
        out, state = make_rule(worker, case)(*inputs)
        results = [out, state, *torch.autograd.grad([out.sum(), state.sum()], inputs)]
        expected = expected or results
        for mine, theirs in zip(results, expected, strict=True):
            assert_close(mine, theirs, 1e-5)


def test_the_hybrid_has_our_sizes() -> None:
    hybrid = models.transformers_hybrid(MODEL, max_tokens=64)
    ours = HybridLM(MODEL)
    # Theirs has two norms a layer and the model's last as ours, and norms of queries and keys.
    norms_of_queries_and_keys = 2 * 2 * MODEL.width
    theirs = sum(parameter.numel() for parameter in hybrid.parameters())
    assert theirs == ours.num_parameters + norms_of_queries_and_keys


def test_the_hybrid_is_the_same_every_time_and_leaves_torch_alone() -> None:
    before = torch.random.get_rng_state()
    one, two = (models.transformers_hybrid(MODEL, max_tokens=64) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    tokens = torch.arange(8)[None]
    assert torch.equal(one(tokens).logits, two(tokens).logits)


def test_the_peer_generates_from_the_same_context_every_time() -> None:
    with torch.no_grad():
        hybrid = models.transformers_hybrid(MODEL, max_tokens=64)
        cache = hybrid(torch.arange(20)[None], use_cache=True).cache
        for _ in range(2):
            taken = copy.deepcopy(cache)
            read._generate_with_peer(hybrid, torch.zeros(1, 1, dtype=torch.int64), taken)
            assert cache.get_seq_length() == 20
            assert taken.get_seq_length() == 20 + read.GENERATED


def test_full_attention_grows_in_place() -> None:
    """What is timed is attention, not copies of the cache."""
    full = HybridLM(dataclasses.replace(MODEL, layers=("attn", "attn")))
    with torch.inference_mode():
        state = read._with_room(read._fill_cache(full, 100))
        _, later = full.read(draw_tokens(full, 1), state)
    for before, after in zip(state.layers, later.layers, strict=True):
        assert isinstance(before, KeyValues) and isinstance(after, KeyValues)
        assert before.keys.data_ptr() == after.keys.data_ptr()


def test_what_is_not_there_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(models.importlib, "import_module", missing)
    assert "pip install -e '.[bench]'" in (models.transformers_obstacle() or "")
    assert "pip install -e '.[cuda]'" in (models.fla_obstacle() or "")
    assert set(models.peer_versions()) == {"transformers", "flash-linear-attention"}
