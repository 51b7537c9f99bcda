"""Who trains which parameter, and how fast when."""

from __future__ import annotations

import math
from typing import get_args

import pytest

from slowwave.models.backbone import HybridLM
from slowwave.models.config import LayerType, ModelConfig
from slowwave.training.config import TrainConfig
from slowwave.training.optimizer import make_optimizers, split_parameters
from slowwave.training.schedule import learning_rate_factor, set_learning_rates


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


def factors(**changes: float) -> list[float]:
    """The share of the peak at every step."""
    config = TrainConfig.from_dict({"steps": 100, "warmup_steps": 10, **changes})
    return [learning_rate_factor(step, config) for step in range(config.steps)]


def test_rate_warms_up_holds_and_decays() -> None:
    shares = factors(decay_fraction=0.4, min_lr_ratio=0.2)
    assert shares[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert shares[9:60] == [1.0] * 51
    assert shares[60:] == pytest.approx([1 - 0.8 * n / 40 for n in range(1, 41)])


@pytest.mark.parametrize("steps", [1, 7, 100, 1200])
@pytest.mark.parametrize("ratio", [0.0, 1e-3, 0.1, 1.0])
@pytest.mark.parametrize("fraction", [0.4, 1.0])
def test_the_last_step_has_the_share_that_is_named(
    steps: int, ratio: float, fraction: float
) -> None:
    shares = factors(steps=steps, warmup_steps=0, decay_fraction=fraction, min_lr_ratio=ratio)
    decay_steps = round(fraction * steps)
    assert shares[-1] == pytest.approx(ratio if decay_steps else 1.0)
    assert sum(share < 1 for share in shares) == (decay_steps if ratio < 1 else 0)


def test_without_decay_the_rate_stays_at_its_peak() -> None:
    assert factors(decay_fraction=0.0, min_lr_ratio=0.0)[9:] == [1.0] * 91


def test_without_warm_up_the_first_step_has_the_peak_rate() -> None:
    assert factors(warmup_steps=0)[0] == 1.0


def test_rates_reach_both_optimizers(model: HybridLM) -> None:
    config = TrainConfig(steps=100, warmup_steps=10, muon_lr=0.5, adamw_lr=0.25)
    optimizers = make_optimizers(model, config)
    set_learning_rates(optimizers, 4, config)
    assert {group["lr"] for group in optimizers["muon"].param_groups} == {0.25}
    assert {group["lr"] for group in optimizers["adamw"].param_groups} == {0.125}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("muon_lr", 0.0),
        ("adamw_lr", math.nan),
        ("weight_decay", -0.1),
        ("decay_fraction", 2.0),
        ("min_lr_ratio", 1.5),
        ("stop_at", 95.0),
        ("threads", 0),
    ],
)
def test_bad_values_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"train\.{field} is {value}; use"):
        TrainConfig.from_dict({field: value})
