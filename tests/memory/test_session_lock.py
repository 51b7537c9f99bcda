"""One process has a session: not the one that was forked off, nor two by files of one name."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slowwave.memory.names import HeldElsewhere
from slowwave.memory.private_store import SessionLock
from slowwave.memory.store import Store
from slowwave.memory.talker import Talker

FORKED = """
import os, sys, time
from pathlib import Path
from slowwave.memory.private_store import SessionLock
lock = SessionLock(Path(sys.argv[1]), "ann")
os.fork()
os.write(1, f"{os.getpid()} {lock.is_held}\\n".encode())
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "1.lock"


def test_a_forked_process_does_not_have_the_lock(path: Path) -> None:
    """Killing its holder frees it, though the child that was forked off lives on."""
    with subprocess.Popen([sys.executable, "-c", FORKED, path], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        lines = sorted(parent.stdout.readline().split() for _ in range(2))
        held = {int(pid): is_held for pid, is_held in lines}
        (child,) = held.keys() - {parent.pid}
        try:
            assert (held[parent.pid], held[child]) == (b"True", b"False")
            with pytest.raises(HeldElsewhere, match=f"open in process {parent.pid} on"):
                SessionLock(path, "ann")
            parent.kill()
            parent.wait()
            SessionLock(path, "ann", seconds=10).release()
        finally:
            os.kill(child, signal.SIGKILL)


def test_what_is_released_is_free_though_a_process_inherited_the_file(path: Path) -> None:
    """As one does that was forked off by other means than Python's."""
    lock = SessionLock(path, "ann")
    number = lock._file.fileno()
    with subprocess.Popen(["sleep", "60"], pass_fds=[number]) as child:
        try:
            with pytest.raises(HeldElsewhere):
                SessionLock(path, "ann")
            lock.release()
            SessionLock(path, "ann").release()
        finally:
            child.kill()


def test_a_process_that_was_forked_off_cannot_go_on_with_the_session(
    tmp_path: Path, talker: Talker
) -> None:
    with Store(tmp_path) as store, store.open("ann", talker, create=True) as session:
        session.read("Hello")
        session._lock.leave()  # as is done in the process that was forked off
        with pytest.raises(ValueError, match="'ann' is open in the process that this one was for"):
            session.read("more")
        assert len(session.ledger()) == 1


def test_a_lock_whose_file_was_removed_meanwhile_is_none(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens the file, then its session is deleted: the lock of that file keeps nobody out."""
    flock, removed = fcntl.flock, list[Path]()

    def flock_late(file: int, operation: int) -> None:
        if not removed:
            path.unlink()
            removed.append(path)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock_late)
    lock = SessionLock(path, "ann")
    with pytest.raises(HeldElsewhere):
        SessionLock(path, "ann")
    lock.release()
    SessionLock(path, "ann").release()


def test_others_are_waited_for_a_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = SessionLock(path, "ann")
    monkeypatch.setattr("time.sleep", lambda _: lock.release())
    SessionLock(path, "ann", seconds=10).release()


def test_locks_of_deleted_sessions_go(tmp_path: Path, talker: Talker) -> None:
    locks = tmp_path / "locks"
    with Store(tmp_path) as store:
        for name in ("ann", "bob"):
            store.open(name, talker, create=True).close()
        assert sorted(path.name for path in locks.iterdir()) == ["1.lock", "2.lock"]
        store.delete("ann")
        assert [path.name for path in locks.iterdir()] == ["2.lock"]
    (locks / "1.lock").touch()  # as a version before this one left them
    with Store(tmp_path):
        assert [path.name for path in locks.iterdir()] == ["2.lock"]
