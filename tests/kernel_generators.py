"""Jet layers whose tokens differ in their kernels, as they do once trained."""

import torch
from torch import nn

from slowwave.models.mixers.jet import KernelGenerator


def vary_kernels(module: nn.Module) -> None:
    """Draws what a fresh generator has at zero; other layers stay as they are."""
    generator = torch.Generator().manual_seed(5)
    for part in module.modules():
        if isinstance(part, KernelGenerator):
            nn.init.normal_(part.expand.weight, generator=generator)
            nn.init.normal_(part.reduce.weight, std=0.2, generator=generator)
