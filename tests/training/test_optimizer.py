"""Who trains which parameter, and how fast when."""

from __future__ import annotations

from typing import get_args

import pytest

from slowwave.model.config import LayerType, ModelConfig
from slowwave.model.hybrid import HybridLM
from slowwave.training.config import TrainConfig
from slowwave.training.optimizer import (
    learning_rate_factor,
    make_optimizers,
    set_learning_rates,
    split_parameters,
)


@pytest.fixture
def model() -> HybridLM:
    return HybridLM(ModelConfig(vocab_size=5, layers=get_args(LayerType)))


def test_every_parameter_is_trained_once(model: HybridLM) -> None:
    names = [name for group in split_parameters(model).values() for name in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    trained = [
        id(parameter)
        for optimizer in make_optimizers(model, TrainConfig()).values()
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    assert sorted(trained) == sorted(id(parameter) for parameter in model.parameters())


def test_muon_takes_matrices_of_the_body_alone(model: HybridLM) -> None:
    groups = split_parameters(model)
    assert all(parameter.ndim == 2 for parameter in groups["muon"].values())
    assert set(groups["adamw"]) == {"embedding.weight", "head.weight"}
    kept = "\n".join(groups["adamw_no_decay"])
    for name in ("A_log", "dt_bias", "conv", "mixer_norm.weight", "final_norm.weight"):
        assert name in kept
        assert name not in "\n".join(groups["muon"])
    for name in ("kernels.reduce.weight", "kernels.expand.weight"):
        assert name in "\n".join(groups["muon"])


def test_decays_and_norms_get_no_weight_decay(model: HybridLM) -> None:
    optimizers = make_optimizers(model, TrainConfig(weight_decay=0.5))
    no_decay = split_parameters(model)["adamw_no_decay"]
    ids = {id(parameter) for parameter in no_decay.values()}
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            inside = {id(parameter) for parameter in group["params"]}
            assert group["weight_decay"] == (0.0 if inside <= ids else 0.5)


def test_rate_warms_up_holds_and_decays() -> None:
    config = TrainConfig(steps=100, warmup_steps=10, decay_fraction=0.4, min_lr_ratio=1e-3)
    factors = [learning_rate_factor(step, config) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9:60] == [1.0] * 51
    assert factors[80] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(1 / 40)
    assert factors == sorted(factors[:10]) + sorted(factors[10:], reverse=True)


def test_rates_reach_both_optimizers(model: HybridLM) -> None:
    config = TrainConfig(steps=100, warmup_steps=10, muon_lr=0.5, adamw_lr=0.25)
    optimizers = make_optimizers(model, config)
    set_learning_rates(optimizers, 4, config)
    assert {group["lr"] for group in optimizers["muon"].param_groups} == {0.25}
    assert {group["lr"] for group in optimizers["adamw"].param_groups} == {0.125}


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("batch_size", 0), ("muon_lr", 0.0), ("decay_fraction", 2.0), ("threads", 0)],
)
def test_bad_values_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"train\.{field} is {value}; use"):
        TrainConfig.from_dict({field: value})
