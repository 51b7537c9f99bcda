"""Models of slowwave in the lm-evaluation-harness, which scores them on its tasks and on others.

`python -m slowwave.evaluation.harness run --model slowwave --model_args path=MODEL --tasks NAME`
runs it; further arguments are the harness's own.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from slowwave.runtime import default_model
from slowwave.runtime.config import Sampling
from slowwave.runtime.model_folder import load
from slowwave.runtime.reply import draw, make_generator
from slowwave.sleep.awake import read_awake
from slowwave.sleep.stream import read_stream
from slowwave.state import MemoryState
from slowwave.wording import say_how_to_install


def _find(module: str, name: str) -> Any:
    """Something of the harness, whose package is not a requirement."""
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        raise ValueError(
            f"the lm-eval package is not installed; {say_how_to_install('eval')}"
        ) from None


TemplateLM: Any = _find("lm_eval.api.model", "TemplateLM")
register_model: Any = _find("lm_eval.api.registry", "register_model")
MOST_NEW_TOKENS = 256
EXACT = Sampling()


@register_model("slowwave")
class HarnessModel(TemplateLM):
    """A model whose contexts are read as a stream: it sleeps whenever its window is full.

    path: a folder, a .gguf file, a name on the hub, or smollm2. sleeps: False reads every context
    whole, with full attention.
    """

    backend = "causal"

    def __init__(self, path: str, *, sleeps: bool | str = True, **_: Any) -> None:
        super().__init__()
        talker = load(default_model.resolve(path))
        self._model, self._tokenizer, self._sleep = talker.model, talker.tokenizer, talker.sleep
        if sleeps in (False, "False", "false"):
            self._sleep = dataclasses.replace(self._sleep, passes=1, eviction="none")

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text; the first one where a model has none."""
        stops = self._tokenizer.controls.stops
        return stops[0] if stops else 0

    def tok_encode(self, string: str, **_: Any) -> list[int]:
        """The token ids of a text."""
        return self._tokenizer.encode(string)

    @property
    def tokenizer_name(self) -> str:
        """What tells tokenizers apart, for the harness's cache."""
        return self._tokenizer.fingerprint

    @torch.inference_mode()
    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Of each (key, context, continuation) the log-probability, and whether it is likeliest."""
        return [self._score(context, continuation) for _, context, continuation in requests]

    @torch.inference_mode()
    def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
        """The log-probability of whole texts, read as a stream from the token that ends texts."""
        scores: list[float] = []
        for request in requests:
            tokens = self.tok_encode(request.args[0])
            total, hidden, state = 0.0, *self._read([self.eot_token_id])
            for start in range(0, len(tokens), self._sleep.window):
                piece = tokens[start : start + self._sleep.window]
                read, state = self._read(piece, state)
                before = torch.cat([hidden[:, -1:], read[:, :-1]], dim=1)
                total += self._sum_logs(before[0], piece)[0]
                hidden = read
            scores.append(total)
        return scores

    @torch.inference_mode()
    def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
        """Greedy continuations up to one of the request's stop texts."""
        return [self._generate(*request.args) for request in requests]

    def _generate(self, context: str, settings: dict[str, Any]) -> str:
        until = settings.get("until", [])
        stops = [until] if isinstance(until, str) else list(until)
        hidden, state = self._read(self.tok_encode(context) or [self.eot_token_id])
        tokens, text = list[int](), ""
        generator = make_generator(EXACT, 0)
        for _ in range(int(settings.get("max_gen_toks", MOST_NEW_TOKENS))):
            token = draw(self._model.logits(hidden[:, -1:])[0, 0], EXACT, generator)
            if token in self._tokenizer.controls.stops:
                break
            tokens.append(token)
            text = self._tokenizer.decode(tokens)
            if any(stop in text for stop in stops):
                break
            hidden, state = self._read([token], state)
        for stop in stops:
            text = text.partition(stop)[0]
        return text

    def _score(self, context: list[int], continuation: list[int]) -> tuple[float, bool]:
        hidden, state = self._read(context)
        last = hidden[:, -1:]
        if len(continuation) > 1:
            # On a copy of the state, within the window: what is scored is not slept on.
            read, _ = self._model.run(self._model.embed(self._ids(continuation[:-1])), state)
            last = torch.cat([last, read], dim=1)
        return self._sum_logs(last[0], continuation)

    def _sum_logs(self, hidden: Tensor, tokens: list[int]) -> tuple[float, bool]:
        logs = self._model.logits(hidden).log_softmax(-1)
        wanted = self._ids(tokens)[0]
        found = logs.gather(-1, wanted[:, None])[:, 0].sum()
        return float(found), bool((logs.argmax(-1) == wanted).all())

    def _read(
        self, tokens: list[int], state: MemoryState | None = None
    ) -> tuple[Tensor, MemoryState]:
        state = self._model.initial_state(1) if state is None else state
        if self._sleep.eviction == "none":
            return read_awake(self._model, self._ids(tokens), state, self._sleep)
        return read_stream(self._model, self._ids(tokens), state, self._sleep)

    def _ids(self, tokens: list[int]) -> Tensor:
        return torch.tensor([tokens], device=self._model.device)


def main() -> None:
    """Runs the harness's own command, which knows the model "slowwave" then."""
    _find("lm_eval.__main__", "cli_evaluate")()


if __name__ == "__main__":
    main()
