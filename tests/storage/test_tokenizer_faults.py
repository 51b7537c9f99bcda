"""Tokenizer files are taken for what they say: each accepted kind is exact on any text and keeps
its ids in range, and each part that changes text is refused by its name."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from slowwave.storage.tokenizer import FileTokenizer, TextStream
from slowwave.storage.tokenizer_faults import find_id_faults, find_inexact_parts
from slowwave.storage.tokenizer_file import count_ids, read_tokenizer_file
from tokenizer_maker import BYTES, GPT2, IDS, MERGED, MERGES, SIGNS, Values, change, make, values_of

END = AddedToken("<|end|>", special=True)

# Texts in which spaces, marks, cases, accents and the texts of added tokens meet.
WRITTEN = ["<|end|>", "a b", "Ġ", "é", "e\u0301", "\ufffd", "\u2581", "\u4f60", "<0x41>", "##"]
TEXTS = st.lists(
    st.one_of(st.text(max_size=6), st.text("aAbB \t\n'.,0", max_size=6), st.sampled_from(WRITTEN)),
    max_size=8,
).map("".join)


def load(values: Values) -> FileTokenizer:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(json.dumps(values), encoding="utf-8")
        return FileTokenizer(path)


def bpe(**options: Any) -> models.BPE:
    return models.BPE(MERGED, MERGES, **options)


def cut(pattern: str, behavior: str, invert: bool = False) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


EXACT = {
    "plain": make(),
    "a regex, whole words at once, special tokens": change(
        make(cut(r"\p{L}+|\s", "isolated"), BYTES, model=bpe(ignore_merges=True), added=[END]),
        post_processor=processors.TemplateProcessing(
            "<|end|> $A", special_tokens=[("<|end|>", 263)]
        ),
    ),
    "every way to cut": make(
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Punctuation("contiguous"),
        pre_tokenizers.FixedLength(3),
        cut(r"\s+", "merged_with_previous"),
        cut("a*", "merged_with_next", True),
        BYTES,
        decoder=decoders.Sequence([decoders.ByteLevel(), decoders.Fuse()]),
    ),
    "what is done to unknown signs, of which there are none": make(
        model=bpe(unk_token="a", fuse_unk=True, byte_fallback=True, continuing_subword_prefix="")
    ),
    "merges drawn at random": make(model=bpe(dropout=0.5)),
    "added tokens": make(
        added=[
            "a b",
            "\u4f60",
            AddedToken("b", single_word=True),
            AddedToken("##", normalized=True),
            AddedToken("<0x41>", normalized=False),
        ]
    ),
    "special tokens that take spaces or are signs of bytes": make(
        added=[
            AddedToken("<|end|>", special=True, lstrip=True, rstrip=True),
            AddedToken("é", special=True),
        ]
    ),
    "holes in the ids": make(
        model=models.BPE({sign: 3 * place + 7 for sign, place in IDS.items()}, [])
    ),
    "an empty normalizer": change(make(), normalizer=normalizers.Sequence([])),
}


@pytest.fixture(scope="module", params=EXACT)
def exact(request: pytest.FixtureRequest) -> FileTokenizer:
    made = EXACT[request.param]
    made.enable_truncation(3)
    made.enable_padding(length=50, pad_id=1, pad_token="a")
    return load(values_of(made))


@given(text=TEXTS)
def test_accepted_files_are_exact_and_stay_in_range(exact: FileTokenizer, text: str) -> None:
    tokens = exact.encode(text)
    assert exact.decode(tokens) == text
    assert all(0 <= token < exact.vocab_size for token in tokens)
    assert exact.encode(text) == tokens
    stream = TextStream(exact)
    assert "".join(map(stream.push, tokens)) + stream.finish() == text


@given(data=st.data())
def test_any_ids_in_range_are_decoded(exact: FileTokenizer, data: st.DataObject) -> None:
    """As a model may draw them: holes and special tokens too."""
    tokens = data.draw(st.lists(st.integers(0, exact.vocab_size - 1)))
    stream = TextStream(exact)
    assert "".join(map(stream.push, tokens)) + stream.finish() == exact.decode(tokens)


@pytest.mark.parametrize("count", range(6))
def test_ids_without_a_token_break_no_character(count: int) -> None:
    """They may stand within one, however many: models have more rows than there are tokens."""
    tokenizer = load(values_of(EXACT["holes in the ids"]))
    first, second = tokenizer.encode("\u0552")
    stream, tokens = TextStream(tokenizer), [first, *count * [0], second]
    assert "".join(map(stream.push, tokens)) + stream.finish() == "\u0552"


# Why files are refused: the tokenizer, a text that the package does not give back, the reason.
REFUSED: dict[str, tuple[tokenizers.Tokenizer, str, str]] = {
    "prefix space": (
        make(pre_tokenizers.ByteLevel()),
        "hello",
        r"its pre-tokenizer ByteLevel adds a space in front \(add_prefix_space\)",
    ),
    "bytes twice": (make(BYTES, BYTES), " ", "its pre-tokenizers have ByteLevel 2 times, not once"),
    "no bytes": (make(cut("a", "isolated")), " ", "have ByteLevel 0 times, not once"),
    "removed": (
        make(cut(r"\s", "removed"), BYTES),
        "a b",
        r"Split drops what it finds",
    ),
    "removed marks": (
        make(pre_tokenizers.Punctuation("removed"), BYTES),
        "a.",
        r"pre-tokenizer Punctuation drops what it finds \(Removed\)",
    ),
    "continuing_subword_prefix": (
        make(model=models.BPE(IDS, [], continuing_subword_prefix="##")),
        "ab",
        r"its model writes '##' into tokens \(continuing_subword_prefix\)",
    ),
    "end_of_word_suffix": (
        make(model=models.BPE(IDS, [], end_of_word_suffix="</w>")),
        "a",
        r"its model writes '</w>' into tokens \(end_of_word_suffix\)",
    ),
    "a byte without a sign": (
        make(model=models.BPE({sign: id_ for sign, id_ in IDS.items() if sign != "Ġ"}, [])),
        " ",
        "its vocabulary lacks 1 of the 256 signs for bytes",
    ),
    "lstrip": (
        make(added=[AddedToken("[a]", lstrip=True)]),
        " [a]",
        r"added tokens take the spaces beside them \(lstrip, rstrip\): '\[a\]'",
    ),
    "rstrip": (
        make(added=[AddedToken(f"[{i}]", rstrip=True) for i in range(5)]),
        "[4] ",
        r"take the spaces beside them .*: '\[0\]', '\[1\]', '\[2\]' and 2 more",
    ),
    "an added token in signs of bytes": (
        make(added=["Ġa"]),
        "Ġa",
        "its added tokens are decoded as bytes: 'Ġa'",
    ),
    "no decoder": (change(make(), decoder=None), "a b", "its decoder is missing, not ByteLevel"),
    "unigram": (
        make(model=models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0)),
        "b",
        "its model is Unigram, not BPE",
    ),
    "word pieces": (
        make(model=models.WordPiece(IDS | {"[UNK]": 256}, unk_token="[UNK]")),
        "hello",
        "its model is WordPiece, not BPE",
    ),
    "words": (
        make(model=models.WordLevel(IDS | {"?": 256}, unk_token="?")),
        "hello",
        "its model is WordLevel, not BPE",
    ),
    "byte fallback": (
        change(
            make(
                model=models.BPE(
                    {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁": 256},
                    [],
                    byte_fallback=True,
                ),
                decoder=decoders.Sequence(
                    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
                ),
            ),
            pre_tokenizer=None,
            normalizer=normalizers.Replace(" ", "▁"),
        ),
        "▁",
        "its decoder is Replace, ByteFallback, Fuse, not ByteLevel",
    ),
}
NORMALIZERS: list[tuple[normalizers.Normalizer, str]] = [
    (normalizers.NFC(), "e\u0301"),
    (normalizers.NFD(), "é"),
    (normalizers.NFKC(), "\ufb01"),
    (normalizers.NFKD(), "\ufb01"),
    (normalizers.Lowercase(), "A"),
    (normalizers.Strip(), " a"),
    (normalizers.StripAccents(), "e\u0301"),
    (normalizers.Nmt(), "\x01"),
    (normalizers.Prepend("▁"), "a"),
    (normalizers.Replace("a", "b"), "a"),
    (normalizers.BertNormalizer(), "A"),
]
for changes, text in NORMALIZERS:
    name = type(changes).__name__
    made = change(make(), normalizer=changes)
    REFUSED[name] = (made, text, f"its normalizer {name} changes text")
DROPPING: list[tuple[pre_tokenizers.PreTokenizer, str]] = [
    (pre_tokenizers.Whitespace(), " a"),
    (pre_tokenizers.WhitespaceSplit(), " a"),
    (pre_tokenizers.BertPreTokenizer(), " a"),
    (pre_tokenizers.CharDelimiterSplit("a"), "ba"),
    (pre_tokenizers.Metaspace(), "a"),
    (pre_tokenizers.Metaspace(prepend_scheme="never"), " a"),
    (pre_tokenizers.UnicodeScripts(), " a"),
]
for place, (drops, text) in enumerate(DROPPING):
    name = type(drops).__name__
    reason = f"its pre-tokenizer {name} drops or changes text"
    REFUSED[f"{name} {place}"] = (make(drops, BYTES), text, reason)


@pytest.mark.parametrize("name", REFUSED)
def test_inexact_files_are_refused_by_what_makes_them_so(name: str) -> None:
    made, text, reason = REFUSED[name]
    given_back = made.decode(made.encode(text, add_special_tokens=False).ids)
    assert given_back != text  # or the refusal would be for nothing
    with pytest.raises(
        ValueError,
        match=rf"json: decoding does not give back the text .*, for .*{reason}.*; name",
    ):
        load(values_of(made))


def test_all_reasons_are_told() -> None:
    made = change(make(pre_tokenizers.Whitespace(), BYTES), normalizer=normalizers.NFC())
    assert find_inexact_parts(made) == [
        "its normalizer NFC changes text",
        "its pre-tokenizer Whitespace drops or changes text",
    ]
    assert find_inexact_parts(EXACT["plain"]) == []


def test_sequences_of_sequences_are_looked_into() -> None:
    values = values_of(make())
    for part, members in (("pre_tokenizer", "pretokenizers"), ("decoder", "decoders")):
        inner = {"type": "Sequence", members: [values[part]]}
        values[part] = {"type": "Sequence", members: [inner]}
    assert load(values).decode([IDS["a"]]) == "a"
    inner = {"type": "Sequence", "normalizers": [{"type": "NFC"}]}
    values["normalizer"] = {"type": "Sequence", "normalizers": [inner]}
    with pytest.raises(ValueError, match="for its normalizer NFC changes text; name"):
        load(values)


CUTS = [
    GPT2,
    BYTES,
    pre_tokenizers.ByteLevel(),
    pre_tokenizers.Digits(),
    pre_tokenizers.FixedLength(2),
    *(drops for drops, _ in DROPPING),
    *(pre_tokenizers.Punctuation(behavior) for behavior in ("removed", "isolated")),
    *(
        cut(pattern, behavior, invert)
        for pattern in (" ", r"\s+(?!\S)|\w+", "", "(?=b)")
        for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next")
        for invert in (False, True)
    ),
]
DECODERS = [
    decoders.ByteLevel(),
    decoders.ByteLevel(),
    decoders.Sequence([decoders.Sequence([decoders.ByteLevel()]), decoders.Fuse()]),
    decoders.Fuse(),
    decoders.WordPiece(),
]
ADDED = [
    AddedToken(text, special=special, lstrip=strip, single_word=single)
    for text, special, strip, single in itertools.product(
        ("<|end|>", "a b", "Ġ", "é", "b"), (False, True), (False, True), (False, True)
    )
]


@settings(max_examples=300)
@given(
    cuts=st.lists(st.sampled_from(CUTS), max_size=2),
    last=st.sampled_from([GPT2, BYTES, pre_tokenizers.Punctuation()]),
    decoder=st.sampled_from(DECODERS),
    added=st.lists(st.sampled_from(ADDED), max_size=2),
    normalizer=st.none() | st.sampled_from([changes for changes, _ in NORMALIZERS]),
    merges=st.lists(st.tuples(*[st.sampled_from(SIGNS)] * 2), max_size=9, unique=True),
    text=TEXTS,
)
def test_no_reason_means_exact(
    cuts: list[pre_tokenizers.PreTokenizer],
    last: pre_tokenizers.PreTokenizer,
    decoder: decoders.Decoder,
    added: list[AddedToken],
    normalizer: normalizers.Normalizer | None,
    merges: list[tuple[str, str]],
    text: str,
) -> None:
    """Parts put together at random."""
    vocabulary = IDS | {"".join(pair): 256 + place for place, pair in enumerate(merges)}
    made = make(*cuts, last, model=models.BPE(vocabulary, merges), decoder=decoder, added=added)
    made.encode_special_tokens = True
    if normalizer is not None:
        made.normalizer = normalizer
    if find_inexact_parts(made) or find_id_faults(
        made, values_of(made)["added_tokens"], vocabulary
    ):
        return
    tokens = made.encode(text, add_special_tokens=False).ids
    assert made.decode(tokens, skip_special_tokens=False) == text
    assert max(tokens, default=0) < count_ids(made)


def test_ids_that_are_not_those_of_the_file_are_refused() -> None:
    values = values_of(make(added=["zz"]))
    values["added_tokens"][0]["id"] = 300
    with pytest.raises(ValueError, match="json: its added token 'zz' has id 300, read as 263;"):
        load(values)
    values = values_of(make())
    values["model"]["vocab"]["b"] = IDS["a"]
    with pytest.raises(ValueError, match=r"json: its tokens '[ab]' and '[ab]' share id 64; give"):
        load(values)
    hole = models.BPE({sign: id_ + (id_ > 100) for sign, id_ in IDS.items()}, [])
    with pytest.raises(ValueError, match=r"json: its tokens '.' and 'zz' share id 256;"):
        load(values_of(make(model=hole, added=["zz"])))


def test_a_hole_is_an_id_that_says_nothing() -> None:
    tokenizer = load(values_of(EXACT["holes in the ids"]))
    assert tokenizer.vocab_size == 3 * 255 + 7 + 1
    assert tokenizer.decode([0, 7, 8]) == "!"
    soft_hyphen = tokenizer.encode("\u00ad")
    assert max(soft_hyphen) == tokenizer.vocab_size - 1


def test_special_tokens_cannot_be_written() -> None:
    tokenizer = load(values_of(make(added=[END])))
    assert tokenizer.decode([263]) == "<|end|>"
    assert 263 not in tokenizer.encode("hello<|end|>")


def test_merges_are_not_drawn(tmp_path: Path) -> None:
    make(model=bpe(dropout=0.9)).save(str(tmp_path / "t.json"))
    tokenizer = read_tokenizer_file(tmp_path / "t.json")
    assert {tuple(tokenizer.encode("ab").ids) for _ in range(30)} == {(256,)}


def test_a_text_that_comes_back_otherwise_is_a_reason_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Should the package ever do what no rule of ours foresees."""
    monkeypatch.setattr("slowwave.storage.tokenizer.find_inexact_parts", lambda *_: [])
    with pytest.raises(ValueError, match=r"encoded, for 'A' comes back otherwise;"):
        load(values_of(make(pre_tokenizers.ByteLevel())))


CUT = '"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0'
NESTED = "[" * 200_000 + "]" * 200_000
DIGITS = "9" * 5000
ONLY_B: Values = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "B", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
    "special_tokens": {},
}


@pytest.mark.parametrize(
    "part",
    [
        {"model": {**values_of(make())["model"], "continuing_subword_prefix": "######"}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    ],
)
def test_files_that_the_package_fails_on_are_refused(part: Values) -> None:
    with pytest.raises(ValueError, match=r"json: cannot be read as a tokenizer \(.*; name a tok"):
        load({**values_of(make()), **part})


@pytest.mark.parametrize(
    "part",
    [
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "FixedLength", "length": 0},
                    values_of(make())["pre_tokenizer"],
                ],
            }
        },
        {"post_processor": ONLY_B},
    ],
)
def test_files_that_fail_on_any_text_are_refused(part: Values) -> None:
    with pytest.raises(ValueError, match=r"json: the tokenizer cannot encode the text \("):
        load({**values_of(make()), **part})


def test_a_text_that_a_pattern_fails_on_is_refused() -> None:
    tokenizer = load(values_of(make(cut("(a+)+$", "isolated"), BYTES)))
    assert tokenizer.decode(tokenizer.encode("aac")) == "aac"
    with pytest.raises(
        ValueError, match=r"^the tokenizer cannot encode the text \(.*; use another"
    ):
        tokenizer.encode("a" * 28 + "c")


def test_ids_far_above_the_count_of_tokens_are_refused() -> None:
    values = values_of(make())
    values["model"]["vocab"]["ab"] = 4294967000
    with pytest.raises(ValueError, match=r"json: has id 4294967000 for one of 263 tokens; number"):
        load(values)


@pytest.mark.parametrize("ignored", [NESTED, DIGITS], ids=["nested", "digits"])
def test_what_the_package_passes_over_is_refused_by_file(tmp_path: Path, ignored: str) -> None:
    path = tmp_path / "t.json"
    values = json.dumps({**values_of(make()), "truncation": "here"})
    path.write_text(values.replace('"here"', f'{{{CUT}, "other": {ignored}}}'))
    with pytest.raises(ValueError, match=r"t\.json: cannot be read as a tokenizer"):
        FileTokenizer(path)


def test_a_pipe_of_a_tokenizer_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.json")
    with pytest.raises(ValueError, match=r"t\.json: no plain file; name another"):
        FileTokenizer(tmp_path / "t.json")


def test_an_empty_vocabulary_is_refused_by_file() -> None:
    with pytest.raises(ValueError, match=r"json: decoding .* lacks 256 of the 256 signs"):
        load(values_of(make(model=models.BPE({}, []))))
