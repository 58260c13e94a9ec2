"""A corpus -> merges. Count pieces per file, add the counts, merge the most frequent pairs.

Merging needs only the distinct pieces and how often each occurs, so memory follows the number of
distinct words, not the length of the corpus. The merging itself runs in C where it could be built.
"""

import heapq
import multiprocessing
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np

from gptwo.artifacts import Manifest, Stage, fingerprint_inputs, open_folder, stage
from gptwo.errors import DataError
from gptwo.progress import SILENT, Reporter, worker_process
from gptwo.tokens.bpe import BYTE_ORDER, cut
from gptwo.tokens.config import TokenizerConfig
from gptwo.tokens.texts import read_texts
from gptwo.tokens.tokenizer import HF, MERGES, VOCAB, Tokenizer

Merge = tuple[bytes, bytes]


def train_tokenizer(
    corpus: Path, out: Path, config: TokenizerConfig, reporter: Reporter = SILENT
) -> Manifest:
    """Learn a vocabulary from the training split of `corpus`; kind "tokenizer".

    The same corpus gives the same merges for any number of processes and any order of files. A
    corpus too small for `vocab_size` gives as many merges as it has, and says so.
    """
    source = open_folder(corpus, "corpus")
    inputs = {"corpus": source.fingerprint}
    with stage(out, kind="tokenizer", config=asdict(config), inputs=inputs) as made:
        if made.done:
            return made.done
        files = sorted((corpus / "train").glob("part-*.parquet"))
        counts = count_pieces(files, reporter)
        if not counts:
            raise DataError(f"{corpus} has no training text", remedy="give it more documents")
        wanted = config.vocab_size - 257
        reporter.say(f"tokenizer: {len(counts):,} distinct pieces, {wanted:,} merges wanted")
        merges = learn_merges(counts, wanted, greatest=config.ties == "greatest")
        if len(merges) < wanted:
            reporter.say(f"tokenizer: the corpus has pairs for only {len(merges):,} merges")
        return _commit(made, Tokenizer(merges), {"pieces": len(counts), "ties": config.ties})


def import_tokenizer(source: Path, out: Path, reporter: Reporter = SILENT) -> Manifest:
    """Take over an existing vocabulary (encoder.json and vocab.bpe, or tokenizer.json)."""
    files = [source / name for name in (VOCAB, MERGES, HF) if (source / name).exists()]
    inputs = fingerprint_inputs(files)
    tokenizer = Tokenizer.load(source)
    with stage(out, kind="tokenizer", config={"source": "imported"}, inputs=inputs) as made:
        return made.done or _commit(made, tokenizer, {"ties": "unknown"})


def _commit(made: Stage, tokenizer: Tokenizer, details: dict[str, object]) -> Manifest:
    tokenizer.save(made.folder)
    counts = {"vocab_size": tokenizer.vocab_size, "merges": tokenizer.vocab_size - 257}
    details = {"fingerprint": tokenizer.fingerprint, **counts, **details}
    return made.commit(counts=counts, details=details, fingerprint=tokenizer.fingerprint)


def count_pieces(files: list[Path], reporter: Reporter = SILENT) -> Counter[str]:
    """How often each pre-token occurs in the `text` column of Parquet files."""
    total: Counter[str] = Counter()
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(
            mp_context=context, initializer=worker_process, initargs=(os.getpid(),)
        ) as pool,
        reporter.bar("tokenizer: count", len(files), "files") as bar,
    ):
        jobs = [pool.submit(count_file, path) for path in files]
        try:
            for job in jobs:
                total.update(job.result())
                bar.advance()
                reporter.check()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return total


def count_file(path: Path) -> Counter[str]:
    """One file's share of `count_pieces`."""
    counts: Counter[str] = Counter()
    for text in read_texts(path):
        counts.update(cut(text))
    return counts


def learn_merges(counts: Mapping[str, int], most: int, *, greatest: bool = False) -> list[Merge]:
    """Up to `most` merges of the pieces in `counts`, most frequent pair first.

    Ties go to the smaller pair of ids, bytes ranked in GPT-2's printable order (as the tokenizers
    library does), or with `greatest` to the lexicographically greatest pair of byte strings.
    """
    try:
        from gptwo.native._merges import learn  # type: ignore[import-not-found]
    except ImportError:
        return plain_learn_merges(counts, most, greatest=greatest)
    rank = bytes(BYTE_ORDER.index(byte) for byte in range(256))  # byte -> id
    words = [piece.encode("utf-8", "replace") for piece in counts]
    lengths = np.fromiter(map(len, words), np.int32, len(words))
    times = np.fromiter(counts.values(), np.int64, len(words))
    symbols = b"".join(words).translate(rank)
    most = min(most, len(symbols))  # each merge takes at least one symbol away
    found = learn(symbols, lengths, times, bytes(BYTE_ORDER), most, greatest)
    return _spelt(np.frombuffer(found, np.int32).reshape(-1, 2).tolist())


def _spelt(pairs: list[list[int]]) -> list[Merge]:
    """Pairs of ids -> pairs of byte strings."""
    tokens = [bytes([byte]) for byte in BYTE_ORDER]
    merges = []
    for a, b in pairs:
        merges.append((tokens[a], tokens[b]))
        tokens.append(tokens[a] + tokens[b])
    return merges


def plain_learn_merges(
    counts: Mapping[str, int], most: int, *, greatest: bool = False
) -> list[Merge]:
    """The readable twin of the C kernel."""
    rank = {byte: i for i, byte in enumerate(BYTE_ORDER)}
    words = [[rank[byte] for byte in piece.encode("utf-8", "replace")] for piece in counts]
    times = list(counts.values())
    tokens = [bytes([byte]) for byte in BYTE_ORDER]
    pair_counts: Counter[tuple[int, int]] = Counter()
    where: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in pairwise(word):
            pair_counts[pair] += times[index]
            where[pair].add(index)

    def candidate(pair: tuple[int, int]) -> tuple:
        if not greatest:
            return -pair_counts[pair], pair, pair
        return -pair_counts[pair], _Reversed((tokens[pair[0]], tokens[pair[1]])), pair

    heap = [candidate(pair) for pair in pair_counts]
    heapq.heapify(heap)
    merges: list[Merge] = []
    while heap and len(merges) < most:
        count, _, pair = heapq.heappop(heap)
        if pair_counts[pair] != -count:  # out of date: the pair lost occurrences since
            if pair_counts[pair] > 0:
                heapq.heappush(heap, candidate(pair))
            continue
        if count == 0:
            break
        made = len(tokens)
        merges.append((tokens[pair[0]], tokens[pair[1]]))
        tokens.append(tokens[pair[0]] + tokens[pair[1]])
        touched: set[tuple[int, int]] = set()
        for index in where.pop(pair):
            before = Counter(pairwise(words[index]))
            words[index] = _merged(words[index], pair, made)
            after = Counter(pairwise(words[index]))
            for other in before.keys() | after.keys():
                pair_counts[other] += (after[other] - before[other]) * times[index]
                if after[other] > before[other]:
                    where[other].add(index)
                    touched.add(other)
        pair_counts[pair] = 0
        for other in touched:
            heapq.heappush(heap, candidate(other))
    return merges


def _merged(word: list[int], pair: tuple[int, int], made: int) -> list[int]:
    out: list[int] = []
    for symbol in word:
        out.append(symbol)
        if len(out) > 1 and (out[-2], out[-1]) == pair:
            out[-2:] = [made]
    return out


class _Reversed(tuple):
    """A tuple that sorts the other way round."""

    def __lt__(self, other: tuple) -> bool:
        return tuple.__gt__(self, other)
