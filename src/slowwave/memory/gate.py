"""The gate: what a memory would know with a sleep and without it, and which of them goes on.

Everything is measured on copies, in one order and with the same calls, so that a replay comes to
the same verdicts to the bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from slowwave.memory.config import GateConfig
from slowwave.memory.questions import answer, contains, measure_answer, measure_tokens
from slowwave.memory.sleep_report import Measures, Verdict
from slowwave.memory.turn import Progress, Steps, time_steps
from slowwave.runtime.model_folder import TalkingModel
from slowwave.sleep.awake import ask_awake
from slowwave.state import MemoryState


def judge(
    talker: TalkingModel, gate: GateConfig, *, refused: MemoryState, accepted: MemoryState
) -> Steps[Verdict]:
    """Measures what a session would go on with if a sleep is refused, and if it is accepted.

    In steps of a canary or a window of held-out text each.
    """
    steps = _judge(talker, gate, refused=refused, accepted=accepted)
    verdict, seconds = yield from time_steps(steps)
    return dataclasses.replace(verdict, milliseconds=1000 * seconds)


def _judge(
    talker: TalkingModel, gate: GateConfig, *, refused: MemoryState, accepted: MemoryState
) -> Steps[Verdict]:
    room = talker.sleep.window - max(refused.window_fill, accepted.window_fill)
    before = yield from measure(talker, gate, refused, room=room)
    after, unread = None, _explain_unread(gate, before, room)
    if all(bool(weights.isfinite().all()) for weights in accepted.fast_weights):
        after = yield from measure(talker, gate, accepted, room=room)
        broken = compare(gate, before, after)
    else:
        broken = ["the sleep left NaN or infinity in the fast weights"]
    if broken:
        outcome = "rejected"
    else:
        outcome = "accepted" if before.right or before.num_tokens else "accepted_unmeasured"
    return Verdict(outcome=outcome, refused=before, accepted=after, reasons=(*broken, *unread))


def measure(
    talker: TalkingModel, gate: GateConfig, state: MemoryState, *, room: int
) -> Steps[Measures]:
    """What a state knows of the canaries and of held-out text; the state stays as it is.

    room: tokens that a copy may read without sleeping.
    """
    right, nll, tokens = list[bool](), list[float](), list[Tensor]()
    for canary in gate.canaries:
        reply = answer(talker, state, canary.question, max_new_tokens=gate.max_new_tokens)
        right.append(contains(reply, canary.answer))
        nll.append(float(measure_answer(talker, state, canary.question, canary.answer).mean()))
        yield Progress("sleep")
    for piece in read_held_out(talker, gate, state, room=room):
        tokens.append(piece)
        yield Progress("sleep")
    measured = torch.cat(tokens).double() if tokens else None
    return Measures(
        right=tuple(right),
        canary_nll=tuple(nll),
        median_nll=None if measured is None else float(measured.quantile(0.5)),
        mean_nll=None if measured is None else float(measured.mean()),
        num_tokens=0 if measured is None else len(measured),
    )


@torch.inference_mode()
def read_held_out(
    talker: TalkingModel, gate: GateConfig, state: MemoryState, *, room: int
) -> Iterator[Tensor]:
    """NLL of every token of the held-out texts but the first of each, in pieces (T,).

    A piece of at most `room` tokens is read on a copy of its own and begins with the last token of
    the piece before it, so each token is predicted once.
    """
    if room < 2:
        return
    for text in gate.held_out:
        tokens = talker.tokenizer.encode(text)
        for start in range(0, len(tokens) - 1, room - 1):
            piece = tokens[start : start + room]
            ids = torch.tensor(piece, device=talker.model.device)
            hidden = ask_awake(talker.model, ids[None, None], state, talker.sleep)
            yield measure_tokens(talker.model.logits(hidden[0, 0, :-1]), piece[1:])


def compare(gate: GateConfig, refused: Measures, accepted: Measures) -> list[str]:
    """The rules that a sleep breaks, a sentence each; none if it is accepted."""
    reasons = list[str]()
    pairs = zip(gate.canaries, refused.right, accepted.right, strict=True)
    lost = [canary.question for canary, before, after in pairs if before and not after]
    known = sum(refused.right)
    if gate.max_lost_canaries is not None and lost and len(lost) > gate.max_lost_canaries * known:
        reasons.append(
            f"{len(lost)} of {known} canaries that are right without the sleep are wrong with it, "
            f"and gate.max_lost_canaries is {gate.max_lost_canaries}: {', '.join(map(repr, lost))}"
        )
    for name, before, after, limit in (
        ("max_canary_nll_rise", _mean(refused), _mean(accepted), gate.max_canary_nll_rise),
        ("max_median_rise", refused.median_nll, accepted.median_nll, gate.max_median_rise),
        ("max_mean_rise", refused.mean_nll, accepted.mean_nll, gate.max_mean_rise),
    ):
        if limit is None or before is None or after is None:
            continue
        if not after - before <= limit:  # NaN breaks every rule
            reasons.append(
                f"{_NAMES[name]} is {before:.4f} nats per token without the sleep and {after:.4f} "
                f"with it, a rise of {after - before:.4f}, and gate.{name} is {limit}"
            )
    return reasons


def _explain_unread(gate: GateConfig, refused: Measures, room: int) -> list[str]:
    if refused.num_tokens:
        return []
    if not gate.held_out:
        return [] if gate.canaries else ["the gate has neither canaries nor held-out text"]
    if room < 2:
        return [f"held-out text was not read: the open window has room for {room} more tokens"]
    return ["held-out text was not read: no text has two tokens"]


_NAMES = {
    "max_canary_nll_rise": "the mean NLL of the canaries' answers",
    "max_median_rise": "the median NLL of held-out text",
    "max_mean_rise": "the mean NLL of held-out text",
}


def _mean(measures: Measures) -> float | None:
    nll = measures.canary_nll
    return sum(nll) / len(nll) if nll else None
