"""Token files of nanoGPT and llm.c: read as those programs write them, written as they read."""

import struct
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from stops import StopsAfter
from token_corpus import content, write_corpus

from gptwo.artifacts import MANIFEST, verify
from gptwo.errors import DataError, Interrupted, UsageError
from gptwo.progress import Reporter
from gptwo.tokens import bins
from gptwo.tokens.bins import export_bins, import_bins, split_of
from gptwo.tokens.config import PackConfig
from gptwo.tokens.pack import pack
from gptwo.tokens.shards import Shards, described, open_shards
from gptwo.tokens.tokenizer import Tokenizer

TEXTS = ["the cat", "", "naïve 日本 <|endoftext|>", "a" * 40, "one more", "and the last", ""]
CONFIG = PackConfig(shard_tokens=25)
EOT = 556  # of `learned`


@pytest.fixture
def tokenizer(learned: Tokenizer, tmp_path: Path) -> Path:
    learned.save(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.fixture
def packed(tokenizer: Path, tmp_path: Path) -> Path:
    corpus = write_corpus(tmp_path / "corpus", [TEXTS], valid=["held out", ""], test=["", "last"])
    pack(corpus, tokenizer, tmp_path / "packed", CONFIG)
    return tmp_path / "packed"


# How the programs themselves read and write


def nanogpt_reads(path: Path) -> list[int]:
    """nanoGPT's train.py maps the file as uint16, nothing else."""
    return np.memmap(path, dtype=np.uint16, mode="r").tolist()


def llmc_reads(path: Path) -> list[int]:
    """llm.c's loader: 256 int32, of which three are looked at; then as many uint16 as they tell."""
    header = np.fromfile(path, np.int32, 256)
    assert header[0] == 20240520 and header[1] == 1 and header[2] > 0
    tokens = np.fromfile(path, np.uint16, offset=1024)
    assert path.stat().st_size == 1024 + 2 * header[2] and len(tokens) == header[2]
    return tokens.tolist()


def nanogpt_file(path: Path, ids: Sequence[int] | np.ndarray) -> Path:
    path.write_bytes(np.array(ids, "<u2").tobytes())
    return path


def llmc_file(path: Path, ids: Sequence[int], **header: int) -> Path:
    """Written with struct, apart from numpy."""
    values = {"magic": 20240520, "version": 1, "tokens": len(ids)} | header
    start = struct.pack("<256i", *values.values(), *[0] * 253)
    path.write_bytes(start + struct.pack(f"<{len(ids)}H", *ids))
    return path


def opened(folder: Path) -> dict[str, tuple[list[int], list[int]]]:
    """Split -> its ids and the positions of its documents."""
    splits = {split: open_shards(folder, split) for split in ("train", "valid", "test")}
    return {
        split: (shards.read(0, len(shards)).tolist(), shards.starts.tolist())
        for split, shards in splits.items()
    }


def imported(files: list[Path], tokenizer: Path, out: Path) -> tuple[list[int], list[int]]:
    """The training split of imported files."""
    import_bins(files, tokenizer, out, CONFIG)
    return opened(out)["train"]


# Out


def test_nanogpt_reads_what_is_written(packed: Path, learned: Tokenizer, tmp_path: Path) -> None:
    done = export_bins(packed, tmp_path / "out", "nanogpt")
    expected = [i for text in TEXTS for i in [*learned.encode(text), EOT]]
    assert nanogpt_reads(tmp_path / "out" / "train.bin") == expected
    held_out = [*learned.encode("held out"), EOT, EOT]
    assert nanogpt_reads(tmp_path / "out" / "val.bin") == held_out
    last = [EOT, *learned.encode("last"), EOT]
    assert nanogpt_reads(tmp_path / "out" / "test.bin") == last
    files = {"train.bin": len(expected), "val.bin": len(held_out), "test.bin": len(last)}
    assert done == {"format": "nanogpt", "tokens": sum(files.values()), "files": files}
    assert verify(tmp_path / "out")["files"] == 3
    assert export_bins(packed, tmp_path / "out", "nanogpt") == done


@pytest.mark.parametrize("most", [7, 11, 10**8])
def test_llmc_reads_what_is_written(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(bins, "SHARD_TOKENS", most)
    done = export_bins(packed, tmp_path / "out", "llmc")
    ours = opened(packed)
    for split, name in (("train", "train"), ("valid", "val"), ("test", "test")):
        files = sorted((tmp_path / "out").glob(f"*_{name}_*.bin"))  # llm.c's own pattern
        assert files[0].name == f"gptwo_{name}_000000.bin"
        read = [llmc_reads(path) for path in files]
        assert [i for ids in read for i in ids] == ours[split][0]
        assert len(files) == -(-len(ours[split][0]) // most)
        lengths = [len(ids) for ids in read]
        assert max(lengths) <= most and max(lengths) - min(lengths) <= 1
        assert [done["files"][path.name] for path in files] == lengths


# In


def test_documents_of_nanogpt_end_with_eot(tokenizer: Path, tmp_path: Path) -> None:
    file = nanogpt_file(tmp_path / "train.bin", [1, 2, EOT, EOT, 3, EOT])
    ids, starts = imported([file], tokenizer, tmp_path / "out")
    assert ids == [EOT, 1, 2, EOT, EOT, 3] and starts == [0, 3, 4]


@pytest.mark.parametrize(
    "ids, expected",
    [
        ([1, 2, EOT, 3], [EOT, 1, 2, EOT, 3]),  # cut inside the last document
        ([EOT, 1, 2, EOT, 3], [EOT, 1, 2, EOT, 3]),  # eot before each document
        ([EOT, 1, EOT], [EOT, EOT, 1]),  # an empty document first
        ([EOT], [EOT]),
        ([1, 400, 2], [EOT, 1, 400, 2]),  # one document and no eot, as nanoGPT's Shakespeare
    ],
)
def test_flat_files_of_other_habits(
    tokenizer: Path, tmp_path: Path, ids: list[int], expected: list[int]
) -> None:
    file = nanogpt_file(tmp_path / "train.bin", ids)
    stream, starts = imported([file], tokenizer, tmp_path / "out")
    assert stream == expected
    assert starts == [place for place, i in enumerate(expected) if i == EOT]


def test_files_of_llmc_are_one_stream(tokenizer: Path, tmp_path: Path) -> None:
    """Its scripts cut documents at the end of a file; the first may begin inside one."""
    parts = [[7, 8, EOT, 1], [2, 3], [4, EOT, 5, EOT]]
    files = [llmc_file(tmp_path / f"x_train_{n:06d}.bin", part) for n, part in enumerate(parts)]
    ids, starts = imported([*reversed(files)], tokenizer, tmp_path / "out")
    assert ids == [7, 8, EOT, 1, 2, 3, 4, EOT, 5, EOT] and starts == [2, 7, 9]


def test_names_tell_the_split(tokenizer: Path, tmp_path: Path, learned: Tokenizer) -> None:
    for name, split in {
        "val": "valid",
        "fineweb_val_000000": "valid",
        "TinyStories-valid": "valid",
        "x_test_000000": "test",
        "medieval_latest_train": "train",
        "train": "train",
        "shakespeare": "train",
    }.items():
        assert split_of(Path(name + ".bin")) == split
    files = [
        nanogpt_file(tmp_path / "train.bin", [*learned.encode("a text"), EOT]),
        nanogpt_file(tmp_path / "val.bin", [*learned.encode("held naïve 日本"), EOT]),
    ]
    manifest = import_bins(files, tokenizer, tmp_path / "out", CONFIG)
    assert manifest.kind == "tokens" and manifest.details == described(learned)
    assert manifest.inputs.keys() == {"tokenizer", "train.bin", "val.bin"}
    size = len(learned.encode("held naïve 日本"))
    counts = {"tokens": size + 1, "documents": 1, "bytes": len("held naïve 日本".encode())}
    assert manifest.counts["valid"] == counts
    assert manifest.counts["test"] == {"tokens": 0, "documents": 0, "bytes": 0}
    assert len(open_shards(tmp_path / "out", "test")) == 0
    assert import_bins(files, tokenizer, tmp_path / "out", CONFIG) == manifest
    nanogpt_file(tmp_path / "train.bin", [5, EOT])
    with pytest.raises(UsageError, match="made from something else"):
        import_bins(files, tokenizer, tmp_path / "out", CONFIG)


@pytest.mark.parametrize("to", ["nanogpt", "llmc"])
@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
def test_there_and_back(
    packed: Path,
    tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    to: str,
    chunk: int,
) -> None:
    """The same shards, byte for byte, and the same counts."""
    monkeypatch.setattr(bins, "CHUNK", chunk)
    monkeypatch.setattr(bins, "SHARD_TOKENS", 13)
    export_bins(packed, tmp_path / "there", to)
    files = list((tmp_path / "there").glob("*.bin"))
    import_bins(files, tokenizer, tmp_path / "back", CONFIG)
    ours, back = content(packed), content(tmp_path / "back")
    del ours[MANIFEST], back[MANIFEST]
    assert back == ours and len(ours) >= 8
    assert opened(tmp_path / "back") == opened(packed)


@settings(max_examples=10, deadline=None)
@given(
    documents=st.lists(
        st.lists(st.sampled_from([0, 1, 300, 555]), max_size=4), min_size=1, max_size=6
    ),
    shard=st.sampled_from([3, 5, 100]),
)
def test_any_stream_goes_there_and_back(
    documents: list[list[int]], shard: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path = tmp_path_factory.mktemp("stream")
    merges = [(bytes([a]), bytes([b])) for a in range(20) for b in range(15)]
    Tokenizer(merges).save(tmp_path / "tokenizer")
    stream = [i for document in documents for i in [EOT, *document]]
    first = llmc_file(tmp_path / "train.bin", stream)
    config = PackConfig(shard_tokens=shard)
    import_bins([first], tmp_path / "tokenizer", tmp_path / "ours", config)
    ids, starts = opened(tmp_path / "ours")["train"]
    assert ids == stream and len(starts) == len(documents)
    for to in ("nanogpt", "llmc"):
        export_bins(tmp_path / "ours", tmp_path / to, to)
        files = list((tmp_path / to).glob("*.bin"))
        import_bins(files, tmp_path / "tokenizer", tmp_path / f"from-{to}", config)
        assert opened(tmp_path / f"from-{to}")["train"] == (ids, starts)


@pytest.mark.parametrize("kind", ["in", "nanogpt", "llmc"])
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(
    packed: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(bins, "CHUNK", 15)
    monkeypatch.setattr(bins, "SHARD_TOKENS", 13)
    export_bins(packed, tmp_path / "files", "nanogpt")
    files = list((tmp_path / "files").glob("*.bin"))

    def make(out: Path, reporter: Reporter) -> None:
        if kind == "in":
            import_bins(files, tokenizer, out, CONFIG, reporter)
        else:
            export_bins(packed, out, kind, reporter)

    make(tmp_path / "whole", Reporter(quiet=True))
    stops = 0
    while True:
        out = tmp_path / f"parts-{stops}"
        try:
            make(out, StopsAfter(stops))
            break
        except Interrupted:
            stops += 1
        make(out, Reporter(quiet=True))
        assert content(out) == content(tmp_path / "whole")
    assert stops > 5


# What cannot be right (row 29 of the list of faults)

GOOD = [EOT, 1, 2, EOT, 3]


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda path: nanogpt_file(path, [1, 2, 557, EOT]), r"token id 557 at position 2, .* 557"),
        (lambda path: llmc_file(path, [EOT, 60_000]), "token id 60000 at position 1"),
        (lambda path: path.write_bytes(b"\1\0\2\0\3"), "has 5 bytes, not a multiple of 2"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"\n<!DOCTYPE html><html>404"), "is a web page"),
        (
            lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha"),
            "is a Git LFS pointer",
        ),
        (lambda path: path.write_text("It was the best of times. " * 9), "is a text file"),
        (lambda path: path.write_text("C'était la ville où… " * 60), "is a text file"),
        (lambda path: path.write_bytes(b"PK\3\4" + bytes(96)), "is a zip file"),
        (lambda path: path.write_bytes(b"\x93NUMPY\1\0v\0{'descr': '<u2'}"), "is a NumPy file"),
        (lambda path: llmc_file(path, GOOD, version=7), "of version 7, expected 1"),
        (lambda path: llmc_file(path, GOOD, magic=20240801, version=7), r"Llama 3 \(version 7, ui"),
        (lambda path: llmc_file(path, GOOD, magic=20240522), "is an llm.c evaluation file"),
        (lambda path: llmc_file(path, GOOD, magic=20240326, version=3), "is an llm.c model"),
        (lambda path: llmc_file(path, GOOD, magic=20240328), "is an llm.c tokenizer"),
        (lambda path: llmc_file(path, GOOD, tokens=6), "has 1,034 bytes; .* 6 tokens: 1,036 bytes"),
        (lambda path: llmc_file(path, GOOD, tokens=4), "has 1,034 bytes; .* 4 tokens: 1,032 bytes"),
        (lambda path: llmc_file(path, GOOD, tokens=-1), "has 1,034 bytes"),
        (lambda path: llmc_file(path, []), "has 1,024 bytes; its header tells of 0 tokens"),
        (lambda path: path.write_bytes(struct.pack("<2i", 20240520, 1)), "has 8 bytes; its header"),
        (lambda path: nanogpt_file(path, [1, 2, 64, 3]), "and no id above 64"),
        (lambda path: path.mkdir(), "is not a file"),
    ],
)
def test_files_that_cannot_be_right_are_named(
    tokenizer: Path, tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    good = nanogpt_file(tmp_path / "a.bin", GOOD)
    path = tmp_path / "train.bin"
    make(path)
    files = [path] if "no id above" in said else [good, path]
    with pytest.raises(DataError, match=rf"train\.bin .*{said}") as error:
        import_bins(files, tokenizer, tmp_path / "out", CONFIG)
    assert error.value.exit_code == 3 and error.value.remedy
    assert not (tmp_path / "out").exists()  # nothing is written before all is looked at


def test_a_missing_file_and_a_truncated_one(packed: Path, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.bin does not exist"):
        import_bins([tmp_path / "nowhere.bin"], tokenizer, tmp_path / "in", CONFIG)
    export_bins(packed, tmp_path / "out", "llmc")
    path = tmp_path / "out" / "gptwo_train_000000.bin"
    whole = path.read_bytes()
    for cut in (3, 11, 1023, 1025, len(whole) - 1, len(whole) - 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"gptwo_train_000000\.bin"):
            import_bins([path], tokenizer, tmp_path / "in", CONFIG)


def test_a_large_vocabulary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merges = [(bytes([a]), bytes([b])) for a in range(20) for b in range(15)]
    Tokenizer(merges).save(tmp_path / "tokenizer")
    corpus = write_corpus(tmp_path / "corpus", [["a text"]])
    monkeypatch.setattr("gptwo.tokens.shards.LARGEST_UINT16_VOCABULARY", 300)
    monkeypatch.setattr(bins, "LARGEST_UINT16_VOCABULARY", 300)
    pack(corpus, tmp_path / "tokenizer", tmp_path / "packed", CONFIG)
    file = nanogpt_file(tmp_path / "train.bin", GOOD)
    with pytest.raises(UsageError, match=r"vocabulary of 557; .* 16-bit ids"):
        import_bins([file], tmp_path / "tokenizer", tmp_path / "in", CONFIG)
    for to in ("nanogpt", "llmc"):
        with pytest.raises(UsageError, match=r"vocabulary of 557; .* 16-bit ids"):
            export_bins(tmp_path / "packed", tmp_path / "out", to)


def test_what_cannot_be_exported_is_named(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written as 'gguf'"):
        export_bins(packed, tmp_path / "out", "gguf")
    with pytest.raises(DataError, match="holds corpus, expected tokens"):
        export_bins(tmp_path / "corpus", tmp_path / "out", "llmc")
    path = packed / "train-00000.bin"
    path.write_bytes(path.read_bytes()[:-2] + b"\0\0")
    with pytest.raises(DataError, match=r"train-00000\.bin .* SHA-256"):
        export_bins(packed, tmp_path / "out", "llmc")
    assert not (tmp_path / "out").exists()


def test_memory_does_not_grow_with_the_files(tmp_path: Path, learned: Tokenizer) -> None:
    """Sixteen million ids (32 MB) in, and out both ways, in less than they take."""
    learned.save(tmp_path / "tokenizer")
    ids = np.tile(np.arange(557, dtype="<u2"), 28_730)
    nanogpt_file(tmp_path / "train.bin", ids)
    tracemalloc.start()
    try:
        held = tracemalloc.get_traced_memory()[0]
        config = PackConfig()
        import_bins([tmp_path / "train.bin"], tmp_path / "tokenizer", tmp_path / "in", config)
        for to in ("nanogpt", "llmc"):
            export_bins(tmp_path / "in", tmp_path / to, to)
        peak = tracemalloc.get_traced_memory()[1] - held
    finally:
        tracemalloc.stop()
    shards = open_shards(tmp_path / "in", "train")
    assert isinstance(shards, Shards) and len(shards) == len(ids)
    assert peak < 30e6


def test_shards_of_gpt2_go_there_and_back(gpt2: Tokenizer, data_dir: Path, tmp_path: Path) -> None:
    """A play with GPT-2's own vocabulary, against tiktoken's ids in nanoGPT's order."""
    text = (data_dir / "text" / "tinyshakespeare.txt").read_text()[:200_000]
    scenes = text.split("\n\n")
    corpus = write_corpus(tmp_path / "corpus", [scenes], valid=[], test=[])
    pack(corpus, data_dir / "bpe", tmp_path / "packed", PackConfig())
    export_bins(tmp_path / "packed", tmp_path / "out", "nanogpt")
    oracle = tiktoken.Encoding(
        "gpt2",
        pat_str=r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        mergeable_ranks=gpt2.reference.ids,
        special_tokens={"<|endoftext|>": 50256},
    )
    expected = [i for scene in scenes for i in [*oracle.encode_ordinary(scene), 50256]]
    assert nanogpt_reads(tmp_path / "out" / "train.bin") == expected
    assert [path.name for path in (tmp_path / "out").glob("*.bin")] == ["train.bin"]
    import_bins([tmp_path / "out" / "train.bin"], data_dir / "bpe", tmp_path / "in", PackConfig())
    assert opened(tmp_path / "in") == opened(tmp_path / "packed")
