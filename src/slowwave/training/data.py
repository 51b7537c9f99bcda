"""Which examples a training step sees: a pure function of the seed and the step."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt


def step_indices(seed: int, step: int, batch_size: int) -> npt.NDArray[np.int64]:
    """Indices (batch_size,) of the training examples of `step`, spread over 0 .. 2^62 - 1.

    A hash of seed and step seeds a generator of its own, so that two seeds share nothing and a
    resumed run sees what an unbroken one would have seen.
    """
    digest = hashlib.blake2b(f"slowwave training order {seed} {step}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], "little")))
    return generator.integers(0, 2**62, size=batch_size, dtype=np.int64)
