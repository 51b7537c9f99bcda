"""Reading long streams and generating after them, beside models that keep all they have read."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor

from slowwave.bench import peers
from slowwave.bench.machine import Machine
from slowwave.bench.models import MODEL, draw_tokens
from slowwave.bench.report import Row, Section
from slowwave.bench.timing import Times, Work, time_in_turn
from slowwave.evaluation.flops import stream_flops
from slowwave.model.hybrid import HybridLM
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.schedule import cut_stream
from slowwave.sleep.stream import read_stream
from slowwave.state import AttentionState, MemoryState

WINDOW = 512
STREAM_TOKENS = 32_768
CONTEXTS = tuple(1024 * 2**i for i in range(8))
GENERATED = 16
ROUNDS = 5
PEER = "transformers hybrid"
OURS = "slowwave, N = 1"
OURS_ASLEEP = "slowwave, N = 4"
FULL = "full attention"


def run_read(device: torch.device, machine: Machine) -> list[Section]:
    """A long stream, tokens generated after it, and both over growing contexts."""
    with torch.inference_mode():
        model = HybridLM(MODEL).eval().to(device)
        full = HybridLM(dataclasses.replace(MODEL, layers=("attn",) * len(MODEL.layers)))
        full = full.eval().to(device)
        hybrid = None
        if peers.has_transformers():
            hybrid = peers.transformers_hybrid(MODEL, max_tokens=2 * STREAM_TOKENS).to(device)
        return [
            _measure_stream(model, hybrid, machine),
            _measure_generation(model, hybrid),
            _measure_contexts(model, full),
        ]


def _measure_stream(model: HybridLM, hybrid: Any, machine: Machine) -> Section:
    tokens = draw_tokens(model, STREAM_TOKENS)
    works: dict[str, Work] = {
        name: functools.partial(_read, model, tokens, SleepConfig(window=WINDOW, passes=passes))
        for name, passes in ((OURS, 1), (OURS_ASLEEP, 4))
    }
    if hybrid is not None:
        works[PEER] = lambda: hybrid(tokens, use_cache=True, logits_to_keep=1)
    times = time_in_turn(works, rounds=ROUNDS)
    rows = [_row(f"read {STREAM_TOKENS:,} tokens", by, times, PEER, 0) for by in times]
    for i, passes in enumerate((1, 4)):
        segments = cut_stream(STREAM_TOKENS, SleepConfig(window=WINDOW, passes=passes))
        flops = stream_flops(model.config, segments, num_scored=1)
        gflops = flops / times[rows[i].by].median / 1e9
        share = gflops / machine.float32_gflops
        rows[i] = dataclasses.replace(rows[i], gflops=gflops, matmul_share=share)
    return Section(
        title="Reading a stream",
        rows=rows,
        notes=[
            f"windows of {WINDOW} tokens; the peer attends to all it has read, in one call",
            *([] if hybrid is not None else [peers.INSTALL]),
        ],
    )


def _read(model: HybridLM, tokens: Tensor, sleep: SleepConfig) -> Tensor:
    hidden, _ = read_stream(model, tokens, model.initial_state(1), sleep)
    return model.logits(hidden[:, -1])


def _measure_generation(model: HybridLM, hybrid: Any) -> Section:
    rows: list[Row] = []
    for context in (1024, STREAM_TOKENS):
        # One token fewer than whole windows and room for what is generated: no sleep is timed.
        tokens = draw_tokens(model, context - GENERATED - 1)
        sleep = SleepConfig(window=WINDOW, passes=1)
        _, state = read_stream(model, tokens, model.initial_state(1), sleep)
        works: dict[str, Work] = {OURS: functools.partial(_generate, model, state, sleep)}
        if hybrid is not None:
            cache = hybrid(tokens, use_cache=True, logits_to_keep=1).past_key_values
            works[PEER] = functools.partial(_generate_with_peer, hybrid, cache, tokens[:, :1])
        times = time_in_turn(works, rounds=4 * ROUNDS)
        rows += [_row("a token", by, times, PEER, context, GENERATED) for by in times]
    return Section(title="Generating a token", rows=rows)


def _generate(model: HybridLM, state: MemoryState, sleep: SleepConfig) -> None:
    """Greedy decoding of GENERATED tokens, which stay inside the window."""
    token = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    for _ in range(GENERATED):
        hidden, state = read_stream(model, token, state, sleep)
        token = model.logits(hidden).argmax(-1)


def _generate_with_peer(hybrid: Any, cache: Any, token: Tensor) -> None:
    """The same through transformers, without the overhead of its `generate`."""
    for _ in range(GENERATED):
        logits = hybrid(token, past_key_values=cache, use_cache=True).logits
        token = logits[:, -1:].argmax(-1)


def _measure_contexts(model: HybridLM, full: HybridLM) -> Section:
    rows: list[Row] = []
    read_ratios: dict[int, float] = {}
    piece = draw_tokens(model, WINDOW)
    sleep = SleepConfig(window=WINDOW, passes=1)
    _, ours = read_stream(model, piece, model.initial_state(1), sleep)
    token = piece[:, :1]
    for context in CONTEXTS:
        theirs = _fill_cache(full, context)
        for what, tokens in ((f"the next {WINDOW}", piece), ("the next token", token)):
            works: dict[str, Work] = {
                OURS: functools.partial(read_stream, model, tokens, ours, sleep),
                FULL: functools.partial(full.run, full.embed(tokens), theirs),
            }
            times = time_in_turn(works, rounds=ROUNDS)
            rows += [_row(what, by, times, FULL, context) for by in times]
            if tokens is piece:
                read_ratios[context] = times[OURS].over(times[FULL])
    quicker = [context for context, ratio in read_ratios.items() if ratio < 1]
    crossing = f"from {quicker[0]:,} tokens on" if quicker else "at none of these lengths"
    return Section(
        title="Growing contexts",
        rows=rows,
        notes=[f"slowwave reads on faster than full attention {crossing}"],
    )


def _fill_cache(full: HybridLM, context: int) -> MemoryState:
    """A state with `context` random keys and values: what is in them takes no time."""
    state = full.initial_state(1)
    shape = (1, context, full.config.kv_heads, full.config.head_dim)
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(shape, generator=generator).to(full.device)
    return dataclasses.replace(
        state,
        layers=tuple(AttentionState(keys, keys.clone()) for _ in state.layers),
        window_tokens=torch.zeros(1, context, dtype=torch.int64, device=full.device),
        tokens_seen=context,
    )


def _row(
    what: str, by: str, times: dict[str, Times], peer: str, context: int, calls: int = 1
) -> Row:
    compared = peer in times and by != peer
    return Row(
        what=what,
        by=by,
        context=context,
        milliseconds=1e3 * times[by].median / calls,
        spread=times[by].spread,
        ratio=times[by].over(times[peer]) if compared else None,
        ratio_to=peer if compared else None,
    )
