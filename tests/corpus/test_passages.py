"""Passages that stand in several documents, or twice in one, stay once."""

import json
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_process import line_of, number_of, sentence
from page_files import rows_of

from gptwo.corpus.build import build_corpus
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.duplicates import passages
from gptwo.corpus.shards import document_id
from gptwo.corpus.words import normalise


def cut(
    folder: Path, texts: list[str], unit: str = "paragraph", **changes: Any
) -> tuple[dict[int, str], dict[int, str], dict[str, int]]:
    """Texts kept, details of those dropped, counts."""
    fields = {name: changes.pop(name) for name in ("score",) if name in changes}
    line = line_of(folder, texts, CorpusConfig(passages=unit, **changes), **fields)
    line.cut_passages()
    line.split(folder)
    kept = [row for split in ("train", "valid", "test") for row in rows_of(folder, split)]
    dropped = rows_of(folder, "dropped")
    assert {row["reason"] for row in dropped} <= {"repeated-passages"}
    return (
        {number_of(row): row["text"] for row in kept},
        {number_of(row): row["detail"] for row in dropped},
        line.details["passages"],
    )


def own(n: int) -> str:
    return f"Own {sentence(1000 + n, 30)}."


NOTICE, OTHER = f"A {sentence(1, 12)}.", f"B {sentence(2, 12)}."


def test_a_passage_of_many_stays_in_the_best_document(tmp_path: Path) -> None:
    dressed = NOTICE.upper().replace(" ", "  ")
    texts = [
        f"{own(0)}\n\n{NOTICE}\n\n{own(10)}",
        f"{NOTICE}\n \n\n{own(1)}",
        f"{own(2)}\n\n\n{dressed}",
        f"{own(3)} {NOTICE}",  # within a paragraph
        f"{own(4)}\n\nShort notice of six words here.",
        f"{own(5)}\n\nShort notice of six words here.",
    ]
    kept, dropped, counts = cut(tmp_path, texts, score=[1, 5, 5, 9, 0, 0])
    assert kept == {
        0: f"{own(0)}\n\n{own(10)}",
        1: own(1),
        2: texts[2],  # as good as 1, and longer
        3: texts[3],
        4: texts[4],
        5: texts[5],
    }
    assert not dropped and counts == {"cut": 2, "documents": 2}


def test_a_passage_that_stands_twice_in_a_document_stays_where_it_is_first(tmp_path: Path) -> None:
    texts = [
        f"{OTHER}\n\n{own(0)}\n\n{OTHER}\n\n{own(1)}\n\n{OTHER}",
        f"{own(2)}\n\n{NOTICE}\n\n{NOTICE}",
        f"{own(3)}\n\n{NOTICE}\n\n{own(4)}",
    ]
    kept, _, counts = cut(tmp_path, texts)
    assert kept[0] == f"{OTHER}\n\n{own(0)}\n\n{own(1)}"
    assert kept[1] == own(2) and kept[2] == texts[2]  # the longest has it
    assert counts == {"cut": 4, "documents": 2}
    (tmp_path / "two").mkdir()
    kept, _, _ = cut(tmp_path / "two", texts, passage_documents=2)
    assert kept[1] == f"{own(2)}\n\n{NOTICE}" and kept[2] == texts[2]


def test_lines_and_the_words_they_must_have(tmp_path: Path) -> None:
    texts = [f"{own(n)}\nRead more about this today\n{NOTICE}\n\nEnd {n}." for n in range(3)]
    kept, _, _ = cut(tmp_path, texts, "line", passage_words=5)
    assert kept[0] == texts[0] or len([t for t in kept.values() if NOTICE in t]) == 1
    assert sorted(len(text.split("\n")) for text in kept.values()) == [3, 3, 5]
    (tmp_path / "six").mkdir()
    kept, _, _ = cut(tmp_path / "six", texts, "line", passage_words=6)
    assert sum("Read more" in text for text in kept.values()) == 3


def test_a_document_of_little_else_is_dropped(tmp_path: Path) -> None:
    shared = [f"{n} {sentence(n, 20)}." for n in range(4)]
    texts = ["\n\n".join([own(0), *shared]), "\n\n".join([shared[2], "Tiny.", shared[0]]), own(2)]
    kept, dropped, counts = cut(tmp_path, texts)
    assert kept == {0: texts[0], 2: texts[2]} and counts == {"cut": 2, "documents": 1}
    assert dropped[1].startswith("2 of 3 paragraphs stand elsewhere: ")
    assert dropped[1].endswith("http://a.example/0")


UNITS = st.lists(st.sampled_from([f"{name} " * 3 for name in "abcdefgh"]), max_size=6)


@settings(deadline=None, max_examples=8)
@given(st.lists(UNITS, min_size=1, max_size=6), st.integers(1, 3), st.integers(1, 3))
def test_the_join_is_what_a_plain_count_says(
    tmp_path_factory: pytest.TempPathFactory, units: list[list[str]], most: int, parts: int
) -> None:
    texts = [
        "\n".join([f"only{n} {sentence(n, 40)}", *each]).rstrip() for n, each in enumerate(units)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passages, "PART_DOCUMENTS", max(len(texts) // parts, 1))
        folder = tmp_path_factory.mktemp("a")
        asked = {"passage_words": 3, "passage_documents": most}
        kept, _, counts = cut(folder, texts, "line", **asked)
    ids = [document_id(text) for text in texts]
    where = defaultdict(set)
    for n, each in enumerate(units):
        for unit in each:
            where[normalise(unit)].add(n)
    best = {
        unit: min(docs, key=lambda n: (-len(texts[n]), ids[n], n)) for unit, docs in where.items()
    }
    gone = 0
    for n, each in enumerate(units):
        expected: list[str] = []
        for unit in map(normalise, each):
            if unit not in expected and (len(where[unit]) <= most or best[unit] == n):
                expected.append(unit)
            else:
                gone += 1
        assert [normalise(line) for line in kept[n].split("\n")][1:] == expected
    assert counts["cut"] == gone


def test_generated_truth(tmp_path: Path) -> None:
    """Notices in 1,000 documents: each stays once, nothing else is lost."""
    chance = random.Random(0)
    notices = [f"Notice {sentence(n, 15)}." for n in range(50)]
    texts, planted = [], Counter()
    for n in range(1000):
        parts = [own(10 * n + i) for i in range(3)]
        for notice in chance.sample(notices, chance.randrange(3)):
            parts.insert(chance.randrange(len(parts) + 1), notice)
            planted[notice] += 1
        texts.append("\n\n".join(parts))
    kept, dropped, counts = cut(tmp_path, texts)
    left = Counter(part for text in kept.values() for part in text.split("\n\n"))
    assert len(kept) == 1000 and not dropped
    assert {notice: left[notice] for notice in notices} == dict.fromkeys(notices, 1)
    assert counts["cut"] == planted.total() - 50
    for n, text in enumerate(texts):
        whole = [part for part in text.split("\n\n") if part not in planted]
        assert [part for part in kept[n].split("\n\n") if part not in planted] == whole


def test_the_same_for_any_number_of_workers_and_through_the_whole_line(tmp_path: Path) -> None:
    texts = [f"{own(n)}\n\n{NOTICE}\n\n{own(n + 100)}" for n in range(40)]
    source = tmp_path / "s.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    config = CorpusConfig(language="", rules="none", passages="paragraph")
    made = [
        build_corpus([source], tmp_path / str(workers), config, workers=workers)
        for workers in (1, 3)
    ]
    assert made[0] == made[1] and made[0].details["passages"] == {"cut": 39, "documents": 39}
    names = [entry["stage"] for entry in made[0].counts["stages"]]
    assert names.index("near-dedup") + 1 == names.index("passages") < names.index("wikipedia")


def test_settings_out_of_range_are_refused() -> None:
    for change in ({"passages": "word"}, {"passage_words": 0}, {"passage_documents": 0}):
        with pytest.raises(ValueError, match="passage"):
            CorpusConfig(**change)  # type: ignore[arg-type]
