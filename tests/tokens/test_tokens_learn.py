"""Learning merges: the kernel, its plain twin and a foreign trainer make the same ones."""

import json
import lzma
import random
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_corpus import content, write_corpus
from tokenizers import Tokenizer as Foreign
from tokenizers import models, pre_tokenizers, trainers

from gptwo.artifacts import MANIFEST, read_json, read_manifest, write_json
from gptwo.errors import DataError, ModelError, UsageError
from gptwo.progress import Reporter
from gptwo.tokens.bpe import CHAR_TO_BYTE, cut
from gptwo.tokens.config import TokenizerConfig
from gptwo.tokens.fast import merges_back
from gptwo.tokens.files import parse_merges, shown
from gptwo.tokens.learn import (
    import_tokenizer,
    learn_merges,
    new_learner,
    plain_learn_merges,
    train_tokenizer,
)
from gptwo.tokens.merges import PlainLearner
from gptwo.tokens.tokenizer import Tokenizer

Pairs = list[tuple[bytes, bytes]]


class Listens(Reporter):
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.heard: list[str] = []

    def say(self, text: str) -> None:
        self.heard.append(text)


def foreign_merges(texts: list[str], most: int) -> Pairs:
    """What the tokenizers library learns from the same texts."""
    built = Foreign(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=256 + most,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    built.train_from_iterator(texts, trainer)
    merges = json.loads(built.to_str())["model"]["merges"]
    return [
        (bytes(CHAR_TO_BYTE[c] for c in a), bytes(CHAR_TO_BYTE[c] for c in b)) for a, b in merges
    ]


def test_the_kernel_was_built() -> None:
    """Without it every comparison below would hold the plain twin to itself."""
    assert type(new_learner(greatest=False)).__module__ == "gptwo.native._merges"


def test_the_kernel_refuses_arrays_that_do_not_agree() -> None:
    right = {"data": b"abc", "offsets": [0, 1, 3], "counts": [5, 5]}
    for change in (
        {"offsets": [0, 2, 1]},
        {"offsets": [-1, 1, 3]},
        {"offsets": [0, 1, 4]},
        {"offsets": [0, 3]},
        {"counts": [5]},
        {"counts": [5, 0]},
        {"counts": [5, -1]},
    ):
        wrong = right | change
        arrays = (np.array(wrong[name], np.int64) for name in ("offsets", "counts"))
        with pytest.raises(ValueError, match="data, offsets and counts do not agree"):
            new_learner(greatest=False).add(wrong["data"], *arrays)
    learner = new_learner(greatest=False)
    for most in (0, -1, 1 << 40):
        with pytest.raises(ValueError, match="most"):
            learner.merge(most)
    assert learner.merge(1) == b""
    with pytest.raises(ValueError, match="merging has begun"):
        learner.add(b"ab", np.array([0, 2]), np.array([1]))
    with pytest.raises(ValueError, match="256 bytes"):
        type(learner)(b"abc", False)


@pytest.mark.parametrize("greatest", [False, True])
@settings(max_examples=150, deadline=None)
@given(
    counts=st.dictionaries(
        st.one_of(st.text(alphabet="ab", min_size=1, max_size=12), st.text(min_size=1, max_size=6)),
        st.integers(1, 5),
        max_size=12,
    ),
    most=st.integers(0, 40),
)
def test_kernel_and_twin_agree(counts: dict[str, int], most: int, greatest: bool) -> None:
    found = learn_merges(counts, most, greatest=greatest)
    assert found == plain_learn_merges(counts, most, greatest=greatest)


@pytest.mark.parametrize("greatest", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_kernel_and_twin_agree_on_random_corpora(seed: int, greatest: bool) -> None:
    """Few letters and small counts: full of ties, runs and overlapping pairs."""
    chance = random.Random(seed)
    letters = "aabbc dé日"[: chance.randint(3, 9)]
    words = Counter("".join(chance.choices(letters, k=chance.randint(1, 15))) for _ in range(800))
    found = learn_merges(words, 10_000, greatest=greatest)
    assert found == plain_learn_merges(words, 10_000, greatest=greatest)
    assert len(found) > 300 and merges_back(Tokenizer(found).reference)


def test_without_the_kernel_the_twin_works(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counter(cut("low lower lowest new newer newest wide wider widest"))
    with_kernel = learn_merges(counts, 20)
    monkeypatch.setitem(sys.modules, "gptwo.native._merges", None)
    assert isinstance(new_learner(greatest=False), PlainLearner)
    assert learn_merges(counts, 20) == with_kernel


def test_an_example_by_hand() -> None:
    """ "aaab" ten times, "ab" ten times: "ab" and "aa" tie at 20, and "aa" has the smaller ids."""
    counts = {"aaab": 10, "ab": 10}
    assert learn_merges(counts, 3) == [(b"a", b"a"), (b"a", b"b"), (b"aa", b"ab")]
    assert learn_merges(counts, 1, greatest=True) == [(b"a", b"b")]


def test_ties_follow_the_rule_named_in_the_settings() -> None:
    """Space is byte 32 but id 220, after all that prints; byte 0 is id 188."""
    assert learn_merges({" x": 1, "zy": 1}, 1) == [(b"z", b"y")]
    assert learn_merges({" x": 1, "\x00y": 1}, 1) == [(b"\x00", b"y")]
    assert learn_merges({" x": 1, "\x00y": 1}, 1, greatest=True) == [(b" ", b"x")]


def test_counts_do_not_overflow() -> None:
    """Counts of 2^40: in 32 bits "ab" would count nothing and "cd" win."""
    huge, large = 1 << 40, 3_000_000_000
    counts = {"ab": huge, "cd": 5, "ef": large, "xab": 1}
    for learn in (learn_merges, plain_learn_merges):
        assert learn(counts, 3) == [(b"a", b"b"), (b"e", b"f"), (b"c", b"d")]
    halves = {f"ab{i}": 1_200_000_000 for i in range(3)} | {"cd": 3_500_000_000}
    assert learn_merges(halves, 2) == [(b"a", b"b"), (b"c", b"d")]


@pytest.mark.parametrize("letters", ["a", "ab", "abcdefghijklmnopqrstuvwxyz"])
def test_a_piece_without_end_takes_no_endless_time(letters: str) -> None:
    """A million letters in one piece: each merge looks only at the places that hold its pair."""
    piece = "".join(random.Random(1).choices(letters, k=1_000_000))
    before = time.process_time()
    merges = learn_merges({piece: 1}, 3_000)
    assert time.process_time() - before < 2
    assert len(merges) == (25 if letters == "a" else 3_000)  # 19 doublings, then what is left over
    short = piece[:2_000]
    assert learn_merges({short: 3}, 300) == plain_learn_merges({short: 3}, 300)


def test_the_order_of_pieces_does_not_matter() -> None:
    chance = random.Random(4)
    words = Counter("".join(chance.choices("abcd", k=chance.randint(2, 9))) for _ in range(3_000))
    shuffled = dict(chance.sample(sorted(words.items()), len(words)))
    for greatest in (False, True):
        found = learn_merges(words, 2_000, greatest=greatest)
        assert found == learn_merges(shuffled, 2_000, greatest=greatest)


def test_no_more_merges_than_there_are_pairs() -> None:
    for learn in (learn_merges, plain_learn_merges):
        assert learn({"abc": 2, "x": 9}, 10**12) == [(b"a", b"b"), (b"ab", b"c")]
        assert learn({}, 10) == learn({"a": 3}, 10) == learn({"ab": 1}, 0) == []


def test_a_foreign_trainer_learns_the_same_merges(data_dir: Path) -> None:
    """On 2.5 MB of plays and books, the first 6000 one by one."""
    texts = [(data_dir / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")]
    books = sorted((data_dir / "text" / "classic_books").glob("*.xz"))[1]
    with lzma.open(books, "rt", encoding="utf-8") as handle:
        texts += [json.loads(next(handle))["text"][:500_000] for _ in range(3)]
    found = learn_merges(Counter(piece for text in texts for piece in cut(text)), 6_000)
    assert len(found) == 6_000
    assert found == foreign_merges(texts, 6_000)


def test_a_foreign_trainer_runs_out_of_pairs_at_the_same_merge(data_dir: Path) -> None:
    """To the last pair, where everything is a tie."""
    text = (data_dir / "bpe" / "train_reference" / "german.txt").read_text(encoding="utf-8")
    found = learn_merges(Counter(cut(text)), 100_000)
    assert 200 < len(found) < 2_000
    assert found == foreign_merges([text], 100_000)


def test_a_published_reference_is_met_merge_for_merge(data_dir: Path) -> None:
    """That trainer takes <|endoftext|> for a special token and ties go to the greatest bytes."""
    folder = data_dir / "bpe" / "train_reference"
    counts: Counter[str] = Counter()
    for text in (folder / "corpus.en").read_text(encoding="utf-8").split("<|endoftext|>"):
        counts.update(cut(text))
    lines = (folder / "train-bpe-reference-merges.txt").read_text(encoding="utf-8")
    expected = parse_merges(f"#version: 0.2\n{lines}", folder)
    assert len(expected) == 243
    assert learn_merges(counts, 243, greatest=True) == expected
    vocabulary = set(read_json(folder / "train-bpe-reference-vocab.json"))
    assert {shown(a + b) for a, b in expected} < vocabulary


TEXTS = ["the cat sat on the mat, the end", "a cat and a hat 12 34 12", "naïve naïve 日本 日本"] * 4


def test_what_a_learned_tokenizer_leaves_behind(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", [TEXTS])
    config = TokenizerConfig(vocab_size=280, ties="greatest")
    manifest = train_tokenizer(corpus, tmp_path / "out", config)
    counts = Counter(piece for text in TEXTS for piece in cut(text))
    tokenizer = Tokenizer.load(tmp_path / "out")
    assert tokenizer.reference.merges == learn_merges(counts, 23, greatest=True)
    assert manifest.kind == "tokenizer" and manifest.fingerprint == tokenizer.fingerprint
    assert manifest.counts == {"vocab_size": 280, "merges": 23}
    assert manifest.config == {"vocab_size": 280, "ties": "greatest"}
    assert manifest.inputs == {"corpus": read_manifest(corpus).fingerprint}
    assert set(manifest.files) == {"encoder.json", "vocab.bpe", "tokenizer.json"}
    before = content(tmp_path / "out")
    assert train_tokenizer(corpus, tmp_path / "out", config) == manifest
    assert content(tmp_path / "out") == before
    with pytest.raises(UsageError, match="vocab_size: 280 -> 281"):
        train_tokenizer(corpus, tmp_path / "out", TokenizerConfig(vocab_size=281, ties="greatest"))


def test_only_the_training_split_is_learned_from(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", [["xy xy"]], valid=["qu " * 99], test=["ck " * 99])
    train_tokenizer(corpus, tmp_path / "out", TokenizerConfig(vocab_size=300))
    merges = Tokenizer.load(tmp_path / "out").reference.merges
    assert merges == [(b"x", b"y"), (b" ", b"xy")]


def test_a_small_corpus_gives_fewer_merges_and_says_so(tmp_path: Path) -> None:
    reporter = Listens()
    corpus = write_corpus(tmp_path / "corpus", [["ab ab"]])
    manifest = train_tokenizer(corpus, tmp_path / "out", TokenizerConfig(), reporter)
    assert manifest.counts == {"vocab_size": 259, "merges": 2}
    assert "tokenizer: the corpus has pairs for only 2 merges" in reporter.heard


def test_a_corpus_without_text_is_refused(tmp_path: Path) -> None:
    for name, texts in (("none", []), ("empty", [""])):
        corpus = write_corpus(tmp_path / name, [texts])
        with pytest.raises(DataError, match="has no training text") as error:
            train_tokenizer(corpus, tmp_path / "out", TokenizerConfig())
        assert error.value.exit_code == 3


def test_a_missing_or_damaged_corpus_is_named(tmp_path: Path) -> None:
    config = TokenizerConfig()
    with pytest.raises(DataError, match="nowhere does not exist"):
        train_tokenizer(tmp_path / "nowhere", tmp_path / "out", config)
    corpus = write_corpus(tmp_path / "corpus", [TEXTS])
    part = corpus / "train" / "part-00000.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match=r"train/part-00000\.parquet .*SHA-256"):
        train_tokenizer(corpus, tmp_path / "out", config)
    part.unlink()
    with pytest.raises(DataError, match=r"part-00000\.parquet is missing"):
        train_tokenizer(corpus, tmp_path / "out", config)
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="at least 257, found 256"):
        TokenizerConfig(vocab_size=256)
    with pytest.raises(ValueError, match="ties must be"):
        TokenizerConfig(ties="first")


def test_gpt2_is_taken_over_with_its_ids(data_dir: Path, gpt2: Tokenizer, tmp_path: Path) -> None:
    manifest = import_tokenizer(data_dir / "bpe", tmp_path / "out")
    taken = Tokenizer.load(tmp_path / "out")
    assert manifest.fingerprint == taken.fingerprint == gpt2.fingerprint
    assert manifest.counts == {"vocab_size": 50_257, "merges": 50_000}
    assert taken.encode("Hello world") == [15496, 995]
    for name in ("encoder.json", "vocab.bpe"):  # byte for byte the released files
        assert (tmp_path / "out" / name).read_bytes() == (data_dir / "bpe" / name).read_bytes()
    assert import_tokenizer(data_dir / "bpe", tmp_path / "out") == manifest

    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(tmp_path / "out" / "tokenizer.json", alone)
    assert import_tokenizer(alone, tmp_path / "again").fingerprint == gpt2.fingerprint


def test_nothing_to_take_over_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "in" / "other.json", {})
    with pytest.raises(ModelError, match=r"holds neither vocab\.bpe nor .*tokenizer\.json"):
        import_tokenizer(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
