"""The nouns that rooms hand to each other."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """One outbound link that people voted on (paper section 2.1)."""

    url: str
    key: str  # canonical form, the identity for de-duplication
    score: int | None = None  # karma of the submission; None where a list has no scores
    date: str = ""  # ISO 8601 day of the submission
    source: str = ""  # file it came from


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A two-sided 95% interval."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """One zero-shot result, complete enough to be quoted: scores/TASK.json."""

    task: str
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    n: int
    protocol: dict[str, object]  # every choice that moves the number
    data: dict[str, object]  # file name, bytes, sha256, or the corpus split's fingerprint
    model: dict[str, object]  # name, parameters, weights hash, tokenizer fingerprint
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    paper: dict[str, dict[str, float]] = field(default_factory=dict)  # size -> metric -> value
    seconds: float = 0.0


def label_paths(paths: Iterable[Path]) -> dict[Path, str]:
    """path -> its last part, or as much of the path as tells it from the others.

    A label goes into manifests and documents: it must not tell where a folder happens to lie.
    """
    unique = sorted(set(paths))
    names = [path.resolve().name for path in unique]
    return {
        path: name if names.count(name) == 1 else str(path)
        for path, name in zip(unique, names, strict=True)
    }
