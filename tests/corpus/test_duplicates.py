"""Fingerprints, candidates and who stays."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.duplicates.dedup import LOSERS, copies_file
from gptwo.corpus.duplicates.minhash import (
    BANDS,
    VERSION,
    band_keys,
    jaccard,
    normalise,
    shingles,
    signature,
)
from gptwo.corpus.duplicates.near import ALL_PAIRS, band_groups, components, pairs_file
from gptwo.pool import Task

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


def find_pairs(folder: Path, keys: list[list[int | None]], parts: int = 1) -> list[tuple[int, int]]:
    """Candidate pairs of documents 0, 1, ... with these keys of the first bands."""
    bands = {
        f"band{n}": pa.array([row[n] for row in keys], pa.uint64()) for n in range(len(keys[0]))
    }
    pq.write_table(pa.table({"row": range(len(keys)), **bands}), folder / "keys.parquet")
    pq.write_table(LOSERS.empty_table(), folder / "losers.parquet")
    found = set()
    for band in range(len(bands)):
        for part in range(parts):
            asked = ([folder / "keys.parquet"], folder / "losers.parquet", [band], part, parts)
            task = Task(input=asked, output=folder / "pairs.parquet")
            pairs_file(task, CorpusConfig(), lambda number: None)
            found |= {(p["a"], p["b"]) for p in pq.read_table(task.output).to_pylist()}
    return sorted(found)


@pytest.mark.parametrize("parts", [1, 3])
def test_candidate_pairs(tmp_path: Path, parts: int) -> None:
    keys: list[list[int | None]] = [[5, 9], [5, 9], [6, 5], [None, 8], [None, 7], [4, 8]]
    assert find_pairs(tmp_path, keys, parts) == [(0, 1), (3, 5)]


def test_every_band_is_in_one_task() -> None:
    for documents in (0, 20_000, 10**6, 10**9):
        bands = [band for group in band_groups(documents) for band in group]
        assert sorted(bands) == list(range(BANDS))
    assert len(band_groups(0)) == 1 and len(band_groups(10**9)) == BANDS


def test_a_full_bucket_stays_linear(tmp_path: Path) -> None:
    n = 2000
    assert n > ALL_PAIRS
    pairs = find_pairs(tmp_path, [[5]] * n)
    assert len(pairs) < 2 * n and not joined(pairs, n).any()


def joined(pairs: list[tuple[int, int]], n: int) -> np.ndarray:
    a, b = np.array(pairs, np.int64).reshape(-1, 2).T
    return components(np.arange(n), iter([(a, b)]))


def test_components() -> None:
    rows, pairs = np.array([1, 2, 5, 9, 12, 40]), np.array([(5, 9), (9, 12), (1, 2)])
    assert components(rows, iter([tuple(pairs.T)])).tolist() == [0, 0, 2, 2, 2, 5]
    assert components(rows, iter([(pair[:1], pair[1:]) for pair in pairs])).tolist() == [
        0, 0, 2, 2, 2, 5,
    ]  # fmt: skip
    assert components(rows[:0], iter([])).tolist() == []


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60), st.integers(1, 9))
def test_components_equal_a_search(pairs: list[tuple[int, int]], size: int) -> None:
    edges = np.array(pairs, np.int64).reshape(-1, 2)
    batches = [tuple(edges[start : start + size].T) for start in range(0, len(edges), size)]
    found = components(np.arange(31), iter(batches)).tolist()  # type: ignore[arg-type]
    least = list(range(31))
    for _ in range(31):
        for a, b in pairs:
            least[a] = least[b] = min(least[a], least[b])
    assert found == least


@pytest.mark.parametrize("parts", [1, 3])
def test_the_best_copy_stays(tmp_path: Path, parts: int) -> None:
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
    words = pa.array(
        [{"same": 1, "alone": 2, "tied": 3}[str(row[-1])] for row in rows], pa.uint64()
    )
    table = table.set_column(6, "key", words).append_column("key2", words)
    pq.write_table(table, tmp_path / "keys.parquet")
    losers = {}
    for part in range(parts):
        task = Task(input=([tmp_path / "keys.parquet"], part, parts), output=tmp_path / "l.parquet")
        copies_file(task, CorpusConfig(), lambda number: None)
        losers |= {r["row"]: r["kept"] for r in pq.read_table(task.output).to_pylist()}
    assert losers == {1: "d u3", 2: "d u3", 5: "f"}
