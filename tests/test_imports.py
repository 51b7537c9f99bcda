"""Imports point one way only, and what must start quickly does not import torch."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGE = "slowwave"
ROOT = Path(__file__).parents[1] / "src" / PACKAGE

# A module may import from its own line and from the lines above it.
ORDER = (
    ("console", "wording"),
    ("config", "delta", "entries", "part", "state", "status_line"),
    ("ops",),
    ("models",),
    ("sleep",),
    ("storage",),
    ("runtime",),
    ("memory", "tasks"),
    ("serving", "training"),
    ("evaluation",),
    ("experiment",),
    ("lab",),
    ("commands",),
    ("cli",),
    ("__init__", "__main__"),  # the facade sees everything; nothing inside imports from it
)
WINGS = ({"memory", "serving"}, {"tasks", "evaluation", "training"})  # living, and learning
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}

# Torch itself, and what brings it or costs as much to import.
SLOW = ("torch", "fla", "matplotlib", "safetensors.torch", "transformers")
TYPES_ONLY = ("TYPE_CHECKING", "typing.TYPE_CHECKING")
QUICK_FILES = ("__init__.py", "__main__.py", "cli.py", "config.py")


# The checkers. `sources` maps a file's path inside the package to its text.


def read_sources() -> dict[str, str]:
    files = sorted(ROOT.rglob("*.py"))
    return {file.relative_to(ROOT).as_posix(): file.read_text("utf-8") for file in files}


def upward_imports(sources: dict[str, str]) -> list[str]:
    """One sentence for each import, at any depth of any file, that points up the order."""
    faults: list[str] = []
    for path, source in sources.items():
        layer = path.split("/")[0].removesuffix(".py")
        if layer not in RANK:
            faults.append(f"{path}: {layer} has no place in ORDER; give it one")
            continue
        for line, target in imports(ast.walk(ast.parse(source)), path):
            package, _, inside = target.partition(".")
            if package != PACKAGE or inside.startswith("__"):  # from slowwave import __version__
                continue
            above = inside.split(".")[0]
            if any(layer in here and above in there for here, there in (WINGS, WINGS[::-1])):
                faults.append(f"{path}:{line}: {layer} imports {target}, of the other wing")
            elif RANK.get(above, RANK["__init__"]) > RANK[layer]:
                faults.append(f"{path}:{line}: {layer} imports {target}, which is above it")
    return faults


def slow_imports(sources: dict[str, str], path: str) -> list[str]:
    """The chains of imports by which importing `path` imports something slow."""
    chains: list[str] = []
    seen = {path}
    pending = [(path, path)]
    while pending:
        here, chain = pending.pop()
        for line, target in imports(run_at_import(ast.parse(sources[here])), here):
            if any(f"{target}.".startswith(f"{slow}.") for slow in SLOW):
                chains.append(f"{chain}:{line} -> {target}")
            for file in files_of(target, sources):
                if file not in seen:
                    seen.add(file)
                    pending.append((file, f"{chain}:{line} -> {file}"))
    return chains


def imports(nodes: Iterable[ast.AST], path: str) -> Iterator[tuple[int, str]]:
    """The (line, absolute dotted name) of all that the import statements among `nodes` name."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            parents = [PACKAGE, *path.split("/")[:-1]]
            start = parents[: len(parents) + 1 - node.level] if node.level else []
            for alias in node.names:
                yield node.lineno, ".".join([*start, *filter(None, [node.module]), alias.name])


def run_at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: no function bodies, no `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) in TYPES_ONLY:
            child = ast.Module(child.orelse, [])
        yield child
        yield from run_at_import(child)


def files_of(target: str, sources: dict[str, str]) -> Iterator[str]:
    """The files of the package that run when the dotted name `target` is imported."""
    package, *names = target.split(".")
    if package != PACKAGE:
        return
    for count in range(len(names) + 1):
        stem = "/".join(names[:count])
        for file in (f"{stem}.py", f"{stem}/__init__.py".lstrip("/")):
            if file in sources:
                yield file


# The package.


def test_imports_point_one_way() -> None:
    sources = read_sources()
    assert "config.py" in sources
    assert upward_imports(sources) == []


def test_quick_modules_import_nothing_slow() -> None:
    sources = read_sources()
    quick = [path for path in sources if path.split("/")[-1] in QUICK_FILES]
    assert "config.py" in quick
    assert [chain for path in quick for chain in slow_imports(sources, path)] == []


def test_the_page_shows_all_rooms_and_files_that_exist() -> None:
    page = (ROOT.parents[1] / "docs" / "architecture.md").read_text("utf-8")
    table = page.split("| room |")[1].split("\n\n")[0].splitlines()[2:]
    rooms = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in table]
    assert {name for row in rooms for name in row} == RANK.keys()
    files = re.findall(r"`([\w/]+\.py)`", page)
    assert len(files) > 20
    assert [file for file in files if not (ROOT / file).exists() and "tests/" not in file] == []


@pytest.mark.parametrize("module", [m for m in (PACKAGE, f"{PACKAGE}.cli") if find_spec(m)])
def test_importing_does_not_import_torch(module: str) -> None:
    probe = f"import sys, {module}; print([name for name in {SLOW} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "[]\n", "")


# The checkers can fail.


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ops/norm.py", "import slowwave.models.backbone"),
        ("ops/norm.py", "from slowwave.models import block"),
        ("ops/norm.py", "from slowwave import models"),
        ("ops/norm.py", "from ..models.block import Block"),
        ("ops/norm.py", "from .. import cli"),
        ("ops/norm.py", "def f():\n    from slowwave.sleep import schedule"),
        ("ops/norm.py", "if TYPE_CHECKING:\n    from ..state import A\n    from ..sleep import B"),
        ("ops/__init__.py", "from ..models import block"),
        ("config.py", "from .ops import norm"),
        ("cli.py", "import slowwave"),
        ("cli.py", "from slowwave import load"),
        ("models/block.py", "from slowwave import *"),
        ("training/trainer.py", "class A:\n    def f(self):\n        import slowwave.serving.app"),
        ("tasks/base.py", "from slowwave.memory.session import Session"),
        ("serving/app.py", "from slowwave.tasks.base import Task"),
        ("utils.py", ""),
        ("utils/text.py", ""),
    ],
)
def test_upward_import_is_caught(path: str, source: str) -> None:
    faults = upward_imports({path: source})
    assert len(faults) == 1
    assert faults[0].startswith(path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("config.py", "from .state import MemoryState"),
        ("ops/gated_rules.py", "from .norm import rms_norm\nfrom slowwave.ops import norm"),
        ("sleep/unroll.py", "from ..models.backbone import HybridLM\nfrom slowwave.state import A"),
        ("lab/demo.py", "from ..memory.session import Session\nfrom ..tasks.base import Task"),
        ("cli.py", "from slowwave import __version__\ndef f():\n    from .serving import app"),
        ("__init__.py", "def __getattr__(name):\n    from .memory.session import Session"),
        ("__main__.py", "from slowwave.cli import main"),
        ("models/block.py", "import torch\nimport slowwave_extras.cli\nfrom models import cli"),
    ],
)
def test_downward_import_is_allowed(path: str, source: str) -> None:
    assert upward_imports({path: source}) == []


@pytest.mark.parametrize(
    "source",
    [
        "import torch",
        "import torch.nn as nn",
        "from torch import nn",
        "from safetensors import torch",
        "class A:\n    import torch",
        "if not TYPE_CHECKING:\n    import torch",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import torch",
        "try:\n    import torch\nexcept ImportError:\n    pass",
        "from ..state import MemoryState",
        "import slowwave.state",
        "from slowwave import state",
        "from .schedule import cut",
    ],
)
def test_slow_import_is_caught(source: str) -> None:
    sources = {
        "__init__.py": "",
        "state.py": "from torch import Tensor",
        "sleep/__init__.py": "",
        "sleep/schedule.py": "from slowwave.state import MemoryState",
        "sleep/config.py": source,
    }
    chains = slow_imports(sources, "sleep/config.py")
    assert len(chains) == 1
    assert chains[0].startswith("sleep/config.py:")


def test_slow_package_init_is_caught() -> None:
    sources = {"ops/__init__.py": "import torch", "ops/a.py": "", "cli.py": "import slowwave.ops.a"}
    assert slow_imports(sources, "cli.py") == ["cli.py:1 -> ops/__init__.py:1 -> torch"]


def test_late_import_is_not_slow() -> None:
    source = (
        "import numpy, torchless\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "def f():\n    import torch\n"
        "async def g():\n    import torch\n"
    )
    assert slow_imports({"cli.py": source}, "cli.py") == []
