"""Memories for OpenAI's clients and for a browser."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from slowwave.commands.arguments import parse, require_folder
from slowwave.commands.memory import default_directory
from slowwave.memory.notes_config import EndpointConfig, NotesFile, read_notes_file
from slowwave.serving.config import ServeConfig
from slowwave.status_line import StatusLine


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Serve a model, and memories that live on, to OpenAI's clients and to a browser.

    Memories lie in a directory, and are there again after a restart. SIGTERM or Ctrl-C ends open
    replies and loses nothing.
    """

    model: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="MODEL")] = None
    """A model to talk to: a folder of slowwave's or of Hugging Face's, a .gguf file, a name on the
    hub (org/model), or smollm2 (docs/models.md)."""
    upstream: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None
    """In place of MODEL: an endpoint in OpenAI's form, such as http://127.0.0.1:8000/v1, whose
    models get a memory in words (docs/notes.md)."""
    upstream_key_env: Annotated[str, tyro.conf.arg(metavar="VARIABLE")] = ""
    """Environment variable that has the key for --upstream, if it needs one."""
    notes: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """With --upstream: a TOML file of who writes notes, and how; the model in use if not given."""
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


def _read_upstream(options: ServeOptions) -> tuple[EndpointConfig | None, NotesFile | None]:
    """The endpoint of --upstream, and the settings in --notes, where they are given."""
    if options.upstream is None:
        return None, None
    try:
        endpoint = EndpointConfig(url=options.upstream, key_env=options.upstream_key_env)
    except ValueError as error:
        told = str(error).replace("endpoint.url", "--upstream")
        raise ValueError(told.replace("endpoint.key_env", "--upstream-key-env")) from None
    return endpoint, None if options.notes is None else read_notes_file(options.notes)


def run(arguments: list[str]) -> None:
    """slowwave serve {MODEL,--upstream URL} --memory-dir DIR [--port 8000] [--api-keys FILE]"""
    options = parse(ServeOptions, arguments, prog="slowwave serve")
    if not 0 < options.port < 65536:
        raise ValueError(f"--port is {options.port}; use 1 to 65535")
    if (options.model is None) == (options.upstream is None):
        raise ValueError("name a MODEL to serve, or the endpoint of models elsewhere by --upstream")
    if options.upstream is None and (options.notes is not None or options.upstream_key_env):
        raise ValueError("--notes and --upstream-key-env are for --upstream; leave them out")
    if options.upstream is not None and (options.lenient or options.model_name):
        raise ValueError("--lenient and --model-name are for a MODEL; leave them out")
    require_folder("--memory-dir", options.memory_dir)
    endpoint, notes = _read_upstream(options)
    with StatusLine() as status:
        status.show("loading the server")
        from slowwave.serving.run import serve, serve_upstream

    if endpoint is not None:
        serve_upstream(
            endpoint,
            notes=notes,
            memory_dir=options.memory_dir,
            host=options.host,
            port=options.port,
            api_keys=options.api_keys,
            config=options.limits,
        )
        return
    assert options.model is not None
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
