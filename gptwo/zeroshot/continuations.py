"""What a model writes after the beginnings of held-out documents, beside what they say themselves.

Paper appendix 8.2 and figure 5: drawn with top-k 40 after a context of WebText's test split, the
texts are then searched for n-grams of the training split. Contexts are three quarters of what the
model can read and continuations the last quarter, as in the paper's tables of samples (768 and 256
tokens of 1,024).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptwo.errors import DataError
from gptwo.progress import SILENT, Reporter
from gptwo.text.config import SampleConfig
from gptwo.text.samples import complete
from gptwo.zeroshot.log import SampleLog
from gptwo.zeroshot.run import Subject
from gptwo.zeroshot.sources import Sources

TOP_K = 40
SPLIT = "test"
BLOCK = 32  # documents continued and logged together
MORE = 4  # documents looked at for each that is wanted: some are too short
CHARACTERS_PER_TOKEN = 16  # read of a document, at most: whole books are not encoded
_HALF_WORDS = re.compile(r"^\S+|\S+$")


def lengths(model: Subject) -> tuple[int, int]:
    """(tokens of a context, tokens of a continuation)."""
    n_ctx = model.model.config.n_ctx
    return n_ctx - n_ctx // 4, n_ctx // 4


def whole_words(text: str) -> str:
    """A text cut at tokens without what may be half a word, at its begin and at its end."""
    return _HALF_WORDS.sub("", text)


def continuations(
    model: Subject,
    corpus: Path,
    log: Path,
    *,
    documents: int,
    seed: int,
    reporter: Reporter = SILENT,
) -> list[dict[str, Any]]:
    """Of each chosen document `document prompt true generated`: its id and three texts.

    They are cut at tokens: see `whole_words`.

    The document at place i is continued with seed + i. Blocks in `log` of the same model are taken
    from there. Nothing ends a text early, as in the released sampler.

    Raises `DataError` when no document of the test split is long enough.
    """
    prompt, more = lengths(model)
    chosen = list(_documents(model, corpus, documents, seed))
    if not chosen:
        raise DataError(
            f"no document of {corpus}/{SPLIT} has {prompt + more:,} tokens",
            remedy="use a larger corpus, or a model with a shorter context",
        )
    header = {"model": model.description["weights_sha256"], "seed": seed, "documents": documents}
    done = SampleLog(log, header)
    with reporter.bar("overlap: continuations", len(chosen), "documents") as bar:
        for number, first in enumerate(range(0, len(chosen), BLOCK)):
            block = chosen[first : first + BLOCK]
            if number >= len(done.blocks):
                done.append(_continued(model, block, seed + first, reporter))
            bar.advance(len(block))
    return [record for block in done.blocks for record in block]


def _documents(
    model: Subject, corpus: Path, wanted: int, seed: int
) -> Iterator[tuple[str, list[int]]]:
    """(id, its first tokens) of documents that fill the model's context."""
    length = sum(lengths(model))
    found = 0
    for name, text in Sources(None, corpus).sample(SPLIT, MORE * wanted, seed):
        ids = model.tokenizer.encode(text[: CHARACTERS_PER_TOKEN * length])
        if len(ids) >= length:
            yield name, ids[:length]
            found += 1
        if found == wanted:
            return


def _continued(
    model: Subject, block: list[tuple[str, list[int]]], seed: int, reporter: Reporter
) -> list[dict[str, Any]]:
    prompt, more = lengths(model)
    asked = [
        (
            ids[:prompt],
            SampleConfig(max_tokens=more, top_k=TOP_K, seed=seed + place, openai_compat=True),
        )
        for place, (_, ids) in enumerate(block)
    ]
    written = dict(complete(model.model, model.tokenizer, asked, reporter))
    decode = model.tokenizer.decode
    return [
        {
            "document": name,
            "prompt": decode(ids[:prompt]),
            "true": decode(ids[prompt:]),
            "generated": written[place].text,
        }
        for place, (name, ids) in enumerate(block)
    ]
