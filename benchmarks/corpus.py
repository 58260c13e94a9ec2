"""From pages to a corpus, end to end: rate, memory, and the same work by datatrove.

usage: python benchmarks/corpus.py DATA [--pages 50000] [--turns 2] [--extractor bulk]
           [--peers PYTHON] [--memory 1000000] [--joins 2000000]

Generated pages (passages of DATA/text in a page's furniture, three in ten changed copies of others)
in WARC files become a corpus, with all stages; with `--peers` a part of the same pages goes through
datatrove in turns with ours (extraction and MinHash: corpus_peers.py). Memory is what all processes
hold, each shared page counted once (PSS). `--memory N` compares 10,000 with N generated texts as
JSON lines, `--joins N` runs the joins alone on made-up keys of N documents. Prints JSON.
"""

import argparse
import ctypes
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
from made_pages import make_texts, write_html_lines, write_keys, write_lines, write_pages

import gptwo.corpus.build
from gptwo.artifacts import read_manifest
from gptwo.corpus.build import build_corpus
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.duplicates import dedup, near
from gptwo.pool import Pool, Task
from gptwo.progress import SILENT
from gptwo.world import machine

POLL_SECONDS = 0.2
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


# ---- a run in a process tree of its own ----


def watch(command: list[str]) -> dict[str, Any]:
    """Wall and processor seconds of a command with its children, and the most memory they held."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = psutil.Popen(command, stdout=out)
        peak: dict[str, int] = {"all": 0, "largest": 0}
        while process.poll() is None:
            held = [pss(member) for member in (process, *children(process))]
            peak = {"all": max(peak["all"], sum(held)), "largest": max(peak["largest"], *held)}
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - began
        with suppress(ChildProcessError):  # servers of processes end after those they served
            while True:
                os.wait()
        out.seek(0)
        lines = [line for line in out.read().decode().splitlines() if line.startswith("{")]
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_mb": round(peak["all"] / 1e6),
        "largest_process_mb": round(peak["largest"] / 1e6),
        "said": json.loads(lines[-1]) if lines else None,
    }


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def pss(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def rates(run: dict[str, Any], documents: int) -> dict[str, Any]:
    return {
        "documents": documents,
        "documents_per_second": round(documents / run["seconds"], 1),
        "documents_per_cpu_second": round(documents / run["cpu_seconds"], 1),
        **run,
    }


def ours(source: Path, out: Path, workers: int, settings: dict[str, Any]) -> dict[str, Any]:
    shutil.rmtree(out, ignore_errors=True)
    asked = ["build", str(source), str(out), str(workers), json.dumps(settings)]
    run = watch([sys.executable, __file__, *asked])
    manifest = read_manifest(out)
    kept = sum(manifest.counts["documents"].values())
    return rates(run, manifest.counts["stages"][0]["in"]) | {
        "kept": kept,
        "fingerprint": manifest.fingerprint,
    }


def datatrove(python: str, pages: Path, out: Path, count: int, ways: list[str]) -> dict[str, Any]:
    shutil.rmtree(out, ignore_errors=True)
    script = Path(__file__).with_name("corpus_peers.py")
    return rates(watch([python, str(script), str(pages), str(out), *ways]), count)


# ---- children ----


def build(source: str, out: str, workers: str, settings: str) -> None:
    config = CorpusConfig(**json.loads(settings))
    build_corpus([Path(source)], Path(out), config, workers=int(workers))


class Alone:
    """Runs every task in this process, and remembers the processor time of each kind."""

    def __init__(self, config: CorpusConfig, *_: Any, **__: Any) -> None:
        self.config, self.workers = config, 1

    def run(self, title: str, job: Any, tasks: list[Task]) -> None:
        began = time.process_time()
        for task in tasks:
            job(task, self.config, lambda number: None)
        SECONDS[title.removeprefix("corpus: ")] += time.process_time() - began

    def __enter__(self) -> "Alone":
        return self

    def __exit__(self, *exception: object) -> None:
        pass


SECONDS: dict[str, float] = defaultdict(float)


def steps(source: str, out: str, workers: str, settings: str) -> None:
    """A corpus in one process; prints the processor seconds of each kind of task."""
    gptwo.corpus.build.open_executor = lambda *asked: Alone(asked[2])  # type: ignore[assignment]
    began = time.process_time()
    build(source, out, workers, settings)
    rest = time.process_time() - began - sum(SECONDS.values())
    print(json.dumps({**SECONDS, "rest": rest}))


def joins(folder: str, documents: str, workers: str) -> None:
    """The joins of exact-dedup and near-dedup over tables of keys that are there."""
    keys = sorted(Path(folder, "keys").glob("*.parquet"))
    parts = int(documents) // dedup.PART_DOCUMENTS + 1
    with Pool(CorpusConfig(), int(workers), SILENT, "gptwo.corpus.build") as pool:

        def run(name: str, job: Any, inputs: list[Any]) -> list[Path]:
            outputs = [Path(folder, name, f"{n:05}.parquet") for n in range(len(inputs))]
            tasks = [Task(input=i, output=o) for i, o in zip(inputs, outputs, strict=True)]
            began = time.perf_counter()
            pool.run(name, job, tasks)
            SECONDS[name] = round(time.perf_counter() - began, 2)
            return outputs

        found = run("copies", dedup.copies_file, [(keys, part, parts) for part in range(parts)])
        copies = run("losers", dedup.losers_file, [found])[0]
        groups = near.band_groups(int(documents))
        asked = [(keys, copies, bands, part, parts) for bands in groups for part in range(parts)]
        pairs = run("pairs", near.pairs_file, asked)
        mark = run("buckets", near.buckets_file, [(keys, pairs)])[0]
        joined = pq.read_metadata(near.bucket_files(mark)[0]).num_rows
    losers = pq.read_metadata(copies).num_rows
    print(json.dumps({"seconds": dict(SECONDS), "copies": losers, "joined": joined}))


# ---- what is measured ----


def end_to_end(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    texts = make_texts(asked.data, asked.pages)
    size = write_pages(texts, folder / "pages")
    settings = {"extractor": asked.extractor}
    runs = [ours(folder / "pages", folder / "ours", 2, settings) for _ in range(asked.turns)]
    one = ["steps", str(folder / "pages"), str(folder / "one"), "1", json.dumps(settings)]
    seconds = watch([sys.executable, __file__, *one])["said"]
    each = {name: round(value / len(texts) * 1e6, 1) for name, value in seconds.items()}
    return {
        "mean_html_bytes": size // len(texts),
        "mean_characters": sum(map(len, texts)) // len(texts),
        "runs": runs,
        "cpu_microseconds_a_page": each,
    }


def beside_datatrove(asked: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The same pages by both, in turns: fewer of them, since datatrove takes its time."""
    found = []
    for extractor, tokenizer, count in (
        ("trafilatura", "spacy", asked.pages // 25),
        ("resiliparse", "spacy", asked.pages // 25),
        ("resiliparse", "split", asked.pages // 5),
    ):
        texts = make_texts(asked.data, count)
        name = f"{extractor}-{tokenizer}"
        write_pages(texts, folder / name / "warc")
        write_html_lines(texts, folder / name / "lines")
        settings = {"extractor": asked.extractor}
        pair = []
        for turn in range(asked.turns):
            mine = ours(folder / name / "warc", folder / name / "ours", 2, settings)
            ways = ["2", extractor, tokenizer]
            lines, out = folder / name / "lines", folder / name / f"theirs-{turn}"
            pair.append((mine, datatrove(asked.peers, lines, out, count, ways)))
        rate = "documents_per_cpu_second"
        found.append(
            {
                "datatrove": name,
                "ratio_of_cpu": round(
                    max(mine[rate] for mine, _ in pair) / max(their[rate] for _, their in pair), 2
                ),
                "ratio_of_seconds": round(
                    min(their["seconds"] for _, their in pair)
                    / min(mine["seconds"] for mine, _ in pair),
                    2,
                ),
                "turns": pair,
            }
        )
    return found


def growth(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Most memory for 10,000 and for many texts."""
    found = {}
    for count in (10_000, asked.memory):
        write_lines(count, folder / f"lines-{count}")
        settings = {"rules": "none", "language": ""}
        found[count] = ours(folder / f"lines-{count}", folder / f"out-{count}", 2, settings)
    small, large = (found[count]["peak_mb"] for count in (10_000, asked.memory))
    return {"runs": list(found.values()), "growth": round(large / small, 2)}


def joined(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    write_keys(folder / "keys", asked.joins)
    run = watch([sys.executable, __file__, "joins", str(folder), str(asked.joins), "2"])
    return rates(run, asked.joins)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pages", type=int, default=50_000)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--extractor", default="bulk")
    parser.add_argument("--peers", default="")
    parser.add_argument("--memory", type=int, default=0)
    parser.add_argument("--joins", type=int, default=0)
    asked = parser.parse_args()
    wanted = {
        "end_to_end": (asked.pages, end_to_end),
        "datatrove": (asked.peers, beside_datatrove),
        "memory": (asked.memory, growth),
        "joins": (asked.joins, joined),
    }
    command = " ".join(["python benchmarks/corpus.py", *sys.argv[1:]])
    found: dict[str, Any] = {"command": command, "machine": machine()}
    for name, (wish, measure) in wanted.items():
        if wish:
            with tempfile.TemporaryDirectory() as folder:
                found[name] = measure(asked, Path(folder) / "work")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    CHILDREN = {"build": build, "steps": steps, "joins": joins}
    if sys.argv[1:2] and sys.argv[1] in CHILDREN:
        CHILDREN[sys.argv[1]](*sys.argv[2:])
    else:
        # Orphans become ours: the processor time of all who worked is counted.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        main()
