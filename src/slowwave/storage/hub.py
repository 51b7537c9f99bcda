"""Models by name: a folder, a file, or a repository of the Hugging Face hub in its own cache."""

from __future__ import annotations

import re
from pathlib import Path

from slowwave.wording import say_how_to_install

NAME = re.compile(r"[\w.-]+/[\w.-]+")
FILES = ["*.json", "*.safetensors", "*.jinja", "*.model"]
"""What a model is read from; weights in other forms are not fetched."""


def find_model(name: str | Path) -> Path:
    """The folder or file of a model: a path, or else a name such as "org/model".

    A repository that is in the cache is taken from there, without asking the hub. Raises ValueError
    if nothing has that name, or the package that fetches it is missing.
    """
    path = Path(name)
    if path.exists() or not NAME.fullmatch(str(name)):
        return path
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ModuleNotFoundError:
        raise ValueError(
            f"{name}: no such folder, and the huggingface_hub package, which would fetch it, is "
            f"not installed; {say_how_to_install('models')}"
        ) from None
    try:
        return Path(snapshot_download(str(name), allow_patterns=FILES, local_files_only=True))
    except HFValidationError:
        return path
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(snapshot_download(str(name), allow_patterns=FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"{name}: no such folder, and the hub gave none ({_shorten(error)}); check the name "
            "and the connection"
        ) from None


def _shorten(error: Exception) -> str:
    """The first line of what went wrong."""
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
