"""The same corpus by the pool and by Ray on this machine: prints JSON.

usage: python benchmarks/cluster.py TEXTS.jsonl [TEXTS.jsonl...] [--workers 2] [--turns 2]

Each executor builds the corpus of the same files in turns, in a fresh process: seconds of wall
time, how long Ray took to start and to stop among them, the most memory that all processes held
(proportional shares, sampled), and whether the corpora are the same.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from gptwo.artifacts import read_manifest
from gptwo.cluster import EXECUTORS, open_executor
from gptwo.corpus.build import build_corpus
from gptwo.corpus.config import CorpusConfig
from gptwo.progress import SILENT
from gptwo.world import machine

SAMPLE_SECONDS = 0.25


def build(executor: str, workers: int, out: Path, sources: list[Path]) -> None:
    """What a child does."""
    if not sources:  # only to start and stop
        with open_executor(executor, "", None, workers, SILENT, "gptwo.corpus.build"):
            return
    build_corpus(sources, out, CorpusConfig(language=""), workers=workers, executor=executor)


def run(executor: str, workers: int, out: Path, sources: list[Path]) -> tuple[float, int]:
    """Seconds and most bytes of a child and all below it."""
    command = [sys.executable, __file__, "--child", executor, "--workers", str(workers)]
    begin, most = time.monotonic(), 0
    child = psutil.Popen([*command, "--out", str(out), *map(str, sources)])
    while child.poll() is None:
        held = 0
        with suppress(psutil.NoSuchProcess):
            for process in (child, *child.children(recursive=True)):
                with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    held += process.memory_full_info().pss
        most = max(most, held)
        time.sleep(SAMPLE_SECONDS)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return time.monotonic() - begin, most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", type=Path, nargs="*")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--child", choices=EXECUTORS)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.child:
        build(asked.child, asked.workers, asked.out, asked.sources)
        return
    seconds, held, prints, documents = defaultdict(list), defaultdict(list), set(), 0
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(asked.turns):
            for executor in EXECUTORS:
                out = Path(folder) / f"{executor}-{turn}"
                spent, most = run(executor, asked.workers, out, asked.sources)
                seconds[executor].append(round(spent, 1))
                held[executor].append(round(most / 1e6))
                made = read_manifest(out)
                prints.add(made.fingerprint)
                documents = made.counts["stages"][0]["in"]
            seconds["ray, nothing to do"].append(
                round(run("ray", asked.workers, Path(folder), [])[0], 1)
            )
    found: dict[str, Any] = {
        "command": " ".join(["python benchmarks/cluster.py", *sys.argv[1:]]),
        "machine": machine(),
        "documents": documents,
        "wall_seconds": seconds,
        "documents_per_second": {name: round(documents / min(seconds[name])) for name in EXECUTORS},
        "most_megabytes": held,
        "same_corpus": len(prints) == 1,
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
