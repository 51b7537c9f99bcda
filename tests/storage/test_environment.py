"""What is recorded of the place where something was measured."""

import subprocess
from pathlib import Path

import pytest

from slowwave.storage.environment import is_dirty


def git(folder: Path, *arguments: str) -> None:
    name = ["-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", *name, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("src/code.py", "results/run/table.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text("before")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "all")
    return tmp_path


def test_results_do_not_make_a_tree_dirty_but_code_does(repository: Path) -> None:
    assert is_dirty(repository / "src") is False
    (repository / "results/run/table.md").write_text("after")
    (repository / "new.txt").write_text("nobody knows it")
    assert is_dirty(repository / "src") is False
    (repository / "src/code.py").write_text("after")
    assert is_dirty(repository / "src") is True


def test_outside_of_a_repository_nothing_is_known(tmp_path: Path) -> None:
    assert is_dirty(tmp_path) is None
