"""GPT-2's own tokenizer, one learned here, and real texts."""

import json
import lzma
from collections import Counter
from pathlib import Path

import pytest

from gptwo.tokens.bpe import cut
from gptwo.tokens.learn import learn_merges
from gptwo.tokens.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def gpt2(data_dir: Path) -> Tokenizer:
    """The released vocabulary."""
    return Tokenizer.load(data_dir / "bpe")


@pytest.fixture(scope="session")
def learned() -> Tokenizer:
    """Three hundred merges of the licence and of this file: needs no data."""
    root = Path(__file__).parents[2]
    text = (root / "LICENSE").read_text() + Path(__file__).read_text() + "naïve café 日本 😀 " * 9
    return Tokenizer(learn_merges(Counter(cut(text)), 300))


@pytest.fixture(scope="session")
def real_texts(data_dir: Path) -> list[str]:
    """Pieces of plays, news, French, code-like tables and wiki text; about 1 MB."""
    with lzma.open(data_dir / "text" / "news_articles_3824.jsonl.xz", "rt") as handle:
        news = [json.loads(next(handle))["text"] for _ in range(60)]
    books = sorted((data_dir / "text" / "classic_books").glob("*.xz"))[0]
    with lzma.open(books, "rt") as handle:
        book = json.loads(next(handle))["text"]
    names = (
        "text/tinyshakespeare.txt",
        "eval/wmt14_fr_en/newstest2014.fr",
        "eval/wikitext2/wiki.test.raw",
        "eval/ptb/ptb.valid.txt",
        "bpe/train_reference/german.txt",
        "bpe/train_reference/tinystories_sample.txt",
        "bpe/vocab.bpe",
    )
    files = [(data_dir / name).read_bytes().decode()[20_000:140_000] for name in names[:4]]
    files += [(data_dir / name).read_bytes().decode()[:60_000] for name in names[4:]]
    return [*news, book[50_000:200_000], *files]
