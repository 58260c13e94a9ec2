"""Evaluation sets are found in documents, word by word, and taken out."""

import json
import lzma
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_process import line_of, number_of, sentence
from page_files import rows_of
from test_build_corpus import prose

from gptwo.corpus import build
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.overlap.decontaminate import cut_out
from gptwo.corpus.overlap.evaluation import Piece, find_sets, read_set
from gptwo.corpus.overlap.hits import NUMBERS, find_hits, index_file, open_index
from gptwo.corpus.words import normalise
from gptwo.errors import DataError
from gptwo.pool import Task


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@dataclass(frozen=True)
class Outcome:
    """Texts kept and rows dropped, by the number of the document; spans; what the manifest says."""

    kept: dict[int, str]
    dropped: dict[int, dict[str, Any]]
    spans: list[dict[str, Any]]
    table: list[dict[str, Any]]


def clean_of(
    tmp_path: Path, texts: list[str], sets: Path | dict[str, Path], **changes: Any
) -> Outcome:
    """The stage alone, over two shards, and the parts it is split into."""
    folder = tmp_path / "clean"
    line = line_of(folder, texts, CorpusConfig(**changes))
    index = line.index_sets(find_sets([sets]) if isinstance(sets, Path) else sets)
    assert index
    line.decontaminate(index, folder)
    line.split(folder)
    return outcome(folder, line.details["overlap"])


def outcome(folder: Path, table: list[dict[str, Any]]) -> Outcome:
    assert not (folder / "spill").exists()  # nothing but results lies beside the splits
    kept = [row for split in ("train", "valid", "test") for row in rows_of(folder, split)]
    dropped = [row for row in rows_of(folder, "dropped") if row["stage"] == "decontaminate"]
    return Outcome(
        kept={number_of(row): row["text"] for row in kept},
        dropped={number_of(row): row for row in dropped},
        spans=pq.read_table(folder / "contaminated.parquet").to_pylist(),
        table=table,
    )


# ---- reading the sets ----

STORY = [f"Line {number} ." for number in range(1, 21)]
FORMATS: dict[str, tuple[str, list[tuple[int, str]]]] = {
    "lines.txt": (
        "One two.\n\nIt did n't <unk> stop .\n",
        [(1, "One two."), (3, "It didn't"), (3, "stop .")],
    ),
    "rows.jsonl": (
        '{"id": "a1", "text": "a b"}\n{"question": "c d?", "answer": ["e f", "g"]}\n',
        [(1, "a b"), (2, "c d?"), (2, "e f")],
    ),
    "value.json": (
        '{"version": "1",\n "data": [{"story": "a b", "questions": [{"input_text": "c d"}]}]}',
        [(1, "a b"), (1, "c d")],
    ),
    "list.json": ('["a b", {"text": "c d"}]', [(1, "a b"), (2, "c d")]),
    "hellaswag.jsonl": (
        '{"ctx": "A man", "endings": ["sits down.", "stands up."], "label": "1"}\n',
        [(1, "A man stands up.")],
    ),
    "unlabelled.jsonl": (
        '{"ctx": "A man", "endings": ["sits.", "stands."], "label": ""}\n',
        [(1, "A man sits."), (1, "A man stands.")],
    ),
    "winograd.jsonl": (
        '{"context_options": ["It fits as the box", "It fits as the car"],'
        ' "continuation": "is big.", "gold": 0}\n',
        [
            (1, "It fits as the box is big."),
            (1, "It fits as the car is big."),
            (1, "It fits as the"),
        ],
    ),
    "schema.xml": (
        "<all><schema><b>It fits</b>\n<pron>it</pron></schema><schema><a>b c</a></schema></all>",
        [(1, "It fits it"), (2, "b c")],
    ),
    "cloze.txt": (
        "".join(f"{number} {line}\n" for number, line in enumerate(STORY, 1))
        + "21 Who XXXXX ?\tran\t\tran|sat\n\n",
        [(1, f"{' '.join(STORY)} Who ran ?")],
    ),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "xz"])
def test_sets_of_all_formats_are_read(tmp_path: Path, name: str, packed: bool) -> None:
    text, expected = FORMATS[name]
    path = tmp_path / (name + ".xz" * packed)
    path.write_bytes(lzma.compress(text.encode()) if packed else text.encode())
    (key,) = sets = find_sets([tmp_path])
    assert key == name.removesuffix(".jsonl").removesuffix(".json")
    assert [(piece.number, piece.text) for piece in read_set(key, sets[key])] == expected


def test_a_set_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    whole = lzma.compress(b"some words here\n" * 500)
    bad = {
        "cut.txt.xz": (whole[:-30], "damaged"),
        "empty.txt": (b" \n", "is empty"),
        "pointer.jsonl": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        "bytes.bin": (b"a\0b", "is not text"),
        "table.parquet": (b"PAR1....", "is not text"),
        "cut.jsonl": (b'{"text": "a b"}\n{"text": "c', "cut.jsonl"),
        "deep.json": (b"[" * 100_000, "deep.json"),
        "entities.xml": (b'<!DOCTYPE a [<!ENTITY b "c">]>\n<a>', "entities.xml"),
    }
    for name, (data, message) in bad.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(DataError, match=message):
            list(read_set("a", path))
    with pytest.raises(DataError, match="does not exist"):
        find_sets([tmp_path / "nothing"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="empty folder"):
        find_sets([tmp_path / "folder"])


# ---- finding ----


def make_index(tmp_path: Path, texts: list[str], words: int = 8) -> Any:
    sets = write_lines(tmp_path / "set.jsonl", [{"text": text} for text in texts])
    out = tmp_path / "index" / "index.json"
    out.parent.mkdir()
    config = CorpusConfig(decontaminate_words=words)
    index_file(Task(output=out, input=[("set", sets)]), config, lambda number: None)
    return open_index(out)


def naive_hits(text: str, texts: list[str], words: int) -> list[tuple[int, str]]:
    """Word and n-gram of each hit, by Python's own sets."""
    own = [normalise(each).split() for each in texts]
    known = {tuple(w[i : i + words]) for w in own for i in range(len(w) - words + 1)}
    ours = normalise(text).split()
    grams = [tuple(ours[i : i + words]) for i in range(len(ours) - words + 1)]
    return [(place, " ".join(gram)) for place, gram in enumerate(grams) if gram in known]


FEW_WORDS = st.lists(
    st.sampled_from(["a", "b", "Ç", "İ", "ΣΑΣ", "d'e", "-", "\n", "_f"]), max_size=40
)


@settings(deadline=None, max_examples=25)
@given(st.lists(FEW_WORDS.map(" ".join), min_size=1, max_size=4), FEW_WORDS.map(" ".join))
def test_hits_are_those_of_python_sets(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], text: str
) -> None:
    texts = [f"{each} x y" for each in texts]
    index = make_index(tmp_path_factory.mktemp("a"), texts, words=4)
    hits = find_hits([sentence(1, 9), text, ""], index)
    assert [(hit["text"], hit["word"]) for hit in hits] == [
        (1, place) for place, _ in naive_hits(text, texts, 4)
    ]
    for hit, (_, gram) in zip(hits, naive_hits(text, texts, 4), strict=True):
        assert normalise(text[hit["begin"] : hit["end"]]) == gram and hit["length"] == len(text)


def test_two_ngrams_with_one_hash_are_never_taken_for_each_other(tmp_path: Path) -> None:
    texts = [sentence(seed, 30) for seed in range(20)]
    index = make_index(tmp_path, texts)
    document = " ".join(texts[3].split()[5:25])
    assert len(find_hits([document], index)) == 13
    elsewhere = np.roll(np.array(index.first), 1, axis=0)  # as if other words had these hashes
    wrong = type(index)(**{**vars(index), "first": elsewhere})
    assert len(find_hits([document], wrong)) == 0
    assert set(find_hits([document], index).dtype.names or ()) == {"text", *NUMBERS}


# ---- dropping and cutting ----


def test_documents_are_dropped_with_set_example_and_words(tmp_path: Path) -> None:
    """Through the whole line; the stages before see the same documents."""
    examples = [sentence(seed, 40) for seed in range(5)]
    sets = tmp_path / "sets"
    sets.mkdir()
    write_lines(sets / "one.jsonl", [{"text": text} for text in examples])
    (sets / "two.txt").write_text(sentence(9, 40) + "\n")
    clean = [prose(n) for n in range(8)]
    planted = f"{prose(20)}\n\nHe said: «{examples[2].upper()}!» Then\n\n{prose(21)}"
    rows = [{"text": t, "url": f"http://a.example/{n}"} for n, t in enumerate([*clean, planted])]
    source = write_lines(tmp_path / "source.jsonl", rows)
    config = CorpusConfig(decontaminate=(str(sets),), language="", rules="none")
    manifest = build.build_corpus([source], tmp_path / "out", config, workers=2)
    found = outcome(tmp_path / "out", manifest.details["overlap"])
    assert found.kept == dict(enumerate(clean)) and list(found.dropped) == [8]
    row = found.dropped[8]
    assert row["reason"] == "contaminated" and row["text"] == planted
    assert row["detail"] == f"one 3, 40 words: {examples[2].upper()[:200]}..."
    one, two = found.table
    assert one == {
        "set": "one", "examples": 5, "too_short": 0, "ngrams": 165, "found": 33, "left": 0,
        "found_share": 0.2, "left_share": 0.0, "examples_hit": 1, "documents": 1, "passages": 1,
    }  # fmt: skip
    assert (two["set"], two["ngrams"], two["found"], two["documents"]) == ("two.txt", 33, 0, 0)
    assert manifest.counts["stages"][-2]["dropped"] == {"contaminated": 1}
    assert manifest.config["decontaminate"] == ["one", "two.txt"]  # names, not places
    assert set(manifest.inputs) == {"source.jsonl", "sets"}
    (span,) = found.spans
    assert planted[span["begin"] : span["end"]] == examples[2].upper()
    assert (span["set"], span["example"], span["words"], span["action"]) == ("one", 3, 40, "drop")
    assert span["id"] == row["id"] and span["url"] == row["url"]
    again = build.build_corpus([source], tmp_path / "again", config, workers=1)
    assert again == manifest  # for any number of workers


def test_spans_are_cut_to_the_word(tmp_path: Path) -> None:
    examples = [sentence(seed, 30) for seed in range(4)]
    sets = write_lines(tmp_path / "s.jsonl", [{"text": text} for text in examples])
    whole = f"{prose(1)} Before («{examples[0]}», after\n\n{prose(2)}\n{examples[1]}. {prose(3)}"
    edited = examples[2].split()
    edited[14] = "another word"  # an edit within a passage goes with it
    texts = [
        whole,
        f"{prose(4)} {' '.join(edited)} {prose(5)}",
        f"Short. {examples[3]}",
        " ".join(f"{prose(n, 4)} {' '.join(examples[n % 4].split()[: 13 + n])}" for n in range(11)),
        prose(6),
    ]
    found = clean_of(tmp_path, texts, sets, decontaminate_action="cut")
    assert found.kept[0] == f"{prose(1)} Before\n\nafter\n\n{prose(2)}\n\n{prose(3)}"
    assert found.kept[1] == f"{prose(4)}\n\n{prose(5)}" and found.kept[4] == prose(6)
    assert sorted(found.dropped) == [2, 3]  # too little is left; too many cuts
    assert found.dropped[3]["detail"].startswith("s 3, 23 words (and 10 more): ")
    (row,) = found.table
    assert (row["documents"], row["passages"], row["left"]) == (4, 15, 0)
    assert [span["words"] for span in found.spans if span["url"].endswith("/1")] == [29]
    again = tmp_path / "again"
    again.mkdir()
    assert clean_of(again, list(found.kept.values()), sets).table[0]["found"] == 0


@given(st.text(), st.lists(st.integers(0, 40), max_size=6).map(sorted))
def test_cutting_keeps_every_other_word(text: str, places: list[int]) -> None:
    words = list(re.finditer(r"\w+", text))
    edges = [place for place in places if place < len(words)]
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    pairs = [pair for n, pair in enumerate(pairs) if not n or pair[0] > pairs[n - 1][1]]
    spans = [(words[a].start(), words[b].end()) for a, b in pairs]
    gone = {n for a, b in pairs for n in range(a, b + 1)}
    left = [word[0] for n, word in enumerate(words) if n not in gone]
    assert re.findall(r"\w+", cut_out(text, spans)) == left or any("_" in w[0] for w in words)


# ---- thresholds ----


def test_chance_phrases_are_left_and_parts_of_short_examples_are_not(tmp_path: Path) -> None:
    long, short = sentence(1, 60), sentence(2, 10)
    sets = write_lines(tmp_path / "s.jsonl", [{"text": long}, {"text": short}])
    words = long.split()
    texts = [
        f"{prose(n, 4)} {phrase} {prose(30 + n, 4)}"
        for n, phrase in enumerate([" ".join(words[20:32]), " ".join(words[20:33]), short])
    ]
    found = clean_of(tmp_path, texts, sets)
    assert list(found.kept) == [0] and sorted(found.dropped) == [
        1,
        2,
    ]  # 12 words, 13 words, a whole example
    (row,) = found.table
    assert (row["found"], row["left"], row["examples_hit"]) == (6 + 3, 5, 2)


def test_the_part_of_an_example_beside_a_replaced_word_is_no_example(tmp_path: Path) -> None:
    parts = [sentence(seed, 9) for seed in (1, 2, 3)]
    sets = tmp_path / "s.tokens"
    sets.write_text(f" {' <unk> '.join(parts)} \n {sentence(4, 5)} <unk> {sentence(5, 9)} \n")
    texts = [f"{prose(n, 4)} {part} {prose(9 + n, 4)}" for n, part in enumerate(parts)]
    found = clean_of(tmp_path, [*texts, f"{prose(8, 4)} {sentence(5, 9)}"], sets)
    (row,) = found.table
    assert not found.dropped and (row["examples"], row["ngrams"], row["left"]) == (2, 8, 8)


@pytest.mark.parametrize("documents", [10, 11])
def test_common_phrases_are_nobodys_text(tmp_path: Path, documents: int) -> None:
    """In more than 10 documents a part of an example is a phrase; a whole example is none."""
    phrase, example = sentence(3, 20), sentence(4, 20)
    sets = write_lines(
        tmp_path / "s.jsonl", [{"text": f"{phrase} {sentence(5, 40)}"}, {"text": example}]
    )
    texts = [f"{prose(n, 4)} {part}" for part in (phrase, example) for n in range(documents)]
    texts = [f"{text} {prose(100 + n, 4)}" for n, text in enumerate(texts)]
    found = clean_of(tmp_path, texts, sets)
    assert set(range(documents, 2 * documents)) <= set(found.dropped)
    assert len(found.kept) == (0 if documents <= 10 else documents)


def test_ngrams_of_another_length(tmp_path: Path) -> None:
    words = sentence(1, 60).split()
    sets = write_lines(
        tmp_path / "s.jsonl", [{"text": " ".join(words)}, {"text": "a b c d e f g h i j"}]
    )
    texts = [
        f"{prose(n, 4)} {' '.join(words[:count])} {prose(50 + n, 4)}"
        for n, count in enumerate([12, 13])
    ]
    found = clean_of(tmp_path, texts, sets, decontaminate_words=13)
    assert list(found.dropped) == [1]
    (row,) = found.table
    assert (row["ngrams"], row["found"], row["too_short"]) == (48, 1, 1)


def test_settings_out_of_range_are_refused() -> None:
    for change in (
        {"decontaminate_words": 3},
        {"decontaminate_words": 65},
        {"decontaminate_least_words": 0},
        {"decontaminate_common": 0},
        {"decontaminate_action": "mark"},
    ):
        with pytest.raises(ValueError, match=next(iter(change))):
            CorpusConfig(**change)  # type: ignore[arg-type]


# ---- real sets ----


REAL = ("lambada/lambada_test", "wikitext2/wiki.test.raw", "hellaswag/hellaswag_val")
REAL += ("wsc273/winograd_wsc", "cnn_dailymail/cnndm_test_200")


def real_pieces(sets: dict[str, Path], chance: random.Random) -> list[tuple[str, Piece]]:
    """Passages of sets, as they are there: 30 words, or all of a shorter one."""
    out = []
    for name, path in sets.items():
        pieces = [p for p in read_set(name, path) if len(normalise(p.text).split()) >= 14]
        for piece in chance.sample(pieces, 20):
            words = list(re.finditer(r"\w+", piece.text))
            first = chance.randrange(max(len(words) - 30, 1))
            last = min(first + 29, len(words) - 1)
            out.append((piece.text[words[first].start() : words[last].end()], piece))
    return out


@pytest.mark.slow
def test_real_passages_are_all_found_and_nothing_else_is_touched(
    tmp_path: Path, data_dir: Path
) -> None:
    chance = random.Random(0)
    sets = {name: path for name, path in find_sets([data_dir / "eval"]).items() if name in REAL}
    planted = real_pieces(sets, chance)
    with lzma.open(data_dir / "text" / "news_articles_3824.jsonl.xz", "rt") as lines:
        news = [json.loads(line)["text"] for line in lines]
    news = [text for text in news if len(text) > 1000][: 3 * len(planted)]
    hosts = [text if n % 2 else prose(n) for n, text in enumerate(news)]  # real and generated
    texts = list(hosts)
    places = chance.sample(range(len(texts)), len(planted))
    for place, (passage, _) in zip(places, planted, strict=True):
        words = list(re.finditer(r"\S+", texts[place]))
        at = words[chance.randrange(len(words))].start()
        texts[place] = f"{texts[place][:at]}{passage} {texts[place][at:]}"
    found = clean_of(tmp_path, texts, sets, decontaminate_action="cut")
    spans = {number_of(span): span for span in found.spans}
    assert sorted(spans) == sorted(places) == sorted(found.kept.keys() & places)
    for place, (passage, piece) in zip(places, planted, strict=True):
        begin, end = spans[place]["begin"], spans[place]["end"]
        there = normalise(texts[place][begin:end])
        extra = there.removeprefix(normalise(passage)).split()
        assert there.startswith(normalise(passage)) and len(extra) <= 2, (passage, there)
        assert spans[place]["set"].split("/")[0] == piece.set.split("/")[0]
    clean = set(range(len(texts))) - set(places)
    assert {n: found.kept[n] for n in clean} == {n: texts[n] for n in clean}
    table = {row["set"]: row for row in found.table}
    for name in {piece.set for _, piece in planted}:
        assert table[name]["found"] > table[name]["left"] and table[name]["left_share"] < 0.0005
