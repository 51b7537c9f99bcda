"""How a single training run tells people how far it is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slowwave.training.trainer import StepReport


class ProgressLine:
    """One live line on a terminal; a line now and then elsewhere."""

    def __init__(self, every: int) -> None:
        self._live = sys.stderr.isatty()
        self._every = every if self._live else max(100, every)

    def __call__(self, report: StepReport) -> None:
        """Prints step, tokens, loss, exact match, speed and the time left."""
        step = report.progress.step
        if step % self._every and step != report.steps:
            return
        exact = "    -" if report.exact is None else f"{report.exact:5.1%}"
        minutes, seconds = divmod(round(report.seconds_left), 60)
        line = (
            f"step {step}/{report.steps}  tokens {report.progress.tokens / 1e6:.2f}M  "
            f"loss {report.loss:.3f}  exact {exact}  "
            f"{report.tokens_per_second / 1e3:.1f}k tokens/s  left {minutes}m{seconds:02d}s"
        )
        print(
            f"\r{line}\x1b[K" if self._live else line,
            end="" if self._live else "\n",
            file=sys.stderr,
            flush=True,
        )
