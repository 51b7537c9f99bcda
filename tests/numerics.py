"""How tests compare tensors: by relative root mean square error, with tolerances never loosened."""

import torch
from torch import Tensor

# The tolerance for each input dtype; CONTRIBUTING.md shows the same table.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def relative_rmse(actual: Tensor, expected: Tensor) -> float:
    """rms(actual - expected) / rms(expected) in float64; 0 for equal zeros, inf for others."""
    difference = actual.detach().double() - expected.detach().double()
    error = difference.square().sum().sqrt()
    if error == 0:
        return 0.0
    return (error / expected.detach().double().square().sum().sqrt()).item()


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Fails unless the shapes are equal, all values finite and the relative RMSE in tolerance."""
    assert actual.shape == expected.shape, (
        f"shape {tuple(actual.shape)} differs from the expected {tuple(expected.shape)}"
    )
    assert expected.isfinite().all(), "the expected tensor holds NaN or infinity: mend the test"
    num_bad = int((~actual.isfinite()).sum())
    assert num_bad == 0, f"{num_bad} of {actual.numel()} values are NaN or infinite"
    error = relative_rmse(actual, expected)
    assert error <= tolerance, f"relative RMSE {error:.3e} is over the tolerance {tolerance:.0e}"
