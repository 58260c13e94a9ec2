"""One text, one list of ids: reference, fast path and two foreign libraries agree."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken_ext.openai_public import r50k_pat_str
from tokenizers import Tokenizer as Foreign
from tokenizers import models, pre_tokenizers

from gptwo.errors import ModelError
from gptwo.tokens import fast
from gptwo.tokens.bpe import BYTE_ORDER, BYTE_TO_CHAR, ReferenceBPE, cut, stretches
from gptwo.tokens.fast import FastBPE, endless_runs_cut, merges_back
from gptwo.tokens.tokenizer import Tokenizer, shown

GOLDEN = {
    "Hello world": [15496, 995],
    "Hello, I'm a language model,": [15496, 11, 314, 1101, 257, 3303, 2746, 11],
    "<|endoftext|>": [27, 91, 437, 1659, 5239, 91, 29],
    "HELLO'S we'LL we'll": [13909, 3069, 46, 6, 50, 356, 6, 3069, 356, 1183],
    "  two spaces": [220, 734, 9029],
    "a\n\n b": [64, 628, 275],
    "naïve 日本 😀": [2616, 38776, 10545, 245, 98, 17312, 105, 30325, 222],
    "    x = 1": [220, 220, 220, 2124, 796, 352],
}
# White space before a contraction, doubled newlines, odd spaces, numbers that are no digits.
TRAPS = [
    "\t's",
    "\n'll",
    "\u00a0'd",
    "\n\n",
    "\r\n\r\n x",
    "\u3000\u2003a",
    "x\x85y\x1cz",
    "½ⅷ٣",
    "''s",
]
SPACES = " \t\n\r\x0b\x0c\x1c\x85\u00a0\u1680\u2003\u2028\u3000\ufeff\u200b"
ODD_TEXT = st.text(alphabet=st.sampled_from(SPACES + "'sdmtlvreSD aé日😀1½_.<|"), max_size=30)
ANY_TEXT = st.one_of(st.text(max_size=60), ODD_TEXT)


def tiktoken_of(tokenizer: Tokenizer) -> tiktoken.Encoding:
    """The library by itself, with the cut it ships for GPT-2."""
    ranks = {token: i for i, token in enumerate(tokenizer.reference.tokens)}
    return tiktoken.Encoding(
        "test",
        pat_str=r50k_pat_str,
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": len(ranks)},
    )


def foreign_of(tokenizer: Tokenizer) -> Foreign:
    """The tokenizers library over the same merges; no special tokens, so all text is text."""
    vocabulary = {shown(token): i for i, token in enumerate(tokenizer.reference.tokens)}
    merges = [(shown(a), shown(b)) for a, b in tokenizer.reference.merges]
    built = Foreign(models.BPE(vocab=vocabulary, merges=merges))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return built


@pytest.mark.parametrize("text, ids", GOLDEN.items())
def test_golden_ids_of_gpt2(gpt2: Tokenizer, text: str, ids: list[int]) -> None:
    assert gpt2.encode(text) == ids
    assert gpt2.reference.encode(text) == ids
    assert gpt2.decode(ids) == text


def test_gpt2_numbers_its_ids_as_the_paper_does(gpt2: Tokenizer) -> None:
    assert (gpt2.vocab_size, gpt2.eot) == (50_257, 50_256)
    assert gpt2.encode("!") == [0] and gpt2.encode("\n") == [198] and gpt2.encode(" ") == [220]
    assert BYTE_TO_CHAR[ord(" ")] == "Ġ" and BYTE_TO_CHAR[0] == "Ā"
    assert gpt2.token_bytes(256) == b" t" and gpt2.token_bytes(50_255) == b" gazed"
    assert gpt2.decode([50_256]) == "<|endoftext|>"


def test_four_encoders_agree_on_real_text(gpt2: Tokenizer, real_texts: list[str]) -> None:
    library, foreign = tiktoken_of(gpt2), foreign_of(gpt2)
    cached = FastBPE(gpt2.reference)
    cached._library = None  # the path of vocabularies the library cannot take
    assert sum(map(len, real_texts)) > 500_000
    for text in real_texts:
        ids = gpt2.encode(text)
        assert ids == library.encode_ordinary(text)
        assert ids == foreign.encode(text).ids
        assert ids == cached.encode(text)
        assert gpt2.decode(ids) == text
    for text in real_texts[::12]:
        assert gpt2.reference.encode(text) == gpt2.encode(text)


@pytest.mark.parametrize("text", TRAPS)
def test_four_encoders_agree_on_traps(gpt2: Tokenizer, text: str) -> None:
    ids = gpt2.reference.encode(text)
    assert gpt2.encode(text) == ids
    assert tiktoken_of(gpt2).encode_ordinary(text) == ids
    assert foreign_of(gpt2).encode(text).ids == ids


@settings(max_examples=400, deadline=None)
@given(text=ANY_TEXT)
def test_four_encoders_agree_on_any_text(learned: Tokenizer, text: str) -> None:
    ids = learned.reference.encode(text)
    assert learned.encode(text) == ids
    assert tiktoken_of(learned).encode_ordinary(text) == ids
    assert foreign_of(learned).encode(text).ids == ids
    assert learned.decode(ids) == text
    assert "".join(cut(text)) == text


def test_every_code_point_falls_into_the_same_class(learned: Tokenizer) -> None:
    """Letters, numbers, white space, others: both engines know the same Unicode."""
    points = [*range(0xD800), *range(0xE000, 0x20000), *range(0x20000, 0x110000, 97)]
    for first in range(0, len(points), 2048):
        some = [chr(point) for point in points[first : first + 2048]]
        text = "".join(f"a{c}1{c}.{c} {c}" for c in some)
        assert learned.encode(text) == learned.reference.encode(text), hex(points[first])


@settings(max_examples=300, deadline=None)
@given(data=st.one_of(st.binary(max_size=60), ANY_TEXT.map(str.encode)))
def test_any_bytes_come_back(learned: Tokenizer, data: bytes) -> None:
    ids = learned.encode(data)
    assert ids == learned.reference.encode(data)
    assert learned.decode_bytes(ids) == data


def test_single_bytes_and_broken_utf8_come_back(gpt2: Tokenizer) -> None:
    for byte in range(256):
        assert gpt2.encode(bytes([byte])) == [BYTE_ORDER.index(byte)]
        assert gpt2.token_bytes(BYTE_ORDER.index(byte)) == bytes([byte])
    broken = [
        b"a\xffb",
        b"\xe6\x97",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"ok \xf0\x9f\x98 ok",
        b"\x80" * 999,
    ]
    for data in (*broken, bytes(range(256)) * 3):
        assert gpt2.decode_bytes(gpt2.encode(data)) == data
        assert gpt2.encode(data) == gpt2.reference.encode(data)
    assert gpt2.decode(gpt2.encode(b"a\xff")) == "a\ufffd"


def test_valid_bytes_are_the_text_they_spell(gpt2: Tokenizer) -> None:
    for text in GOLDEN:
        assert gpt2.encode(text.encode()) == gpt2.encode(text)
    assert gpt2.encode("") == gpt2.encode(b"") == []
    assert stretches(b"ab\xff\xfec") == ["ab", b"\xff\xfe", "c"]


def test_lone_surrogates_become_the_replacement_character(gpt2: Tokenizer) -> None:
    for text in ("a\ud800b", "\udcff", "\udfff\ud800"):
        plain = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
        assert gpt2.encode(text) == gpt2.reference.encode(text) == gpt2.encode(plain)


def test_contractions_are_cut_in_lower_case_only() -> None:
    assert cut("we'll WE'LL it's IT'S") == [
        "we", "'ll", " WE", "'", "LL", " it", "'s", " IT", "'", "S",
    ]  # fmt: skip
    assert cut("\t's\n'll\u00a0'd") == ["\t", "'s", "\n", "'ll", "\u00a0", "'d"]
    assert cut("a\n\n b   c ") == ["a", "\n\n", " b", "  ", " c", " "]


def test_the_special_token_is_never_made_from_text(gpt2: Tokenizer, learned: Tokenizer) -> None:
    for tokenizer in (gpt2, learned):
        for text in ("<|endoftext|>", "a<|endoftext|>\n\nb", b"<|endoftext|>"):
            assert tokenizer.eot not in tokenizer.encode(text)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "".join(chr(97 + (i * i * 7 + i // 3) % 26) for i in range(1_000_000)),
        " " * 1_000_000,
        " " * 1_000_000 + "x",
        ("\n \u3000" * 40_000 + "x") * 3,
        (" " * 99_999 + "x") * 10,
        "!" * 1_000_000,
        "日" * 300_000,
    ],
    ids=["letters", "word", "spaces", "spaces-x", "mixed", "just-under", "marks", "ideographs"],
)
def test_endless_pieces_take_no_endless_time(gpt2: Tokenizer, text: str) -> None:
    """Quadratic work would run into the time limit of the tests."""
    assert gpt2.decode(gpt2.encode(text)) == text


def test_endless_bytes_that_are_no_text_take_no_endless_time(gpt2: Tokenizer) -> None:
    data = bytes(128 + (i * i * 7 + i // 3) % 64 for i in range(1_000_000))
    assert gpt2.decode_bytes(gpt2.encode(data)) == data


@settings(max_examples=200, deadline=None)
@given(text=ODD_TEXT)
def test_cutting_endless_runs_changes_no_id(learned: Tokenizer, text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "ENDLESS", 2)
        patch.setattr(fast, "_ENDLESS", fast.regex.compile(r"(?<!\s)\s{2,}+(?=\S)"))
        assert "".join(endless_runs_cut(text)) == text
        assert learned.encode(text) == learned.reference.encode(text)


SYMBOLS = (b"a", b"b", b"c")


@st.composite
def merge_lists(draw: st.DrawFn) -> list[tuple[bytes, bytes]]:
    """Merges of known symbols, as no corpus would order them; spellings may repeat."""
    symbols, merges = list(SYMBOLS[: draw(st.integers(1, 3))]), []
    for _ in range(draw(st.integers(1, 7))):
        pair = draw(st.sampled_from(symbols)), draw(st.sampled_from(symbols))
        merges.append(pair)
        symbols.append(pair[0] + pair[1])
    return merges


@settings(max_examples=300, deadline=None)
@given(merges=merge_lists(), text=st.text(alphabet="abc ", max_size=20))
def test_the_library_is_trusted_only_where_it_agrees(
    merges: list[tuple[bytes, bytes]], text: str
) -> None:
    reference = ReferenceBPE(merges)
    distinct = len(set(reference.tokens)) == len(reference.tokens)
    assert merges_back(reference) == (
        distinct and all(reference.merge(token) == [token] for token in reference.tokens)
    )
    assert FastBPE(reference).encode(text) == reference.encode(text)


def test_a_token_that_merges_cannot_reach_is_left_to_the_reference() -> None:
    """The library joins "ab" and "c", whose bytes are a token; the list has only "a" with "bc"."""
    merges = [(b"a", b"b"), (b"b", b"c"), (b"a", b"bc")]
    assert Tokenizer(merges).encode("abc") == [256, BYTE_ORDER.index(ord("c"))]
    assert not merges_back(ReferenceBPE([(b"ab", b"c"), (b"a", b"b")]))


def test_spellings_that_repeat_belong_to_the_first_merge() -> None:
    merges = [
        (b"a", b"b"),
        (b"c", b"d"),
        (b"b", b"c"),
        (b"ab", b"c"),
        (b"a", b"bc"),
        (b"abc", b"x"),
    ]
    tokenizer = Tokenizer(merges)
    assert tokenizer._fast._library is None
    for text in ("abc", "abcx abcd", "bc abc" * 3):
        assert tokenizer.encode(text) == tokenizer.reference.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("abc") == [259]
    assert tokenizer.encode("abcx") == [261]


def test_a_learned_vocabulary_may_use_the_library(gpt2: Tokenizer, learned: Tokenizer) -> None:
    for tokenizer in (gpt2, learned):
        assert tokenizer._fast._library is not None
        assert merges_back(tokenizer.reference)


def test_a_library_that_disagrees_is_refused(
    learned: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast, "PIECES", r"\S+|\s+")
    with pytest.raises(ModelError, match="tiktoken library and the reference disagree"):
        FastBPE(learned.reference)


def test_ids_outside_the_vocabulary_are_named(learned: Tokenizer) -> None:
    assert learned.eot == learned.vocab_size - 1 == 556
    for ids, wrong in (([0, 557], 557), ([300, -1], -1)):
        with pytest.raises(ModelError, match=f"token id {wrong} is outside .* 557") as error:
            learned.decode(ids)
        assert error.value.exit_code == 4


def test_pieces_are_joined_by_merges_in_order() -> None:
    """The example of the essay: earliest learned first, from the left, never across a cut."""
    reference = ReferenceBPE([(b"a", b"a"), (b"aa", b"a"), (b" ", b"a")])
    assert reference.merge(b"aaaa") == [b"aa", b"aa"]
    assert reference.merge(b"aaa") == [b"aaa"]
    assert reference.merge(b" aaa") == [b" ", b"aaa"]
    assert reference.merge(b"") == []
    assert [a + b for a, b in pairwise(cut("aa aa"))] == ["aa aa"]


def test_prompts_of_a_published_model_have_their_ids(gpt2: Tokenizer, data_dir: Path) -> None:
    """Ids that the released model was fed with elsewhere."""
    file = data_dir / "gpt2_golden" / "gpt2_124M_reference_prompts.json"
    prompts = json.loads(file.read_text(encoding="utf-8"))
    assert len(prompts) == 5
    for prompt in prompts:
        assert gpt2.encode(prompt["prompt"]) == prompt["token_ids"]
