"""Quality rules beside those of datatrove: the same decisions, and how quick they are.

usage: python benchmarks/rules.py DATA [--documents N] [--turns N]

Documents: pages of `DATA/html/trafilatura_dev` as extracted, news articles of `DATA/text` with
their titles, stretches of its books, and the manual pages of this machine, which are full of
tables, options and repetition; by equal shares, cut at a line's end to 6,000 characters at most.

Each is judged by every rule of its own, both ways. datatrove is asked with words as it ships
(spaCy's tokenizer and sentences), and with words split at white space and sentences counted as ours
are, which shows what else differs: `only_ours` and `only_theirs` are documents that one of us alone
drops. It is given lines without space at their ends and, for FineWeb's own rules, without empty
lines, as the extractor that FineWeb used writes them.

Rates are documents per second of processor time in one process, over texts cut to 1,600 characters,
best of the turns, all ways taking turns. `plain` is ours without the kernel.
"""

import argparse
import gzip
import json
import lzma
import random
import re
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.utils.text import split_into_parts
from datatrove.utils.typeshelper import Languages
from datatrove.utils.word_tokenizers import load_word_tokenizer

from gptwo.corpus.cleaning import prose, rules
from gptwo.corpus.cleaning.prose import TERMINAL, Prose
from gptwo.corpus.encoding import decode
from gptwo.corpus.extraction.extract import extract_text
from gptwo.world import machine

MOST_CHARACTERS = 6_000
CUT_FOR_RATES = 1_600  # so that the mean is about the 1.5 kB of a web page's text
Filter = Any


# ---- documents ----


def pages(data: Path) -> Iterator[str]:
    with tarfile.open(data / "html" / "trafilatura_dev" / "pages.tar.xz") as archive:
        for member in archive:
            handle = archive.extractfile(member) if member.isfile() else None
            if handle:
                yield extract_text(decode(handle.read()))


def news(data: Path) -> Iterator[str]:
    with lzma.open(data / "text" / "news_articles_3824.jsonl.xz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield f"{row['title']}\n{row['text']}"


def books(data: Path) -> Iterator[str]:
    path = data / "text" / "classic_books" / "books-00-of-12.jsonl.xz"
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            text = json.loads(line)["text"]
            yield from (text[at : at + 3000] for at in range(0, len(text), 60_000))


def manuals(data: Path) -> Iterator[str]:
    paths = sorted(Path("/usr/share/man").glob("man*/*.gz"))
    random.Random(1).shuffle(paths)
    for path in paths:
        text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        yield re.sub(r"^\.\S*\s*|\\f.|\\", "", text, flags=re.MULTILINE)


def cut(text: str) -> str:
    end = text.rfind("\n", 0, MOST_CHARACTERS) if len(text) > MOST_CHARACTERS else -1
    lines = text[: end if end > 0 else MOST_CHARACTERS].split("\n")
    return "\n".join(line.strip() for line in lines).strip()


def documents(data: Path, count: int) -> list[str]:
    found: list[str] = []
    for kind in (pages, news, books, manuals):
        texts = (cut(text) for text in kind(data))
        found += islice((text for text in texts if text), count // 4)
    return found


# ---- the same rule of each ----


def gopher_quality(**limits: Any) -> Filter:
    every = [
        name for name in signature(GopherQualityFilter).parameters if name[:4] in ("min_", "max_")
    ]
    return GopherQualityFilter(**{**dict.fromkeys(every), **limits})


def gopher_repetition(**limits: Any) -> Filter:
    names = ("dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac")
    none: dict[str, Any] = {**dict.fromkeys(names), "top_n_grams": (), "dup_n_grams": ()}
    return GopherRepetitionFilter(**{**none, **limits})


def fineweb(**limits: Any) -> Filter:
    none = {
        "line_punct_thr": 0,
        "short_line_thr": 9,
        "char_duplicates_ratio": 9,
        "new_line_ratio": 1e9,
        "stop_chars": TERMINAL,  # ours; as it ships it has no quotes, but marks of other scripts
    }
    return FineWebQualityFilter(**{**none, **limits})


def filters() -> dict[str, Filter]:
    """datatrove's filters, each with one of its limits."""
    return {
        "too-few-words": gopher_quality(min_doc_words=50),
        "too-many-words": gopher_quality(max_doc_words=100_000),
        "word-length": gopher_quality(min_avg_word_length=3, max_avg_word_length=10),
        "hashes or ellipses": gopher_quality(max_symbol_word_ratio=0.1),
        "bullet-lines": gopher_quality(max_bullet_lines_ratio=0.9),
        "ellipsis-lines": gopher_quality(max_ellipsis_lines_ratio=0.3),
        "words-without-letters": gopher_quality(max_non_alpha_words_ratio=0.8),
        "no-stop-words": gopher_quality(min_stop_words=2),
        "duplicate-lines": gopher_repetition(dup_line_frac=0.3),
        "duplicate-paragraphs": gopher_repetition(dup_para_frac=0.3),
        "duplicate-line-characters": gopher_repetition(dup_line_char_frac=0.2),
        "duplicate-paragraph-characters": gopher_repetition(dup_para_char_frac=0.2),
        **{
            f"top-{n}-gram": gopher_repetition(top_n_grams=((n, limit),))
            for n, limit in rules.TOP_LIMITS.items()
        },
        **{
            f"duplicate-{n}-grams": gopher_repetition(dup_n_grams=((n, limit),))
            for n, limit in rules.REPEATED_LIMITS.items()
        },
        "c4": C4QualityFilter(),
        "c4 of fineweb": C4QualityFilter(filter_no_terminal_punct=False),
        "few-sentence-ends": fineweb(line_punct_thr=0.12),
        "short-lines": fineweb(short_line_thr=0.67),
        "any-duplicate-line": fineweb(char_duplicates_ratio=0.01),
        "many-line-ends": fineweb(new_line_ratio=0.3),
    }


def our_decision(name: str) -> Callable[[str], str]:
    """Why we drop a text by one rule; "" when we keep it."""
    every = {**rules.GOPHER, **rules.C4, **rules.FINEWEB}
    if name == "hashes or ellipses":
        return lambda text: rules.hashes(Prose(text)) or rules.ellipses(Prose(text))
    if name in every:
        return lambda text: every[name](Prose(text))
    line = rules.c4_sentence_line if name == "c4" else rules.c4_line
    preset = rules.Preset(edit_line=line, rules_after=rules.C4)
    return lambda text: " ".join(rules.judge(preset, text)[1] or ())


def their_decision(one: Filter, text: str) -> str:
    if isinstance(one, FineWebQualityFilter):
        text = re.sub("\n+", "\n", text)
    kept = one.filter(Document(text=text, id=""))
    return "" if kept is True else str(kept[1] if isinstance(kept, tuple) else kept)


def agreement(texts: list[str]) -> dict[str, Any]:
    """For each rule how many documents both drop, only we, only they: these of 50 words, too."""
    rules_of_each = {name: (our_decision(name), theirs) for name, theirs in filters().items()}
    found = {name: Counter[str]() for name in rules_of_each}
    for text in texts:  # by texts: datatrove remembers the words of the latest
        is_long = prose.plain_counts(text).words >= 50
        for name, (ours, theirs) in rules_of_each.items():
            a, b = bool(ours(text)), bool(their_decision(theirs, text))
            tally = found[name]
            tally["both"] += a and b
            tally["only_ours"] += a and not b
            tally["only_theirs"] += b and not a
            tally["only_theirs_long"] += b and not a and is_long
    return {name: dict(tally) for name, tally in found.items()}


def sentence_spans(text: str) -> list[tuple[int, int]]:
    return [(0, 0)] * prose.plain_counts(text).sentences


@contextmanager
def split_as_we_do() -> Iterator[None]:
    """Let datatrove's tokenizer split words at white space and count sentences as we do."""
    tokenizer = load_word_tokenizer(Languages.english)
    vars(tokenizer).update(word_tokenize=str.split, span_tokenize=sentence_spans)
    split_into_parts.cache_clear()
    yield
    del tokenizer.word_tokenize, tokenizer.span_tokenize
    split_into_parts.cache_clear()


# ---- rates ----


def ours(preset: str) -> Callable[[str], object]:
    return lambda text: rules.judge(rules.PRESETS[preset], text)


def plain(preset: str) -> Callable[[str], object]:
    """Ours without the kernel."""

    def judge(text: str) -> object:
        with patch.object(prose, "_kernel", return_value=None):
            return rules.judge(rules.PRESETS[preset], text)

    return judge


def theirs(*steps: Filter) -> Callable[[str], object]:
    def judge(text: str) -> object:
        document = Document(text=text, id="")
        return all(step.filter(document) is True for step in steps)

    return judge


def ways() -> dict[str, dict[str, Callable[[str], object]]]:
    gopher = GopherRepetitionFilter(), GopherQualityFilter()
    c4 = C4QualityFilter(filter_no_terminal_punct=False)
    return {
        "webtext": {},
        "gopher": {"datatrove": theirs(*gopher)},
        "c4": {"datatrove": theirs(C4QualityFilter())},
        "fineweb": {"datatrove": theirs(*gopher, c4, FineWebQualityFilter())},
    }


def rates(texts: list[str], turns: int) -> dict[str, Any]:
    """Documents per second of processor time of every way for every preset, turn by turn."""
    best: dict[str, dict[str, float]] = {}
    for _ in range(turns):
        for preset, peers in ways().items():
            contenders = {"gptwo": ours(preset), "plain": plain(preset), **peers}
            known = best.setdefault(preset, {})
            for name, judge in contenders.items():
                sample = texts[:: 1 if name == "gptwo" else 10]
                known[name] = max(known.get(name, 0), len(sample) / cpu_seconds(judge, sample))
            if peers:
                with split_as_we_do():
                    sample = texts[::10]
                    rate = len(sample) / cpu_seconds(peers["datatrove"], sample)
                known["datatrove_split"] = max(known.get("datatrove_split", 0), rate)
    return {
        preset: {
            "documents_per_cpu_second": {name: round(rate) for name, rate in known.items()},
            "microseconds": {name: round(1e6 / rate) for name, rate in known.items()},
            "ratio_to_gptwo": {
                name: round(known["gptwo"] / rate, 1) for name, rate in known.items()
            },
        }
        for preset, known in best.items()
    }


def cpu_seconds(judge: Callable[[str], object], texts: list[str]) -> float:
    judge(texts[0])  # what is loaded late
    began = time.process_time()
    for text in texts:
        judge(text)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--documents", type=int, default=2_000)
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    texts = documents(asked.data, asked.documents)
    random.Random(2).shuffle(texts)
    with split_as_we_do():
        same_words = agreement(texts)
    found = {
        "command": " ".join(["python benchmarks/rules.py", *sys.argv[1:]]),
        "machine": machine(),
        "datatrove": version("datatrove"),
        "documents": len(texts),
        "mean_characters": round(sum(map(len, texts)) / len(texts)),
        "rates": rates([text[:CUT_FOR_RATES] for text in texts], asked.turns),
        "agreement_on_words_split_at_spaces": same_words,
        "agreement_as_it_ships": agreement(texts),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
