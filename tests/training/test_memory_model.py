"""The memory model against what autograd really keeps."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.ops import attention, gated_mix
from slowwave.sleep.config import Eviction, SleepConfig
from slowwave.sleep.schedule import NO_LOSS, cut_training
from slowwave.sleep.unroll import unroll
from slowwave.training import memory_model
from slowwave.training.config import TrainConfig
from slowwave.training.memory_model import predict_memory
from slowwave.training.optimizer import make_optimizers

MODELS = {
    "plain": ModelConfig(
        vocab_size=5,
        width=64,
        mlp_hidden=160,
        attn_heads=4,
        delta_heads=4,
        key_dim=16,
        value_dim=24,
    ),
    "grouped": ModelConfig(
        vocab_size=5,
        width=48,
        layers=("gdn", "gdn", "attn"),
        mlp_hidden=80,
        attn_heads=4,
        attn_kv_heads=2,
        attn_head_dim=16,
        delta_heads=2,
        delta_value_heads=4,
        key_dim=12,
        value_dim=20,
    ),
}


MODELS["hebbian"] = dataclasses.replace(MODELS["grouped"], layers=("hebbian", "attn", "hebbian"))
MODELS["jet"] = dataclasses.replace(MODELS["grouped"], layers=("jet", "attn", "jet"))


def measure_kept(
    model: HybridLM, batch: tuple[Tensor, Tensor], sleep: SleepConfig, *, checkpoint: bool
) -> int:
    """Bytes of all storages that autograd keeps for a batch, the parameters' own aside."""
    held: list[Tensor] = []
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    nbytes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        held.append(tensor)  # alive, so that no other tensor takes its address
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            nbytes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = unroll(
            model, *batch, sleep, keep_hidden=False, checkpoint_activations=checkpoint
        ).logits
        targets = batch[1][batch[1] != NO_LOSS]
        F.cross_entropy(logits, targets)
    keep(logits)  # of which the loss keeps none, but the caller does
    return sum(nbytes.values())


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("passes", [1, 2, 4])
@pytest.mark.parametrize("window", [10, 70])
@pytest.mark.parametrize("name", MODELS)
def test_prediction_is_what_autograd_keeps(
    name: str, window: int, passes: int, bfloat16: bool
) -> None:
    sizes, rows, sleep = MODELS[name], 24, SleepConfig(window=window, passes=passes)
    model = HybridLM(sizes)
    model.set_compute_dtype(torch.bfloat16 if bfloat16 else None)
    num_tokens = 2 * window + 5
    tokens = torch.randint(
        sizes.vocab_size, (rows, num_tokens), generator=torch.Generator().manual_seed(0)
    )
    targets = torch.full_like(tokens, NO_LOSS)
    targets[:, -3:] = 1
    kept = measure_kept(model, (tokens, targets), sleep, checkpoint=False)
    predicted = predict_memory(
        sizes,
        cut_training(targets, sleep),
        rows=rows,
        bfloat16=bfloat16,
        checkpoint_activations=False,
    )
    assert predicted.kept == pytest.approx(kept, rel=0.05)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("window", [10, 70])
@pytest.mark.parametrize(
    "sleep",
    [
        SleepConfig(passes=3, eviction="sliding"),
        SleepConfig(passes=2, eviction="sliding", kept_cache="first_pass", sinks=3),
        SleepConfig(eviction="none"),
        SleepConfig(passes=2, wake_passes=3),
        SleepConfig(passes=3, between_passes="reset"),
    ],
    ids=["sliding", "first pass", "none", "wake", "reset"],
)
def test_ways_to_sleep_keep_what_is_predicted(name: str, sleep: SleepConfig, window: int) -> None:
    sizes, rows, sleep = MODELS[name], 24, dataclasses.replace(sleep, window=window)
    tokens = torch.zeros(rows, 2 * window + 5, dtype=torch.int64)
    targets = torch.full_like(tokens, NO_LOSS)
    targets[:, -3:] = 1
    kept = measure_kept(HybridLM(sizes), (tokens, targets), sleep, checkpoint=False)
    predicted = predict_memory(
        sizes,
        cut_training(targets, sleep),
        rows=rows,
        bfloat16=False,
        checkpoint_activations=False,
        sleep=sleep,
    )
    assert predicted.kept == pytest.approx(kept, rel=0.05)


@pytest.mark.parametrize("eviction", ["all", "sliding"])
def test_partial_stacks_keep_what_is_predicted(eviction: Eviction) -> None:
    sizes = dataclasses.replace(
        MODELS["plain"], layers=("gdn", "attn", "gdn", "attn"), prelude=1, coda=1
    )
    sleep = SleepConfig(window=20, passes=3, eviction=eviction)
    tokens = torch.zeros(24, 45, dtype=torch.int64)
    targets = torch.full_like(tokens, NO_LOSS)
    targets[:, -3:] = 1
    kept = measure_kept(HybridLM(sizes), (tokens, targets), sleep, checkpoint=False)
    predicted = predict_memory(
        sizes,
        cut_training(targets, sleep),
        rows=24,
        bfloat16=False,
        checkpoint_activations=False,
        sleep=sleep,
    )
    assert predicted.kept == pytest.approx(kept, rel=0.05)


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_text_keeps_the_logits_of_every_token(name: str, passes: int, checkpoint: bool) -> None:
    """Loss in every window, each scored on pass 1 and then slept, over a large vocabulary."""
    sizes, rows = dataclasses.replace(MODELS[name], vocab_size=1500), 24
    sleep = SleepConfig(window=20, passes=passes, loss_windows="sleep_after")
    model = HybridLM(sizes)
    tokens = torch.zeros(rows, 45, dtype=torch.int64)
    kept = measure_kept(model, (tokens, tokens), sleep, checkpoint=checkpoint)
    predicted, without = (
        predict_memory(
            sizes,
            cut_training(tokens, sleep),
            rows=rows,
            bfloat16=False,
            checkpoint_activations=checkpoint,
            num_scored=num_scored,
        ).kept
        for num_scored in (rows * 45, 0)
    )
    if checkpoint:
        num_recurrent = len(sizes.layers) - sizes.layers.count("attn")
        num_states = (2 * passes + 1) * num_recurrent
        states = rows * num_states * 4 * sizes.value_heads * sizes.key_dim * sizes.value_dim
        kept += states  # held beside what autograd keeps, by the closures
    assert predicted == pytest.approx(kept, rel=0.05)
    assert without < 0.9 * kept


def test_checkpoints_keep_inputs_and_states() -> None:
    sizes, rows, sleep = MODELS["plain"], 24, SleepConfig(window=20, passes=3)
    model = HybridLM(sizes)
    tokens = torch.zeros(rows, 65, dtype=torch.int64)
    targets = torch.full_like(tokens, NO_LOSS)
    targets[:, -3:] = 1
    predicted, whole = (
        predict_memory(
            sizes,
            cut_training(targets, sleep),
            rows=rows,
            bfloat16=False,
            checkpoint_activations=checkpoint,
        )
        for checkpoint in (True, False)
    )
    states = 10 * rows * 2 * 4 * (4 * 16 * 24)  # held beside what autograd keeps, by the closures
    kept = measure_kept(model, (tokens, targets), sleep, checkpoint=True)
    assert predicted.kept == pytest.approx(kept + states, rel=0.05)
    assert predicted.recomputed == pytest.approx(whole.kept / 9, rel=0.2)  # 3 of 10 are cut short
    assert whole.recomputed == 0
    assert predicted.total == predicted.parameters + predicted.kept + predicted.recomputed


@pytest.mark.parametrize("name", MODELS)
def test_parameters_gradients_and_what_optimizers_keep(name: str) -> None:
    sizes = dataclasses.replace(MODELS[name], vocab_size=500)
    model = HybridLM(sizes)
    optimizers = make_optimizers(model, TrainConfig())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    kept = 2 * sum(parameter.nbytes for parameter in model.parameters())
    for optimizer in optimizers.values():
        optimizer.step()
        states = (value for state in optimizer.state.values() for value in state.values())
        kept += sum(value.nbytes for value in states if isinstance(value, Tensor))
    predicted = predict_memory(
        sizes, [], rows=1, bfloat16=False, checkpoint_activations=False
    ).parameters
    assert predicted == pytest.approx(kept, rel=0.03)


def test_short_windows_and_chunks_are_those_of_the_operators() -> None:
    assert memory_model.SHORT_WINDOW == attention.SHORT_WINDOW
    assert memory_model.CHUNK_SIZE == gated_mix.CHUNK_SIZE
