"""How well main text is found: three public sets and their measures, from their definitions.

- `article`: human-made text of articles. Multisets of word 4-grams; precision and recall of each
  page are averaged, F1 is that of the averages (the article-extraction benchmark).
- `trafilatura`: passages that must be kept and others that must go, counted over all pages.
- `readability`: what Readability found, as HTML: 4-grams against the text in it.
"""

import json
import random
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lxml import html as lxml_html

SHINGLE_WORDS = 4
_HEADS = ("h1", "h2", "h3", "h4", "h5", "h6")
BLOCKS = ("p", "div", "li", "br", "pre", "td", "th", "blockquote", "section", "dt", "dd", *_HEADS)
_WORD = re.compile(r"\w+")

Counts = tuple[int, int, int]  # of a page: found and true, found only, true only
Snippets = tuple[int, int, int, int]  # kept rightly, kept wrongly, lost wrongly, gone rightly


@dataclass(frozen=True, kw_only=True)
class Score:
    """Shares between 0 and 1; `interval` holds F1 of 95 in 100 sets of pages drawn again."""

    precision: float
    recall: float
    f1: float
    accuracy: float | None = None  # of snippets alone
    interval: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class PageSet:
    """Pages with what should be found in them, and how that is counted and scored."""

    name: str
    pages: list[tuple[bytes, Any]]
    count: Callable[[str, Any], Any]
    measure: Callable[[Sequence[Any]], Score]

    def sample(self, step: int) -> "PageSet":
        """Every so-manyth page."""
        return replace(self, pages=self.pages[::step])

    def score(self, found: Iterable[str], draws: int = 1000) -> Score:
        """Of the texts found, one a page in order."""
        pairs = zip(found, self.pages, strict=True)
        counts = [self.count(text, truth) for text, (_, truth) in pairs]
        chance = random.Random(0)
        drawn = [self.measure(chance.choices(counts, k=len(counts))).f1 for _ in range(draws)]
        low, high = (sorted(drawn)[int(share * draws)] for share in (0.025, 0.975))
        return replace(self.measure(counts), interval=(low, high))


def load_sets(data: Path) -> list[PageSet]:
    """The three sets from a folder with `html/*_dev/`."""
    return [_articles(data / "html"), _passages(data / "html"), _readable(data / "html")]


def _articles(folder: Path) -> PageSet:
    folder = folder / "article_extraction_dev"
    truth = json.loads((folder / "ground_truth.json").read_text())
    files = _members(folder / "pages.tar.xz")
    pages = [(files[f"{key}.html"], truth[key]["articleBody"]) for key in sorted(truth)]
    return PageSet(name="article", pages=pages, count=shingle_counts, measure=shingle_score)


def _passages(folder: Path) -> PageSet:
    folder = folder / "trafilatura_dev"
    truth = json.loads((folder / "evaldata.json").read_text())
    files = _members(folder / "pages.tar.xz")
    pages = [(files[item["file"]], (item["with"], item["without"])) for item in truth.values()]
    return PageSet(name="trafilatura", pages=pages, count=snippet_counts, measure=snippet_score)


def _readable(folder: Path) -> PageSet:
    with tarfile.open(folder / "readability_dev" / "pages.tar.xz") as archive:
        files = {Path(m.name): archive.extractfile(m) for m in archive if m.isfile()}
        read = {path: file.read() for path, file in files.items() if file is not None}
    folders = sorted({path.parent for path in read})
    pages = [
        (read[name / "source.html"], text_of_html(read[name / "expected.html"].decode()))
        for name in folders
    ]
    return PageSet(name="readability", pages=pages, count=shingle_counts, measure=shingle_score)


def _members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        files = {Path(m.name).name: archive.extractfile(m) for m in archive if m.isfile()}
        return {name: file.read() for name, file in files.items() if file is not None}


def shingles(text: str) -> Counter[tuple[str, ...]]:
    """Every run of four words; of a text with fewer, all of them as one; of none, nothing."""
    words = _WORD.findall(text)
    last = max(len(words) - SHINGLE_WORDS, 0)
    return Counter(tuple(words[i : i + SHINGLE_WORDS]) for i in range(last + 1) if words)


def shingle_counts(found: str, true: str) -> Counts:
    a, b = shingles(found), shingles(true)
    common = (a & b).total()
    return common, a.total() - common, b.total() - common


def shingle_score(pages: Sequence[Counts]) -> Score:
    """A page where nothing was found has no precision: it counts for recall alone."""
    precisions = [both / (both + extra) for both, extra, _ in pages if both + extra]
    recalls = [both / (both + missed) for both, _, missed in pages if both + missed]
    return _score(_mean(precisions), _mean(recalls))


def snippet_counts(found: str, passages: tuple[list[str], list[str]]) -> Snippets:
    """A passage is there when it is, white space aside, part of the text."""
    wanted, unwanted = passages
    text = _squeeze(found)
    kept = sum(_squeeze(passage) in text for passage in wanted)
    wrong = sum(_squeeze(passage) in text for passage in unwanted)
    return kept, wrong, len(wanted) - kept, len(unwanted) - wrong


def snippet_score(pages: Sequence[Snippets]) -> Score:
    kept, wrong, lost, gone = (sum(column) for column in zip(*pages, strict=True))
    score = _score(kept / max(kept + wrong, 1), kept / max(kept + lost, 1))
    return replace(score, accuracy=(kept + gone) / (kept + wrong + lost + gone))


def text_of_html(html: str) -> str:
    """All text of a page, with a space at the edges of blocks."""
    tree = lxml_html.fromstring(html)
    for element in tree.iter(*BLOCKS):
        element.text = f" {element.text or ''}"
        element.tail = f" {element.tail or ''}"
    return tree.text_content()


def _score(precision: float, recall: float) -> Score:
    both = precision + recall
    f1 = 2 * precision * recall / both if both else 0.0
    return Score(precision=precision, recall=recall, f1=f1)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _squeeze(text: str) -> str:
    return " ".join(text.split())
