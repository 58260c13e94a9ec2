"""How the pipeline did on the demo web, whose truth is known.

Precision, recall and F1 of extraction are those of the public article benchmark: multisets of word
4-grams of what was extracted and of the true text, averaged over pages.
"""

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

SHINGLE_WORDS = 4
EXAMPLES = 3
DUPLICATE_STAGES = ("exact-dedup", "near-dedup")

Row = dict[str, Any]


def judge(run: Path) -> dict[str, Any]:
    """Compare demoweb/truth.parquet with links, pages and corpus; ready for the report."""
    truth = pq.read_table(run / "demoweb" / "truth.parquet").to_pylist()
    left, texts = whereabouts(run)
    stages = {row["url"]: left.get(row["url"], "missing") for row in truth}
    kept = [row for row in truth if stages[row["url"]] == "kept" and row["text"]]
    return {
        "label": "Synthetic web, real prose.",
        "extraction": extraction([(row["text"], texts[row["url"]]) for row in kept]),
        "de-duplication": duplicates(truth, stages),
        "kinds of page": kinds(truth, stages),
    }


def whereabouts(run: Path) -> tuple[dict[str, str], dict[str, str]]:
    """url -> the stage it left the pipeline at, or "kept"; url -> the kept text."""
    left: dict[str, str] = {}
    for row in _rows(run / "links", "dropped*.parquet", ["url"]):
        left[row["url"]] = "links"
    for row in _rows(run / "pages", "fetched.parquet", ["url", "outcome"]):
        left[row["url"]] = "crawl" if row["outcome"] != "ok" else "missing"
    for row in _rows(run / "corpus" / "dropped", "*.parquet", ["url", "stage"]):
        left[row["url"]] = row["stage"]
    texts = {}
    for split in ("train", "valid", "test"):
        for row in _rows(run / "corpus" / split, "*.parquet", ["url", "text"]):
            left[row["url"]] = "kept"
            texts[row["url"]] = row["text"]
    return left, texts


def _rows(folder: Path, pattern: str, columns: list[str]) -> list[Row]:
    return [
        row
        for path in sorted(folder.glob(pattern))
        for row in pq.read_table(path, columns=columns).to_pylist()
    ]


def extraction(pairs: list[tuple[str, str]]) -> dict[str, float]:
    """Macro averages over (true text, extracted text)."""
    scores = [shingle_scores(true, found) for true, found in pairs]
    names = ("precision", "recall", "f1")
    n = max(len(scores), 1)
    averages = {name: sum(s[i] for s in scores) / n for i, name in enumerate(names)}
    return {"pages": len(scores), **averages}


def shingle_scores(true: str, found: str) -> tuple[float, float, float]:
    """Precision, recall and F1 of `found` against `true`, by shared word 4-grams."""
    wanted, got = _shingles(true), _shingles(found)
    shared = (wanted & got).total()
    precision = shared / got.total() if got else 0.0
    recall = shared / wanted.total() if wanted else 0.0
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0


def _shingles(text: str) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    n = min(SHINGLE_WORDS, max(len(words), 1))
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def duplicates(truth: list[Row], stages: dict[str, str]) -> dict[str, float]:
    """Of the pages removed as copies, how many are; of the copies, how many were removed.

    A removal is right when another page of the same group was kept.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for row in truth:
        if row["group"]:
            groups[row["group"]].append(stages[row["url"]])
    known = [s for members in groups.values() for s in members]
    removed = sum(stage in DUPLICATE_STAGES for stage in stages.values())
    right = superfluous = single = 0
    for members in groups.values():
        present = [s for s in members if s == "kept" or s in DUPLICATE_STAGES]
        superfluous += max(len(present) - 1, 0)
        right += sum(s in DUPLICATE_STAGES for s in present) if "kept" in present else 0
        single += present.count("kept") == 1
    return {
        "pages with copies": len(known),
        "removed": removed,
        "precision": right / removed if removed else 0.0,
        "recall": right / superfluous if superfluous else 0.0,
        "groups": len(groups),
        "groups with one survivor": single,
    }


def kinds(truth: list[Row], stages: dict[str, str]) -> list[Row]:
    """For each kind of page: how many went where they should."""
    table: dict[str, Row] = {}
    for row in truth:
        entry = table.setdefault(
            row["kind"],
            {
                "kind": row["kind"],
                "pages": 0,
                "as expected": 0,
                "wrongly kept": 0,
                "wrongly lost": 0,
                "examples": "",
            },
        )
        entry["pages"] += 1
        stage = stages[row["url"]]
        if _as_expected(row, stage):
            entry["as expected"] += 1
            continue
        survivors = row["expected_stage"] != "kept" and not row["group"]
        if stage == "kept":
            entry["wrongly kept"] += 1
        elif not survivors:
            entry["wrongly lost"] += 1
        if entry["examples"].count(";") < EXAMPLES - 1:
            entry["examples"] += ("; " if entry["examples"] else "") + f"{row['url']} ({stage})"
    return [table[kind] for kind in sorted(table)]


def _as_expected(row: Row, stage: str) -> bool:
    """Of pages with copies any may be the survivor: `duplicates` says whether one is left."""
    if row["group"]:
        return stage == "kept" or stage in DUPLICATE_STAGES
    return stage in row["expected_stage"].split("|")
