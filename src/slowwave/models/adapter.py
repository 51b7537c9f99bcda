"""An adapter: low-rank changes of a model's matrices (LoRA, arXiv 2106.09685), trained beside it.

A change is `up @ down`, added to the weight. Merged, it costs nothing: the model is then one like
any other.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from slowwave.models.backbone import HybridLM
from slowwave.models.linear import Linear


class AdaptedLinear(Linear):
    """A frozen matrix and a change of low rank: down (rank, in), up (out, rank).

    is_on: False leaves the change out.
    """

    def __init__(self, frozen: Linear, rank: int, generator: torch.Generator) -> None:
        with torch.device("meta"):  # its weight is that of the other
            super().__init__(frozen.in_features, *frozen.sizes, bias=frozen.bias is not None)
        self.weight, self.compute_dtype = frozen.weight, frozen.compute_dtype
        self.bias = frozen.bias
        down = torch.randn(rank, frozen.in_features, generator=generator)
        device = frozen.weight.device
        self.down = nn.Parameter((down * frozen.in_features**-0.5).to(device))
        self.is_on = True
        self.up = nn.Parameter(torch.zeros(frozen.out_features, rank, device=device))

    def forward(self, input: Tensor) -> Tensor:
        """See `Linear.forward`."""
        product = super().forward(input)
        if not self.is_on:
            return product
        dtype = product.dtype
        return product + (input.to(dtype) @ self.down.to(dtype).T) @ self.up.to(dtype).T

    def parts(self) -> list[Tensor | None]:
        """See `Linear.parts`: the weight with its change."""
        weight = self.narrow_weight()
        return [weight + (self.up @ self.down).to(weight.dtype), None, self.bias]


def adapt(model: HybridLM, rank: int, generator: torch.Generator) -> dict[str, nn.Parameter]:
    """Freezes a model and gives each matrix of its blocks a change, which begins at zero.

    Returns the parameters of the changes by name. Raises ValueError if the rank is none.
    """
    if rank < 1:
        raise ValueError(f"rank is {rank}; use 1 or more")
    model.requires_grad_(False)
    for block in model.blocks:
        for name, child in [*_list_matrices(block)]:
            holder, _, last = name.rpartition(".")
            setattr(block.get_submodule(holder), last, AdaptedLinear(child, rank, generator))
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def merge(model: HybridLM, changes: dict[str, Tensor]) -> None:
    """Adds changes, by the names that `adapt` gives them, to the weights of a plain model.

    Raises ValueError if one has no place in it, or another shape.
    """
    names = {name.rpartition(".")[0] for name in changes}
    matrices = dict(_list_matrices(model))
    with torch.no_grad():
        for name in sorted(names):
            down, up = changes.get(f"{name}.down"), changes.get(f"{name}.up")
            if name not in matrices or down is None or up is None:
                raise ValueError(f"the change of {name} has no place in this model; use its own")
            weight = matrices[name].weight
            if down.ndim != 2 or up.ndim != 2 or (len(up), down.shape[1]) != tuple(weight.shape):
                raise ValueError(
                    f"the change of {name} is of shapes {tuple(up.shape)} and {tuple(down.shape)}, "
                    f"its weight of {tuple(weight.shape)}; use the model that it was trained for"
                )
            weight += (up.float() @ down.float()).to(weight.dtype)


def _list_matrices(module: nn.Module) -> Iterator[tuple[str, Linear]]:
    for name, child in module.named_modules():
        if isinstance(child, Linear):
            yield name, child
