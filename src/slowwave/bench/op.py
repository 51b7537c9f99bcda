"""The delta rule alone: our backends and transformers' operators on the same tensors."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from slowwave.bench import peers
from slowwave.bench.machine import Machine
from slowwave.bench.memory import measure_extra_nbytes
from slowwave.bench.report import Row, Section
from slowwave.bench.timing import Times, Work, time_in_turn
from slowwave.evaluation.flops import delta_rule_flops, training_flops
from slowwave.model.config import ModelConfig
from slowwave.ops import native
from slowwave.ops.delta_rule import Backend, fla_is_available, gated_delta_rule
from slowwave.ops.norm import l2_norm

Rule = Callable[..., tuple[Tensor, Tensor]]
ROUNDS = 21
WARMUPS = 3
PEER = "transformers"


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


def run_op(device: torch.device, machine: Machine) -> list[Section]:
    """Forward, and forward with backward, for every case."""
    return [_measure_case(case, device, machine) for case in CASES]


def _measure_case(case: Case, device: torch.device, machine: Machine) -> Section:
    inputs = draw_inputs(case, device)
    rules = usable_rules(case, device)
    rows: list[Row] = []
    for what, call in CALLS.items():
        if case.T == 1 and call is forward_and_backward:
            continue
        works: dict[str, Work] = {
            by: functools.partial(call, rule, inputs) for by, rule in rules.items()
        }
        times = time_in_turn(works, rounds=ROUNDS, warmups=WARMUPS)
        rows += [_row(case, what, by, times, machine) for by in times]
    notes = [
        f"B {case.B}, T {case.T}, H {case.H}, K {case.K}, V {case.V}, float32; "
        "nbytes: most that one call adds to the resident memory of a fresh process"
    ]
    if PEER not in rules:
        notes.append(peers.INSTALL)
    return Section(title=case.title, rows=rows, notes=notes)


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


def usable_rules(case: Case, device: torch.device) -> dict[str, Rule]:
    """Who can do the case on this machine, by name."""
    backends: list[Backend] = ["chunk"]
    if device.type == "cpu" and native.is_ready():
        backends.insert(0, "native")
    if device.type == "cuda" and fla_is_available():
        backends.insert(0, "fla")
    rules: dict[str, Rule] = {
        f"slowwave {name}": functools.partial(gated_delta_rule, backend=name) for name in backends
    }
    if peers.has_transformers():
        rules[PEER] = _like_ours(peers.transformers_rule("recurrent" if case.T == 1 else "chunk"))
    return rules


def _like_ours(theirs: Rule) -> Rule:
    def rule(
        q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        return theirs(q, k, v, log_decay, beta, initial_state=state, output_final_state=True)

    return rule


def forward(rule: Rule, inputs: list[Tensor]) -> None:
    """One call that keeps nothing for the way back."""
    with torch.no_grad():
        rule(*inputs)


def forward_and_backward(rule: Rule, inputs: list[Tensor]) -> None:
    """One call, and the gradients of all inputs."""
    out, state = rule(*inputs)
    torch.autograd.grad([out, state], inputs, [torch.ones_like(out), torch.ones_like(state)])


def memory_work(title: str, by: str, what: str) -> Work:
    """The work whose memory a fresh process measures."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    (case,) = (case for case in CASES if case.title == title)
    rule = usable_rules(case, device)[by]
    return functools.partial(CALLS[what], rule, draw_inputs(case, device))


CALLS = {"forward": forward, "forward + backward": forward_and_backward}


def _row(case: Case, what: str, by: str, times: dict[str, Times], machine: Machine) -> Row:
    sizes = ModelConfig(delta_heads=case.H, key_dim=case.K, value_dim=case.V)
    flops = case.B * delta_rule_flops(sizes, case.T)
    flops = flops if what == "forward" else training_flops(flops)
    gflops = flops / times[by].median / 1e9
    return Row(
        what=what,
        by=by,
        milliseconds=1e3 * times[by].median,
        spread=times[by].spread,
        ratio=times[by].over(times[PEER]) if PEER in times else None,
        ratio_to=PEER if PEER in times else None,
        gflops=gflops,
        matmul_share=gflops / machine.float32_gflops,
        nbytes=measure_extra_nbytes(__name__, "memory_work", case.title, by, what),
    )
