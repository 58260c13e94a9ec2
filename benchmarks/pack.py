"""How fast documents become token shards, and in how much memory: prints JSON.

usage: python benchmarks/pack.py DATA [--mb 200] [--memory-mb 1000] [--document-mb 300]

DATA holds bpe/ (encoder.json, vocab.bpe) and text/classic_books/*.jsonl.xz. The books, repeated to
the size asked for, are packed in turns

- by `pack`: Parquet in, shards with hashes out;
- by `encode_documents` alone: the same texts in memory, on as many threads as cores;
- by nobody: Parquet is read as `pack` reads it, nothing else;
- by nanoGPT's recipe, written anew after its data/openwebtext/prepare.py: tiktoken's
  encode_ordinary for each document in as many processes as there are cores, lists of ids kept in
  Arrow files as the datasets library does, then copied into a np.memmap (of a tenth of the text);

each in a fresh process, three times, best taken. MB are 10^6 bytes of text; rates are per second
and per cpu-second (user and system, children too). Then memory: the most a process that packs held
(resident set, memory maps included), for --memory-mb of books and for a single document.
"""

import argparse
import json
import lzma
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.artifacts import stage
from gptwo.tokens.bins import export_bins
from gptwo.tokens.config import PackConfig
from gptwo.tokens.pack import pack
from gptwo.tokens.texts import read_documents, segments
from gptwo.tokens.tokenizer import Tokenizer
from gptwo.world import machine

TURNS = 3
PART_BYTES, GROUP_ROWS = 32_000_000, 1_024  # as the corpus room writes its files
CORES = len(os.sched_getaffinity(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument("--memory-mb", type=int, default=1000)
    parser.add_argument("--document-mb", type=int, default=300)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        speed = measure_speed(asked.data, asked.mb, made)
        sizes = {"books": asked.memory_mb, "one_document": asked.document_mb}
        memory = {name: measure_memory(asked.data, name, mb, made) for name, mb in sizes.items()}
    command = " ".join(["python benchmarks/pack.py DATA", *sys.argv[2:]])
    print(
        json.dumps(
            {"command": command, "machine": machine(), **speed, "memory": memory},
            indent=2,
        )
    )


def measure_speed(data: Path, mb: int, made: Path) -> dict[str, Any]:
    """Rates of the three ways, and whether nanoGPT's recipe gives the ids that we export."""
    sizes = {"pack": mb, "encode_documents": mb, "reading": mb, "nanogpt_recipe": max(mb // 10, 1)}
    best: dict[str, dict[str, float]] = {}
    for turn in range(TURNS):
        for way, size in sizes.items():
            corpus = write_corpus(made / f"corpus-{size}", books(data), size)
            ran = in_child(way, corpus, data / "bpe", made / f"{way}-{turn}")
            known = best.setdefault(way, ran)
            best[way] = {key: min(known[key], ran[key]) for key in ran}
    small = made / f"corpus-{sizes['nanogpt_recipe']}"
    pack(small, data / "bpe", made / "small", PackConfig())
    export_bins(made / "small", made / "exported", "nanogpt")
    recipe = made / "nanogpt_recipe-0" / "train.bin"
    same = (made / "exported" / "train.bin").read_bytes() == recipe.read_bytes()
    rates = {
        way: {
            "mb": ran["mb"],
            "mb_per_second": round(ran["mb"] / ran["seconds"], 1),
            "mb_per_cpu_second": round(ran["mb"] / ran["cpu_seconds"], 1),
        }
        for way, ran in best.items()
    }
    ours = rates["pack"]
    ratios = {
        f"{rate}_of_pack_to_{way}": round(ours[rate] / rates[way][rate], 2)
        for way in ("encode_documents", "nanogpt_recipe")
        for rate in ("mb_per_second", "mb_per_cpu_second")
    }
    parts = best["encode_documents"]["cpu_seconds"] + best["reading"]["cpu_seconds"]
    ratios["share_of_encode_and_reading_in_cpu_of_pack"] = round(
        parts / best["pack"]["cpu_seconds"], 2
    )
    return {"turns": TURNS, "rates": rates, "ratios": ratios, "recipe_has_the_ids_of_ours": same}


def measure_memory(data: Path, name: str, mb: int, made: Path) -> dict[str, float]:
    """The most memory of a process that packs a corpus of `mb`, and of one that packs nothing."""
    texts = books(data) if name == "books" else iter(["".join(take(books(data), mb))])
    corpus = write_corpus(made / f"corpus-{name}-{mb}", texts, mb)
    nothing = write_corpus(made / "corpus-nothing", iter(["a"]), 1)
    ran = in_child("pack", corpus, data / "bpe", made / f"memory-{name}")
    idle = in_child("pack", nothing, data / "bpe", made / f"idle-{name}")
    return {
        "text_mb": ran["mb"],
        "peak_mb": round(ran["peak_mb"]),
        "peak_mb_without_text": round(idle["peak_mb"]),
    }


def books(data: Path) -> Iterator[str]:
    """All books, again and again."""
    files = sorted((data / "text" / "classic_books").glob("*.jsonl.xz"))
    while files:
        for path in files:
            with lzma.open(path, "rt", encoding="utf-8") as handle:
                for line in handle:
                    yield json.loads(line)["text"]
    sys.exit(f"{data} has no text/classic_books/*.jsonl.xz")


def take(texts: Iterator[str], mb: int) -> Iterator[str]:
    """Texts until `mb` are reached."""
    size = 0
    while size < mb * 10**6 and (text := next(texts, None)) is not None:
        size += len(text.encode())
        yield text


def write_corpus(folder: Path, texts: Iterator[str], mb: int) -> Path:
    """A corpus folder whose training split has about `mb` of text."""
    if folder.exists():
        return folder
    documents, number, part, size = 0, 0, [], 0
    with stage(folder, kind="corpus", config={}, inputs={}) as made:
        for split in ("train", "valid", "test"):
            (folder / split).mkdir()
        for text in take(texts, mb):
            part.append(text)
            size += len(text)
            if size >= PART_BYTES:
                write_part(folder, number, part)
                documents, number, part, size = documents + len(part), number + 1, [], 0
        write_part(folder, number, part)
        made.commit(counts={"documents": {"train": documents + len(part)}})
    return folder


def write_part(folder: Path, number: int, texts: list[str]) -> None:
    table = pa.table({"text": pa.array(texts, pa.large_string())})
    path = folder / "train" / f"part-{number:05d}.parquet"
    pq.write_table(table, path, compression="zstd", row_group_size=GROUP_ROWS)


def in_child(way: str, corpus: Path, tokenizer: Path, out: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", way, str(corpus), str(tokenizer), str(out)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def child(way: str, corpus: Path, tokenizer: Path, out: Path) -> None:
    """Run one way and print {"mb", "seconds", "cpu_seconds", "peak_mb"}."""
    work = WAYS[way](corpus, tokenizer, out)
    before, began = cpu_seconds(), time.perf_counter()
    size = work()
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - before
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's as well
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    print(json.dumps({"mb": size / 1e6, "seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak}))


def cpu_seconds() -> float:
    whose = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    used = [resource.getrusage(who) for who in whose]
    return sum(one.ru_utime + one.ru_stime for one in used)


def packing(corpus: Path, tokenizer: Path, out: Path) -> Callable[[], int]:
    return lambda: pack(corpus, tokenizer, out, PackConfig()).counts["train"]["bytes"]


def encoding(corpus: Path, tokenizer: Path, out: Path) -> Callable[[], int]:
    encoder = Tokenizer.load(tokenizer)
    files = sorted((corpus / "train").glob("*.parquet"))
    groups = [strings for texts in read_documents(files) for strings, _ in segments(texts)]

    def work() -> int:
        with ThreadPoolExecutor(CORES) as pool:
            for _ in pool.map(lambda strings: len(encoder.encode_documents(strings)[0]), groups):
                pass
        return sum(map(text_bytes, groups))

    return work


def reading(corpus: Path, tokenizer: Path, out: Path) -> Callable[[], int]:
    files = sorted((corpus / "train").glob("*.parquet"))

    def work() -> int:
        batches = (segments(texts) for texts in read_documents(files))
        return sum(text_bytes(strings) for group in batches for strings, _ in group)

    return work


def text_bytes(strings: pa.Array) -> int:
    offsets = np.frombuffer(strings.buffers()[1], np.int64)
    return int(offsets[-1] - offsets[0])


def recipe(corpus: Path, tokenizer: Path, out: Path) -> Callable[[], int]:
    out.mkdir()
    files = sorted((corpus / "train").glob("*.parquet"))

    def work() -> int:
        tables = [pq.read_table(path, columns=["text"]) for path in files]
        texts = pa.concat_tables(tables)["text"].to_pylist()
        tasks = [(texts[n::CORES], tokenizer, out / f"{n}.arrow") for n in range(CORES)]
        with multiprocessing.get_context("spawn").Pool(CORES) as pool:
            pool.map(tokenize, tasks)
        lists = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for *_, path in tasks]
        total = sum(int(np.sum(table["len"].to_numpy(), dtype=np.uint64)) for table in lists)
        whole = np.memmap(out / "train.bin", dtype=np.uint16, mode="w+", shape=(total,))
        columns = [table["ids"].combine_chunks() for table in lists]
        place = 0
        for row in range(len(texts)):
            ids = columns[row % CORES][row // CORES].values.to_numpy()
            whole[place : place + len(ids)] = ids
            place += len(ids)
        whole.flush()
        return sum(len(text.encode()) for text in texts)

    return work


def tokenize(task: tuple[list[str], Path, Path]) -> None:
    """One process's share of the documents -> a table of ids and lengths."""
    import tiktoken
    from tiktoken_ext.openai_public import data_gym_to_mergeable_bpe_ranks, r50k_pat_str

    texts, tokenizer, path = task
    ranks = data_gym_to_mergeable_bpe_ranks(
        str(tokenizer / "vocab.bpe"), str(tokenizer / "encoder.json")
    )
    special = {"<|endoftext|>": 50256}
    encoding = tiktoken.Encoding(
        "gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens=special
    )
    rows = []
    for text in texts:
        ids = encoding.encode_ordinary(text)
        ids.append(encoding.eot_token)
        rows.append({"ids": ids, "len": len(ids)})
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


WAYS = {
    "pack": packing,
    "encode_documents": encoding,
    "reading": reading,
    "nanogpt_recipe": recipe,
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], *map(Path, sys.argv[3:]))
    else:
        main()
