"""How well, how fast and in how much memory main text is found: prints JSON.

usage: python benchmarks/extract.py DATA [--turns 3] [--step 1]
       python benchmarks/extract.py DATA --soak 100000 --extractor bulk [--workers 2]

DATA is a folder with `html/article_extraction_dev`, `html/trafilatura_dev`, `html/readability_dev`:
three public sets, whose measures are in tests/corpus/extraction_metric.py. Our extractors and their
peers take turns page by page in one process, all from the bytes of a page to text in paragraphs;
a rate is pages per second of processor time, of each page its best turn. readability-lxml is among
the peers where it is installed.

`stage` runs the extract stage of a corpus over the same pages, Parquet in and Parquet out, and
compares it with the extractor alone.

`--soak` puts real pages, over and over in another order, through worker processes as a corpus does,
and looks at the memory of each once a second.
"""

import argparse
import json
import logging
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import trafilatura
from resiliparse.extract.html2text import extract_plain_text

from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.encoding import decode
from gptwo.corpus.extraction.extract import EXTRACTORS, extract_file, extract_text
from gptwo.corpus.shards import SHARD_BYTES, SHARD_DOCUMENTS, Draft, read_shard, write_shard
from gptwo.pool import Pool, Task
from gptwo.progress import SILENT
from gptwo.world import machine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "corpus"))
from extraction_metric import PageSet, load_sets, text_of_html

MB = 1 << 20
CURVE_POINTS = 20

Extract = Callable[[bytes], str]


# ---- quality and speed ----


def ours(name: str) -> Extract:
    return lambda page: extract_text(decode(page), name)


def trafilatura_fast(page: bytes) -> str:
    return trafilatura.extract(page, fast=True) or ""


def trafilatura_fast_no_comments(page: bytes) -> str:
    return trafilatura.extract(page, fast=True, include_comments=False) or ""


def resiliparse(page: bytes) -> str:
    return extract_plain_text(decode(page), main_content=True)


def readability(page: bytes) -> str:
    from readability import Document  # type: ignore[import-not-found]

    return text_of_html(Document(decode(page)).summary())


def contenders() -> dict[str, Extract]:
    peers = [trafilatura_fast, trafilatura_fast_no_comments, resiliparse]
    if find_spec("readability"):
        peers.append(readability)
    return {**{name: ours(name) for name in EXTRACTORS}, **{peer.__name__: peer for peer in peers}}


def compare(pages: PageSet, turns: int) -> dict[str, Any]:
    """Scores and rates of every contender on one set; a page that raises counts as empty."""
    found: dict[str, list[str]] = {name: [] for name in contenders()}
    seconds = dict.fromkeys(found, 0.0)
    errors = dict.fromkeys(found, 0)
    for number, (page, _) in enumerate(pages.pages):
        for name, text, took, error in best_of(page, turns, number):
            found[name].append(text)
            seconds[name] += took
            errors[name] += error
    plain = seconds["trafilatura_fast_no_comments"]
    return {name: row(pages, found[name], seconds[name], plain, errors[name]) for name in found}


def best_of(page: bytes, turns: int, first: int) -> Iterator[tuple[str, str, float, bool]]:
    """Each contender's text and its least seconds; who begins changes from page to page."""
    names = list(contenders().items())
    names = names[first % len(names) :] + names[: first % len(names)]
    took: dict[str, float] = {}
    texts: dict[str, tuple[str, bool]] = {}
    for _ in range(turns):
        for name, extract in names:
            start = time.process_time()
            try:
                texts[name] = extract(page), False
            except Exception:
                texts[name] = "", True
            spent = time.process_time() - start
            took[name] = min(spent, took.get(name, spent))
    for name, _ in names:
        yield name, texts[name][0], took[name], texts[name][1]


def row(pages: PageSet, texts: list[str], seconds: float, plain: float, errors: int) -> dict:
    score = pages.score(texts)
    return {
        "f1": round(score.f1, 4),
        "interval": [round(end, 3) for end in score.interval],
        "precision": round(score.precision, 4),
        "recall": round(score.recall, 4),
        **({} if score.accuracy is None else {"accuracy": round(score.accuracy, 4)}),
        "pages_per_cpu_second": round(len(texts) / seconds, 1),
        "times_trafilatura": round(plain / seconds, 2),
        "empty": sum(not text for text in texts),
        "errors": errors,
    }


# ---- the whole stage ----


def write_shards(pages: list[bytes], folder: Path) -> list[Path]:
    """Pages as work files of the size that a corpus makes."""
    paths: list[Path] = []
    held: list[Draft] = []
    size = 0
    for number, page in enumerate(pages, 1):
        held.append(Draft(payload=page, url=f"http://example.org/{number}"))
        size += len(page)
        if number == len(pages) or len(held) == SHARD_DOCUMENTS or size >= SHARD_BYTES:
            paths.append(folder / f"{len(paths):05}.parquet")
            write_shard(paths[-1], held)
            held, size = [], 0
    return paths


def stage(pages: list[bytes], turns: int, folder: Path) -> dict[str, Any]:
    """Pages per second of the extract stage and of its extractor alone, in turns."""
    shards = write_shards(pages, folder / "in")
    result = {}
    for name in EXTRACTORS:
        config = CorpusConfig(extractor=name)
        whole, alone = [], []
        for turn in range(turns):
            out = folder / name / str(turn)
            start = time.process_time()
            for shard in shards:
                extract_file(Task(input=shard, output=out / shard.name), config, lambda n: None)
            middle = time.process_time()
            for page in pages:
                extract_text(decode(page), name)
            whole.append(middle - start)
            alone.append(time.process_time() - middle)
        made = [d for shard in shards for d in read_shard(out / shard.name, kept=False)]
        reasons = sorted(d.reason for d in made if d.reason)
        result[name] = {
            "pages_per_cpu_second": round(len(pages) / min(whole), 1),
            "extractor_alone": round(len(pages) / min(alone), 1),
            "overhead_us_per_page": round(1e6 * (min(whole) - min(alone)) / len(pages)),
            "dropped": {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
        }
    return result


# ---- memory over many pages ----


def soak(pages: list[bytes], count: int, config: CorpusConfig, workers: int, folder: Path) -> Any:
    """Put `count` pages through workers; what each held, once a second."""
    chance = random.Random(1)
    chance.shuffle(pages)
    shards = write_shards(pages, folder / "in")
    sizes = {shard: len(read_shard(shard)) for shard in shards}
    tasks: list[Task] = []
    planned = 0
    while planned < count:
        shard = chance.choice(shards)
        tasks.append(Task(input=shard, output=folder / "out" / f"{len(tasks):06}.parquet"))
        planned += sizes[shard]
    watch = Watch(tasks, sizes)
    start = time.perf_counter()
    with Pool(config, workers, SILENT, preload="gptwo.corpus.build") as pool, watch:
        pool.run("soak", extract_file, tasks)
    return {
        "extractor": config.extractor,
        "pages": planned,
        "seconds": round(time.perf_counter() - start),
        "workers": workers,
        "lives": len(watch.peaks),
        "peak_mb_by_life": [round(peak / MB) for peak in watch.peaks.values()],
        "curve": watch.curve(),
    }


class Watch:
    """Looks at our worker processes once a second."""

    def __init__(self, tasks: list[Task], sizes: dict[Path, int]) -> None:
        self.tasks, self.sizes = tasks, sizes
        self.peaks: dict[int, int] = {}  # resident bytes by process, in the order of their birth
        self.samples: list[tuple[int, int, int]] = []  # pages done, greatest, sum
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        done = 0  # tasks are given out in order, so nearly all before the last one made are made
        while not self._over.wait(1):
            while done < len(self.tasks) and self.tasks[done].output.exists():
                done += 1
            now = {}
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.parent() not in (None, psutil.Process()):  # the fork server's
                        now[process.pid] = process.memory_info().rss
                except psutil.Error:
                    continue
            for pid, held in now.items():
                self.peaks[pid] = max(held, self.peaks.get(pid, 0))
            if now:
                pages = sum(self.sizes[task.input] for task in self.tasks[:done])
                self.samples.append((pages, max(now.values()), sum(now.values())))

    def curve(self) -> list[dict[str, int]]:
        """The greatest and the sum within equal stretches of time."""
        step = max(len(self.samples) // CURVE_POINTS, 1)
        parts = [self.samples[i : i + step] for i in range(0, len(self.samples), step)]
        return [
            {
                "pages": part[-1][0],
                "greatest_mb": round(max(one for _, one, _ in part) / MB),
                "all_mb": round(max(both for _, _, both in part) / MB),
            }
            for part in parts
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Extraction: quality, speed, memory.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--step", type=int, default=1, help="take every so-manyth page")
    parser.add_argument("--soak", type=int, default=0, metavar="PAGES")
    parser.add_argument("--extractor", choices=EXTRACTORS, default="quality")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    sets = [pages.sample(asked.step) for pages in load_sets(asked.data)]
    pages = [page for one in sets for page, _ in one.pages]
    with tempfile.TemporaryDirectory() as folder:
        if asked.soak:
            config = replace(CorpusConfig(), extractor=asked.extractor)
            result = soak(pages, asked.soak, config, asked.workers, Path(folder))
        else:
            result = {one.name: compare(one, asked.turns) for one in sets}
            result["stage"] = stage(pages, asked.turns, Path(folder))
    print(json.dumps({"machine": machine(), **result}, indent=1))


if __name__ == "__main__":
    main()
