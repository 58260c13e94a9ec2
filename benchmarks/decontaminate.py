"""How fast and how well overlap is found (evaluation sets, Wikipedia, passages): prints JSON.

usage: python benchmarks/decontaminate.py DATA [--documents 20000] [--turns 3] [--peer-documents N]

DATA is a folder with `eval/`, `text/news_articles_3824.jsonl.xz`, `text/classic_books/*.jsonl.xz`
and `text/enwiki_106_articles.xml.bz2`. News articles and stretches of books are the documents. Into
a twentieth of them passages of five evaluation sets are put: as they are, in other case and
punctuation, or with one word in the middle changed. That is the truth; what else is found is listed
in the numbers as `by_nature`, since the texts do quote each other.

The peer is datatrove's NGramsDecontFilter, in this process, in turns with ours, its index made of
the planted examples alone (all sets would take its tokenizer minutes). Rates are per second of
processor time in one process, best of the turns.
"""

import argparse
import json
import lzma
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.duplicates import passages
from gptwo.corpus.duplicates.dedup import keys_file
from gptwo.corpus.overlap import decontaminate, encyclopedia, ngrams
from gptwo.corpus.overlap import hits as overlap
from gptwo.corpus.overlap.dump import read_articles
from gptwo.corpus.overlap.evaluation import Piece, find_sets, read_set
from gptwo.corpus.shards import Draft, document_id, read_shard, read_table, run_stages, write_shard
from gptwo.corpus.words import normalise
from gptwo.pool import Job, Task
from gptwo.world import machine

PLANTED = (
    "lambada/lambada_test",
    "wikitext2/wiki.test.raw",
    "hellaswag/hellaswag_val",
    "wsc273/winograd_wsc",
    "cnn_dailymail/cnndm_test_200",
)
DUMP = "text/enwiki_106_articles.xml.bz2"
SHARD = 512  # documents


def documents(data: Path) -> Iterator[str]:
    """News articles, then stretches of books of 3 kB."""
    folder = data / "text"
    for path in [folder / "news_articles_3824.jsonl.xz", *sorted(folder.glob("classic_*/*.xz"))]:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                text = json.loads(line)["text"].strip()
                long = len(text) > 30_000
                parts = re.findall(r"(?s).{1,3000}(?=\n\n|\Z)", text) if long else [text]
                yield from (part.strip() for part in parts if len(part) > 300)


def plant(
    texts: list[str], data: Path, chance: random.Random
) -> tuple[dict[int, tuple[str, str, Piece]], list[Piece]]:
    """Put a passage into every twentieth text: place -> (how, passage, piece)."""
    sets = find_sets([data / "eval"])
    pieces = [
        piece
        for name in PLANTED
        for piece in chance.sample(list(read_set(name, sets[name])), 200)
        if len(normalise(piece.text).split()) >= 14
    ]
    planted = {}
    for place in range(0, len(texts), 20):
        piece = chance.choice(pieces)
        words = list(re.finditer(r"\w+", piece.text))
        first = chance.randrange(max(len(words) - 40, 1))
        last = min(first + 39, len(words) - 1)
        passage = piece.text[words[first].start() : words[last].end()]
        how = chance.choice(["as it is", "dressed", "one word changed"])
        if how == "dressed":
            passage = re.sub(r"[,;.]", " -", passage.upper()).replace(" ", "\n")
        if how == "one word changed" and len(passage.split(" ")) >= 28:
            parts = passage.split(" ")
            parts[len(parts) // 2] = "another"
            passage = " ".join(parts)
        at = texts[place].find(" ", len(texts[place]) // 2) + 1
        texts[place] = f"{texts[place][:at]}{passage} {texts[place][at:]}"
        planted[place] = (how, passage, piece)
    return planted, pieces


def run(job: Job, source: Any, out: Path, config: CorpusConfig) -> Path:
    job(Task(input=source, output=out), config, ignore)
    return out


def ignore(number: int) -> None:
    """Where a worker would tell how far it is."""


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def shards_of(texts: list[str], folder: Path) -> list[Path]:
    shards = []
    for start in range(0, len(texts), SHARD):
        drafts = [
            Draft(row=row, id=document_id(text), url=f"http://a.example/{row}", text=text)
            for row, text in enumerate(texts[start : start + SHARD], start)
        ]
        shards.append(folder / f"{start:07}.parquet")
        write_shard(shards[-1], drafts)
    return shards


# ---- evaluation sets ----


def decontaminated(shards: list[Path], data: Path, folder: Path) -> dict[str, Any]:
    """All steps of the stage: spans, table and processor seconds of each."""
    config, seconds = CorpusConfig(decontaminate_action="cut"), {}
    sets = list(find_sets([data / "eval"]).items())

    def step(name: str, job: Job, sources: list[Any]) -> list[Path]:
        (folder / name).mkdir()
        outs = [folder / name / f"{number:05}.parquet" for number in range(len(sources))]
        pairs = zip(sources, outs, strict=True)
        took, paths = timed(lambda: [run(job, source, out, config) for source, out in pairs])
        seconds[name] = round(took, 2)
        return paths

    index = step("index", overlap.index_file, [sets])[0]
    hits = step("hits", overlap.hits_file, [(shard, [], index) for shard in shards])
    common = step("common", decontaminate.common_file, [hits])[0]
    found = step("spans", decontaminate.spans_file, [(path, common, index) for path in hits])
    spans = step("sorted", passages.sorted_file, [(found, "begin")])[0]
    table = step("table", decontaminate.table_file, [(index, hits, found)])[0]
    stage = partial(decontaminate.decontaminate, spans=spans)
    kept = [read_shard(shard) for shard in shards]
    took, _ = timed(lambda: [run_stages(each, [("d", stage)], config, ignore) for each in kept])
    seconds["cut"] = round(took, 2)
    size = sum(path.stat().st_size for path in (folder / "index").iterdir())
    return {"index": index, "spans": spans, "table": table, "seconds": seconds, "index_bytes": size}


def quality(
    spans: list[dict[str, Any]], texts: list[str], planted: dict[int, tuple[str, str, Piece]]
) -> dict[str, Any]:
    """Of planted passages how many were found, and cut to the word; what else was found."""
    by_row: dict[int, list[dict[str, Any]]] = {}
    for span in spans:
        by_row.setdefault(span["row"], []).append(span)
    found, exact, total = Counter(), Counter(), Counter(how for how, _, _ in planted.values())
    for place, (how, passage, _) in planted.items():
        words = normalise(passage)
        there = [normalise(texts[place][s["begin"] : s["end"]]) for s in by_row.get(place, ())]
        found[how] += bool(there)
        # a text may happen to go on as the example does
        exact[how] += any(words in t and len(t.split()) <= len(words.split()) + 3 for t in there)
    return {
        "planted": dict(total),
        "found": {how: round(found[how] / n, 4) for how, n in total.items()},
        "cut_to_the_word": {how: round(exact[how] / n, 4) for how, n in total.items()},
        "by_nature": len(set(by_row) - set(planted)),
    }


def peer_rate(
    texts: list[str], planted: dict[int, Any], pieces: list[Piece], folder: Path
) -> Callable[[], dict[str, Any]]:
    """datatrove's filter with 8-grams, ready to be asked about some texts."""
    from datatrove.data import Document
    from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
    from datatrove.utils.text import ngrams as grams_of
    from datatrove.utils.text import simplify_text

    folder.mkdir()
    settings = NGramsDecontConfig(n_grams=8)
    theirs = NGramsDecontFilter(str(folder), settings)
    hash_bytes: Any = theirs.hash_func  # as shipped it fails: it hands text to the bytes' hash
    theirs.hash_func = lambda text: hash_bytes(text.encode())
    hashes = set()
    for piece in pieces:
        words = theirs.tokenizer.word_tokenize(simplify_text(piece.text, settings.norm_config))
        hashes |= {theirs.hash_func(" ".join(gram)) for gram in grams_of(words, 8)}
    array = np.array(sorted(hashes), dtype=settings.hash_config.np_descr)
    array.tofile(folder / "all.index.hashes")
    theirs.load_index_hashes()
    asked = [Document(text=text, id=str(n)) for n, text in enumerate(texts)]

    def once() -> dict[str, Any]:
        took, kept = timed(lambda: [theirs.filter(document) is True for document in asked])
        dropped = {n for n, keep in enumerate(kept) if not keep}
        own = {n for n in planted if n < len(texts)}
        return {
            "seconds": took,
            "found": round(len(dropped & own) / max(len(own), 1), 4),
            "by_nature": len(dropped - own),
        }

    return once


def rates(
    texts: list[str], index: Path, turns: int, peer: Callable[[], dict[str, Any]], peers: int
) -> dict[str, Any]:
    """MB and documents a second, turn by turn: ours on all texts, the twin and the peer on some."""
    known = overlap.open_index(index)
    kernel = ngrams._kernel
    some = texts[:peers]
    times: dict[str, list[float]] = {"gptwo": [], "plain twin": [], "datatrove": []}
    theirs: dict[str, Any] = {}
    for _ in range(turns):
        times["gptwo"].append(timed(lambda: in_shards(texts, known))[0])
        ngrams._kernel = lambda: None
        times["plain twin"].append(timed(lambda: in_shards(some, known))[0])
        ngrams._kernel = kernel
        theirs = peer()
        times["datatrove"].append(theirs.pop("seconds"))
    found = {}
    for name, took in times.items():
        asked = texts if name == "gptwo" else some
        size = sum(len(text.encode()) for text in asked)
        found[name] = {
            "mb_per_second": round(size / 1e6 / min(took), 2),
            "documents_per_second": round(len(asked) / min(took)),
        }
    ours = found["gptwo"]["mb_per_second"]
    found["times_datatrove"] = round(ours / found["datatrove"]["mb_per_second"], 1)
    found["datatrove"] |= theirs
    return found


def in_shards(texts: list[str], known: overlap.Index) -> None:
    for start in range(0, len(texts), SHARD):
        overlap.find_hits(texts[start : start + SHARD], known)


# ---- Wikipedia and passages ----


def wikipedia(texts: list[str], data: Path, folder: Path) -> dict[str, Any]:
    """What the index of a dump takes, how fast it is asked, and what it says of other texts."""
    folder.mkdir()
    path, config = data / DUMP, CorpusConfig()
    articles = list(read_articles(path))
    reading, _ = timed(lambda: sum(1 for _ in read_articles(path)))
    table = folder / "articles.parquet"
    making, _ = timed(lambda: run(encyclopedia.articles_file, (path, 1), table, config))
    index = run(encyclopedia.encyclopedia_file, ([table], 1), folder / "index.json", config)
    known = encyclopedia.open_encyclopedia(index)
    took, found = timed(lambda: encyclopedia.overlaps(texts, known))
    whole = encyclopedia.overlaps([text for _, text in articles if len(text) > 2_000], known)
    size = sum(len(text.encode()) for text in texts)
    shares = np.array([each.share for each in found])
    count = sum(len(normalise(text).split()) for _, text in articles)
    return {
        "dump_mb_per_second": round(path.stat().st_size / 1e6 / reading, 2),
        "dump_to_hashes_mb_per_second": round(path.stat().st_size / 1e6 / making, 2),
        "articles": len(articles),
        "words": count,
        "words_per_byte_of_dump": round(count / path.stat().st_size, 3),
        "filter_bytes_per_ngram": round(known.members.nbytes / len(known.titled), 2),
        "mb_per_second": round(size / 1e6 / took, 1),
        "documents_per_second": round(len(texts) / took),
        "least_share_of_articles": round(min(each.share for each in whole), 4),
        "shares_of_other_texts": {
            str(q): round(float(np.percentile(shares, q)), 4) for q in (50, 99, 99.9, 100)
        },
        "dropped_of_other_texts": int((shares >= config.wikipedia_share).sum()),
    }


def repeated(shards: list[Path], texts: list[str], folder: Path) -> dict[str, Any]:
    """The stage over all documents, with 200 notices in every fifth."""
    folder.mkdir()
    config = CorpusConfig(passages="paragraph")
    notices = [" ".join(f"notice{n}word{i}" for i in range(15)) for n in range(200)]
    changed = [
        f"{text}\n\n{notices[n // 5 % 200]}" if n % 5 == 0 else text for n, text in enumerate(texts)
    ]
    shards = shards_of(changed, folder)
    ranks = [run(keys_file, shard, folder / f"keys-{shard.name}", config) for shard in shards]
    seconds = {}
    seconds["passages"], found = timed(
        lambda: [
            run(passages.passages_file, (shard, []), folder / f"found-{shard.name}", config)
            for shard in shards
        ]
    )
    source = (found, ranks, 0, 1)
    seconds["join"], cuts = timed(
        lambda: run(passages.repeats_file, source, folder / "cuts.parquet", config)
    )
    table = run(passages.sorted_file, ([cuts], "place"), folder / "sorted.parquet", config)
    stage = partial(passages.cut_passages, repeats=table)
    drafts = [read_shard(shard) for shard in shards]
    seconds["cut"], _ = timed(
        lambda: [run_stages(d, [("p", stage)], config, ignore) for d in drafts]
    )
    left = Counter(
        part
        for each in drafts
        for draft in each
        if not draft.reason
        for part in draft.text.split("\n\n")
        if part.startswith("notice")
    )
    return {
        "seconds": {name: round(took, 2) for name, took in seconds.items()},
        "documents_per_second": round(len(texts) / sum(seconds.values())),
        "notices": len(notices),
        "left_once": sum(left[notice] == 1 for notice in notices),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peer-documents", type=int, default=600)
    asked = parser.parse_args()
    texts = list(islice(documents(asked.data), asked.documents))
    random.Random(1).shuffle(texts)
    clean = list(texts)
    planted, pieces = plant(texts, asked.data, random.Random(2))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("shards", "stage"):
            (folder / part).mkdir()
        shards = shards_of(texts, folder / "shards")
        done = decontaminated(shards, asked.data, folder / "stage")
        table = json.loads(done["table"].read_text())["sets"]
        spans = read_table(done["spans"]).to_pylist()
        some = texts[: asked.peer_documents]
        peer = peer_rate(some, planted, pieces, folder / "peer")
        found = {
            "command": " ".join(["python benchmarks/decontaminate.py", *sys.argv[1:]]),
            "machine": machine(),
            "documents": len(texts),
            "mean_bytes": round(sum(len(text.encode()) for text in texts) / len(texts)),
            "decontaminate": {
                "index_bytes": done["index_bytes"],
                "cpu_seconds_of_steps": done["seconds"],
                "documents_per_second": round(len(texts) / sum(done["seconds"].values())),
                **quality(spans, texts, planted),
                "table": [row for row in table if row["documents"]],
            },
            "rates": rates(texts, done["index"], asked.turns, peer, asked.peer_documents),
            "wikipedia": wikipedia(clean, asked.data, folder / "wikipedia"),
            "passages": repeated(shards, clean, folder / "passages"),
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
