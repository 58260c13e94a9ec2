"""language: what is kept, that the model is the local one, and that the kernel is its library."""

import gzip
import importlib.util
import json
import lzma
import random
import re
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from resiliparse.parse.lang import detect_fast

from gptwo.corpus.cleaning import fasttext, language
from gptwo.corpus.cleaning.fasttext import load_model
from gptwo.corpus.cleaning.language import (
    SLICE_CHARACTERS,
    Detector,
    detect,
    local_detector,
    plain_detector,
    sample,
)
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.shards import Draft, read_shard, stages_file, write_shard
from gptwo.pool import Task

TEXTS = {
    "en": "The committee met on Tuesday to discuss the budget for the coming year.",
    "de": "Der Ausschuss traf sich am Dienstag, um über den Haushalt zu beraten.",
    "fr": "Le comité s'est réuni mardi pour discuter du budget de l'année prochaine.",
}
kernel = pytest.importorskip("gptwo.native._language")


@pytest.fixture(scope="module")
def plain() -> Detector:
    return plain_detector()


def drafts_of(tmp_path: Path, texts: list[str], config: CorpusConfig) -> list[Draft]:
    write_shard(tmp_path / "in.parquet", [Draft(text=text) for text in texts])
    stages = [("language", language.language)]
    task = Task(input=(tmp_path / "in.parquet", stages), output=tmp_path / "out.parquet")
    stages_file(task, config, lambda position: None)
    return read_shard(tmp_path / "out.parquet", kept=False)


def test_english_is_kept_and_nothing_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("nothing may be fetched")

    monkeypatch.setattr("socket.socket.connect", refuse)
    texts = [*TEXTS.values(), "User-agent: *\nDisallow: /", "12 34\n56"]
    drafts = drafts_of(tmp_path, texts, CorpusConfig())
    assert [draft.lang for draft in drafts[:3]] == list(TEXTS)
    assert [draft.reason for draft in drafts] == [
        "",
        "other-language",
        "other-language",
        "uncertain-language",
        "uncertain-language",
    ]
    assert drafts[1].detail.startswith("de 0.9") or drafts[1].detail == "de 1.00"
    assert drafts[4].detail == "und 0.00"


def test_settings(tmp_path: Path) -> None:
    texts = list(TEXTS.values())
    kept = drafts_of(tmp_path, texts, CorpusConfig(language="de"))
    assert [draft.reason == "" for draft in kept] == [False, True, False]
    every = drafts_of(tmp_path, [*texts, "12"], CorpusConfig(language=""))
    assert not any(draft.reason for draft in every)
    loose = drafts_of(tmp_path, ["x", "12"], CorpusConfig(language_threshold=0.0))
    assert [draft.reason for draft in loose] == ["", "uncertain-language"]
    strict = drafts_of(tmp_path, ["Malformed request"], CorpusConfig(language_threshold=1.0))
    assert strict[0].reason


def test_a_book_is_judged_by_three_slices() -> None:
    text = "a" * 50_000 + "b" * 50_000 + "c" * 50_000
    assert len(sample(text)) == 3 * SLICE_CHARACTERS + 2 and {"a", "b", "c"} < set(sample(text))
    assert sample("short") == "short"


@pytest.mark.parametrize(
    ("text", "expected", "certain"),
    [
        ("", "und", False),
        (" \n\t", "und", False),
        ("1 2.5 3,000\n| 4 | 5 |\n2024-01-01", "und", False),
        ("😀 🎉 … 👍🏽 🇫🇷", "und", False),
        ("No, thanks", "en", False),
        (TEXTS["en"], "en", True),
        (TEXTS["en"].upper(), "en", True),  # as it stands the model takes it for Japanese
        (TEXTS["en"].upper() + " (pdf)", "en", True),
        (TEXTS["de"].upper(), "de", True),
        # mixed: the language of most of it, with less certainty
        (f"{TEXTS['en']} {TEXTS['fr']}", "fr", True),
        (TEXTS["fr"] + f" {TEXTS['en']}" * 5, "en", False),
        (TEXTS["fr"] + f" {TEXTS['en']}" * 9, "en", True),
        ("Год 2024\nГод 2025\n" + "12 34 56 78\n" * 50, "ru", True),
        ("委员会星期二开会讨论明年的预算。", "zh", True),
        ("</s> " + TEXTS["de"], "de", True),  # the model's own mark for the end of a text
        ("__label__fr " + TEXTS["en"], "en", True),
        ("\ud800 " + TEXTS["en"], "en", True),
    ],
)
def test_short_mixed_and_strange_texts(text: str, expected: str, certain: bool) -> None:
    found, score = detect(local_detector(), text)
    assert 0 <= score <= 1 and (score >= 0.65) == certain
    assert found == expected or not certain


@given(st.text(st.sampled_from("ABCabc ÉéЯя1."), max_size=30))
def test_capitals_are_told_as_the_library_does(text: str) -> None:
    capitals, small = re.findall("[A-Z]", text), re.findall("[a-z]", text)
    expected = len(capitals) > 0.8 * (len(capitals) + len(small))
    assert language._mostly_capitals(text.encode()) == expected


def test_code_is_english_or_uncertain() -> None:
    code = Path(language.__file__).read_text(encoding="utf-8")
    found, score = detect(local_detector(), code)
    assert found == "en" and score > 0.3


@pytest.mark.slow
def test_precision_and_recall_on_pages_of_many_languages(data_dir: Path) -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "language.py"
    spec = importlib.util.spec_from_file_location("language_benchmark", path)
    assert spec and spec.loader
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    # The page, its address and a third are witnesses of its language, none of them our model.
    labelled, fates = benchmark.pages(data_dir, lambda texts: [detect_fast(t)[0] for t in texts])
    found = [detect(local_detector(), text)[0] for _, text in labelled]
    figures = benchmark.quality(labelled, found)
    labels = {label for label, _ in labelled}
    assert fates["used"] >= 300 and {"en", "de", "fr"} <= labels
    assert figures["precision"] >= 0.985 and figures["recall"] >= 0.985
    assert figures["accuracy_of_13"] >= 0.99


# ---- the kernel and fastText's library ----


def same(text: str, plain: Detector) -> None:
    """Equal to the bit, scores too."""
    data = text.encode("utf-8", "replace")
    assert local_detector().classify(data) == plain.classify(data), text[:80]


@given(st.text(max_size=300))
def test_kernel_equals_the_library_on_any_text(plain: Detector, text: str) -> None:
    same(text, plain)


PIECES = ["</s>", "__label__", "__label__en", "<", ">", "a", "of", "é", "日", "\0", "\n", " "]


@given(st.lists(st.sampled_from(PIECES)))
def test_kernel_equals_the_library_on_its_own_marks(plain: Detector, parts: list[str]) -> None:
    same("".join(parts), plain)


def test_kernel_equals_the_library_on_manuals_of_many_languages(plain: Detector) -> None:
    paths = sorted(Path("/usr/share/man").glob("**/*.gz"))
    if not paths:
        pytest.skip("this machine has no manuals")
    random.Random(1).shuffle(paths)
    for path in paths[:300]:
        same(sample(gzip.decompress(path.read_bytes()).decode("utf-8", "replace")), plain)


def test_kernel_equals_the_library_on_news_and_french(data_dir: Path, plain: Detector) -> None:
    with lzma.open(data_dir / "text" / "news_articles_3824.jsonl.xz", "rt", encoding="utf-8") as f:
        texts = [json.loads(line)["text"] for line in islice(f, 200)]
    french = data_dir / "eval" / "wmt14_fr_en" / "newstest2014.fr"
    lines = french.read_text(encoding="utf-8").splitlines()
    for text in [*texts, *lines[:1000]]:
        same(sample(text), plain)
    whole = ["\n".join(lines[start : start + 10]) for start in range(0, 3000, 10)]
    assert {detect(local_detector(), text)[0] for text in whole} == {"fr"}


@given(st.binary(max_size=80))
def test_kernel_reads_any_bytes(data: bytes) -> None:
    found, score = local_detector().classify(data)
    assert found and 0 <= score <= 1.001


def test_without_a_kernel_the_library_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gptwo.native._language", None)
    monkeypatch.delattr("gptwo.native._language")
    detector = local_detector.__wrapped__()
    assert [detect(detector, text)[0] for text in TEXTS.values()] == list(TEXTS)


# ---- the model's file ----


@pytest.fixture(scope="module")
def model_bytes() -> bytes:
    return language.model_path().read_bytes()


def test_the_model_is_one_that_the_kernel_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    languages = load_model(language.model_path(), kernel)[1]
    assert len(set(languages)) == 176 and languages[0] == "en"
    monkeypatch.setattr(language, "plain_detector", lambda: pytest.fail("the library serves"))
    local_detector.__wrapped__()


def test_a_model_of_another_shape_is_left_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, kernel: object) -> None:
        raise ValueError("another shape")

    monkeypatch.setattr(language, "load_model", refuse)
    assert detect(local_detector.__wrapped__(), TEXTS["de"])[0] == "de"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.99, 1 - 1e-6])
def test_a_cut_model_is_refused(tmp_path: Path, model_bytes: bytes, share: float) -> None:
    path = tmp_path / "cut.ftz"
    path.write_bytes(model_bytes[: int(len(model_bytes) * share)])
    with pytest.raises(ValueError):
        load_model(path, kernel)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [(0, 0, "version"), (4, 11, "version"), (8, 100, "shape"), (40, 1, "shape")],
)
def test_another_model_is_refused(
    tmp_path: Path, model_bytes: bytes, place: int, value: int, message: str
) -> None:
    path = tmp_path / "other.ftz"
    number = value.to_bytes(4, "little")
    path.write_bytes(model_bytes[:place] + number + model_bytes[place + 4 :])
    with pytest.raises(ValueError, match=message):
        load_model(path, kernel)


TREE = fasttext.huffman_tree([1] * 176)
ROWS, DECISIONS = np.zeros((2, 16), np.float32), np.zeros((175, 16), np.float32)
BUCKETS = np.array([7], np.int32)


def bent(place: int, child: int) -> np.ndarray:
    children = TREE.copy()
    children[place] = child
    return children


@pytest.mark.parametrize(
    "tables",
    [
        (b"</s>", BUCKETS, ROWS, TREE, DECISIONS),
        (b"", BUCKETS, ROWS[1:], TREE, DECISIONS),
        (b"a\0", BUCKETS, ROWS, TREE, DECISIONS),
        (b"</s>\0", BUCKETS, ROWS[1:], TREE, DECISIONS),
        (b"</s>\0", BUCKETS + 2_000_000, ROWS, TREE, DECISIONS),
        (b"</s>\0", BUCKETS - 8, ROWS, TREE, DECISIONS),
        (b"</s>\0", np.array([7, 7], np.int32), np.zeros((3, 16), np.float32), TREE, DECISIONS),
        (b"</s>\0", BUCKETS, ROWS, TREE[1:], DECISIONS),
        (b"</s>\0", BUCKETS, ROWS, TREE, DECISIONS[1:]),
        (b"</s>\0", BUCKETS, ROWS, bent(5, 350), DECISIONS),
        (b"</s>\0", BUCKETS, ROWS, bent(5, -1), DECISIONS),
        (b"</s>\0", BUCKETS, ROWS, bent(5, 3), DECISIONS),
        (b"a\0" * 20_000 + b"</s>\0", BUCKETS, np.zeros((20_002, 16), np.float32), TREE, DECISIONS),
    ],
)
def test_kernel_refuses_tables_that_do_not_agree(tables: tuple[Any, ...]) -> None:
    kernel.load(b"</s>\0", BUCKETS, ROWS, TREE, DECISIONS)
    with pytest.raises(ValueError, match="not a model"):
        kernel.load(*tables)
