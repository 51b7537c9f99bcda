"""What a training run, and the scoring of one, tell people on a status line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slowwave.status_line import StatusLine, show_seconds

if TYPE_CHECKING:
    from slowwave.evaluation.evaluate import Scored
    from slowwave.training.trainer import StepReport


class RunView:
    """Shows steps and scorings as they are told of them."""

    def __init__(self, status: StatusLine) -> None:
        self._status = status

    def step(self, report: StepReport) -> None:
        """A step was taken; the last one stays on the screen."""
        line = describe_step(report)
        if report.progress.step == report.steps:
            self._status.say(line)
        else:
            self._status.show(line)

    def scored(self, scored: Scored) -> None:
        """A scoring goes on."""
        work = f"scoring the {scored.split} split, N = {scored.passes}"
        self._status.count(work, scored.done, scored.examples, "examples")


def describe_step(report: StepReport) -> str:
    """Step, tokens, loss, exact match, speed and the time left."""
    exact = "-" if report.exact is None else f"{report.exact:.1%}"
    return (
        f"step {report.progress.step}/{report.steps}  tokens {report.progress.tokens / 1e6:.2f}M  "
        f"loss {report.loss:.3f}  exact {exact:>5}  "
        f"{report.tokens_per_second / 1e3:.1f}k tokens/s  left {show_seconds(report.seconds_left)}"
    )
