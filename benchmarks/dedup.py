"""How fast and how well near-copies are found: prints JSON.

usage: python benchmarks/dedup.py DATA [--documents 50000] [--turns 3] [--peers PYTHON]

DATA is a folder with `text/news_articles_3824.jsonl.xz` and `text/classic_books/*.jsonl.xz`, JSON
lines with a field `text`. Passages of them, 1.5 kB on average, are four fifths of the documents;
the others are copies of some: exact, dressed (other case, spacing and punctuation), with words
changed, with a foreign passage put in, cut short. How much is changed is drawn anew for each, so
that pairs of every similarity are there, and a passage may have several copies.

The truth is computed, not assumed: all pairs of documents of similarity >= 0.7 are found exactly,
by prefix filtering over the word 5-grams as Python's `re` and `hash` make them, with none of our
code. Two documents are joined when they land in one component.

With `--peers`, an interpreter that has rensa, datatrove (with spacy) and datasketch, their rates
are measured in the same turns as ours, and their quality by their bands alone, as they are used.
Rates are documents per second of processor time in one process, best of the turns.
"""

import argparse
import json
import lzma
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.duplicates import dedup, near
from gptwo.corpus.duplicates.minhash import BANDS, ROWS, sketch
from gptwo.corpus.shards import SHARD_DOCUMENTS, Draft, write_shard
from gptwo.pool import Task
from gptwo.world import machine

LEAST = 0.7  # similarity from which the truth is exact: the default of near_duplicate_similarity
ASKED = 0.8  # similarity from which pairs must be found
PEERS = ("rensa", "rensa_matrix", "datatrove", "datatrove_split", "datasketch")
SAMPLE = {"datatrove": 1000, "datatrove_split": 1000, "datasketch": 2000, "plain": 2000}

Pair = tuple[int, int]
Sets = list[np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A text, and the number of the document it was made from (its own where from none)."""

    text: str
    origin: int
    kind: str


# ---- documents ----


def passages(data: Path, chance: random.Random) -> Iterator[str]:
    """Stretches of whole lines, 100 bytes to 20 kB."""
    folder = data / "text"
    for path in [folder / "news_articles_3824.jsonl.xz", *sorted(folder.glob("classic_*/*.xz"))]:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield from cut(json.loads(line)["text"], chance)


def cut(text: str, chance: random.Random) -> Iterator[str]:
    begin, end = 0, 0
    while end < len(text):
        length = int(min(max(chance.lognormvariate(6.9, 0.7), 100), 10_000))
        end = text.find("\n", begin + length)
        end = min(end if end >= 0 else len(text), begin + 2 * length, len(text))
        if end - begin >= 100:
            yield text[begin:end]
        begin = end


def make_documents(texts: Iterable[str], count: int, seed: int = 1) -> list[Document]:
    """`count` documents, a fifth of them changed copies of others, well mixed."""
    chance = random.Random(seed)
    whole = list(islice(texts, count - count // 5))
    made = [Document(text=text, origin=n, kind="passage") for n, text in enumerate(whole)]
    for _ in range(count - len(whole)):
        origin = int(len(whole) * chance.random() ** 2)  # some passages get several copies
        kind = chance.choice(list(CHANGES))
        text = CHANGES[kind](whole[origin], chance, whole)
        made.append(Document(text=text, origin=origin, kind=kind))
    chance.shuffle(made)
    return made


def exact(text: str, chance: random.Random, others: list[str]) -> str:
    return text


def dressed(text: str, chance: random.Random, others: list[str]) -> str:
    text = chance.choice([text.upper(), text.title(), text.lower()])
    spaces = re.sub(r"\s+", lambda found: chance.choice([" ", "  ", "\n", " \t"]), text)
    return re.sub(r"[,.;]", lambda found: chance.choice([found[0], "", " -"]), f"* {spaces} *")


def worded(text: str, chance: random.Random, others: list[str]) -> str:
    share = 10 ** chance.uniform(-3, -1)
    words = re.split(r"(\s+)", text)
    return "".join(
        f"other{chance.randrange(999)}" if chance.random() < share and word.strip() else word
        for word in words
    )


def inserted(text: str, chance: random.Random, others: list[str]) -> str:
    words = text.split(" ")
    more = chance.choice(others).split(" ")[: int(len(words) * chance.uniform(0.01, 0.5)) + 1]
    place = chance.randrange(len(words) + 1)
    return " ".join([*words[:place], *more, *words[place:]])


def truncated(text: str, chance: random.Random, others: list[str]) -> str:
    return text[: int(len(text) * chance.uniform(0.55, 1)) + 1]


CHANGES = {
    "exact": exact,
    "dressed": dressed,
    "worded": worded,
    "inserted": inserted,
    "truncated": truncated,
}


# ---- the truth ----


def exact_sets(texts: Iterable[str]) -> Sets:
    """The word 5-grams of each text as sorted hashes, with none of our code."""
    found = []
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        size = min(5, len(words))
        grams = {hash(tuple(words[i : i + size])) for i in range(len(words) - size + 1)}
        found.append(np.array(sorted(grams) if words else [], np.int64))
    return found


def similarity(sets: Sets, pair: Pair) -> float:
    a, b = sets[pair[0]], sets[pair[1]]
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / max(len(a) + len(b) - common, 1)


def true_pairs(sets: Sets) -> dict[Pair, float]:
    """Every pair of similarity >= 0.7, and how similar it is.

    Of two such sets sorted by rarity, each has an element of the other among its first
    n - ceil(0.7 n) + 1: were they all missing, too few would be left to share.
    """
    names, counts = np.unique(np.concatenate(sets), return_counts=True)
    seen: dict[int, list[int]] = defaultdict(list)
    found: dict[Pair, float] = {}
    for number, values in enumerate(sets):
        rare = np.argsort(counts[np.searchsorted(names, values)], kind="stable")
        prefix = values[rare[: len(values) - int(np.ceil(LEAST * len(values))) + 1]].tolist()
        for other in {other for value in prefix for other in seen[value]}:
            known = similarity(sets, (other, number))
            if known >= LEAST:
                found[other, number] = known
        for value in prefix:
            seen[value].append(number)
    return found


# ---- ours ----


def find_copies(texts: list[str], folder: Path) -> tuple[set[Pair], set[Pair], dict[str, float]]:
    """(pairs that share a band, those of them that are similar, seconds of each step)."""
    rows = [Draft(row=number, text=text) for number, text in enumerate(texts)]
    starts = range(0, len(rows), SHARD_DOCUMENTS)
    shards = [folder / f"{number:05}.parquet" for number in range(len(starts))]
    for path, start in zip(shards, starts, strict=True):
        write_shard(path, rows[start : start + SHARD_DOCUMENTS])
    seconds: dict[str, float] = {}

    def run(name: str, job: Any, inputs: list[Any]) -> list[Path]:
        began = time.process_time()
        outputs = [folder / name / f"{number:05}.parquet" for number in range(len(inputs))]
        for source, out in zip(inputs, outputs, strict=True):
            job(Task(input=source, output=out), CorpusConfig(), lambda number: None)
        seconds[name] = round(time.process_time() - began, 2)
        return outputs

    keys = run("keys", dedup.keys_file, shards)
    copies = run("none", dedup.losers_file, [[]])[0]
    asked = [(keys, copies, bands, 0, 1) for bands in near.band_groups(len(texts))]
    candidates = run("pairs", near.pairs_file, asked)
    mark = run("buckets", near.buckets_file, [(keys, candidates)])[0]
    places, pairs = near.bucket_files(mark)
    sets = run("sets", near.sets_file, [(shard, places) for shard in shards])
    similar: set[Pair] = set()
    began = time.process_time()
    for bucket in range(near.count_buckets(mark)):
        least = CorpusConfig().near_duplicate_similarity
        a, b = near.similar_pairs(near.read_bucket(sets, bucket), pairs, bucket, least)
        similar.update(zip(a.tolist(), b.tolist(), strict=True))
    seconds["similar"] = round(time.process_time() - began, 2)
    return read_pairs([pairs]), similar, seconds


def read_pairs(paths: list[Path]) -> set[Pair]:
    tables = [pq.read_table(path) for path in paths]
    return {
        pair
        for table in tables
        for pair in zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True)
    }


# ---- quality ----


def joined(pairs: Iterable[Pair]) -> set[Pair]:
    """All pairs within the components that some pairs make."""
    groups: dict[int, list[int]] = defaultdict(list)
    a, b = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
    rows = np.union1d(a, b)
    for row, root in zip(rows.tolist(), near.components(rows, iter([(a, b)])), strict=True):
        groups[root].append(row)
    return {pair for group in groups.values() for pair in combinations(sorted(group), 2)}


def quality(
    pairs: set[Pair], truth: dict[Pair, float], sets: Sets, origins: list[int]
) -> dict[str, Any]:
    """How many of the true pairs are joined, and how many of the joined are true.

    A chain may join two copies of one passage that are less than 0.7 similar to each other.
    """
    together = joined(pairs)
    asked = [pair for pair, known in truth.items() if known >= ASKED]
    between = [pair for pair, known in truth.items() if known < ASKED]
    resemble = {row for pair in truth for row in pair}
    rows = {row for pair in pairs for row in pair}
    return {
        "pairs": len(pairs),
        "recall": share(len(together.intersection(asked)), len(asked)),
        "recall_of_pairs_alone": share(len(pairs.intersection(asked)), len(asked)),
        "recall_0.7_to_0.8": share(len(together.intersection(between)), len(between)),
        "precision": share(sum(similarity(sets, pair) >= LEAST for pair in pairs), len(pairs)),
        "precision_of_joined": share(
            sum(origins[a] == origins[b] or (a, b) in truth for a, b in together), len(together)
        ),
        "joined_that_are_similar": share(len(together & truth.keys()), len(together)),
        "documents_joined_that_resemble_another": share(len(rows & resemble), len(rows)),
    }


def share(part: int, whole: int) -> float:
    return round(part / max(whole, 1), 5)


def s_curve(made: list[Document], sets: Sets, texts: list[str]) -> list[dict[str, Any]]:
    """Of copies and what they were made from, how many share a band, by their similarity."""
    keys, _ = sketch(pa.array(texts, pa.large_string()))
    first = {document.origin: n for n, document in enumerate(made) if document.kind == "passage"}
    found, tried, expected = Counter[int](), Counter[int](), Counter[int]()
    for number, document in enumerate(made):
        if document.kind != "passage":
            pair = (first[document.origin], number)
            known = similarity(sets, pair)
            place = min(int(known * 20), 19)
            tried[place] += 1
            found[place] += bool((keys[pair[0]] == keys[pair[1]]).any())
            expected[place] += 1 - (1 - known**ROWS) ** BANDS  # type: ignore[assignment]
    return [
        {
            "similarity": [place / 20, (place + 1) / 20],
            "pairs": tried[place],
            "expected": round(expected[place] / tried[place], 3),
            "found": round(found[place] / tried[place], 3),
        }
        for place in sorted(tried)
    ]


def bucket_pairs(signatures: np.ndarray) -> set[Pair]:
    """Pairs that share a band of a peer's (n, 112) signatures."""
    pairs: set[Pair] = set()
    for band in np.split(signatures, BANDS, axis=1):
        groups: dict[bytes, list[int]] = defaultdict(list)
        for number, rows in enumerate(band):
            if rows.any():  # zeros: a text without words
                groups[rows.tobytes()].append(number)
        pairs.update(pair for group in groups.values() for pair in combinations(group, 2))
    return pairs


# ---- rates ----


def in_child(python: str, way: str, texts: list[str], folder: Path) -> dict[str, Any]:
    source, out = folder / "texts.json", folder / f"{way}.npy"
    source.write_text(json.dumps(texts), encoding="utf-8")
    script = Path(__file__).with_name("dedup_peers.py")
    command = [python, str(script), way, str(source), str(out)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return {**json.loads(done.stdout.splitlines()[-1]), "out": out}


def measure(texts: list[str], turns: int, peers: str, folder: Path) -> dict[str, Any]:
    """Rates of all ways, turn by turn."""
    ways = ["gptwo", "plain", *(PEERS if peers else ())]
    rates, versions = defaultdict(list), {}
    for _ in range(turns):
        for way in ways:
            sample = texts[: SAMPLE.get(way, 10_000)]
            python = peers if way in PEERS else sys.executable
            ran = in_child(python, way, sample, folder)
            rates[way].append(len(sample) / ran["cpu_seconds"])
            versions[way] = ran["version"]
    best = {way: round(max(known)) for way, known in rates.items()}
    return {
        "documents_per_cpu_second": best,
        "ratio_to_gptwo": {way: round(best["gptwo"] / rate, 1) for way, rate in best.items()},
        "versions": {way: known for way, known in versions.items() if known},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peers", default="")
    asked = parser.parse_args()
    made = make_documents(passages(asked.data, random.Random(1)), asked.documents)
    texts = [document.text for document in made]
    origins = [document.origin for document in made]
    sets = exact_sets(texts)
    truth = true_pairs(sets)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rates = measure(texts, asked.turns, asked.peers, folder)
        candidates, similar, seconds = find_copies(texts, folder)
        qualities = {"gptwo": quality(similar, truth, sets, origins)}
        for way in ("rensa_matrix", "datatrove") if asked.peers else ():
            out = in_child(asked.peers, way, texts, folder)["out"]
            qualities[way] = quality(bucket_pairs(np.load(out)), truth, sets, origins)
    found = {
        "command": " ".join(["python benchmarks/dedup.py", *sys.argv[1:]]),
        "machine": machine(),
        "documents": len(texts),
        "kinds": dict(Counter(document.kind for document in made)),
        "mean_bytes": round(sum(len(text.encode()) for text in texts) / len(texts)),
        "ascii": share(sum(text.isascii() for text in texts), len(texts)),
        "true_pairs": {
            f">= {least}": sum(known >= least for known in truth.values())
            for least in (LEAST, ASKED, 0.9)
        },
        "rates": rates,
        "cpu_seconds_of_steps": seconds,
        "candidates": len(candidates),
        "quality": qualities,
        "s_curve": s_curve(made, sets, texts),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
