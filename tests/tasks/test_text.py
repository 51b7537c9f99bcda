"""Text, against an oracle that finds every stream again in the files it was cut from."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slowwave.tasks.draws import SPLITS
from slowwave.tasks.text import TextConfig
from slowwave.tasks.text.task import Text

PIECE, CONTEXT, WINDOW = 12, 7, 3
Place = tuple[int, int]


def write_files(folder: Path, *contents: bytes) -> tuple[str, ...]:
    paths = [folder / f"{number}.txt" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return tuple(map(str, paths))


def random_bytes(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(256, size=count, dtype=np.uint8).tobytes()


def make_text(files: tuple[str, ...], **changes: Any) -> Text:
    sizes: dict[str, Any] = {"window": WINDOW, "context": CONTEXT, "piece": PIECE, **changes}
    return Text(TextConfig(files=files, **sizes))


def draw_streams(task: Text, split: str, count: int) -> list[bytes]:
    """Streams with the token after them, which inputs and targets must agree on."""
    stream = task.batch(split, range(count)).stream
    assert torch.equal(stream.inputs[:, 1:], stream.targets[:, :-1])
    whole = torch.cat([stream.inputs, stream.targets[:, -1:]], dim=1)
    return [bytes(row) for row in whole.tolist()]


def find(stream: bytes, contents: tuple[bytes, ...]) -> Place:
    """The only file that holds a stream, and where."""
    [place] = [(n, text.find(stream)) for n, text in enumerate(contents) if stream in text]
    return place


def touched(place: Place) -> set[Place]:
    """The pieces that a stream and the token after it stand in."""
    number, start = place
    return {(number, at // PIECE) for at in range(start, start + CONTEXT + 1)}


def test_splits_share_no_piece_and_reach_every_place(tmp_path: Path) -> None:
    """Any place from which a stream stays inside its split is drawn, about as often as others."""
    contents = (random_bytes(500), random_bytes(301, seed=1), b"", b"short")
    task = make_text(write_files(tmp_path, *contents))
    drawn = {
        split: Counter(find(s, contents) for s in draw_streams(task, split, 8000))
        for split in SPLITS
    }
    pieces = {split: set[Place]().union(*map(touched, drawn[split])) for split in SPLITS}
    assert sum(map(len, pieces.values())) == len(set.union(*pieces.values()))
    for split in SPLITS:
        fitting = {
            (number, start)
            for number, content in enumerate(contents)
            for start in range(len(content) - CONTEXT)
            if touched((number, start)) <= pieces[split]
        }
        assert set(drawn[split]) == fitting
        expected = 8000 / len(fitting)
        assert all(abs(n - expected) < 5 * expected**0.5 for n in drawn[split].values())
    # All that is left over are ends of files too short for a stream of their own.
    number_of_pieces = sum(-(-len(content) // PIECE) for content in contents)
    assert len(set.union(*pieces.values())) >= number_of_pieces - 3


def split_of_pieces(task: Text, content: bytes) -> dict[bytes, str]:
    """The split of each piece of a file that a stream was seen to stand in."""
    found: dict[bytes, str] = {}
    for split in SPLITS:
        for stream in draw_streams(task, split, 3000):
            start = content.find(stream)
            if start >= 0:
                for _, piece in touched((0, start)):
                    found[content[piece * PIECE : (piece + 1) * PIECE]] = split
    return found


def test_a_piece_keeps_its_split_whatever_stands_around_it(tmp_path: Path) -> None:
    """Files renamed, added and reordered, and pieces that come twice."""
    content = random_bytes(40 * PIECE)
    before = split_of_pieces(make_text(write_files(tmp_path, content)), content)
    assert len(before) == 40
    pieces = [content[start : start + PIECE] for start in range(0, len(content), PIECE)]
    other = tmp_path / "other"
    other.mkdir()
    turned = b"".join(reversed(pieces))
    files = write_files(other, random_bytes(100, seed=2), turned, content)
    assert split_of_pieces(make_text(files[1:2]), turned) == before
    for split in SPLITS:
        for stream in draw_streams(make_text(files), split, 500):
            for piece, home in before.items():
                # A whole piece, or enough of one to know it by.
                assert not (stream[:8] in piece and home != split)


def test_moving_the_files_changes_no_example(tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    content = random_bytes(700)
    one = make_text(write_files(tmp_path, content)).batch("train", range(9)).stream.inputs
    other = make_text(write_files(tmp_path / "moved", content)).batch("train", range(9))
    assert torch.equal(one, other.stream.inputs)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(window=st.integers(1, 20), context=st.integers(1, 40), index=st.integers(0, 2**62))
def test_every_token_is_a_target_by_its_place_in_the_window(
    tmp_path: Path, window: int, context: int, index: int
) -> None:
    files = write_files(tmp_path, random_bytes(4000))
    task = make_text(files, window=window, context=context, piece=41)
    stream = task.batch("train", [index]).stream
    labels = task.groups
    assert stream.answers.tolist() == [list(range(context))]
    read = 0
    for group in stream.groups[0].tolist():
        read = 1 if read == window else read + 1
        first, _, last = labels[group].partition("-")
        assert int(first) <= read <= int(last or first)
    bounds = [int(bound) for label in labels.values() for bound in label.split("-")]
    assert bounds[0] == 1
    assert bounds[-1] == min(window, context)
    assert bounds == sorted(bounds)


def test_every_token_is_a_target_by_its_window_of_the_stream(tmp_path: Path) -> None:
    files = write_files(tmp_path, random_bytes(4000))
    task = make_text(files, window=16, context=40, piece=41, group="window")
    assert task.group_name == "window"
    assert task.groups == {0: "1", 1: "2", 2: "3"}
    groups = task.batch("train", [0, 1]).stream.groups
    assert groups.tolist() == [[0] * 16 + [1] * 16 + [2] * 8] * 2


def test_floors_are_what_the_most_common_byte_scores(tmp_path: Path) -> None:
    content = bytes(random_bytes(6000)).translate(bytes([32] * 100 + list(range(100, 256))))
    task = make_text(write_files(tmp_path, content))
    counts = Counter(b"".join(s[1:] for s in draw_streams(task, "test", 4000)))
    share = counts[32] / counts.total()
    assert task.floors() == {"constant": pytest.approx(share, abs=0.03)}


def test_folders_patterns_and_files_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "deep" / ".hidden").mkdir(parents=True)
    parts = {
        "a.txt": b"a" * 300,
        "deep/b.md": b"b" * 300,
        "deep/c.txt": b"c" * 300,
        "deep/.hidden/d.txt": b"d" * 300,
        "deep/.e.txt": b"e" * 300,
        "deep/f.png": b"\0" + b"f" * 300,
    }
    for name, content in parts.items():
        (tmp_path / name).write_bytes(content)

    def letters(*entries: str) -> set[str]:
        task = make_text(tuple(str(tmp_path / entry) for entry in entries), piece=8)
        streams = [draw_streams(task, split, 200) for split in SPLITS]
        return set().union(*(s.decode() for group in streams for s in group))

    # Pieces that are alike belong to one split, which leaves nothing for the others.
    with pytest.raises(ValueError, match="split has no 8 in a row"):
        letters("a.txt")
    for number, (name, content) in enumerate(parts.items()):
        noise = bytes(97 + number + 8 * (byte % 2) for byte in random_bytes(400, seed=number))
        (tmp_path / name).write_bytes((b"\0" if content[:1] == b"\0" else b"") + noise)
    pairs = [{chr(97 + n), chr(105 + n)} for n in range(6)]
    assert letters(".") == pairs[0] | pairs[1] | pairs[2]
    assert letters("deep") == pairs[1] | pairs[2]
    assert letters("**/*.txt") == pairs[0] | pairs[2]
    assert letters("a.txt", "deep/.e.txt") == pairs[0] | pairs[4]
    once, twice = (
        make_text(tuple(str(tmp_path / "a.txt") for _ in range(count))) for count in (1, 2)
    )
    assert torch.equal(
        once.batch("train", range(50)).stream.inputs, twice.batch("train", range(50)).stream.inputs
    )


def save_tokenizer(path: Path) -> str:
    """Words of a tiny vocabulary, with settings that must not reach us: cut, padded, marked."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[UNK]", "[BOS]", "to", "sleep", "perchance", "dream", ","]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A", special_tokens=[("[BOS]", 1)]
    )
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=2000, pad_id=1, pad_token="[BOS]")
    tokenizer.save(str(path))
    return str(path)


def test_a_tokenizer_file_makes_the_tokens(tmp_path: Path) -> None:
    words = ["to", "sleep", "perchance", "dream", ","]
    picked = np.random.default_rng(0).integers(5, size=900)
    content = " ".join(words[word] for word in picked)
    (tmp_path / "poem.txt").write_text(content)
    task = make_text((str(tmp_path / "poem.txt"),), tokenizer=save_tokenizer(tmp_path / "t.json"))
    assert task.vocab_size == 7
    assert task.bytes_per_token == len(content) / 900
    expected = [2 + int(word) for word in picked]
    runs = {tuple(expected[at : at + CONTEXT]) for at in range(900)}
    for split in SPLITS:
        rows = task.batch(split, range(100)).stream.inputs.tolist()
        assert set(map(tuple, rows)) <= runs
    example = task.example("test", 1)
    assert example.context[0] == " ".join(words[token - 2] for token in example.tokens[:WINDOW])


def test_ids_of_a_tokenizer_may_have_holes(tmp_path: Path) -> None:
    values = json.loads(Path(save_tokenizer(tmp_path / "t.json")).read_text())
    values["model"]["vocab"] |= {"sleep": 17, "dream": 40}
    (tmp_path / "t.json").write_text(json.dumps(values))
    words = np.random.default_rng(0).choice(["to", "sleep", "perchance", "dream"], 900)
    (tmp_path / "poem.txt").write_text(" ".join(words))
    task = make_text((str(tmp_path / "poem.txt"),), tokenizer=str(tmp_path / "t.json"))
    assert task.vocab_size == 41
    assert task.batch("train", range(50)).stream.inputs.max() == 40
    assert 0.25 <= task.floors()["constant"] < 0.5


def test_what_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write_files(tmp_path, random_bytes(900))
    with pytest.raises(ValueError, match=r"^task\.files is empty; name files"):
        make_text(())
    with pytest.raises(ValueError, match=r"^task\.files names '.*none', which leads to no file;"):
        make_text((*files, str(tmp_path / "none")))
    with pytest.raises(ValueError, match=r"holds 30 tokens, of which the validation split has no"):
        make_text(write_files(tmp_path, random_bytes(30)))
    files = write_files(tmp_path, b"\xff" * 900)
    with pytest.raises(ValueError, match=r"0\.txt: not UTF-8 \(.*\); convert it"):
        make_text(files, tokenizer=save_tokenizer(tmp_path / "t.json"))
    files = write_files(tmp_path, b"to rest " * 900)
    values = json.loads((tmp_path / "t.json").read_text())
    values["model"]["unk_token"] = "[NONE]"
    (tmp_path / "strict.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"0\.txt: task\.tokenizer has no tokens for it \(.*\); "):
        make_text(files, tokenizer=str(tmp_path / "strict.json"))
    values["model"]["unk_token"] = "[UNK]"
    values["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    (tmp_path / "slow.json").write_text(json.dumps(values))
    endless = write_files(tmp_path, b"a" * 28 + b"c")
    with pytest.raises(ValueError, match=r"0\.txt: task\.tokenizer has no tokens for it \(.*\); "):
        make_text(endless, tokenizer=str(tmp_path / "slow.json"))
    files = write_files(tmp_path, b"to rest " * 900)
    (tmp_path / "broken.json").write_text(json.dumps({"model": 3}))
    for name in ("broken.json", "missing.json"):
        with pytest.raises(ValueError, match=rf"{name}: cannot be read as a tokenizer"):
            make_text(files, tokenizer=str(tmp_path / name))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match=r"is not installed; install it in a checkout"):
        make_text(files, tokenizer=str(tmp_path / "t.json"))


def test_examples_are_what_batches_hold(tmp_path: Path) -> None:
    content = b"".join(b"line %d of many\n" % number for number in range(200))
    task = make_text(write_files(tmp_path, content), window=9, context=30, piece=50)
    example = task.example("validation", 5)
    stream = task.batch("validation", [5]).stream
    assert example.tokens == tuple(stream.inputs[0].tolist())
    assert example.targets == tuple(stream.targets[0].tolist())
    assert list(map(len, example.context)) == [9, 9, 9, 3]
    assert "".join(example.context).encode() == bytes(example.tokens)
    assert all(
        f"window {n}: {text!r}" in task.render(example)
        for n, text in enumerate(example.context, start=1)
    )
