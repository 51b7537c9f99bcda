"""The delta rule alone: our backends and the operators of others on the same tensors."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.lab.bench import models
from slowwave.lab.bench.measure import Machine, Work, measure_extra_nbytes, time_in_turn
from slowwave.lab.bench.models import Rule
from slowwave.lab.bench.report import Row, Section, timed_row
from slowwave.models.config import ModelConfig
from slowwave.models.mixers.recurrent import delta_rule_flops
from slowwave.ops import native
from slowwave.ops.gated_rules import Backend, gated_delta_rule
from slowwave.ops.norm import l2_norm

ROUNDS = 21
WARMUPS = 3
PEER = "transformers chunk"


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """Sizes of one call: B rows, T tokens, H heads of (K, V)."""

    title: str
    B: int
    T: int
    H: int
    K: int
    V: int


CASES = (
    Case("delta rule, a long read", B=2, T=512, H=4, K=64, V=128),
    Case("delta rule, windows of Rule 110", B=128, T=24, H=4, K=48, V=96),
    Case("delta rule, one token", B=1, T=1, H=4, K=64, V=128),
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OpOptions:
    """What of the delta rule to measure; all that is usable, on CASES, where nothing is said.

    shape: B, T, H, K, V of the only case. workers: names in `find_obstacles`.
    """

    shape: tuple[int, ...] = ()
    workers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.shape and (len(self.shape) != 5 or min(self.shape) < 1):
            raise ValueError(f"--shape is {self.shape}; give five numbers of 1 or more, B T H K V")


def run_op(
    device: torch.device, machine: Machine, options: OpOptions | None = None
) -> list[Section]:
    """Forward, and forward with backward, for every case.

    Raises ValueError on a worker that is not known or cannot work here.
    """
    options = options or OpOptions()
    workers = _choose_workers(options.workers, device)
    cases = (Case("delta rule", *options.shape),) if options.shape else CASES
    return [_measure_case(case, workers, device, machine) for case in cases]


def find_obstacles(device: torch.device) -> dict[str, str | None]:
    """Our backends and the peers, and why each cannot work on `device`, None if it can."""
    transformers = models.transformers_obstacle()
    return {
        "native": native.find_obstacle() if device.type == "cpu" else "native needs a CPU",
        "chunk": None,
        "reference": None,
        PEER: transformers,
        "transformers recurrent": transformers,
        "fla": models.fla_obstacle(),
    }


def _choose_workers(names: Sequence[str], device: torch.device) -> list[str]:
    obstacles = find_obstacles(device)
    for name in names:
        if name not in obstacles or obstacles[name] is not None:
            known = ", ".join(
                name if reason is None else f"{name} ({reason})"
                for name, reason in obstacles.items()
            )
            raise ValueError(f"--workers {name!r} cannot be measured; there are {known}")
    return list(names) or [name for name, reason in obstacles.items() if reason is None]


def make_rule(worker: str, case: Case) -> Rule:
    """The worker's delta rule with the signature of ours, for tensors alone."""
    match worker:
        case "transformers chunk" | "transformers recurrent":
            return models.transformers_rule(worker.removeprefix("transformers "), case.T)
        case "fla":
            return models.fla_rule(case.T)
        case _:
            return functools.partial(gated_delta_rule, backend=cast(Backend, worker))


def draw_inputs(case: Case, device: torch.device) -> list[Tensor]:
    """Random float32 inputs of `gated_delta_rule`, all of which want a gradient."""
    generator = torch.Generator().manual_seed(0)
    B, T, H, K, V = case.B, case.T, case.H, case.K, case.V

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    q, k = l2_norm(normal(B, T, H, K)), l2_norm(normal(B, T, H, K))
    log_decay, beta = -F.softplus(normal(B, T, H) - 2), torch.sigmoid(normal(B, T, H))
    inputs = [q, k, normal(B, T, H, V), log_decay, beta, normal(B, H, K, V)]
    return [tensor.to(device).requires_grad_() for tensor in inputs]


def forward(rule: Rule, inputs: list[Tensor]) -> None:
    """One call that keeps nothing for the way back."""
    with torch.no_grad():
        rule(*inputs)


def forward_and_backward(rule: Rule, inputs: list[Tensor]) -> None:
    """One call, and the gradients of all inputs."""
    out, state = rule(*inputs)
    torch.autograd.grad([out, state], inputs, [torch.ones_like(out), torch.ones_like(state)])


CALLS: dict[str, Callable[[Rule, list[Tensor]], None]] = {
    "forward": forward,
    "forward + backward": forward_and_backward,
}


def memory_work(case: str, worker: str, what: str) -> Callable[[], None]:
    """The call whose memory a fresh process measures; case as JSON."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = Case(**json.loads(case))
    return functools.partial(CALLS[what], make_rule(worker, sizes), draw_inputs(sizes, device))


def _measure_case(
    case: Case, workers: list[str], device: torch.device, machine: Machine
) -> Section:
    inputs = draw_inputs(case, device)
    sizes = ModelConfig(delta_heads=case.H, key_dim=case.K, value_dim=case.V)
    rows: list[Row] = []
    for what, call in CALLS.items():
        works = {
            worker: Work(functools.partial(call, make_rule(worker, case), inputs))
            for worker in workers
        }
        times = time_in_turn(works, rounds=ROUNDS, warmups=WARMUPS)
        memory = {
            worker: measure_extra_nbytes(
                __name__, "memory_work", json.dumps(dataclasses.asdict(case)), worker, what
            )
            for worker in workers
        }
        theirs = memory.get(PEER)
        flops = case.B * delta_rule_flops(sizes, case.T)
        rows += [
            timed_row(
                what,
                worker,
                times,
                reference=PEER,
                machine=machine,
                flops=flops if what == "forward" else 3 * flops,
                moved_nbytes=_moved_nbytes(case) * (1 if what == "forward" else 3),
                nbytes=mine,
                memory_ratio=mine / theirs if mine is not None and theirs else None,
            )
            for worker, mine in memory.items()
        ]
    notes = [
        f"B {case.B}, T {case.T}, H {case.H}, K {case.K}, V {case.V}, float32; nbytes: most that "
        "one call adds to the resident memory of a fresh process",
        *(reason for reason in dict.fromkeys(find_obstacles(device).values()) if reason),
    ]
    return Section(title=case.title, rows=rows, notes=notes)


def _moved_nbytes(case: Case) -> int:
    """Inputs once in, outputs once out, float32; the way back moves twice as much again."""
    tokens = case.B * case.T * case.H * (2 * case.K + 2 * case.V + 2)
    return 4 * (tokens + 2 * case.B * case.H * case.K * case.V)
