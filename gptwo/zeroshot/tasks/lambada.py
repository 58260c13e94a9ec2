"""LAMBADA, test: the last word of 5,153 passages that need more than their last sentence.

OpenAI's plain-text file, not the tokenised original (paper section 3.3).
"""

from typing import Any

from gptwo.zeroshot.last_word import (
    PROTOCOL,
    baselines,
    question,
    solve,
    stop_tokens,
    summary,
)
from gptwo.zeroshot.sources import DataFile
from gptwo.zeroshot.task import Bench, Example, Task, published

FILE = DataFile(
    path="eval/lambada/lambada_test.jsonl",
    size=1_819_752,
    sha256="4aa8d02cd17c719165fc8a7887fddd641f43fcafa4b1c806ca8abc31fabdb226",
)
STRAIGHT = str.maketrans({"“": '"', "”": '"'})


def passages(texts: list[str]) -> list[tuple[str, str]]:
    """(context, last word) of each passage, its text made plain."""
    texts = ["\n" + text.translate(STRAIGHT).strip() for text in texts]
    return [(context, word) for context, _, word in (text.rpartition(" ") for text in texts)]


def protocol(bench: Bench) -> dict[str, Any]:
    return {
        "version": 2,
        "text": "curly double quotes made straight, white space stripped, a newline put before",
        "target": "what follows the last space, punctuation included",
        "limit": bench.limit_protocol("passages"),
        "eot_prefix": False,
        **PROTOCOL,
    }


def examples(bench: Bench) -> list[Example]:
    texts = [row["text"] for row in bench.sources.rows(FILE, bench.config.limit)]
    return [question(bench, *pair) for pair in passages(texts)]


TASK = Task(
    protocol=protocol,
    data=published(FILE),
    examples=examples,
    solve=solve,
    summary=summary,
    baselines=baselines,
    barred=stop_tokens,
)
