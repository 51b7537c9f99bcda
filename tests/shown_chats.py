"""Chats that the README shows."""

import itertools
import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def read_chats(target: str) -> list[list[tuple[str, str]]]:
    """Lines and replies of every start of a chat by `make TARGET`, in order."""
    shown = re.search(rf"```\n(\$ make {target}\n.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert shown is not None
    chats: list[list[tuple[str, str]]] = []
    for chat in shown.group(1).split(f"$ make {target}\n")[1:]:
        said = [line for line in chat.splitlines() if not line.startswith("[")]
        pairs = itertools.pairwise(said)
        chats.append([(line[2:], reply) for line, reply in pairs if line.startswith("> ")])
    return chats
