"""A small corpus, its tokenizer and its tokens, and a run that takes a second."""

import random
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.artifacts import stage
from gptwo.model.sizes import GPT2Config
from gptwo.tokens.config import PackConfig, TokenizerConfig
from gptwo.tokens.learn import train_tokenizer
from gptwo.tokens.pack import pack
from gptwo.training.config import TrainingConfig
from gptwo.training.loop import train
from gptwo.training.run import Sitting
from gptwo.world import World

WORDS = "the a sea ship sailed over quiet blue water while old men told of storms".split()  # noqa: SIM905


class Inputs(NamedTuple):
    tokens: Path
    tokenizer: Path


def write_corpus(folder: Path, *, seed: int, documents: int = 60, words: int = 120) -> Path:
    """A corpus folder of made-up sentences: `documents` for training, a tenth held out."""
    chance = random.Random(seed)
    with stage(folder, kind="corpus", config={"seed": seed}, inputs={}) as made:
        for split, count in (("train", documents), ("valid", documents // 10), ("test", 1)):
            rows = [
                {
                    "id": f"{seed:016x}{split.encode().hex():0>10}{number:06x}",
                    "url": f"http://example.org/{split}/{number}",
                    "text": " ".join(chance.choices(WORDS, k=words)),
                    "score": 3,
                    "date": "",
                    "lang": "en",
                    "source": "made up",
                    "meta": "{}",
                }
                for number in range(count)
            ]
            (folder / split).mkdir()
            pq.write_table(pa.Table.from_pylist(rows), folder / split / "part-00000.parquet")
        made.commit(counts={"documents": {"train": documents}})
    return folder


def make_inputs(folder: Path, *, seed: int, tokenizer: Path | None = None, **size: int) -> Inputs:
    corpus = write_corpus(folder / "corpus", seed=seed, **size)
    if tokenizer is None:
        tokenizer = folder / "tokenizer"
        train_tokenizer(corpus, tokenizer, TokenizerConfig(vocab_size=300))
    pack(corpus, tokenizer, folder / "tokens", PackConfig())
    return Inputs(folder / "tokens", tokenizer)


TINY = GPT2Config(n_ctx=16, n_layer=2, n_head=2, n_embd=16)
SHORT = TrainingConfig(
    steps=10,
    batch_tokens=64,
    micro_batch=2,
    lr=1e-3,  # of tables, so narrow ones, 60 times as much
    warmup_steps=2,
    validation_interval=4,
    validation_tokens=64,
    checkpoint_interval=3,
    seed=7,
)


def train_small(
    out: Path,
    inputs: Inputs,
    config: TrainingConfig = SHORT,
    model: GPT2Config = TINY,
    **more: Any,
) -> Path:
    """Train the tiny model on a small corpus, on one thread unless told otherwise.

    `more` are arguments of `train` and fields of its `Sitting`.
    """
    names = [field.name for field in fields(Sitting)]
    sitting = Sitting(**{name: more.pop(name) for name in names if name in more})
    given = {"world": World(), "sitting": sitting, **inputs._asdict(), **more}
    return train(config, model, out=out, **given)


def content(out: Path) -> dict[str, bytes]:
    """Everything a run leaves behind that must be the same on every run."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "timings.jsonl"
    }
