"""Probes find the cells that fast weights hold, of the right state, and none that they do not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from numerics import assert_close
from slowwave.evaluation.evaluate import evaluate
from slowwave.lab.probe import probe_fast_weights, read_passes
from slowwave.models.backbone import HybridLM
from slowwave.models.config import ModelConfig
from slowwave.models.mixers.recurrent import RecurrentLayer
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.consolidate import consolidate
from slowwave.sleep.stream import read_stream
from slowwave.tasks.depo import DepoConfig
from slowwave.tasks.depo.task import Depo
from slowwave.tasks.rule110 import Rule110Config
from slowwave.tasks.rule110.task import Rule110

WIDTH, STATES, STEPS, EXAMPLES = 8, 3, 2, 400
SIZES = ModelConfig(
    vocab_size=3,
    layers=("attn", "gdn"),
    width=16,
    mlp_hidden=16,
    attn_heads=2,
    delta_heads=2,
    key_dim=8,
    value_dim=8,
)
TASK = Rule110(Rule110Config(width=WIDTH, num_states=STATES, steps=STEPS))
SLEEP = SleepConfig(window=WIDTH, passes=2)


def _model(seed: int = 0) -> HybridLM:
    return HybridLM(SIZES, seed=seed)


def _recurrent(model: HybridLM) -> RecurrentLayer:
    (layer,) = (m for m in model.modules() if isinstance(m, RecurrentLayer))
    return layer


def _keeping(log_decay: float) -> HybridLM:
    """A model whose fast weights decay by exp(-exp(log_decay)) a token, or about that."""
    model = _model()
    with torch.no_grad():
        _recurrent(model).A_log.fill_(log_decay)
        _recurrent(model).dt_bias.fill_(0.5)
    return model


def _silent() -> HybridLM:
    """A model that writes nothing."""
    model = _model()
    with torch.no_grad():
        _recurrent(model).qkv.weight.zero_()
    return model


def _probe(model: HybridLM, untrained: HybridLM, **sleep: Any) -> dict[str, Any]:
    slept = dataclasses.replace(SLEEP, **sleep)
    return probe_fast_weights(model, untrained, TASK, slept, examples=EXAMPLES)


def test_states_after_each_pass_are_those_of_reading() -> None:
    model = _model().double()
    tokens = TASK.batch("test", range(4)).stream.inputs[:, : TASK.context_tokens]
    found = read_passes(model, tokens, SLEEP)
    assert found.shape == (2, 4, 2 * 8 * 8)
    with torch.no_grad():
        _, state = read_stream(model, tokens, model.initial_state(4), SLEEP)
        _, before = read_stream(model, tokens[:, :-1], model.initial_state(4), SLEEP)
        _, full = model.read(tokens[:, -1:], before)
        once = consolidate(model, full, passes=1, sleep=SLEEP)
    for mine, other in zip(found, (once, state), strict=True):
        assert_close(mine, other.fast_weights[0].flatten(1), 1e-10)


def test_a_model_that_keeps_everything_and_one_that_writes_nothing() -> None:
    found = _probe(_keeping(-9.0), _silent())
    kept, nothing, floor = found["trained"], found["untrained"], found["floor"]
    for n in range(2):
        for since in range(STATES):
            assert kept["first"][n][since][0] > 0.9
            assert kept["all"][n][since][0] > 0.8
    assert kept["all"][0] != kept["all"][1]
    for cells in ("first", "all"):
        # Floors are means over the states, which differ a little.
        means = torch.tensor(nothing[cells]).mean(dim=1)
        assert means.tolist() == [pytest.approx(floor[cells])] * 2


def test_what_decays_within_a_window_is_found_in_the_newest_state_alone() -> None:
    found = _probe(_keeping(1.0), _silent(), passes=1)
    (newest, *older) = found["trained"]["all"][0]
    floor = found["floor"]["all"][0]
    assert newest[0] > floor + 0.1
    for state in older:
        assert state[0] == pytest.approx(floor, abs=0.05)


def test_it_says_what_was_probed() -> None:
    found = _probe(_silent(), _silent())
    assert found["examples"] == {"train": EXAMPLES, "validation": 100, "test": 100}
    assert (found["passes"], found["steps"], found["fast_weights"]) == (2, STEPS, 128)
    assert found["trained"] == found["untrained"]
    (record,) = evaluate(_silent(), TASK, sleep=SLEEP, examples=100)
    oldest_first = [score.token_accuracy for score in record.groups.values()]
    assert found["answers"] == oldest_first[::-1] != oldest_first


@pytest.mark.parametrize("steps", range(4))
def test_evolved_cells_end_in_the_labels(steps: int) -> None:
    """The newest state is the last one, its first cell the label."""
    task = Rule110(dataclasses.replace(TASK.config, steps=steps))
    batch = task.batch("validation", range(5)).stream
    context = batch.inputs[:, : task.context_tokens].view(5, STATES, WIDTH)
    assert task.evolved_cells("validation", range(5), 0).tolist() == context.tolist()
    labels = batch.targets[:, -STATES:].tolist()
    assert task.evolved_cells("validation", range(5), steps)[..., 0].tolist() == labels


@pytest.mark.parametrize(
    ("layers", "task", "sleep", "examples", "sentence"),
    [
        (("attn", "gdn"), TASK, SLEEP, 7, "examples is 7; use 8 or more"),
        (("attn", "gdn"), Depo(DepoConfig()), SLEEP, 8, "task is depo, and only states of"),
        (("attn", "attn"), TASK, SLEEP, 8, "model.layers is attn, attn, which have no fast"),
        (("attn", "gdn"), TASK, SleepConfig(window=4), 8, "sleep.window is 4 and states have 8"),
        (("attn",), TASK, SleepConfig(window=8, eviction="none"), 8, "is none, which never"),
    ],
)
def test_what_cannot_be_probed(
    layers: Any, task: Any, sleep: SleepConfig, examples: int, sentence: str
) -> None:
    model = HybridLM(dataclasses.replace(SIZES, layers=layers))
    with pytest.raises(ValueError, match=sentence):
        probe_fast_weights(model, model, task, sleep, examples=examples)
