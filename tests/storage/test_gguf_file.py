"""GGUF files: what the gguf package reads of them is what we read, and no file takes us down."""

from __future__ import annotations

import random
import resource
import struct
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from damage import spoil_bytes
from gguf_maker import tensor_info, text, write_gguf, write_head
from slowwave.storage.gguf_file import GgufFile

KINDS = gguf.GGMLQuantizationType
QUANTISED = [KINDS.Q4_0, KINDS.Q4_1, KINDS.Q5_0, KINDS.Q5_1, KINDS.Q8_0, KINDS.TQ1_0, KINDS.TQ2_0]
TEXTS = {"general.name": "tiny", "tokenizer.ggml.tokens": ["a", "\u0120b", ""]}
NUMBERS = {"llama.block_count": 2, "tokenizer.ggml.token_type": [1, 1, 3]}


def make(path: Path) -> Path:
    draw = np.random.default_rng(0)
    tensors = {kind.name: draw.standard_normal((3, 256), np.float32) for kind in QUANTISED}
    tensors |= {
        "f32": draw.standard_normal((5, 2, 3), np.float32),
        "f16": draw.standard_normal(7).astype(np.float16),
        "f64": draw.standard_normal((2, 2)),
        "BF16": draw.standard_normal((4, 3), np.float32),
    }
    kinds = {kind.name: kind for kind in [*QUANTISED, KINDS.BF16]}
    return write_gguf(path, tensors, kinds=kinds, texts=TEXTS, numbers=NUMBERS)


def test_reads_what_the_gguf_package_reads(tmp_path: Path) -> None:
    file = GgufFile(make(tmp_path / "tiny.gguf"))
    reader = gguf.GGUFReader(file.path)
    assert file.names == tuple(tensor.name for tensor in reader.tensors)
    num_bytes = 0
    for tensor in reader.tensors:
        is_plain = tensor.tensor_type == KINDS.F64  # which the package leaves to numpy
        data = tensor.data if is_plain else gguf.dequantize(tensor.data, tensor.tensor_type)
        expected = torch.from_numpy(data.copy())
        found = file.read(tensor.name)
        assert found.shape == file.shape(tensor.name) == expected.shape
        assert torch.equal(found.to(expected.dtype), expected)
        num_bytes += found.nbytes
    assert file.num_bytes == num_bytes
    for key, field in reader.fields.items():
        if not key.startswith("GGUF."):
            value = file.metadata[key]
            assert (value.tolist() if isinstance(value, np.ndarray) else value) == field.contents()


def test_plain_tensors_keep_their_dtype(tmp_path: Path) -> None:
    file = GgufFile(make(tmp_path / "tiny.gguf"))
    dtypes = {name: file.read(name).dtype for name in ("f64", "f32", "f16", "BF16", "Q4_0")}
    assert list(dtypes.values()) == [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.float32,
    ]


def test_writing_into_a_tensor_leaves_the_file(tmp_path: Path) -> None:
    file = GgufFile(make(tmp_path / "tiny.gguf"))
    before = file.path.read_bytes()
    file.read("f32").zero_()
    assert file.path.read_bytes() == before


def test_a_damaged_file_reads_or_is_refused(tmp_path: Path) -> None:
    path, draw = make(tmp_path / "tiny.gguf"), random.Random(0)
    content, num_read = path.read_bytes(), 0
    for _ in range(400):
        num_head = draw.choice((40, 300, 1200))  # counts, metadata, tensors
        path.write_bytes(spoil_bytes(content[:num_head], draw) + content[num_head:])
        try:
            file = GgufFile(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
            continue
        for name in file.names:
            assert file.read(name).shape == file.shape(name)
        num_read += 1
    assert 0 < num_read < 200


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.3, 0.99])
def test_a_file_that_is_cut_is_refused(tmp_path: Path, share: float) -> None:
    path = make(tmp_path / "tiny.gguf")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"tiny\.gguf: .*; (fetch it again|name another)"):
        GgufFile(path)


HUGE = 2**62
LIES = {
    "keys": ((), {"num_keys": HUGE}),
    "tensors": ((), {"num_tensors": HUGE}),
    "length of a key": ((struct.pack("<Q", HUGE),), {"num_keys": 1}),
    "length of a text": ((text("a"), struct.pack("<IQ", 8, HUGE)), {"num_keys": 1}),
    "list of texts": ((text("a"), struct.pack("<IIQ", 9, 8, HUGE)), {"num_keys": 1}),
    "list of bytes": ((text("a"), struct.pack("<IIQ", 9, 0, HUGE)), {"num_keys": 1}),
    "list of lists": ((text("a"), struct.pack("<IIQ", 9, 9, HUGE)), {"num_keys": 1}),
    "shape": ((tensor_info("a", (HUGE, HUGE), 0),), {"num_tensors": 1}),
    "offset": ((tensor_info("a", (4,), 0, HUGE), bytes(64)), {"num_tensors": 1}),
    "no axis": ((tensor_info("a", (), 0), bytes(64)), {"num_tensors": 1}),
    "five axes": ((tensor_info("a", (1,) * 5, 0), bytes(64)), {"num_tensors": 1}),
    "empty axis": ((tensor_info("a", (0,), 0), bytes(64)), {"num_tensors": 1}),
    "part of a block": ((tensor_info("a", (33,), 8), bytes(99)), {"num_tensors": 1}),
    "no alignment": (
        (text("general.alignment"), struct.pack("<II", 4, 0), tensor_info("a", (4,), 0), bytes(64)),
        {"num_keys": 1, "num_tensors": 1},
    ),
    "tensor twice": ((tensor_info("a", (4,), 0) * 2, bytes(64)), {"num_tensors": 2}),
    "key twice": (((text("a") + struct.pack("<II", 4, 0)) * 2,), {"num_keys": 2}),
    "no text": ((text("a"), struct.pack("<IQ", 8, 1), b"\xff"), {"num_keys": 1}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_count_that_is_a_lie_takes_no_memory(tmp_path: Path, lie: str) -> None:
    parts, counts = LIES[lie]
    path = write_head(tmp_path / "lie.gguf", *parts, **counts)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"lie\.gguf: truncated, or no GGUF file"):
        GgufFile(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (KINDS.Q8_K.value, "of type Q8_K, which is not read"),
        (KINDS.I32.value, "of type I32, which is not read"),
        (4711, "of type 4711, which the gguf package does not know"),
    ],
)
def test_an_unknown_type_is_refused(tmp_path: Path, kind: int, sentence: str) -> None:
    path = write_head(
        tmp_path / "a.gguf", tensor_info("a", (512,), kind), bytes(9999), num_tensors=1
    )
    with pytest.raises(ValueError, match=sentence):
        GgufFile(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no GGUF file"),
        (b"GGML" + bytes(99), "does not begin as one"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(99), "its version is 1, not 2 or 3"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(99), "its version is 50331648"),  # big-endian
    ],
)
def test_another_format_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        GgufFile(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        GgufFile(tmp_path / "missing.gguf")
    with pytest.raises(ValueError, match="no plain file"):
        GgufFile(tmp_path)


def test_without_the_gguf_package_the_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "a.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ValueError, match=r"gguf package, .* pip install -e '\.\[models\]'"):
        GgufFile(path)
