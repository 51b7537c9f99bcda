"""Files are opened where they are plain ones, and written whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slowwave.storage.files import (
    is_loose,
    make_private_folder,
    open_plain,
    require_own_folder,
    require_plain,
    tighten,
    write_atomically,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077], ids="umask {:03o}".format)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture(params=["unnamed", "named"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to write a draft; systems other than Linux have the second alone."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("no file without a name here")
    return request.param


@pytest.mark.parametrize("private", [False, True])
def test_a_private_file_is_its_owners_alone(
    tmp_path: Path, umask: int, way: str, private: bool
) -> None:
    path = tmp_path / "new" / "file"
    write_atomically(path, b"first", private=private)
    assert mode(path) == (0o600 if private else 0o666 & ~umask)
    path.chmod(0o644)
    write_atomically(path, b"second", private=private)
    assert mode(path) == (0o600 if private else 0o666 & ~umask)
    assert path.read_bytes() == b"second"
    assert os.listdir(path.parent) == ["file"]


def test_a_draft_of_a_killed_process_with_this_number_is_in_nobodys_way(
    tmp_path: Path, way: str
) -> None:
    (tmp_path / f".file.{os.getpid()}.draft").write_bytes(b"half")
    write_atomically(tmp_path / "file", b"whole")
    assert os.listdir(tmp_path) == ["file"]


KILLED = """
import os, sys
from pathlib import Path
from slowwave.storage.files import write_atomically
os.fsync = lambda _: os.kill(os.getpid(), 9)
write_atomically(Path(sys.argv[1]), b"secret" * 10_000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux alone can")
def test_a_kill_while_writing_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "file")]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux alone can")
def test_a_file_has_no_name_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[list[str]]()
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(os.listdir(tmp_path)))
    write_atomically(tmp_path / "file", b"secret")
    assert seen == [[], ["file"]]  # of the content, and of the folder


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full; make room"),
        (errno.EDQUOT, "the disk is full; make room"),
        (errno.EROFS, "the disk is read-only"),
        (errno.EIO, "broken"),
    ],
)
def test_a_disk_that_fails_is_named_and_nothing_stays(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    (tmp_path / "file").write_bytes(b"before")

    def fail(_: int) -> None:
        raise OSError(number, "broken")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=said):
        write_atomically(tmp_path / "file", b"after")
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"before"


def test_a_private_folder_is_its_owners_alone(tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "a" / "b"
    assert make_private_folder(folder)
    assert mode(folder) == 0o700
    assert not make_private_folder(folder)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError, match=path.name):
            make_private_folder(path)


def test_rights_of_others_are_taken_away_and_none_are_given(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.touch()
    link.symlink_to(file)
    for before, after in ((0o644, 0o600), (0o444, 0o400), (0o400, 0o400), (0o666, 0o600)):
        file.chmod(before)
        assert is_loose(file) == (before != after)
        assert not is_loose(link)
        tighten(link)
        assert mode(file) == before
        tighten(file)
        assert mode(file) == after
    tighten(tmp_path / "missing")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="a system whose files have no modes")
def test_what_is_somebody_elses_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch(mode=0o644)
    file.chmod(0o644)
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    tighten(file)
    assert mode(file) == 0o644


# Opened.


@pytest.fixture
def things(tmp_path: Path) -> dict[str, Path]:
    """A file, links to it, and what only looks like one."""
    paths = {name: tmp_path / name for name in ("file", "link", "loop", "pipe", "folder", "linked")}
    paths["file"].write_bytes(b"content")
    paths["link"].symlink_to(paths["file"])
    paths["loop"].symlink_to(paths["loop"])
    os.mkfifo(paths["pipe"])
    paths["folder"].mkdir()
    paths["linked"].symlink_to(paths["folder"])
    return paths | {"absent": tmp_path / "absent", "device": Path("/dev/zero")}


def test_files_and_links_to_them_are_opened(things: dict[str, Path]) -> None:
    for name in ("file", "link"):
        with open_plain(things[name]) as file:
            assert file.read() == b"content"
    with open_plain(things["file"], follow=False) as file:
        assert file.read() == b"content"


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("name", ["loop", "pipe", "folder", "device", "linked"])
def test_what_is_no_file_is_refused_at_once(
    things: dict[str, Path], name: str, follow: bool
) -> None:
    descriptors = os.listdir("/dev/fd")
    with (
        pytest.raises(ValueError, match=f"{things[name]}: (a symbolic link|no plain file)"),
        open_plain(things[name], follow=follow),
    ):
        pass
    assert os.listdir("/dev/fd") == descriptors


def test_a_link_is_refused_where_none_may_be(things: dict[str, Path]) -> None:
    with (
        pytest.raises(ValueError, match="link: a symbolic link; put the file itself there"),
        open_plain(things["link"], follow=False),
    ):
        pass


def test_a_missing_file_is_missing(things: dict[str, Path]) -> None:
    with pytest.raises(FileNotFoundError), open_plain(things["absent"]):
        pass


def test_links_and_folders_are_refused_where_a_file_is_required(things: dict[str, Path]) -> None:
    for name in ("file", "absent"):
        require_plain(things[name])
    for name in ("link", "loop", "pipe", "folder", "linked", "device"):
        with pytest.raises(ValueError, match=f"{things[name]}: a link or no plain file"):
            require_plain(things[name])
    os.link(things["file"], things["absent"])
    for name in ("file", "absent"):
        with pytest.raises(
            ValueError, match=rf"{things[name]}: has another name too \(a hard link"
        ):
            require_plain(things[name])
    things["absent"].unlink()
    for name in ("folder", "absent"):
        require_own_folder(things[name])
    for name in ("file", "link", "loop", "pipe", "linked", "device"):
        with pytest.raises(ValueError, match=f"{things[name]}: a link or no folder"):
            require_own_folder(things[name])
