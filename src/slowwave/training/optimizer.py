"""Which parameter is trained by what; and Muon, which trains the matrices of the blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slowwave.models.backbone import HybridLM
from slowwave.models.linear import Linear
from slowwave.training.config import TrainConfig
from slowwave.training.precision import iteration_dtype

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
EPS = 1e-7


def split_parameters(model: HybridLM) -> dict[str, dict[str, nn.Parameter]]:
    """Sorts all parameters by name into "muon", "adamw" and "adamw_no_decay".

    Muon takes the matrices of the blocks (section 3 of the paper), those that make the kernels of a
    Jet layer among them. Embedding and head go to AdamW with decay; norms, convolutions, A_log and
    dt_bias to AdamW without.
    """
    groups: dict[str, dict[str, nn.Parameter]] = {"muon": {}, "adamw": {}, "adamw_no_decay": {}}
    outer = {id(model.embedding.weight), id(model.head_weight)}
    body = {id(m.weight) for m in model.modules() if isinstance(m, Linear)} - outer
    for name, parameter in model.named_parameters():
        if id(parameter) in body:
            groups["muon"][name] = parameter
        elif id(parameter) in outer:
            groups["adamw"][name] = parameter
        else:
            groups["adamw_no_decay"][name] = parameter
    return groups


def make_optimizers(model: HybridLM, config: TrainConfig) -> dict[str, torch.optim.Optimizer]:
    """Muon and AdamW at their peak rates, with the defaults of the recipe that the paper cites.

    Muon takes fused matrices apart, as their layers say (`Linear.sizes`).
    """
    groups = split_parameters(model)
    adamw = torch.optim.AdamW(
        [
            {"params": list(groups["adamw"].values()), "weight_decay": config.weight_decay},
            {"params": list(groups["adamw_no_decay"].values()), "weight_decay": 0.0},
        ],
        lr=config.adamw_lr,
        betas=(0.9, 0.95),
    )
    sizes = {id(m.weight): m.sizes for m in model.modules() if isinstance(m, Linear)}
    muon = Muon(
        [(weight, sizes[id(weight)]) for weight in groups["muon"].values()],
        lr=config.muon_lr,
        weight_decay=config.weight_decay,
        dtype=iteration_dtype(model.device),
    )
    return {"muon": muon, "adamw": adamw}


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose singular values are made nearly equal, with decoupled weight decay.

    As `torch.optim.Muon` with its defaults (kellerjordan.github.io/posts/muon), but for two things.
    Torch's iterates in bfloat16 whatever the processor makes of it, this one in the dtype that it
    is given. And torch's takes a weight of several fused matrices for one, where the large ones
    hold the small ones back; here each of them is updated, and its step scaled, as if it stood
    alone.

    matrices: weights (rows, columns), each with the rows of the matrices that are stacked in it.
    dtype: that of the Newton-Schulz iterations. A step is scaled by sqrt(max(1, rows / columns)).
    """

    def __init__(
        self,
        matrices: Sequence[tuple[nn.Parameter, Sequence[int]]],
        *,
        lr: float,
        weight_decay: float,
        dtype: torch.dtype,
    ) -> None:
        weights = [weight for weight, _ in matrices]
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay})
        self.dtype = dtype
        self._sizes = {id(weight): list(sizes) for weight, sizes in matrices}

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Takes a step; weights without a gradient stay as they are."""
        assert closure is None, "gradients are there before the step"
        for group in self.param_groups:
            blocks: list[Tensor] = []
            updates: list[Tensor] = []
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                sizes = self._sizes[id(weight)]
                blocks += weight.split(sizes)
                updates += self._follow(weight).split(sizes)
            for block, update in zip(blocks, orthogonalize(updates, self.dtype), strict=True):
                rows, columns = block.shape
                block.add_(update, alpha=-group["lr"] * math.sqrt(max(1, rows / columns)))

    def _follow(self, weight: Tensor) -> Tensor:
        """Where momentum and gradient point; the momentum has taken the gradient in."""
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(momentum, MOMENTUM)


def orthogonalize(matrices: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """U S V^T -> U f(S) V^T with f(S) near 1, for each of the matrices, in `dtype`.

    Five steps of Newton and Schulz's iteration, whose coefficients lift small singular values as
    quickly as they can and leave what was lifted between 0.7 and 1.2. Matrices of one shape,
    transposed or not, take them side by side.
    """
    flat = [matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix for matrix in matrices]
    done: dict[int, Tensor] = {}
    for shape in dict.fromkeys(matrix.shape for matrix in flat):
        places = [i for i, matrix in enumerate(flat) if matrix.shape == shape]
        done |= zip(places, _iterate(torch.stack([flat[i] for i in places]).to(dtype)), strict=True)
    return [
        done[i] if matrix.shape == done[i].shape else done[i].mT
        for i, matrix in enumerate(matrices)
    ]


def _iterate(x: Tensor) -> Tensor:
    """x (matrices, rows, columns), rows <= columns -> the same shape, nearly orthogonal rows."""
    a, b, c = COEFFICIENTS
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=EPS)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
