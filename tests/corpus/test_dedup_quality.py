"""Near-copies among documents whose true similarities are known: a small cut of the benchmark."""

import importlib.util
import json
import random
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest

from gptwo.corpus.build import build_corpus
from gptwo.corpus.config import CorpusConfig


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "dedup.py"
    spec = importlib.util.spec_from_file_location("dedup_benchmark", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made_up_texts(seed: int) -> Iterator[str]:
    """Texts of words as frequent as words are."""
    chance = random.Random(seed)
    while True:
        length = min(max(int(chance.lognormvariate(5.2, 0.6)), 20), 1500)
        words = (f"w{int(chance.paretovariate(0.7))}" for _ in range(length))
        yield ", ".join(words).replace(", w1,", ".\nW1")


def check_quality(benchmark: ModuleType, made: list[Any], folder: Path) -> None:
    texts, origins = [d.text for d in made], [d.origin for d in made]
    sets = benchmark.exact_sets(texts)
    truth = benchmark.true_pairs(sets)
    assert sum(known >= benchmark.ASKED for known in truth.values()) > 100
    candidates, similar, _ = benchmark.find_copies(texts, folder)
    found = benchmark.quality(similar, truth, sets, origins)
    assert found["recall"] >= 0.98 and found["recall_of_pairs_alone"] >= 0.97
    assert found["precision"] == 1 and found["precision_of_joined"] >= 0.99
    assert found["documents_joined_that_resemble_another"] == 1
    assert similar < candidates and similar == candidates & truth.keys()


def test_the_truth_is_every_pair(benchmark: ModuleType) -> None:
    texts = [d.text for d in benchmark.make_documents(made_up_texts(1), 150)]
    sets = benchmark.exact_sets(texts)
    every = {(a, b): benchmark.similarity(sets, (a, b)) for b in range(150) for a in range(b)}
    assert benchmark.true_pairs(sets) == {p: known for p, known in every.items() if known >= 0.7}


def test_near_copies_of_made_up_texts(benchmark: ModuleType, tmp_path: Path) -> None:
    made = benchmark.make_documents(made_up_texts(2), 1500)
    check_quality(benchmark, made, tmp_path)


@pytest.mark.slow
def test_near_copies_of_real_texts(benchmark: ModuleType, tmp_path: Path, data_dir: Path) -> None:
    texts = benchmark.passages(data_dir, random.Random(1))
    made = benchmark.make_documents(texts, 4000)
    check_quality(benchmark, made, tmp_path)


@pytest.mark.slow
def test_near_copies_do_not_depend_on_workers(benchmark: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "documents.jsonl"
    made = benchmark.make_documents(made_up_texts(3), 200)
    source.write_text("".join(json.dumps({"text": d.text}) + "\n" for d in made))
    config = CorpusConfig(language="", rules="none")
    corpora = [
        build_corpus([source], tmp_path / str(workers), config, workers=workers)
        for workers in (1, 3)
    ]
    assert corpora[0] == corpora[1]
    assert corpora[0].config["minhash_version"] == 2
    dropped = pq.read_table(tmp_path / "1" / "dropped").to_pylist()
    near = [row for row in dropped if row["reason"] == "near-copy"]
    assert len(near) > 10 and all(row["detail"] for row in near)
