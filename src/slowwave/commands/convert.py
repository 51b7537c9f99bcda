"""Models of other programs to ours, and back."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from slowwave.commands.arguments import parse
from slowwave.status_line import StatusLine


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Write a pretrained model as a folder of slowwave's, which loads sooner, or one back.

    The sleep settings in config.json of that folder are those of every conversation with it.
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """Hugging Face folder, .gguf file or name on the hub; with --to transformers any model."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """The folder to write."""
    to: Literal["slowwave", "transformers"] = "slowwave"
    """Whose form to write: ours, or Hugging Face's for llama, qwen3 and qwen3_5."""
    precision: Literal["float32", "bfloat16", "int8"] = "float32"
    """Of the folder, whenever it is loaded: dtype of the matrix products, or int8 weights, which
    take a quarter of the memory."""
    adapter: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Changes of the weights to add, as training an adapter writes them."""
    chat: Literal["auto", "template", "plain"] = "auto"
    """How conversations are written: by the model's template, as a plain transcript, or by the
    template where it can be written message by message."""


def run(arguments: list[str]) -> None:
    """slowwave convert MODEL OUT [--to transformers] [--chat plain]"""
    options = parse(ConvertOptions, arguments, prog="slowwave convert")
    with StatusLine() as status:
        status.show(f"reading {options.model}")
        from slowwave.runtime.model_folder import convert, convert_back

        notes: list[str] = []
        if options.to == "slowwave":
            notes = convert(
                options.model,
                options.out,
                form=options.chat,
                adapter=options.adapter,
                precision=options.precision,
            )
        else:
            convert_back(options.model, options.out)
    for note in notes:
        print(note, file=sys.stderr)
    print(options.out)
