"""Milliseconds of a model of SmolLM2-135M's size: reading, a token, a sleep; others beside it.

    python examples/model_speed.py
    python examples/model_speed.py --threads 1 --llama PYTHON FILE.gguf

Two threads, on the clock; of one thread the processor's time is taken, which other jobs on the
machine disturb less. Weights are random, and so are the keys and values that a token finds:
neither changes what is computed. Every program runs in processes of its own, in turns, and the
fastest call of all counts. transformers is measured where it is installed, llama.cpp by a Python
that has llama-cpp-python. Instructions are left out by ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA and
MKL_ENABLE_INSTRUCTIONS (all three: avx2, AVX2, AVX2).
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

READ, CONTEXTS = 512, (512, 4096, 8192)
LAYERS, WIDTH, HIDDEN, HEADS, KV_HEADS, SIZE, VOCAB = 30, 576, 1536, 9, 3, 64, 49152

Times = Iterator[tuple[str, float]]


class Clock:
    """Takes the time of calls: on the clock, or of the processor where there is one thread."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.now = time.process_time if threads == 1 else time.perf_counter

    def time(self, work: Callable[[], object]) -> float:
        """Milliseconds of a call."""
        began = self.now()
        work()
        return 1000 * (self.now() - began)

    def take_fastest(self, work: Callable[[], object], calls: int) -> float:
        """The fastest of some calls, after one that is not counted."""
        return min([self.time(work) for _ in range(calls + 1)][1:])


def time_slowwave(clock: Clock, precision: str) -> Times:
    """Of our model with weights in float32 or int8."""
    import torch

    from slowwave.models.backbone import HybridLM
    from slowwave.models.config import ModelConfig, Traits
    from slowwave.models.int8 import quantize_
    from slowwave.sleep.config import Compact, SleepConfig
    from slowwave.sleep.consolidate import consolidate
    from slowwave.state import KeyValues

    torch.set_num_threads(clock.threads)
    sizes = ModelConfig(
        vocab_size=VOCAB,
        width=WIDTH,
        layers=("attn",) * LAYERS,
        mlp_hidden=HIDDEN,
        attn_heads=HEADS,
        attn_kv_heads=KV_HEADS,
        traits=Traits(tied_embeddings=True),
    )
    model, sleep = HybridLM(sizes).eval(), SleepConfig(window=READ, consolidator=Compact())
    if precision == "int8":
        quantize_(model)
    tokens = torch.randint(VOCAB, (1, READ))
    with torch.inference_mode():
        fresh = model.initial_state(1)
        _, full = model.read(tokens, fresh)
        yield (
            "reading 512",
            clock.take_fastest(lambda: model.logits(model.read(tokens, fresh)[0][:, -1]), 3),
        )
        yield (
            "sleep of 512, N = 2",
            clock.take_fastest(lambda: consolidate(model, full, passes=2, sleep=sleep), 2),
        )
        for context in CONTEXTS:
            cache = torch.randn(2, LAYERS, 1, context, KV_HEADS, SIZE)
            state = dataclasses.replace(
                fresh,
                layers=tuple(map(KeyValues, *cache)),
                window_tokens=torch.zeros(1, context, dtype=torch.int64),
                window_hidden=torch.zeros(1, context, WIDTH),
            )

            def read_one() -> None:
                nonlocal state
                hidden, state = model.read(tokens[:, :1], state)
                model.logits(hidden)

            yield f"a token at {context}", clock.take_fastest(read_one, 20)


def time_transformers(clock: Clock) -> Times:
    """Of the same model in transformers, float32."""
    import torch
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(clock.threads)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        tie_word_embeddings=True,
        max_position_embeddings=2 * CONTEXTS[-1],
    )
    model, tokens = LlamaForCausalLM(config).eval(), torch.randint(VOCAB, (1, READ))
    with torch.inference_mode():
        yield "reading 512", clock.take_fastest(lambda: model(tokens, logits_to_keep=1), 3)
        for context in CONTEXTS:
            cache = DynamicCache()
            for i in range(LAYERS):
                cache.update(*torch.randn(2, 1, KV_HEADS, context, SIZE), i)
            yield (
                f"a token at {context}",
                clock.take_fastest(
                    lambda cache=cache: model(tokens[:, :1], past_key_values=cache), 20
                ),
            )


def time_llama_cpp(clock: Clock, file: str) -> Times:
    """Of a .gguf file in llama.cpp."""
    from llama_cpp import Llama

    model = Llama(file, n_ctx=CONTEXTS[-1] + 64, n_threads=clock.threads, verbose=False)
    for context in CONTEXTS:
        model.reset()
        while model.n_tokens < context:
            taken = clock.time(lambda: model.eval(list(range(1000, 1000 + READ))))
            if model.n_tokens == READ == context:
                yield "reading 512", taken
        yield f"a token at {context}", clock.take_fastest(lambda: model.eval([1000]), 20)


def run_child(threads: int, python: str, *arguments: str) -> dict[str, float]:
    """What a process of its own measures."""
    command = [python, "-W", "ignore", __file__, f"--threads={threads}", "--child", *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main() -> None:
    """Prints a line a measurement: the fastest of every program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--llama", nargs=2, metavar=("PYTHON", "FILE"))
    parser.add_argument("--child", nargs="+")
    options = parser.parse_args()
    if options.child:
        name, *rest = options.child
        clock = Clock(options.threads)
        work = {"slowwave": time_slowwave, "llama.cpp": time_llama_cpp}.get(name)
        print(json.dumps(dict(work(clock, *rest) if work else time_transformers(clock))))
        return
    programs = {
        "slowwave": (sys.executable, "slowwave", "float32"),
        "slowwave int8": (sys.executable, "slowwave", "int8"),
    }
    if importlib.util.find_spec("transformers"):
        programs["transformers"] = (sys.executable, "transformers")
    if options.llama:
        python, file = options.llama
        programs["llama.cpp"] = (python, "llama.cpp", file)
    fastest: dict[str, dict[str, float]] = {}
    for _ in range(options.processes):
        for name, command in programs.items():
            for what, taken in run_child(options.threads, *command).items():
                times = fastest.setdefault(what, {})
                times[name] = min(taken, times.get(name, taken))
    for what, times in fastest.items():
        print(what, *(f"{name} {taken:.1f} ms" for name, taken in times.items()), sep=", ")


if __name__ == "__main__":
    main()
