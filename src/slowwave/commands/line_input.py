"""The lines of a chat: typed at a terminal, with history and editing, or sent by a program."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from slowwave.commands.arguments import decode, require_text
from slowwave.storage.files import FILE, make_private_folder, tighten

HISTORY_LINES = 1000


class TerminalInput:
    """Lines typed by a person. history: a file that keeps them; None keeps none.

    Where Python was built without readline, lines are neither kept nor edited.
    """

    def __init__(self, history: Path | None) -> None:
        self._readline, self._history = None, history
        with contextlib.suppress(ModuleNotFoundError):
            import readline  # which changes what `input` does

            self._readline = readline
            self._prepare(readline)

    def wait(self, prompt: str, seconds: float) -> bool:
        """Whether a letter is typed within so many seconds; `read` shows it."""
        print(prompt, end="", flush=True)
        try:
            with _unbuffered(sys.stdin.fileno()) as descriptor:
                return bool(select.select([descriptor], [], [], seconds)[0])
        finally:
            print("\r\x1b[K", end="", flush=True)

    def read(self, prompt: str) -> str | None:
        """The next line, without its end; None after the last.

        Raises ValueError if it is not UTF-8, KeyboardInterrupt on Ctrl-C.
        """
        try:
            line = require_text(input(prompt), "this line")
        except EOFError:
            print()
            return None
        self._keep(line)
        return line

    def _prepare(self, readline: ModuleType) -> None:
        readline.clear_history()
        readline.set_history_length(HISTORY_LINES)
        readline.set_auto_history(False)
        if self._history is not None:
            with contextlib.suppress(OSError):
                drop_cut_line(self._history)
                readline.read_history_file(self._history)

    def _keep(self, line: str) -> None:
        if self._readline is None or not line.strip():
            return
        self._readline.add_history(line)
        # A chat goes on without a history where there is no room, or no GNU readline, to keep it.
        if self._history is not None and hasattr(self._readline, "append_history_file"):
            with contextlib.suppress(OSError):
                make_private_folder(self._history.parent)
                self._history.touch(mode=FILE)
                tighten(self._history)
                self._readline.append_history_file(1, self._history)


class PipeInput:
    """Lines sent by a program, or typed where there is no terminal to edit them in."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._held, self._is_over = descriptor, b"", False

    def wait(self, prompt: str, seconds: float) -> bool:
        """Whether a byte comes within so many seconds."""
        if self._is_over or b"\n" in self._held:
            return True
        return bool(select.select([self._descriptor], [], [], seconds)[0])

    def read(self, prompt: str) -> str | None:
        """As that of `TerminalInput`, without a prompt, which a program does not need."""
        parts = [self._held]
        while b"\n" not in parts[-1] and not self._is_over:
            parts.append(os.read(self._descriptor, 1 << 16))
            self._is_over = not parts[-1]
        line, end, self._held = b"".join(parts).partition(b"\n")
        return decode(line, "this line").removesuffix("\r") if line or end else None


LineInput = TerminalInput | PipeInput


def find_history() -> Path:
    """The file that keeps what was typed, where the XDG base directory specification has it."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "slowwave" / "chat-history"


def drop_cut_line(history: Path) -> None:
    """Ends a file with a whole line: half a line, left by a loss of power, would become the
    beginning of the next one."""
    with history.open("r+b") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            file.truncate(end)


@contextlib.contextmanager
def _unbuffered(descriptor: int) -> Iterator[int]:
    """Within, the terminal passes on every key at once, and echoes none."""
    import termios
    import tty

    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor, termios.TCSADRAIN)
    try:
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
