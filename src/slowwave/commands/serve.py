"""Memories for OpenAI's clients and for a browser."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from slowwave.commands.arguments import parse, require_folder
from slowwave.commands.memory import default_directory
from slowwave.serving.config import ServeConfig
from slowwave.status_line import StatusLine


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Serve a model, and memories that live on, to OpenAI's clients and to a browser.

    Memories lie in a directory, and are there again after a restart. SIGTERM or Ctrl-C ends open
    replies and loses nothing.
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """A model to talk to: a folder of slowwave's or of Hugging Face's, a .gguf file, a name on the
    hub (org/model), or smollm2 (docs/models.md)."""
    memory_dir: Path = dataclasses.field(default_factory=default_directory)
    """Directory of the memories, which is made if it is not there; SLOWWAVE_MEMORY_DIR, else
    memories in the current directory."""
    host: str = "127.0.0.1"
    """Address to listen at; one that others can reach needs --api-keys."""
    port: int = 8000
    """Port to listen at."""
    api_keys: Path | None = None
    """File of lines "owner key"; each owner has memories of its own."""
    model_name: str | None = None
    """What clients call the model; the name of its folder if not given."""
    lenient: bool = False
    """Leave out fields of a request that cannot be served (tools, response_format, ...), with a
    header that says so, instead of refusing it."""
    limits: ServeConfig = dataclasses.field(default_factory=ServeConfig)


def run(arguments: list[str]) -> None:
    """slowwave serve MODEL --memory-dir DIR [--port 8000] [--api-keys FILE]"""
    options = parse(ServeOptions, arguments, prog="slowwave serve")
    if not 0 < options.port < 65536:
        raise ValueError(f"--port is {options.port}; use 1 to 65535")
    require_folder("--memory-dir", options.memory_dir)
    with StatusLine() as status:
        status.show("loading the server")
        from slowwave.serving.run import serve

    serve(
        options.model,
        memory_dir=options.memory_dir,
        host=options.host,
        port=options.port,
        api_keys=options.api_keys,
        model_name=options.model_name,
        config=options.limits,
        lenient=options.lenient,
    )
