"""One setting for all tests: a fixed thread count, and the examples that hypothesis draws."""

import os

# Before torch is imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import HealthCheck, settings

from slowwave.ops import native

# Sums are split by thread: only a fixed count gives the same bits on every machine and under xdist.
torch.set_num_threads(1)

# Timing says nothing on a shared machine, so neither a deadline nor slow drawing fails a test.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# Built before the first test, so that "auto" means the same in all of them. Where it cannot be
# built, its own tests fail and say why.
if native.find_obstacle() is None:
    native.load()
