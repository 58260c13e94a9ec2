"""How fast text becomes ids, ours beside other encoders of GPT-2's vocabulary: prints JSON.

usage: python benchmarks/encode.py DATA [--mb 40] [--turns 3]
       python benchmarks/encode.py DATA --check

DATA holds bpe/ (encoder.json, vocab.bpe), text/classic_books/*.jsonl.xz and
text/news_articles_3824.jsonl.xz. Measured for each encoder, in turns, each in a fresh process:

- one: the books as one string, to an array of ids;
- books, news: as documents, to one array of ids;
- shard: a file, a document a line, to a file of uint16 ids with a separator before each document;
- books and shard again by two threads.

Each is given text in the form it takes: libraries as Python strings, ours as the Arrow array that a
corpus file is read into (in `shard` it is made of Python strings, which counts as its time). First
pass: nothing was encoded before; second pass: the same text again. MB are 10^6 bytes of text
per second of cpu (user and system) and per second; the median of the turns.

`--check` encodes every file under text/ and eval/ once, compressed ones opened, and compares ids
with tiktoken and the decoded bytes with the file (of compressed ones also as they lie).
"""

import argparse
import base64
import bz2
import hashlib
import json
import lzma
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gptwo.tokens.fast import Tiktoken
from gptwo.tokens.files import hf_tokenizer
from gptwo.tokens.tokenizer import Tokenizer
from gptwo.world import machine

EOT = 50_256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--mb", type=int, default=40)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--turn", nargs=3, help=argparse.SUPPRESS)  # encoder, way, threads
    parser.add_argument("--texts", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.turn:
        name, way, threads = asked.turn
        print(json.dumps(turn(asked.data, asked.texts, name, way, int(threads))))
    elif asked.check:
        print(json.dumps(check(asked.data), indent=1))
    else:
        print(json.dumps(measure(asked.data, asked.mb * 1_000_000, asked.turns), indent=1))


# ---- encoders: a vocabulary and threads -> a function from documents to their ids and lengths ----

Encode = Callable[[Any], tuple[np.ndarray, np.ndarray]]


def ours(tokenizer: Tokenizer, threads: int) -> Encode:
    """With the separators, which the others are given afterwards."""

    def encode(texts: list[str] | pa.Array) -> tuple[np.ndarray, np.ndarray]:
        strings = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.large_string())
        return tokenizer.encode_documents(strings, threads=threads)

    return encode


def one_by_one(encode: Callable[[str], Any], threads: int) -> Encode:
    """A library that encodes one text, by as many threads."""

    def every(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        if threads == 1:
            found = [encode(text) for text in texts]
        else:
            with ThreadPoolExecutor(threads) as pool:
                found = list(pool.map(encode, texts))
        return np.concatenate(found), np.array([len(ids) for ids in found])

    return every


def plain_json(tokenizer: Tokenizer) -> str:
    """tokenizer.json without special tokens: the text of one stays text."""
    return json.dumps(hf_tokenizer(tokenizer.reference) | {"added_tokens": []})


def tiktoken(tokenizer: Tokenizer, threads: int) -> Encode:
    library = Tiktoken(tokenizer.reference)._library
    return one_by_one(lambda text: library.encode_to_numpy(text, disallowed_special=()), threads)


def tokenizers(tokenizer: Tokenizer, threads: int) -> Encode:
    from tokenizers import Tokenizer as Library

    library = Library.from_str(plain_json(tokenizer))
    return one_by_one(lambda text: library.encode(text).ids, threads)


def gigatoken(tokenizer: Tokenizer, threads: int) -> Encode:
    import awkward
    from gigatoken import Tokenizer as Library

    library = Library.from_json(plain_json(tokenizer))

    def encode(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        if len(texts) == 1:
            ids = library.encode(texts[0])
            return ids, np.array([len(ids)])
        found = library.encode_batch(texts, parallel=threads > 1)
        return np.asarray(awkward.flatten(found)), np.asarray(awkward.num(found))

    return encode


def snaptokens(tokenizer: Tokenizer, threads: int) -> Encode:
    from snaptokens import Tokenizer as Library

    library = Library.from_json_str(plain_json(tokenizer))

    def encode(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        ids, places = library.encode_batch_flat(texts)
        return np.frombuffer(ids, np.uint32), np.diff(np.frombuffer(places, np.uint64))

    return encode


def splintr(tokenizer: Tokenizer, threads: int) -> Encode:
    from splintr import GPT2_PATTERN
    from splintr import Tokenizer as Library

    with tempfile.NamedTemporaryFile("w", suffix=".tiktoken") as file:
        for i, token in enumerate(tokenizer.reference.tokens):
            file.write(f"{base64.b64encode(token).decode()} {i}\n")
        file.flush()
        library = Library(file.name, GPT2_PATTERN)
    return one_by_one(library.encode, threads)


ENCODERS = {
    "ours": ours,
    "gigatoken": gigatoken,
    "snaptokens": snaptokens,
    "splintr-rs": splintr,
    "tiktoken": tiktoken,
    "tokenizers": tokenizers,
}
PART = {"tiktoken": 4, "tokenizers": 20}  # to the slow ones a part of the text
WAYS = (("one", 1), ("books", 1), ("news", 1), ("shard", 1), ("books", 2), ("shard", 2))


# ---- one turn, in a process of its own ----


def turn(data: Path, folder: Path, name: str, way: str, threads: int) -> dict[str, Any]:
    """Two passes over the same text by a fresh encoder."""
    texts = json.loads((folder / ("news" if way == "news" else "books")).read_text("utf-8"))
    texts = texts[:: PART.get(name, 1)]
    if way == "one":
        texts = ["".join(texts)]
    size = sum(len(text.encode()) for text in texts)
    encode = ENCODERS[name](Tokenizer.load(data / "bpe"), threads)
    lines, shard = folder / f"{name}.jsonl", folder / f"{name}.bin"
    lines.write_text("".join(json.dumps(text) + "\n" for text in texts), "utf-8")
    given = pa.array(texts, pa.large_string()) if name == "ours" else texts
    found: dict[str, Any] = {}
    ids = lengths = np.empty(0)
    for number in ("first", "second"):
        cpu, wall = time.process_time(), time.perf_counter()
        if way == "shard":
            write_shard(lines, shard, encode, separate=name != "ours")
        else:
            ids, lengths = encode(given)
        wall = time.perf_counter() - wall
        found[number] = {"cpu": size / 1e6 / (time.process_time() - cpu), "wall": size / 1e6 / wall}
    if way == "shard":
        ids = np.fromfile(shard, np.uint16)
    elif name != "ours":
        ids = separated(ids, lengths)
    return found | {"ids": hashlib.sha256(ids.astype("<u4").tobytes()).hexdigest()}


def write_shard(lines: Path, out: Path, encode: Encode, *, separate: bool) -> None:
    """JSON strings, one a line, to uint16 ids."""
    with lines.open(encoding="utf-8") as read, out.open("wb") as written:
        for group in groups(map(json.loads, read)):
            ids, lengths = encode(group)
            ids = separated(ids, lengths) if separate else ids
            written.write(ids.astype(np.uint16, copy=False).tobytes())


def separated(ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The separator before each document."""
    lengths = lengths.astype(np.int64)
    return np.insert(ids, np.cumsum(lengths) - lengths, EOT)


def groups(texts: Iterator[str], size: int = 8_000_000) -> Iterator[list[str]]:
    group: list[str] = []
    length = 0
    for text in texts:
        group.append(text)
        length += len(text)
        if length >= size:
            yield group
            group, length = [], 0
    if group:
        yield group


# ---- all turns ----


def measure(data: Path, size: int, turns: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "books").write_text(json.dumps(books(data, size)), "utf-8")
        news = list(jsonl(data / "text" / "news_articles_3824.jsonl.xz"))
        (folder / "news").write_text(json.dumps(news), "utf-8")
        ways = {
            f"{way}, {threads} thread{'s' * (threads > 1)}": compared(
                data, folder, way, threads, turns
            )
            for way, threads in WAYS
        }
    names = ("gigatoken", "snaptokens", "splintr-rs", "tiktoken", "tokenizers", "numpy", "pyarrow")
    return {
        "mb_per_second": ways,
        "book_bytes": size,
        "turns": turns,
        "versions": {name: version(name) for name in names},
        "machine": machine(),
    }


def compared(data: Path, folder: Path, way: str, threads: int, turns: int) -> dict[str, Any]:
    """Medians of the turns, and ratios of medians of cpu."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ENCODERS}
    for _ in range(turns):
        for name in ENCODERS:
            runs[name].append(start(data, folder, name, way, threads))
            print(way, threads, name, runs[name][-1]["first"], file=sys.stderr)
    result: dict[str, Any] = {}
    for name, found in runs.items():
        result[name] = {
            f"{number} pass": {
                clock: round(statistics.median(run[number][clock] for run in found), 1)
                for clock in ("cpu", "wall")
            }
            for number in ("first", "second")
        }
        if name not in PART:  # those with a part of the text are compared by --check
            result[name]["same ids as ours"] = found[0]["ids"] == runs["ours"][0]["ids"]
    for number in ("first pass", "second pass"):
        others = [
            result[name][number]["cpu"]
            for name in ENCODERS
            if name != "ours" and result[name].get("same ids as ours", True)
        ]
        mine = result["ours"][number]["cpu"]
        result[f"{number}, cpu"] = {
            "ours / fastest other": round(mine / max(others), 2),
            "ours / tiktoken": round(mine / result["tiktoken"][number]["cpu"], 1),
        }
    return result


def start(data: Path, folder: Path, name: str, way: str, threads: int) -> dict[str, Any]:
    command = [sys.executable, __file__, str(data), "--texts", str(folder)]
    ran = subprocess.run(
        [*command, "--turn", name, way, str(threads)],
        env=os.environ | {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if ran.returncode:
        raise SystemExit(f"{name}, {way}: {ran.stderr}")
    return json.loads(ran.stdout)


def jsonl(path: Path) -> Iterator[str]:
    with lzma.open(path, "rt", encoding="utf-8") as handle:
        for line in handle:
            yield json.loads(line)["text"]


def books(data: Path, size: int) -> list[str]:
    texts: list[str] = []
    for path in sorted((data / "text" / "classic_books").glob("*.xz")):
        for text in jsonl(path):
            texts.append(text)
            size -= len(text.encode())
            if size <= 0:
                return texts
    return texts


# ---- all files ----


def check(data: Path) -> dict[str, Any]:
    """Every file as it lies and what compressed ones hold: decoded again. Text: tiktoken's ids."""
    tokenizer = Tokenizer.load(data / "bpe")
    library = Tiktoken(tokenizer.reference)
    found: dict[str, Any] = {"files": 0, "bytes": 0, "ids": 0, "different": []}
    for path in sorted(chain((data / "text").rglob("*"), (data / "eval").rglob("*"))):
        if not path.is_file():
            continue
        whole = path.read_bytes()
        opened = {".xz": lzma.decompress, ".bz2": bz2.decompress}.get(path.suffix, bytes)
        text = opened(whole)
        ids = tokenizer.encode(text)
        if ids != library.encode(text) or tokenizer.decode_bytes(ids) != text:
            found["different"].append(str(path.relative_to(data)))
        if text != whole and tokenizer.decode_bytes(tokenizer.encode(whole)) != whole:
            found["different"].append(str(path.relative_to(data)))
        found["bytes"] += len(text)
        found["ids"] += len(ids)
        found["files"] += 1
        print(path.name, found["ids"], file=sys.stderr)
    return found


if __name__ == "__main__":
    main()
