"""Documents -> shards -> one long array, whole or refused."""

import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
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

from gptwo.artifacts import MANIFEST, WORK, read_json, stage, verify, write_json
from gptwo.errors import DataError, Interrupted, ModelError, UsageError
from gptwo.tokens import texts as reading
from gptwo.tokens.config import PackConfig
from gptwo.tokens.pack import pack
from gptwo.tokens.shards import (
    Chunk,
    Counts,
    Shards,
    dtype_for,
    open_mix,
    open_shards,
    write_shards,
)
from gptwo.tokens.texts import read_documents, segments
from gptwo.tokens.tokenizer import Tokenizer

FILES = [["the cat", "", "naïve 日本 <|endoftext|>"], ["a" * 40], ["one more", "and the last"]]
TEXTS = [text for texts in FILES for text in texts]


@pytest.fixture
def tokenizer(learned: Tokenizer, tmp_path: Path) -> Path:
    learned.save(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", FILES)


def stream_of(tokenizer: Tokenizer, texts: list[str]) -> tuple[list[int], list[int]]:
    """The ids of a split as the documentation tells it, and where its documents begin."""
    ids: list[int] = []
    starts = []
    for text in texts:
        starts.append(len(ids))
        ids += [tokenizer.eot, *tokenizer.encode(text)]
    return ids, starts


def test_a_shard_is_eot_document_eot_document(
    corpus: Path, tokenizer: Path, learned: Tokenizer, tmp_path: Path
) -> None:
    manifest = pack(corpus, tokenizer, tmp_path / "out", PackConfig())
    ids, starts = stream_of(learned, TEXTS)
    raw = (tmp_path / "out" / "train-00000.bin").read_bytes()
    assert np.frombuffer(raw, "<u2").tolist() == ids
    assert ids.count(learned.eot) == len(TEXTS)  # the literal in the third text is text
    assert np.load(tmp_path / "out" / "train-00000.starts.npy").tolist() == starts
    assert manifest.counts["train"] == {
        "tokens": len(ids),
        "documents": len(TEXTS),
        "bytes": sum(len(text.encode()) for text in TEXTS),
    }
    assert manifest.details == {
        "dtype": "uint16",
        "vocab_size": 557,
        "eot": 556,
        "tokenizer_fingerprint": learned.fingerprint,
    }
    shards = open_shards(tmp_path / "out", "train")
    assert (len(shards), shards.vocab_size, shards.eot) == (len(ids), 557, 556)
    assert shards.tokenizer_fingerprint == learned.fingerprint
    assert shards.starts.tolist() == starts and shards.starts.dtype == np.uint64
    held_out = open_shards(tmp_path / "out", "valid")
    assert learned.decode(held_out.read(1, len(held_out) - 1)) == "a held out text"


@pytest.mark.parametrize("shard_tokens", [1, 12, 25, 44, 10_000])
def test_many_shards_are_read_as_one(
    corpus: Path, tokenizer: Path, learned: Tokenizer, tmp_path: Path, shard_tokens: int
) -> None:
    pack(corpus, tokenizer, tmp_path / "out", PackConfig(shard_tokens=shard_tokens))
    ids, starts = stream_of(learned, TEXTS)
    shards = open_shards(tmp_path / "out", "train")
    if shard_tokens == 1:
        assert len(shards.parts) == len(TEXTS)
    assert all(len(part) for part in shards.parts)
    assert all(len(part) >= shard_tokens for part in shards.parts[:-1])
    assert shards.starts.tolist() == starts
    for start in range(len(ids)):
        for length in {0, 1, 7, len(ids) - start}:
            if start + length <= len(ids):
                read = shards.read(start, length)
                assert read.tolist() == ids[start : start + length] and read.dtype == np.int64


def test_reading_past_the_end_is_refused(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    pack(corpus, tokenizer, tmp_path / "out", PackConfig())
    shards = open_shards(tmp_path / "out", "train")
    for start, length in ((0, len(shards) + 1), (-1, 2), (len(shards), 1), (3, -1)):
        with pytest.raises(DataError, match="asked for, the split has"):
            shards.read(start, length)
    assert shards.read(len(shards), 0).tolist() == []


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.lists(st.integers(0, 9), max_size=5), min_size=1, max_size=6))
def test_any_division_into_parts_reads_the_same(parts: list[list[int]]) -> None:
    shards = Shards(
        parts=tuple(np.array(part, np.uint16) for part in parts),
        ends=np.cumsum([len(part) for part in parts]),
        starts=np.empty(0, np.uint64),
        corpora=(sum(map(len, parts)),),
        vocab_size=10,
        eot=9,
        tokenizer_fingerprint="",
    )
    whole = [i for part in parts for i in part]
    for start in range(len(whole) + 1):
        for length in range(len(whole) - start + 1):
            assert shards.read(start, length).tolist() == whole[start : start + length]
    starts = np.arange(len(whole))
    out = np.empty(2 * len(whole), np.int64)
    shards.copy(out, 2 * starts[::-1], starts, np.minimum(2, len(whole) - starts))
    assert out[::2].tolist() == whole[::-1]  # every id to its own place
    assert out[1::2].tolist()[1:] == whole[::-1][:-1]


def test_folders_of_a_mix_are_read_one_after_the_other(
    corpus: Path, tokenizer: Path, tmp_path: Path
) -> None:
    folders = tmp_path / "a", tmp_path / "b"
    pack(corpus, tokenizer, folders[0], PackConfig(shard_tokens=25))
    pack(write_corpus(tmp_path / "more", [["one", "two"]]), tokenizer, folders[1], PackConfig())
    a, b = (open_shards(folder, "train") for folder in folders)
    both = open_mix(folders, "train")
    assert both.corpora == (len(a), len(b)) and len(both.parts) == len(a.parts) + 1
    ids = [shards.read(0, len(shards)).tolist() for shards in (a, b, both)]
    assert ids[2] == ids[0] + ids[1]
    assert both.starts.tolist() == [*a.starts.tolist(), *(b.starts + np.uint64(len(a))).tolist()]
    assert open_mix(folders[:1], "train").starts.tolist() == a.starts.tolist()


def test_folders_of_different_tokenizers_do_not_mix(
    corpus: Path, tokenizer: Path, tmp_path: Path
) -> None:
    Tokenizer([(b"a", b"b")]).save(tmp_path / "other")
    pack(corpus, tokenizer, tmp_path / "a", PackConfig())
    pack(corpus, tmp_path / "other", tmp_path / "b", PackConfig())
    with pytest.raises(ModelError, match=r"a and .*b were made with .* tokenizers \(eot:"):
        open_mix([tmp_path / "a", tmp_path / "b"], "train")


def test_ids_take_two_bytes_as_long_as_they_fit(tmp_path: Path) -> None:
    assert [dtype_for(n) for n in (257, 65_536, 65_537)] == ["uint16", "uint16", "uint32"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gptwo.tokens.shards.LARGEST_UINT16_VOCABULARY", 300)
        Tokenizer([(b"a", b"b")] * 1).save(tmp_path / "tokenizer-258")
        many = [(bytes([a]), bytes([b])) for a in b"abcdefgh" for b in b"abcdefgh"]
        Tokenizer(many).save(tmp_path / "tokenizer-321")
        corpus = write_corpus(tmp_path / "corpus", [["ab cd hh"]])
        for size, width in ((258, 2), (321, 4)):
            out = tmp_path / f"out-{size}"
            manifest = pack(corpus, tmp_path / f"tokenizer-{size}", out, PackConfig())
            shards = open_shards(out, "train")
            assert shards.parts[0].dtype == np.dtype(f"<u{width}")
            assert (out / "train-00000.bin").stat().st_size == width * len(shards)
            assert manifest.counts["train"]["tokens"] == len(shards)
            assert int(shards.read(0, 1)[0]) == size - 1


def test_a_second_call_changes_nothing(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    first = pack(corpus, tokenizer, tmp_path / "out", PackConfig())
    before = content(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert pack(corpus, tokenizer, tmp_path / "out", PackConfig(), StopsAfter(0)) == first
    assert content(tmp_path / "out") == before
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    with pytest.raises(UsageError, match="shard_tokens: 100000000 -> 5"):
        pack(corpus, tokenizer, tmp_path / "out", PackConfig(shard_tokens=5))


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read and encode a document at a time."""
    monkeypatch.setattr(reading, "BATCH_BYTES", 1)


@pytest.mark.usefixtures("one_by_one")
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(
    corpus: Path, tokenizer: Path, tmp_path: Path
) -> None:
    config = PackConfig(shard_tokens=25)
    pack(corpus, tokenizer, tmp_path / "whole", config)
    for looks in range(len(TEXTS) + 2):
        out = tmp_path / f"parts-{looks}"
        with pytest.raises(Interrupted):
            pack(corpus, tokenizer, out, config, StopsAfter(looks))
        assert not (out / MANIFEST).exists()
        pack(corpus, tokenizer, out, config)
        assert content(out) == content(tmp_path / "whole")
        assert not (out / WORK).exists()


@pytest.mark.usefixtures("one_by_one")
def test_finished_shards_are_not_made_again(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    config = PackConfig(shard_tokens=25)
    with pytest.raises(Interrupted):
        pack(corpus, tokenizer, tmp_path / "out", config, StopsAfter(len(TEXTS)))
    kept = tmp_path / "out" / "train-00000.bin"
    before = kept.stat().st_mtime_ns
    pack(corpus, tokenizer, tmp_path / "out", config)
    assert kept.stat().st_mtime_ns == before


KILLED = """
import os, signal, sys
from pathlib import Path
from gptwo.tokens import pack as packing
from gptwo.tokens import shards
from gptwo.tokens.config import PackConfig

write, countdown = shards.atomic_write, int(sys.argv[4])

def dies(path, *mode):
    global countdown
    countdown -= 1
    if countdown < 0:
        (path.parent / f"{path.name}.tmp-1").write_bytes(b"half a sh")
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, *mode)

shards.atomic_write = dies
corpus, tokenizer, out = map(Path, sys.argv[1:4])
packing.pack(corpus, tokenizer, out, PackConfig(shard_tokens=25))
"""


@pytest.mark.parametrize("writes", [1, 4])
def test_killed_in_a_write_it_goes_on_to_the_same_bytes(
    corpus: Path, tokenizer: Path, tmp_path: Path, writes: int
) -> None:
    """Between a shard and its starts, and in a later shard."""
    out, command = tmp_path / "out", [sys.executable, "-c", KILLED]
    arguments = [str(corpus), str(tokenizer), str(out), str(writes)]
    assert subprocess.run([*command, *arguments], check=False).returncode == -9
    assert not (out / MANIFEST).exists() and list(out.glob("*.tmp-1"))
    pack(corpus, tokenizer, out, PackConfig(shard_tokens=25))
    pack(corpus, tokenizer, tmp_path / "whole", PackConfig(shard_tokens=25))
    assert content(out) == content(tmp_path / "whole")


def test_a_split_without_documents_is_empty(tokenizer: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", [["text"]], test=[])
    pack(corpus, tokenizer, tmp_path / "out", PackConfig(shard_tokens=1))
    shards = open_shards(tmp_path / "out", "test")
    assert len(shards) == 0 and len(shards.starts) == 0
    with pytest.raises(DataError, match="the split has 0"):
        shards.read(0, 1)


def test_a_missing_input_is_named(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        pack(tmp_path / "nowhere", tokenizer, tmp_path / "out", PackConfig())
    with pytest.raises(ModelError, match="nowhere holds neither"):
        pack(corpus, tmp_path / "nowhere", tmp_path / "out", PackConfig())
    with pytest.raises(ValueError, match="shard_tokens must be at least 1"):
        PackConfig(shard_tokens=0)
    assert not (tmp_path / "out").exists()


# Reading and cutting texts

LONG = "the sea, it's wide\n\n and blue \u3000 naïve 日本 \x85 x\u00a0y <|endoftext|> " * 3


@pytest.mark.parametrize("batch", [1, 3, 8, 16, 64, 200, 1000])
def test_how_texts_are_read_changes_nothing(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    files = [*FILES, [LONG, "", "short", LONG * 5], [" " * 99, "\n" * 50 + "x" * 50, "日本" * 40]]
    corpus = write_corpus(tmp_path / "corpus", files)
    whole = pack(corpus, tokenizer, tmp_path / "whole", PackConfig(shard_tokens=90))
    assert whole.counts["train"]["tokens"] > 900
    monkeypatch.setattr(reading, "BATCH_BYTES", batch)
    pack(corpus, tokenizer, tmp_path / "parts", PackConfig(shard_tokens=90))
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    ids, starts = stream_of(Tokenizer.load(tokenizer), [text for part in files for text in part])
    shards = open_shards(tmp_path / "parts", "train")
    assert shards.read(0, len(shards)).tolist() == ids and shards.starts.tolist() == starts


def test_any_number_of_cores_gives_the_same_bytes(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus", [*FILES, [LONG * 20, "", *["more"] * 50, LONG]])
    monkeypatch.setattr(reading, "BATCH_BYTES", 100)
    for cores in (1, 2, 3, 16):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, n=cores: set(range(n)))
        pack(corpus, tokenizer, tmp_path / str(cores), PackConfig(shard_tokens=200))
    for cores in (2, 3, 16):
        assert content(tmp_path / str(cores)) == content(tmp_path / "1")


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(
        st.one_of(
            st.text(alphabet="ab1. \n\t'é\u3000\u00a0\x85\x1c日😀", max_size=60).map(str.encode),
            st.lists(
                st.sampled_from([b"a", b" ", b"\n", b"\xff", b"\xe3\x80", b"\x80", b"\xc2\xa0"]),
                max_size=40,
            ).map(b"".join),  # not UTF-8
        ),
        min_size=1,
        max_size=4,
    ),
    length=st.integers(1, 12),
)
def test_the_parts_of_a_text_have_the_ids_of_the_whole(
    learned: Tokenizer, texts: list[bytes], length: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BATCH_BYTES", length)
        offsets = np.cumsum([0, *map(len, texts)]).astype(np.int64)
        buffers = pa.py_buffer(offsets), pa.py_buffer(b"".join(texts))
        strings = pa.LargeStringArray.from_buffers(len(texts), *buffers)
        ids: list[list[int]] = []
        for group, begins in segments(strings):
            for part, begin in zip(group, begins, strict=True):
                if begin:
                    ids.append([])
                ids[-1] += learned.encode(part.as_buffer().to_pybytes())
    assert ids == [learned.encode(text) for text in texts]


def test_long_texts_are_cut_where_they_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BATCH_BYTES", 100)
    words = pa.array(["lorem ipsum " * 100], pa.large_string())
    groups = [(group.to_pylist(), begins.tolist()) for group, begins in segments(words)]
    parts = [part for group, _ in groups for part in group]
    assert "".join(parts) == words[0].as_py()
    assert [begin for _, begins in groups for begin in begins] == [True] + [False] * 12
    assert max(len("".join(group)) for group, _ in groups) <= 200
    ((group, _),) = segments(pa.array(["x" * 1000], pa.large_string()))
    assert len(group) == 1  # a single piece


def test_reading_goes_on_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [str(number) * (number % 5) for number in range(40)]
    kinds = (pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string()))
    for number, kind in enumerate(kinds):
        table = pa.table({"n": range(40), "text": pa.array(texts, pa.string()).cast(kind)})
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=7)
    files = sorted(tmp_path.iterdir())
    monkeypatch.setattr(reading, "BATCH_BYTES", 50)
    for skip in range(122):
        batches = list(read_documents(files, skip=skip))
        assert [text for batch in batches for text in batch.to_pylist()] == (texts * 3)[skip:]
        assert all(0 < len(batch) < 8 for batch in batches)


@pytest.mark.parametrize(
    "column, said",
    [
        ({"text": ["a", None, "b"]}, "a row without text"),
        ({"txt": ["a"]}, "no column 'text'"),
        ({"text": [["a"], ["b"]]}, "Unsupported cast from list"),
    ],
)
def test_files_that_hold_no_texts_are_named(
    tmp_path: Path, column: dict[str, Any], said: str
) -> None:
    pq.write_table(pa.table(column), tmp_path / "part.parquet")
    with pytest.raises(DataError, match=rf"part\.parquet is damaged: .*{said}"):
        list(read_documents([tmp_path / "part.parquet"]))
    (tmp_path / "part.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"part\.parquet is damaged"):
        list(read_documents([tmp_path / "part.parquet"]))


def test_a_shard_is_never_held_in_memory(tmp_path: Path) -> None:
    """Twenty million ids (40 MB) in one shard, through chunks of half a megabyte."""
    ids = np.zeros(1 << 18, np.uint16)
    starts = np.arange(0, len(ids), 1000)

    def stream(done: Counts) -> Iterator[Chunk]:
        assert done == {"tokens": 0, "documents": 0, "bytes": 0}
        for _ in range(80):
            yield Chunk(ids=ids, starts=starts, text_bytes=np.append(starts, len(ids)))

    with stage(tmp_path, kind="tokens", config={"shard_tokens": 10**9}, inputs={}) as made:
        tracemalloc.start()
        try:
            counts = write_shards(made, "train", "uint16", stream)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert counts == {"tokens": 80 << 18, "documents": 80 * len(starts), "bytes": 80 << 18}
    assert (tmp_path / "train-00000.bin").stat().st_size == 160 << 18
    assert peak < 4e6


# What may be wrong with finished shards (rows 5 and 29 of the list of faults).


@pytest.fixture
def packed(corpus: Path, tokenizer: Path, tmp_path: Path) -> Path:
    pack(corpus, tokenizer, tmp_path / "packed", PackConfig(shard_tokens=25))
    return tmp_path / "packed"


def refused(folder: Path, split: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        open_shards(folder, split)
    assert error.value.exit_code == 3 and error.value.remedy


@pytest.mark.parametrize("name", ["train-00001.bin", "train-00001.starts.npy"])
def test_damaged_shards_are_named(packed: Path, name: str) -> None:
    path = packed / name
    whole = path.read_bytes()
    path.write_bytes(whole[:3] + bytes([whole[3] ^ 4]) + whole[4:])
    refused(packed, "train", rf"{name} \({len(whole)} bytes\) does not match its SHA-256")
    open_shards(packed, "valid")  # not touched by it
    path.write_bytes(whole[:-1])
    refused(packed, "train", rf"{name} has {len(whole) - 1} bytes, not {len(whole)}")
    path.unlink()
    refused(packed, "train", f"{name} is missing")


def test_unknown_splits_and_folders_are_named(packed: Path, corpus: Path, tmp_path: Path) -> None:
    refused(packed, "dev", r"has no split 'dev'")
    refused(packed, "train-00000", r"has no split")
    refused(corpus, "train", "holds corpus, expected tokens")
    refused(tmp_path / "nowhere", "train", "nowhere does not exist")


def shards_of(folder: Path, data: bytes, starts: Any, **details: Any) -> Path:
    """Shards made by another program: hashes match, contents may not."""
    known = {"dtype": "uint16", "vocab_size": 300, "eot": 299, "tokenizer_fingerprint": "f"}
    with stage(folder, kind="tokens", config={}, inputs={}) as made:
        (folder / "train-00000.bin").write_bytes(data)
        np.save(folder / "train-00000.starts.npy", np.asarray(starts))
        kept = {key: value for key, value in (known | details).items() if value is not None}
        made.commit(counts={}, details=kept)
    return folder


IDS = np.array([299, 5, 6, 299, 7], "<u2")


def test_shards_of_another_program_open_when_they_fit(tmp_path: Path) -> None:
    shards = open_shards(shards_of(tmp_path / "t", IDS.tobytes(), [0, 3]), "train")
    assert shards.read(0, 5).tolist() == IDS.tolist() and shards.starts.tolist() == [0, 3]


@pytest.mark.parametrize(
    "data, starts, details, said",
    [
        (
            IDS.tobytes(),
            [0, 3],
            {"vocab_size": 299},
            r"train-00000\.bin holds token id 299, .* 299",
        ),
        (IDS.tobytes()[:-1], [0, 3], {}, r"train-00000\.bin has 9 bytes, not a multiple of 2"),
        (IDS.tobytes(), [0, 3], {"dtype": "uint32"}, "ids of type 'uint32', expected 'uint16'"),
        (IDS.tobytes(), [0, 3], {"dtype": "float64"}, "ids of type 'float64'"),
        (IDS.tobytes(), [0, 3], {"vocab_size": 70_000}, "expected 'uint32' for .* 70,000"),
        (IDS.tobytes(), [0, 3], {"eot": None}, "does not say its eot"),
        (IDS.tobytes(), [0, 9], {}, r"train-00000\.starts\.npy points past the end"),
        (IDS.tobytes(), [0, 2], {}, r"train-00000\.starts\.npy points where no document starts"),
        (IDS.tobytes(), [[0], [3]], {}, r"train-00000\.starts\.npy points past"),
        (IDS.tobytes(), np.array(["a"], object), {}, r"train-00000\.starts\.npy is damaged"),
        (b"", [0], {}, r"starts\.npy points past the end"),
    ],
    ids="id odd wider float narrower silent past wrong square pickled empty".split(),  # noqa: SIM905
)
def test_shards_that_cannot_be_right_are_refused(
    tmp_path: Path, data: bytes, starts: Any, details: dict[str, Any], said: str
) -> None:
    refused(shards_of(tmp_path / "t", data, starts, **details), "train", said)


def test_the_largest_id_is_looked_for_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptwo.tokens.shards.CHUNK", 2)
    for place in range(1, 5):
        ids = IDS.copy()
        ids[place] = 300
        folder = shards_of(tmp_path / str(place), ids.tobytes(), [0])
        refused(folder, "train", "holds token id 300, the vocabulary has 300")


def test_five_hundred_flipped_bits_are_all_found(packed: Path) -> None:
    """Any bit of any file, the manifest's included."""
    chance = random.Random(29)
    files = [path for path in sorted(packed.iterdir()) if path.is_file()]
    assert {path.suffix for path in files} == {".bin", ".npy", ".json"}
    verify(packed)
    for _ in range(500):
        path = chance.choice(files)
        whole = path.read_bytes()
        place = chance.randrange(len(whole) * 8)
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(DataError):
            open_shards(packed, path.name.split("-")[0].replace(MANIFEST, "train"))
        path.write_bytes(whole)
    verify(packed)


def test_a_manifest_without_hashes_is_no_manifest(packed: Path) -> None:
    manifest = read_json(packed / MANIFEST)
    write_json(packed / MANIFEST, {"kind": manifest["kind"]})
    refused(packed, "train", "is not a gptwo manifest")


def test_umask_and_time_zone_leave_the_bytes_alone(
    corpus: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(corpus, tokenizer, tmp_path / "one", PackConfig())
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    before = os.umask(0o077)
    try:
        pack(corpus, tokenizer, tmp_path / "two", PackConfig())
    finally:
        os.umask(before)
    assert content(tmp_path / "one") == content(tmp_path / "two")
