"""A tiny GPT-2 with random weights, a byte tokenizer and a small corpus."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gptwo.artifacts import stage
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.tokens.tokenizer import Tokenizer


@dataclass
class Tiny:
    """A subject of evaluation."""

    model: GPT2
    tokenizer: Tokenizer
    description: dict[str, Any]


def build(*, vocab_size: int, n_ctx: int = 64, seed: int = 0) -> GPT2:
    """Random weights, large enough that predictions are far from uniform."""
    torch.manual_seed(seed)
    model = GPT2(
        GPT2Config(vocab_size=vocab_size, n_ctx=n_ctx, n_layer=2, n_head=2, n_embd=32, wpe_std=0.1)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return model.eval()


@pytest.fixture(autouse=True)
def always_one_thread(one_thread: None) -> None:
    """The models here are small."""


@pytest.fixture
def tiny_model() -> Callable[..., GPT2]:
    return build


@pytest.fixture
def tiny() -> Tiny:
    tokenizer = Tokenizer([(b" ", b"t"), (b"h", b"e"), (b" t", b"he"), (b" ", b"a")])
    model = build(vocab_size=tokenizer.vocab_size + 3, n_ctx=512)  # three padding rows
    return Tiny(
        model,
        tokenizer,
        {
            "name": "tiny",
            "weights_sha256": "0" * 64,
            "tokenizer_fingerprint": tokenizer.fingerprint,
            "dtype": "float32",
        },
    )


def prose(number: int) -> str:
    """A document of 44 sentences with nouns after determiners and names inside sentences."""
    nouns = ("river", "bridge", "garden", "letter", "window", "market", "soldier", "kitchen")
    nouns += ("forest", "candle", "ladder")
    names = ("Alice", "Robert", "Dover", "Paris", "Henry", "London", "Martha", "Oxford")
    names += ("Edward", "Lisbon", "Walter")
    lines = []
    for i in range(44):
        noun, other = nouns[(i * 3 + number) % 11], nouns[(i * 5 + 2 + number) % 11]
        name, place = names[(i * 7 + number) % 11], names[(i * 2 + 4 + number) % 11]
        lines.append(f"On day {i} the {noun} of {name} was shown to {place} beside the {other}.")
    return " ".join(lines)


def build_corpus(folder: Path, documents: int = 12) -> Path:
    """A finished corpus of prose; the splits differ."""
    with stage(folder, kind="corpus", config={}, inputs={}) as made:
        for shift, split in enumerate(("train", "valid", "test")):
            texts = [prose(number * 3 + shift) for number in range(documents)]
            ids = [
                hashlib.sha256(f"{split}{i}".encode()).hexdigest()[:32] for i in range(documents)
            ]
            (folder / split).mkdir()
            table = pa.table({"id": ids, "url": ids, "text": texts})
            pq.write_table(table, folder / split / "part-00000.parquet", row_group_size=5)
        made.commit(counts={"documents": documents})
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return build_corpus(tmp_path / "corpus")


@pytest.fixture
def make_corpus() -> Callable[..., Path]:
    return build_corpus
