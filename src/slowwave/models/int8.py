"""Weights in int8: a model that reads a quarter of the memory a token, and is not trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slowwave.models.linear import Embedding, Linear
from slowwave.ops.int8 import BLOCK, Int8Matrix, expand, int8_linear, quantize


class Int8Weight(nn.Module):
    """A matrix (N, D) as `ops.int8` holds it: buffers, so that no optimizer finds it."""

    weight: Tensor
    scales: Tensor
    compute_dtype = torch.float32

    def __init__(self, exact: Tensor) -> None:
        super().__init__()
        numbers, scales = quantize(exact)
        self.shape = exact.shape
        self.register_buffer("weight", numbers)
        self.register_buffer("scales", scales)

    @property
    def matrix(self) -> Int8Matrix:
        """The matrix."""
        return Int8Matrix(self.weight, self.scales)

    def multiply(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., N) float32."""
        if x.requires_grad:
            raise ValueError(
                "a model with int8 weights computes no gradients; read in torch.no_grad(), and "
                "train the model in float32"
            )
        return int8_linear(x, self.matrix)


class Int8Linear(Int8Weight):
    """As the `Linear` that it is made of; its products are float32."""

    def __init__(self, exact: Linear) -> None:
        super().__init__(exact.weight)
        self.sizes, self.bias = exact.sizes, exact.bias

    def forward(self, input: Tensor) -> Tensor:
        """input (..., in_features) -> (..., sum of the sizes), float32."""
        product = self.multiply(input)
        return product if self.bias is None else product + self.bias

    def wide_weight(self) -> Tensor:
        """The weight in float32, made for this call."""
        return expand(self.matrix, self.shape[1])

    def narrow_weight(self) -> Tensor:
        """See `wide_weight`: products are float32."""
        return self.wide_weight()

    def parts(self) -> list[Tensor | None]:
        """See `Linear.parts`."""
        return [self.weight, self.scales, self.bias]


class Int8Embedding(Int8Weight):
    """As the `Embedding` that it is made of; float32."""

    def __init__(self, exact: Embedding) -> None:
        super().__init__(exact.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (...) -> (..., D)."""
        blocks = self.weight[tokens].unflatten(-1, (-1, BLOCK)) * self.scales[tokens][..., None]
        return blocks.flatten(-2)[..., : self.shape[1]]


def quantize_(model: nn.Module) -> None:
    """Turns the weights of all matrices and embeddings of a float32 model into int8, in place.

    Norms, biases, convolutions and decays stay as they are.
    """
    for module in [*model.modules()]:
        for name, child in [*module.named_children()]:
            if type(child) is Linear:
                setattr(module, name, Int8Linear(child))
            elif isinstance(child, Embedding):
                setattr(module, name, Int8Embedding(child))
