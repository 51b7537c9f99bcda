"""What the package offers at its root, imported when it is first asked for."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import slowwave

NAMES = {
    "Sampling": "slowwave.runtime.config",
    "Session": "slowwave.memory.session",
    "SleepReport": "slowwave.memory.sleep_report",
    "Store": "slowwave.memory.store",
    "StoredSession": "slowwave.memory.stored_session",
    "Talker": "slowwave.memory.talker",
    "load": "slowwave.memory.talker",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_resolve(name: str) -> None:
    assert getattr(slowwave, name) is getattr(sys.modules[NAMES[name]], name)


def test_the_public_names_are_these() -> None:
    assert dir(slowwave) == slowwave.__all__ == sorted([*NAMES, "__version__"])
    assert slowwave.__version__ == importlib.metadata.version("slowwave")


def test_names_are_listed_before_they_are_imported() -> None:
    probe = "import sys, slowwave; print(*dir(slowwave)); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert run.stdout.splitlines() == [" ".join(slowwave.__all__), "False"]


def test_type_checkers_see_each_name_where_it_lives() -> None:
    tree = ast.parse(Path(slowwave.__file__).read_text(encoding="utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(typed.test) == "TYPE_CHECKING"
    seen = {
        alias.asname: node.module
        for node in typed.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == NAMES


def test_other_names_do_not_resolve() -> None:
    with pytest.raises(AttributeError, match="module 'slowwave' has no attribute 'Sessions'"):
        _ = slowwave.Sessions  # pyright: ignore[reportAttributeAccessIssue]
