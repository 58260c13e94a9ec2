"""A corpus -> merges: count its pieces, then merge the most frequent pair again and again.

Merging needs only the distinct pieces and how often each occurs, so memory follows the number of
distinct words, not the length of the corpus. The merging itself runs in C where it could be built.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gptwo.artifacts import Manifest, Stage, fingerprint_inputs, open_folder, stage
from gptwo.errors import DataError, ResourceError
from gptwo.progress import SILENT, Reporter
from gptwo.tokens.bpe import BYTE_ORDER
from gptwo.tokens.config import TokenizerConfig
from gptwo.tokens.count import ITEM, PlainCounter, count_files, sum_counts
from gptwo.tokens.files import FILES
from gptwo.tokens.merges import PlainLearner
from gptwo.tokens.tokenizer import Tokenizer

Merge = tuple[bytes, bytes]
SLICE = 100  # merges between two looks at whether to stop


def train_tokenizer(
    corpus: Path,
    out: Path,
    config: TokenizerConfig,
    reporter: Reporter = SILENT,
    *,
    workers: int = 0,
) -> Manifest:
    """Learn a vocabulary from the training split of `corpus`; kind "tokenizer".

    The same corpus gives the same merges for any number of `workers` (0: one per core) and any
    order of files. Files whose pieces were counted before a kill are not counted again. A corpus
    too small for `vocab_size` gives as many merges as it has, and says so.

    Raises:
        DataError: the corpus is unfinished or damaged, or has no training text.
        ResourceError: there is no memory for the distinct pieces, 100 to 200 bytes each.
    """
    source = open_folder(corpus, "corpus")
    inputs = {"corpus": source.fingerprint}
    with stage(out, kind="tokenizer", config=asdict(config), inputs=inputs) as made:
        if made.done:
            return made.done
        files = sorted((corpus / "train").glob("part-*.parquet"))
        counted = count_files(files, made.work / "counts", workers, reporter)
        wanted = config.vocab_size - 257
        merges, distinct = learn_counted(
            counted, wanted, greatest=config.ties == "greatest", reporter=reporter
        )
        if not distinct:
            raise DataError(f"{corpus} has no training text", remedy="give it more documents")
        if len(merges) < wanted:
            reporter.say(f"tokenizer: the corpus has pairs for only {len(merges):,} merges")
        return _commit(made, Tokenizer(merges), {"pieces": distinct, "ties": config.ties})


def import_tokenizer(source: Path, out: Path, reporter: Reporter = SILENT) -> Manifest:
    """Take over an existing vocabulary from files of any of the names in `FILES`."""
    files = [source / name for name in FILES if (source / name).exists()]
    inputs = fingerprint_inputs(files)
    tokenizer = Tokenizer.load(source)
    with stage(out, kind="tokenizer", config={"source": "imported"}, inputs=inputs) as made:
        return made.done or _commit(made, tokenizer, {"ties": "unknown"})


def _commit(made: Stage, tokenizer: Tokenizer, details: dict[str, object]) -> Manifest:
    tokenizer.save(made.folder)
    counts = {"vocab_size": tokenizer.vocab_size, "merges": tokenizer.vocab_size - 257}
    details = {"fingerprint": tokenizer.fingerprint, **counts, **details}
    return made.commit(counts=counts, details=details, fingerprint=tokenizer.fingerprint)


def learn_merges(counts: Mapping[str, int], most: int, *, greatest: bool = False) -> list[Merge]:
    """Up to `most` merges of the pieces in `counts`, most frequent pair first.

    Ties go to the smaller pair of ids, bytes ranked in GPT-2's printable order (as the tokenizers
    library does), or with `greatest` to the lexicographically greatest pair of byte strings.
    """
    return _learned_from(counts, new_learner(greatest=greatest), most)


def plain_learn_merges(
    counts: Mapping[str, int], most: int, *, greatest: bool = False
) -> list[Merge]:
    """`learn_merges` by the readable twin of the kernel."""
    return _learned_from(counts, PlainLearner(bytes(BYTE_ORDER), greatest), most)


def learn_counted(
    counted: Sequence[Path], most: int, *, greatest: bool = False, reporter: Reporter = SILENT
) -> tuple[list[Merge], int]:
    """Up to `most` merges of the pieces in files of counts, and how many distinct pieces there are.

    Raises ResourceError when there is no memory for the distinct pieces.
    """
    learner, distinct = new_learner(greatest=greatest), 0
    try:
        for data, offsets, counts in sum_counts(counted, reporter):
            learner.add(data, offsets, counts)
            distinct += len(counts) // ITEM
        reporter.say(f"tokenizer: {distinct:,} distinct pieces, {most:,} merges wanted")
        return _learned(learner, most, reporter), distinct
    except MemoryError:
        raise ResourceError(
            f"no memory left to learn from {distinct:,} or more distinct pieces",
            remedy="give it more memory, or learn from a part of the corpus",
        ) from None


def new_learner(*, greatest: bool) -> Any:
    """The kernel's learner, or its plain twin."""
    try:
        from gptwo.native._merges import Learner  # type: ignore[import-not-found]
    except ImportError:
        return PlainLearner(bytes(BYTE_ORDER), greatest)
    return Learner(bytes(BYTE_ORDER), greatest)


def _learned_from(counts: Mapping[str, int], learner: Any, most: int) -> list[Merge]:
    counter = PlainCounter()
    counter.counts.update({piece.encode("utf-8", "replace"): n for piece, n in counts.items()})
    learner.add(*counter.take())
    return _learned(learner, most, SILENT)


def _learned(learner: Any, most: int, reporter: Reporter) -> list[Merge]:
    """Up to `most` merges; looks between slices whether to stop."""
    tokens = [bytes([byte]) for byte in BYTE_ORDER]
    merges: list[Merge] = []
    with reporter.bar("tokenizer: merge", most, "merges") as bar:
        while len(merges) < most:
            reporter.check()
            found = np.frombuffer(learner.merge(min(SLICE, most - len(merges))), np.int32)
            if not len(found):
                break
            for a, b in found.reshape(-1, 2).tolist():
                merges.append((tokens[a], tokens[b]))
                tokens.append(tokens[a] + tokens[b])
            bar.advance(len(found) // 2)
    return merges
