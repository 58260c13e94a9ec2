"""Counting pieces: the kernel, its plain twin and the pre-tokeniser count the same; memory."""

import json
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stops import StopsAfter
from token_corpus import content, write_corpus

from gptwo.artifacts import MANIFEST
from gptwo.errors import DataError, Interrupted
from gptwo.pool import Task
from gptwo.progress import SILENT
from gptwo.tokens import count
from gptwo.tokens.bpe import cut, stretches
from gptwo.tokens.config import TokenizerConfig
from gptwo.tokens.count import (
    Pieces,
    PlainCounter,
    buffers,
    count_file,
    new_counter,
    split,
    sum_counts,
)
from gptwo.tokens.learn import learn_counted, learn_merges, plain_learn_merges, train_tokenizer

KERNELS = ("gptwo.native._count", "gptwo.native._merges")


def counted(pieces: Pieces) -> dict[bytes, int]:
    data, offsets, counts = pieces
    found = list(split(data, offsets))
    assert len(set(found)) == len(found)
    return dict(zip(found, np.frombuffer(counts, np.int64).tolist(), strict=True))


def laid_out(strings: list[bytes]) -> tuple[bytes, np.ndarray]:
    lengths = [0, *map(len, strings)]
    return b"".join(strings), np.cumsum(lengths, dtype=np.int64)


def by_hand(texts: list[bytes]) -> Counter[bytes]:
    parts = [part for text in texts for part in stretches(text)]
    pieces = [cut(part) if isinstance(part, str) else [part] for part in parts]
    return Counter(p.encode() if isinstance(p, str) else p for some in pieces for p in some)


def file_of(path: Path, texts: list[str]) -> Path:
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path)
    return path


def counts_of(path: Path, at: Callable[[int], None] = lambda number: None) -> Path:
    """The file of counts of a file of texts."""
    count_file(Task(input=path, output=path.with_suffix(".counts")), None, at)
    return path.with_suffix(".counts")


def summed(files: list[Path]) -> list[dict[bytes, int]]:
    return [counted(part) for part in sum_counts(files, SILENT)]


def test_the_kernel_was_built() -> None:
    assert type(new_counter()).__module__ == "gptwo.native._count"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(alphabet="ab'slt 1\n\xa0é日!\x00", max_size=60).map(str.encode),
            st.text(max_size=20).map(str.encode),
            st.binary(max_size=30),
        ),
        max_size=6,
    )
)
def test_kernel_twin_and_pattern_agree(texts: list[bytes]) -> None:
    kernel, twin = new_counter(), PlainCounter()
    for counter in (kernel, twin):
        counter.add(*laid_out(texts))
        counter.add(*laid_out(texts[:2]))
    expected = by_hand(texts + texts[:2])
    assert counted(kernel.take()) == counted(twin.take()) == dict(expected)
    assert counted(kernel.take()) == counted(twin.take()) == {}


def test_pieces_of_every_length_are_told_apart() -> None:
    """Up to 15 bytes lie in the table itself, longer ones beside it; zeros count like others."""
    words = [letter * n for n in range(1, 40) for letter in (b"x", b"y", b"\x00", b"x\x00"[:n])]
    texts = [word for word in words for _ in range(len(word))]
    for counter in (new_counter(), PlainCounter()):
        counter.add(*laid_out(texts))
        counter.add(*laid_out([b"x" * 16 + b"y", b"x" * 17]))
        found = counted(counter.take())
        assert found == dict(by_hand([*texts, b"x" * 16 + b"y", b"x" * 17]))
        assert found[b"x" * 16] == 16 and found[b"x" * 17] == 18 and found[b"x" * 16 + b"y"] == 1


def test_a_piece_at_the_end_of_a_buffer_reads_no_further() -> None:
    text = b"The cat sat"
    for end in range(len(text) + 1):
        data = bytes(bytearray(text[:end]))
        counter = new_counter()
        counter.add(data, np.array([0, end]))
        assert counted(counter.take()) == dict(by_hand([data]))


def test_many_pieces_and_slices_of_arrays() -> None:
    chance = random.Random(1)
    texts = [" ".join(str(chance.randrange(1 << 40)) for _ in range(200)) for _ in range(100)]
    array = pa.array([None, "not counted", *texts], pa.large_string())[2:]
    counter = new_counter()
    counter.add(*buffers(array))
    assert counted(counter.take()) == dict(Counter(p.encode() for t in texts for p in cut(t)))
    assert counter.held() < 200_000


@pytest.mark.parametrize("kernel", [True, False])
def test_counts_and_sums_have_64_bits(kernel: bool) -> None:
    """2^31 is passed by one count, 2^32 by a sum of them, in counting and in merging."""
    counter = new_counter() if kernel else PlainCounter()
    pieces = laid_out([b" the", b"other", b"x"])
    for _ in range(3):
        counter.add_counts(*pieces, np.array([3_000_000_000, 1_500_000_000, 1 << 40]), 0, 1)
    counter.add(*laid_out([b"x the"]))
    found = counted(counter.take())
    assert found == {b" the": 9_000_000_001, b"other": 4_500_000_000, b"x": (3 << 40) + 1}
    learn = learn_merges if kernel else plain_learn_merges
    # "th" and "he" stand in both words: 13,500,000,001 in all; in 32 bits "ot" would be first
    merges = learn({piece.decode(): n for piece, n in found.items()} | {"zq": 9_100_000_000}, 4)
    assert merges == [(b"h", b"e"), (b"t", b"he"), (b"z", b"q"), (b" ", b"the")]


@pytest.mark.parametrize("kernel", [True, False])
def test_parts_are_the_whole(kernel: bool) -> None:
    make = new_counter if kernel else PlainCounter
    pieces = [str(n).encode() + b"." * (n % 20) for n in range(3_000)]
    counts = np.arange(1, 3_001)
    found: dict[bytes, int] = {}
    for part in range(4):
        counter = make()
        counter.add_counts(*laid_out(pieces), counts, part, 4)
        some = counted(counter.take())
        assert 500 < len(some) < 1_000 and not found.keys() & some.keys()
        found |= some
    assert found == dict(zip(pieces, counts.tolist(), strict=True))


def test_the_kernel_refuses_arrays_that_do_not_agree() -> None:
    counter = new_counter()
    for offsets in ([2, 1], [-1, 2], [0, 4], []):
        with pytest.raises(ValueError, match="do not agree"):
            counter.add(b"abc", np.array(offsets, np.int64))
    for counts, part, parts in (([1], 0, 1), ([1, 2, 3], 0, 1), ([1, 2], 1, 1), ([1, 2], 0, 0)):
        with pytest.raises(ValueError, match="do not agree"):
            counter.add_counts(b"abc", np.array([0, 1, 3]), np.array(counts), part, parts)
    assert counted(counter.take()) == {}


def test_a_counter_at_work_leaves_other_threads_alone_and_takes_no_other_work() -> None:
    counter, refused = new_counter(), 0
    data, offsets = laid_out([b"a few words, and a few more. " * 2_000_000])
    worker = threading.Thread(target=counter.add, args=(data, offsets))
    worker.start()
    while worker.is_alive():
        try:
            counter.add(b"", np.array([0, 0]))
        except ValueError:
            refused += 1
    worker.join()
    assert refused > 0
    assert counted(counter.take())[b" words"] == 2_000_000


TEXTS = ["the cat sat on the mat, the end", "a cat and a hat 12 34 12", "naïve naïve 日本 日本"] * 4


def test_a_file_of_texts_makes_a_file_of_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    path = file_of(tmp_path / "texts.parquet", TEXTS)
    expected = dict(Counter(p.encode() for t in TEXTS for p in cut(t)))
    assert summed([counts_of(path, seen.append)]) == [expected]
    assert seen == [len(TEXTS) - 1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["texts.counts", "texts.parquet"]
    monkeypatch.setitem(sys.modules, KERNELS[0], None)
    assert isinstance(new_counter(), PlainCounter)
    assert summed([path.with_suffix(".counts")]) == [expected]  # made by the kernel
    assert summed([counts_of(path)]) == [expected]
    assert summed([counts_of(file_of(tmp_path / "none.parquet", []))]) == [{}]


def test_a_file_that_is_no_corpus_file_is_named(tmp_path: Path) -> None:
    """Damage that hashes cannot show: the file was wrong when it was made."""
    (tmp_path / "page.parquet").write_text("<html>")
    with pytest.raises(DataError, match=r"page\.parquet is damaged"):
        counts_of(tmp_path / "page.parquet")
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"other\.parquet is damaged: it has no column 'text'"):
        counts_of(tmp_path / "other.parquet")
    assert not list(tmp_path.glob("*.counts*"))


@pytest.mark.parametrize("kernel", [True, False])
def test_what_cannot_be_held_goes_to_disk_and_is_added_in_parts(
    kernel: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same counts and merges with next to no memory as with all that is needed."""
    for name in KERNELS if not kernel else ():
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("gptwo.tokens.texts.BATCH_BYTES", 1_000)
    chance = random.Random(2)
    texts = [" ".join(str(chance.randrange(6_000)) for _ in range(40)) for _ in range(400)]
    paths = [file_of(tmp_path / f"{i}.parquet", texts[i::2]) for i in range(2)]
    roomy = [counts_of(path) for path in paths]
    expected = summed(roomy)
    merges, distinct = learn_counted(roomy, 300)
    assert len(expected) == 1 and distinct == len(expected[0])
    monkeypatch.setattr(count, "HELD_BYTES", 100_000 if kernel else 300_000)  # 3,072; 2,000 pieces
    narrow = [counts_of(path) for path in paths]
    with pa.ipc.open_file(narrow[0]) as file:
        assert file.num_record_batches > 1
    parts = summed(narrow)
    assert len(parts) == 4
    assert {piece: n for part in parts for piece, n in part.items()} == expected[0]
    assert learn_counted(narrow, 300) == (merges, distinct)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_cut_order_and_number_of_workers_gives_the_same(workers: int, tmp_path: Path) -> None:
    chance = random.Random(workers)
    shuffled = chance.sample(TEXTS, len(TEXTS))
    cuts = sorted(chance.sample(range(len(TEXTS)), 2 * workers))
    files = [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(TEXTS)], strict=True)]
    config = TokenizerConfig(vocab_size=290)
    corpora = write_corpus(tmp_path / "a", files), write_corpus(tmp_path / "b", [TEXTS])
    made = [train_tokenizer(c, c / "out", config, workers=workers) for c in corpora]
    assert made[0].fingerprint == made[1].fingerprint and made[0].counts["merges"] == 33
    one, other = (content(corpus / "out") for corpus in corpora)
    assert {name for name in one if one[name] != other[name]} == {MANIFEST}  # another corpus


def test_counting_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """Files of counts outlive the stop, at whatever look it comes; no counts are taken twice."""
    corpus = write_corpus(tmp_path / "corpus", [TEXTS[:4], TEXTS[4:8], TEXTS[8:]])
    config = TokenizerConfig(vocab_size=290)
    expected = train_tokenizer(corpus, tmp_path / "whole", config)
    out, stops, kept = tmp_path / "out", 0, {}
    while True:
        try:
            found = train_tokenizer(corpus, out, config, StopsAfter(stops), workers=1)
            break
        except Interrupted:
            stops += 1
            files = {p.name: p.stat().st_ino for p in (out / ".work/counts").glob("*.arrow")}
            assert kept.items() <= files.items()  # the very same files
            kept = files
    assert stops > 3 and len(kept) == 3
    assert found == expected and not (out / ".work").exists()


def test_merging_stops_within_a_slice(tmp_path: Path) -> None:
    chance = random.Random(3)
    texts = ["".join(chance.choices("abcdefgh", k=20)) for _ in range(20_000)]
    files = [counts_of(file_of(tmp_path / "texts.parquet", texts))]
    looks = StopsAfter(1_000_000)
    merges, _ = learn_counted(files, 3_000, reporter=looks)
    assert len(merges) == 3_000 and 1_000_000 - looks.looks >= 31  # a look each 100 merges or less
    with pytest.raises(Interrupted):
        learn_counted(files, 3_000, reporter=StopsAfter(4))


LETTERS = str.maketrans("01234567", "etaoinsh")
CHILD = """
import json, resource, sys
from pathlib import Path
from gptwo.pool import Task
from gptwo.tokens.count import count_file, new_counter
from gptwo.tokens.learn import learn_counted, new_learner
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
paths = [Path(name) for name in sys.argv[1:]]
before = peak()
for path in paths:
    count_file(Task(input=path, output=path.with_suffix(".counts")), None, lambda number: None)
merges, distinct = learn_counted([path.with_suffix(".counts") for path in paths], 20_000)
print(json.dumps({"before": before, "peak": peak(), "distinct": distinct, "merges": len(merges)}))
"""


def child(*arguments: str | Path, script: str = CHILD) -> Any:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def zipf_words(chance: np.random.Generator, n: int) -> np.ndarray:
    """Ranks of `n` words: Zipf's law, and new words for ever, as in real text."""
    ranks = np.exp(chance.random(n) * np.log(5_000)).astype(np.int64)
    rare = chance.random(n) < 0.02
    ranks[rare] = 5_000 * (1 - chance.random(rare.sum())) ** -1.25
    return ranks


@pytest.mark.slow
def test_memory_follows_the_number_of_distinct_pieces(tmp_path: Path) -> None:
    """Ten times the text, 10 MB, in less than twice the memory of the process: the same text again,
    and fresh text with new words. What it takes more is a little for each piece that is new.
    """
    chance = np.random.default_rng(5)
    paths = []
    for number in range(10):
        words = [oct(rank)[2:].translate(LETTERS) for rank in zipf_words(chance, 200_000)]
        texts = [" ".join(words[i : i + 500]) for i in range(0, len(words), 500)]
        paths.append(file_of(tmp_path / f"{number}.parquet", texts))
    once = child(paths[0])
    again = [tmp_path / f"again-{number}.parquet" for number in range(10)]
    for path in again:
        path.symlink_to(paths[0])
    same, fresh = child(*again), child(*paths)
    assert same["distinct"] == once["distinct"] < fresh["distinct"] / 2
    assert same["peak"] < 1.2 * once["peak"] and fresh["peak"] < 2 * once["peak"]
    more = fresh["peak"] - once["peak"]
    assert more < 300 * (fresh["distinct"] - once["distinct"]) + 20e6


LITTLE_MEMORY = """
import json, resource, sys
import numpy as np
from gptwo.errors import ResourceError
from gptwo.tokens import learn
from gptwo.tokens.count import new_counter

def endless(files, reporter):
    for part in range(1_000):
        data = b"".join(b"%014d" % n for n in range(part * 10_000, part * 10_000 + 10_000))
        yield data, (np.arange(10_001) * 14).tobytes(), np.ones(10_000, np.int64).tobytes()

held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (100 << 20),) * 2)
learn.sum_counts = endless
kept = []
make = learn.new_learner
learn.new_learner = lambda greatest: kept.append(make(greatest=greatest)) or kept[0]
try:
    learn.learn_counted([], 10)
except ResourceError as error:
    said = str(error)
try:
    kept[0].merge(1)
except ValueError as error:
    print(json.dumps([said, str(error)]))
"""


def test_too_little_memory_is_an_error_that_says_so() -> None:
    said, afterwards = child(script=LITTLE_MEMORY)
    assert said.startswith("no memory left to learn from ") and "distinct pieces" in said
    assert "busy or broken" in afterwards
