"""What is no file is refused before anything is read or awaited."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from slowwave.storage.plain_file import open_plain, require_own_folder, require_plain


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


def test_requirements(things: dict[str, Path]) -> None:
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
