"""Fingerprints, candidates and who stays."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptwo.corpus.dedup import ALL_PAIRS, components, connect, find_copies, find_pairs
from gptwo.corpus.minhash import VERSION, band_keys, jaccard, normalise, shingles, signature

WORDS = [f"w{i}" for i in range(4000)]


def plain_shingles(text: str) -> set[tuple[str, ...]]:
    """The twin of `shingles`: sets of word tuples."""
    words = normalise(text).split()
    n = min(5, len(words))
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)} if words else set()


def text_of(rng: random.Random, words: int) -> list[str]:
    return [rng.choice(WORDS) for _ in range(words)]


@pytest.mark.parametrize("words", [0, 1, 4, 5, 6, 400])
def test_shingles_equal_the_plain_twin(words: int) -> None:
    rng = random.Random(words)
    a = text_of(rng, words)
    b = [word if rng.random() > 0.03 else "other" for word in a] + a[:50]  # some 5-grams repeat
    for text in (a, b):
        assert len(shingles(" ".join(text))) == len(plain_shingles(" ".join(text)))
    ours = jaccard(shingles(" ".join(a)), shingles(" ".join(b)))
    one, two = plain_shingles(" ".join(a)), plain_shingles(" ".join(b))
    assert ours == pytest.approx(len(one & two) / max(len(one | two), 1))


def test_what_normalisation_ignores() -> None:
    a, b = "The  cat,\n\nsat (on) a MAT — twice.", "the cat sat on a mat twice"
    assert np.array_equal(shingles(a), shingles(b))
    assert not np.array_equal(shingles(a), shingles(b + " more"))
    assert shingles("... --- !!!").size == 0


def test_minhash_estimates_similarity_and_bands_find_it() -> None:
    rng = random.Random(7)
    found = {0.5: 0, 0.8: 0, 0.9: 0}
    trials = 60
    for target in found:
        for _ in range(trials):
            shared = text_of(rng, int(1000 * 2 * target / (1 + target)))
            rest = 1000 - len(shared)
            a = shingles(" ".join(shared + text_of(rng, rest)))
            b = shingles(" ".join(shared + text_of(rng, rest)))
            x, y = signature(a), signature(b)
            assert abs(float((x == y).mean()) - jaccard(a, b)) < 0.2
            found[target] += bool((band_keys(x) == band_keys(y)).any())
    # 1 - (1 - s^8)^14 is 0.05, 0.92 and 1.00
    assert found[0.5] <= 12 and found[0.8] >= 46 and found[0.9] == trials


def test_signatures_do_not_change_within_a_version() -> None:
    assert VERSION == 2
    keys = band_keys(signature(shingles("the quick brown fox jumps over the lazy dog")))
    assert [int(key) for key in keys[:2]] == [2605393921946317455, 10869741933919717687]


def write_bands(path: Path, rows: list[tuple[int, int, int]]) -> Path:
    columns = zip(*rows, strict=True)
    kinds = (("row", pa.int64()), ("band", pa.uint8()), ("key", pa.uint64()))
    table = {name: pa.array(c, kind) for (name, kind), c in zip(kinds, columns, strict=True)}
    pq.write_table(pa.table(table), path)
    return path


def test_candidate_pairs(tmp_path: Path) -> None:
    path = write_bands(
        tmp_path / "b.parquet", [(1, 0, 5), (2, 0, 5), (3, 1, 5), (2, 3, 9), (1, 3, 9)]
    )
    with connect(tmp_path / "spill", 2) as database:
        find_pairs(database, [path], tmp_path / "pairs.parquet")
    assert pq.read_table(tmp_path / "pairs.parquet").to_pylist() == [{"a": 1, "b": 2}]


def test_a_full_bucket_stays_linear(tmp_path: Path) -> None:
    n = 2000
    assert n > ALL_PAIRS
    path = write_bands(tmp_path / "b.parquet", [(row, 0, 5) for row in range(n)])
    with connect(tmp_path / "spill", 2) as database:
        find_pairs(database, [path], tmp_path / "pairs.parquet")
    pairs = [(p["a"], p["b"]) for p in pq.read_table(tmp_path / "pairs.parquet").to_pylist()]
    assert len(pairs) < 2 * n and set(components(pairs).values()) == {0}


def test_components() -> None:
    assert components([(5, 9), (9, 12), (1, 2)]) == {1: 1, 2: 1, 5: 5, 9: 5, 12: 5}
    assert components([]) == {}


def test_the_best_copy_stays(tmp_path: Path) -> None:
    rows = [
        # row, id, url, source, score, length, key
        (1, "b", "u1", "s", None, 10, "same"),
        (2, "c", "u2", "s", 3, 5, "same"),
        (3, "d", "u3", "s", 3, 7, "same"),  # highest score, then longest
        (4, "e", "u4", "s", 1, 1, "alone"),
        (5, "g", "u5", "s", 2, 4, "tied"),
        (6, "f", "", "s", 2, 4, "tied"),  # smallest id
    ]
    names = ("row", "id", "url", "source", "score", "length", "key")
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])
    pq.write_table(table, tmp_path / "keys.parquet")
    with connect(tmp_path / "spill", 2) as database:
        find_copies(database, [tmp_path / "keys.parquet"], tmp_path / "losers.parquet")
    losers = {r["row"]: r["kept"] for r in pq.read_table(tmp_path / "losers.parquet").to_pylist()}
    assert losers == {1: "d u3", 2: "d u3", 5: "f"}
