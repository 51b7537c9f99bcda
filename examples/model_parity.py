"""A real model in slowwave beside transformers: logits of a text, and greedy tokens after it.

    python examples/model_parity.py MODEL.gguf [TEXT ...]

It needs the packages transformers and accelerate. Both models are in memory, in float32.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from slowwave.storage.pretrained import open_pretrained

NUM_TOKENS, PROMPT, NUM_DRAWN = 2000, 200, 200
TEXTS = ("docs/mechanism.md", "docs/findings.md")


def main(model: str, *texts: str) -> None:
    path = Path(model)
    ours = open_pretrained(path).load()
    options: dict[str, Any] = {"gguf_file": path.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, **options)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, dtype=torch.float32, **options
    ).eval()
    text = "".join(Path(each).read_text("utf-8") for each in texts or TEXTS)
    tokens = torch.tensor([tokenizer(text)["input_ids"][:NUM_TOKENS]])
    with torch.inference_mode():
        expected, (found, _) = theirs(tokens).logits, ours(tokens)
        error = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        largest = (found - expected).abs().max()
        prompt = tokens[:, :PROMPT]
        drawn = theirs.generate(
            prompt, max_new_tokens=NUM_DRAWN, do_sample=False, eos_token_id=None, pad_token_id=0
        )[0, PROMPT:].tolist()
        hidden, state = ours.read(prompt, ours.initial_state(1))
        mine: list[int] = []
        for _ in range(NUM_DRAWN):
            mine.append(int(ours.logits(hidden[:, -1]).argmax()))
            hidden, state = ours.read(torch.tensor([mine[-1:]]), state)
    alike = sum(one == other for one, other in zip(mine, drawn, strict=True))
    print(
        f"{tokens.shape[1]} tokens: relative RMSE {float(error):.1e}, largest {float(largest):.1e}"
    )
    print(f"greedy tokens alike: {alike} of {NUM_DRAWN}")


if __name__ == "__main__":
    main(*sys.argv[1:])
