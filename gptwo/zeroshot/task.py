"""What a task is: examples, what each asks of the model, its record, and a sum over the records."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gptwo.records import Interval
from gptwo.text.config import SampleConfig
from gptwo.tokens.tokenizer import Tokenizer
from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.score import Request, Score, rolling_windows
from gptwo.zeroshot.sources import DataFile, Sources
from gptwo.zeroshot.word_search import NextWord


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Everything a task may look at besides the model's scores."""

    sources: Sources
    tokenizer: Tokenizer
    n_ctx: int
    config: EvalConfig

    @property
    def window(self) -> int:
        return min(self.config.window or self.n_ctx, self.n_ctx)

    @property
    def stride(self) -> int:
        return min(self.config.stride or self.window, self.window)

    @property
    def prefix(self) -> int | None:
        return self.tokenizer.eot if self.config.eot_prefix else None

    def windows_protocol(self) -> dict[str, Any]:
        return {
            "window": self.window,
            "stride": self.stride,
            "eot_prefix": self.config.eot_prefix,
            "windows": "first scores all its tokens, later ones their last `stride`",
        }

    def windows(self, text: str | bytes) -> list[Request]:
        """Requests that score every token of a text."""
        ids = self.tokenizer.encode(text)
        return rolling_windows(ids, self.window, self.stride, self.prefix)

    def limit_protocol(self, what: str) -> str:
        """`the first 100 passages` or `all passages`"""
        return f"the first {self.config.limit} {what}" if self.config.limit else f"all {what}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Continue:
    """Tokens to go on with, and how. The answer is a `Completion`."""

    prompt: Sequence[int]
    config: SampleConfig


@dataclass(frozen=True, kw_only=True)
class Example:
    """One thing to answer: requests to the model, and facts to judge the answers by."""

    requests: Sequence[Request] = ()
    facts: dict[str, Any] = field(default_factory=dict)


Record = dict[str, Any]  # one line of the sample log
Summary = tuple[dict[str, float], dict[str, Interval]]
# An example is solved in conversation with the model: it yields what it asks, is sent the answers
# in the same order, may ask again, and returns its record.
Asked = Sequence[Request] | Sequence[Continue] | Sequence[NextWord]
Solving = Generator[Asked, Any, Record]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A zero-shot task as five functions.

    `protocol` and `data` say what is measured, on what, before any work; `data` raises `DataError`
    when it is not there. `baselines` need no model and no humans.
    """

    protocol: Callable[[Bench], dict[str, Any]]
    data: Callable[[Bench], dict[str, Any]]
    examples: Callable[[Bench], list[Example]]
    solve: Callable[[Example, Bench], Solving]
    summary: Callable[[list[Record], Bench], Summary]
    baselines: Callable[[list[Example], Bench], dict[str, dict[str, float]]]
    barred: Callable[[Bench], list[int]] = lambda bench: []


def scored(record: Callable[[Example, list[Score]], Record]) -> Callable[[Example, Bench], Solving]:
    """`solve` of a task that asks once: the scores of the example's requests make its record."""

    def solve(example: Example, bench: Bench) -> Solving:
        scores = yield example.requests
        return record(example, scores)

    return solve


def published(file: DataFile) -> Callable[[Bench], dict[str, Any]]:
    """`data` of a task on one published file: what it is, once it is proven to be it."""

    def data(bench: Bench) -> dict[str, Any]:
        bench.sources.read(file)
        return file.describe()

    return data


def cut_contexts(records: Sequence[Record]) -> dict[str, float]:
    """The share of examples whose context was too long for the model and lost its beginning."""
    return {"cut_contexts": sum(record["cut"] > 0 for record in records) / len(records)}
