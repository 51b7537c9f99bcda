"""Training an adapter for a pretrained model."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro

from slowwave.commands.arguments import parse
from slowwave.config import Config, read_toml
from slowwave.runtime.pretrained_model import ChatForm
from slowwave.sleep.config import SleepConfig
from slowwave.status_line import StatusLine
from slowwave.training.adapter_config import AdapterConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptRecipe(Config):
    """What an adapter is trained with."""

    chat: ChatForm = "auto"
    """How conversations are written."""
    sleep: SleepConfig
    adapter: AdapterConfig = dataclasses.field(default_factory=AdapterConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptOptions:
    """Train an adapter with which a pretrained model recalls what it slept on.

    Run again to go on. OUT gets adapter.safetensors, which `slowwave convert --adapter` adds to the
    weights, and metrics.jsonl.
    """

    recipe: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RECIPE")]
    """TOML file, such as recipes/adapters/smollm2.toml."""
    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """Hugging Face folder, .gguf file or name on the hub."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder of the run."""
    threads: int | None = None
    """Threads to compute with; as many as torch takes if not given."""


def run(arguments: list[str]) -> None:
    """slowwave adapt RECIPE MODEL OUT [--threads 1]"""
    options = parse(AdaptOptions, arguments, prog="slowwave adapt")
    try:
        recipe = AdaptRecipe.from_dict(read_toml(options.recipe))
    except ValueError as error:
        is_named = str(error).startswith(str(options.recipe))
        raise ValueError(str(error) if is_named else f"{options.recipe}: {error}") from None
    with StatusLine() as status:
        status.show(f"loading {options.model}")
        import torch

        from slowwave.runtime.model_folder import load
        from slowwave.training.adapter import train_adapter

        if options.threads is not None:
            torch.set_num_threads(max(1, options.threads))
        talker = load(options.model, form=recipe.chat, say=status.say)
        talker = talker._replace(sleep=recipe.sleep)
        status.show(f"training in {options.out}, whose metrics.jsonl tells how far it is")
        try:
            train_adapter(talker, recipe.adapter, options.out)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; what was saved is in {options.out}, and the same command goes on"
            ) from None
    print(options.out / "adapter.safetensors", file=sys.stdout)
